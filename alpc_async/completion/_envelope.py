"""What a pool and its child processes say to each other, as bytes inside messages of a port.

Belongs here: the layout, and its limits. Never here: processes. A child trusts its parent and nobody else.
"""

from __future__ import annotations

import enum
import struct
from typing import Any, Final

import msgspec

from ..limits import MESSAGE_LENGTH_CEILING, PortLimits
from ..security import Identity

__all__ = ["LIMITS", "Facts", "Outcome", "facts_of_sender", "open_answer", "open_work", "seal_answer", "seal_work"]

LIMITS: Final = PortLimits(
    max_message_length=MESSAGE_LENGTH_CEILING, max_pool_usage=4 * MESSAGE_LENGTH_CEILING, request_timeout=1e9
)
"""Quotas between a pool and a child: one message at a time, as long as one may be."""

_LENGTH: Final = struct.Struct("<I")
_ANSWER: Final = struct.Struct("<BI")


class Facts(msgspec.Struct, array_like=True):
    """What a handler can know of a message beside its payload.

    Attributes:
        key: completion key, where it is a plain value; others stay behind.
        sender: uid, gid, groups, pid and label of the sender; ``None`` for a posted packet.
    """

    key: Any
    sender: tuple[int, int, tuple[int, ...], int, str | None] | None

    def identity(self) -> Identity | None:
        """Return the sender; its process is not pinned here."""
        if self.sender is None:
            return None
        uid, gid, groups, pid, label = self.sender
        return Identity(uid=uid, gid=gid, groups=groups, pid=pid, label=label)


class Outcome(enum.IntEnum):
    """How a handler ended."""

    REPLIED = 0
    """The payload is the reply."""
    FAILED = 1
    """The handler answered with a fault: a status and a reason."""
    SILENT = 2
    """It returned without an answer."""
    RAISED = 3
    """It raised an exception; the payload is its traceback."""


def facts_of_sender(sender: Identity) -> tuple[int, int, tuple[int, ...], int, str | None]:
    """Return the facts about a sender that can travel."""
    return sender.uid, sender.gid, sender.groups, sender.pid, sender.label


def seal_work(facts: Facts, data: bytes) -> bytes:
    """Return the message that gives a child something to do; no bytes at all ask it whether it is free."""
    head = msgspec.msgpack.encode(facts)
    return b"".join((_LENGTH.pack(len(head)), head, data))


def open_work(message: bytes) -> tuple[Facts, bytes]:
    """Return what `seal_work` was given."""
    start = _LENGTH.size + _LENGTH.unpack_from(message)[0]
    return msgspec.msgpack.decode(message[_LENGTH.size : start], type=Facts), message[start:]


def seal_answer(outcome: Outcome, data: bytes, status: int = 0) -> bytes:
    """Return the answer of a child."""
    return b"".join((_ANSWER.pack(outcome, status), data))


def open_answer(answer: bytes) -> tuple[Outcome, int, bytes]:
    """Return the outcome, the status of a fault, and the payload."""
    outcome, status = _ANSWER.unpack_from(answer)
    return Outcome(outcome), status, answer[_ANSWER.size :]
