"""The layout of a frame.

Belongs here: the header, the frame types, the status numbers, packing. Never here: which frame is legal when
(`_states`), or what it does (`_endpoint`).

A frame is a header of 24 bytes, little-endian, and a payload::

    offset  size  field
         0     4  length     bytes of payload behind the header
         4     1  type       FrameType
         5     1  flags      which attributes stand in front of the data of a REQUEST, REPLY or DATAGRAM (`Attribute`)
         6     2  handles    descriptors that travel with this frame: SECTION and HANDLES only
         8     8  id         message id; HELLO and WELCOME: the magic number; CREDIT: bytes given back;
                             SECTION and SECTION_GONE: number of the section; REVOKED: of the
                             security context
        16     8  value      REQUEST: remaining time in ms, 0 = none; FAULT, REFUSE, CLOSE: status;
                             CREDIT: messages given back; HELLO, WELCOME: version; SECTION: `SectionKind`;
                             SECTION and HANDLES that lost their descriptors on the way: the error number;
                             RELEASE: 1 when the section never arrived; TAKEN: status, when the message was
                             dropped; 0 otherwise

Type, flags and handles are read as one number of 32 bits, the *kind*: of a plain frame it equals the type, so one look
into a table decides about nearly every frame. All integers are fixed-width; there is no alignment and no pointer.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

from ..errors import ProtocolViolation

__all__ = [
    "APPLICATION_STATUS",
    "HEADER_SIZE",
    "MAGIC",
    "MAX_HANDLES_PER_FRAME",
    "VERSION",
    "Attribute",
    "FrameType",
    "SectionKind",
    "Status",
    "find_replies",
    "header_violation",
    "pack",
    "pack_header",
    "status_of",
    "unpack_header",
]

_HEADER: Final = struct.Struct("<IIQQ")
HEADER_SIZE: Final = _HEADER.size

MAGIC: Final = int.from_bytes(b"alpc\r\n\x1a\x00", "little")
"""First thing that a client says. The line end and the end-of-file character show a text-mode pipe at once."""

VERSION: Final = 1 << 16
"""Protocol version: major in the upper 16 bits, which must be equal; minor in the lower ones, the smaller counts."""

unpack_header = _HEADER.unpack_from
"""Take (length, kind, id, value) out of a buffer at an offset."""

pack_header = _HEADER.pack
"""Make a header of (length, kind, id, value)."""


class FrameType(enum.IntEnum):
    """What a frame is. The numbers are the protocol; they are never reused."""

    HELLO = 1
    WELCOME = 2
    REFUSE = 3
    REQUEST = 4
    REPLY = 5
    FAULT = 6
    DATAGRAM = 7
    CANCEL = 8
    CREDIT = 9
    CLOSE = 10
    SECTION = 11
    SECTION_GONE = 12
    RELEASE = 13
    HANDLES = 14
    TAKEN = 15
    REVOKED = 16


class Attribute(enum.IntFlag):
    """What stands in front of the data of a message, in this order; the numbers are bits of the frame's flags."""

    SECURITY = 0x80
    """A security context, or the wish not to be impersonated."""
    VIEW = 0x40
    """A range of a shared section."""
    DIRECT = 0x20
    """Ranges of the sender's memory that the receiver may read or write while the request is open."""
    HANDLES = 0x10
    """Descriptors, which came in HANDLES frames before this one."""
    RECEIPT = 0x08
    """The sender wants a TAKEN frame when the message is taken out of the queue."""
    SYSTEM = 0x04
    """A request of the framework itself, for direct memory that the receiver cannot reach."""


class SectionKind(enum.IntEnum):
    """Who may still write to a section."""

    LIVE = 1
    """Its owner only."""
    SEALED = 2
    """Nobody."""
    SHARED = 3
    """Both sides."""


MAX_HANDLES_PER_FRAME: Final = 253
"""Descriptors that one send can carry: the kernel's SCM_MAX_FD."""


class Status(enum.IntEnum):
    """Why a request failed, a connection was refused or closed. Numbers from 1000 belong to applications."""

    OK = 0
    """Nothing is wrong."""
    HANDLER_FAILED = 1
    """The handler raised an exception; the details are in the server's log."""
    CANCELLED = 2
    """The request was cancelled by its owner."""
    ABANDONED = 3
    """The receiver released the request without an answer."""
    DRAINING = 4
    """The receiver is shutting down and takes no new work."""
    DEADLINE_PASSED = 5
    """The handler was stopped because the deadline of the request had come."""
    REPLY_TOO_LONG = 6
    """The reply is longer than what the requester takes (its ``PortLimits.max_message_length``)."""
    HANDLES_LOST = 7
    """Descriptors of the message were lost on the way: the sender or the receiver had none left."""
    NO_ACCESS = 8
    """The receiver may not do that to the sender's memory, or the request is over."""
    WORKER_DIED = 9
    """The process that worked on the request died; whether it did the work is not known."""
    HANDLES_REFUSED = 10
    """A handle of the message is of a kind that the receiver does not take (its ``PortLimits.handle_kinds``)."""
    REFUSED = 16
    """The server declined the connection."""
    ACCESS_DENIED = 17
    """The server's security policy does not admit this client."""
    TOO_MANY_CONNECTIONS = 18
    """The server holds as many connections as it may."""
    WRONG_VERSION = 19
    """The two sides speak different major versions of the protocol."""
    USER_LIMIT = 20
    """The user of this client has used up one of the server's limits per user; of a message, that of handles."""
    SENDER_CHANGED = 21
    """A message came from another process or user than whoever made the connection, and the port does not follow."""
    QOS_TOO_LOW = 22
    """The client lets the server do less with its identity than the server needs."""
    VIOLATION = 32
    """The other side broke the protocol."""
    SLOW_READER = 33
    """The other side does not read what it asked for."""
    HANDSHAKE_TIMEOUT = 34
    """The client connected and did not say who it is in time."""
    UNKNOWN_INTERFACE = 64
    """The receiver serves no such interface, or not in a version that fits."""
    UNKNOWN_OBJECT = 65
    """The object that was called does not exist, or not any more."""
    UNKNOWN_METHOD = 66
    """The object has no method of that number."""
    BAD_ARGUMENTS = 67
    """The arguments are not what the method declares; they were not used."""
    BAD_RESULT = 68
    """The handler returned something else than the method declares."""
    TOO_DEEP = 69
    """Calls are nested deeper than the receiver allows."""
    TOO_MANY_OBJECTS = 70
    """The peer already holds as many objects and streams of the receiver as it may."""


_STATUSES: Final[dict[int, Status]] = {int(status): status for status in Status}


def status_of(number: int) -> int:
    """Return the member of `Status` with that number, whose name can be shown, or the number when there is none.

    Args:
        number: what the other side sent.
    """
    return _STATUSES.get(number, number)


APPLICATION_STATUS: Final = 1000
"""First status number that belongs to applications."""


def pack(kind: int, message_id: int, value: int, payload: bytes | memoryview = b"") -> bytes:
    """Return the frame as bytes."""
    return pack_header(len(payload), kind, message_id, value) + payload


def find_replies(frames: bytes, sent: int) -> list[int]:
    """Return the ids of the REPLY frames in a run of whole frames that did not leave whole.

    Args:
        frames: the run.
        sent: how many of its bytes left.
    """
    found: list[int] = []
    position = 0
    while position < len(frames):
        length, kind, message_id, _ = unpack_header(frames, position)
        position += HEADER_SIZE + length
        if kind & 0xFF == FrameType.REPLY and position > sent:
            found.append(message_id)
    return found


_SETTINGS: Final = {FrameType.HELLO: "max_connect_data", FrameType.WELCOME: "max_connect_data"}


def header_violation(header: bytes, ceiling: int | None, where: str) -> ProtocolViolation:
    """Say what is wrong with a header that was found to be wrong.

    Args:
        header: the header.
        ceiling: longest legal payload of this frame type in bytes; ``None`` when the type itself is not legal.
        where: the direction and state, for the text.
    """
    length, kind, _, _ = unpack_header(header)
    name = FrameType(kind).name if kind in FrameType._value2member_map_ else f"kind {kind:#x}"
    if ceiling is None:
        return ProtocolViolation(
            rule="only frames that are legal in the state of the connection are sent", detail=f"{name} {where}"
        )
    setting = _SETTINGS.get(kind, "max_message_length")
    return ProtocolViolation(
        rule="a frame is not longer than agreed",
        detail=f"{name} announces {length} bytes of {ceiling}, see PortLimits.{setting}",
    )
