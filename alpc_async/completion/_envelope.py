"""What a pool and its child processes say to each other, as bytes inside messages of a port.

Belongs here: the layout, and its limits. Never here: processes. A child trusts its parent and nobody else.
"""

from __future__ import annotations

import enum
import math
import struct
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..limits import MESSAGE_LENGTH_CEILING, PortLimits
from ..link import current_loop
from ..security import Identity

if TYPE_CHECKING:
    from ..port import Completion

__all__ = ["LIMITS", "Facts", "Outcome", "open_answer", "open_work", "seal_answer", "seal_work", "work_of"]

VIEW_CEILING: Final = 1 << 40
"""Most bytes of one message between a pool and a child: no bound of ours, since the port of the sender has one."""

LIMITS: Final = PortLimits(
    max_message_length=MESSAGE_LENGTH_CEILING,
    max_pool_usage=4 * MESSAGE_LENGTH_CEILING,
    max_view_size=VIEW_CEILING,
    max_section_size=VIEW_CEILING,
    max_total_section_size=4 * VIEW_CEILING,
    request_timeout=1e9,
)
"""Quotas between a pool and a child: one message at a time, as long as one may be. Long ones travel as views."""

_LENGTH: Final = struct.Struct("<I")
_ANSWER: Final = struct.Struct("<BI")


class Facts(msgspec.Struct, array_like=True):
    """What a handler can know of a message beside its payload.

    Attributes:
        key: completion key, where it is a plain value; others stay behind.
        sender: uid, gid, groups, pid and label of the sender; ``None`` for a posted packet.
        deadline: when the sender stops waiting, on the clock of ``time.monotonic``, which is the same one in every
            process, in seconds; infinity for never.
    """

    key: Any
    sender: tuple[int, int, tuple[int, ...], int, str | None] | None
    deadline: float = math.inf

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


def work_of(packet: Completion) -> tuple[Facts, bytes]:
    """Return what a handler elsewhere gets of a packet; only in the event loop.

    Raises:
        TypeError: it is a posted packet whose value is not bytes.
    """
    message = packet.message
    key: Any = packet.key if isinstance(packet.key, str | int | float | bytes | bool) else None
    if message is not None:
        sender = message.sender
        left = message.deadline - current_loop().time() if message.deadline < math.inf else math.inf
        facts = Facts(key, (sender.uid, sender.gid, sender.groups, sender.pid, sender.label), time.monotonic() + left)
        return facts, message.data
    value = b"" if packet.value is None else packet.value
    if not isinstance(value, bytes):
        raise TypeError(f"a packet for a process or an interpreter has bytes as value, not {type(value).__name__}")
    return Facts(key, None), value


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
