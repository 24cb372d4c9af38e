"""The states of a connection and every transition between them, as data.

Belongs here: states, roles and the two tables. Never here: what a frame contains or does. The drawings in the
documentation are made from these tables; nothing else in the package decides what is legal.

A frame that is not in the table of the current state is a violation when it arrives and an error of ours when we are
about to send it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from ._frames import FrameType

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RECEIVABLE", "SENDABLE", "Role", "State"]


class Role(enum.Enum):
    """Which side of the connection an endpoint is."""

    CLIENT = "client"
    SERVER = "server"


class State(enum.IntEnum):
    """Where a connection stands; the numbers only grow during its life."""

    NEW = 0
    """Nothing was said yet."""
    GREETED = 1
    """The client's HELLO is out; the server has not decided."""
    OPEN = 2
    """Both sides may send messages."""
    CLOSED = 3
    """One side said that nothing more will come; what arrives is ignored."""
    FAILED = 4
    """The other side broke the protocol; what arrives is ignored."""


_Table = dict[Role, dict[State, "Mapping[int, State]"]]

_MESSAGES: Final[Mapping[int, State]] = {
    FrameType.REQUEST: State.OPEN,
    FrameType.REPLY: State.OPEN,
    FrameType.FAULT: State.OPEN,
    FrameType.DATAGRAM: State.OPEN,
    FrameType.CANCEL: State.OPEN,
    FrameType.CREDIT: State.OPEN,
    FrameType.CLOSE: State.CLOSED,
    FrameType.SECTION: State.OPEN,
    FrameType.SECTION_GONE: State.OPEN,
    FrameType.RELEASE: State.OPEN,
    FrameType.HANDLES: State.OPEN,
    FrameType.TAKEN: State.OPEN,
    FrameType.REVOKED: State.OPEN,
}

RECEIVABLE: Final[_Table] = {
    Role.CLIENT: {
        State.NEW: {FrameType.REFUSE: State.CLOSED, FrameType.CLOSE: State.CLOSED},
        State.GREETED: {
            FrameType.WELCOME: State.OPEN,
            FrameType.REFUSE: State.CLOSED,
            FrameType.CLOSE: State.CLOSED,
        },
        State.OPEN: _MESSAGES,
        State.CLOSED: {},
        State.FAILED: {},
    },
    Role.SERVER: {
        State.NEW: {FrameType.HELLO: State.GREETED, FrameType.CLOSE: State.CLOSED},
        State.GREETED: {FrameType.CLOSE: State.CLOSED},
        State.OPEN: _MESSAGES,
        State.CLOSED: {},
        State.FAILED: {},
    },
}
"""Role → state → frame that may arrive → state afterwards."""

SENDABLE: Final[_Table] = {
    Role.CLIENT: {
        State.NEW: {FrameType.HELLO: State.GREETED, FrameType.CLOSE: State.CLOSED},
        State.GREETED: {FrameType.CLOSE: State.CLOSED},
        State.OPEN: _MESSAGES,
        State.CLOSED: {},
        State.FAILED: {},
    },
    Role.SERVER: {
        State.NEW: {FrameType.REFUSE: State.CLOSED, FrameType.CLOSE: State.CLOSED},
        State.GREETED: {
            FrameType.WELCOME: State.OPEN,
            FrameType.REFUSE: State.CLOSED,
            FrameType.CLOSE: State.CLOSED,
        },
        State.OPEN: _MESSAGES,
        State.CLOSED: {},
        State.FAILED: {},
    },
}
"""Role → state → frame that we may send → state afterwards."""
