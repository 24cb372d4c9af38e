"""What calls and answers look like inside the payload of a message.

Belongs here: the header of a call, the context that may follow it, the marker of special answers, the numbers of the
methods that every connection has. Never here: types of arguments (`_codec`), objects (`_objects`), input and output.

A call is a header of 8 bytes, little-endian, a context of the length that the header says, and the arguments as one
msgpack array::

    offset  size  field
         0     4  object     which object of the receiver is called; 0 is the connection itself
         4     2  method     number of the method in the contract of the object
         6     2  context    bytes of context between the header and the arguments; 0 most of the time

A call that wants an answer is a request, one that wants none is a datagram. The remaining time is in the frame of the
request. An answer is the result as msgpack. Byte 0xC1, the only one that msgpack never uses, begins the other answers:
0xC1 0x01 is a declared fault, as an array of its name and its fields; 0xC1 0x02 a failure, as an array of status,
reason and incident.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import msgspec

from ..errors import RemoteFault
from ..wire import Status, status_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Buffer

    from ._fault import Fault

__all__ = [
    "BIND",
    "CHECK",
    "CONNECTION",
    "HEADER_SIZE",
    "MAX_CONTEXT",
    "PULL",
    "RELEASE",
    "SPECIAL",
    "UNREADABLE",
    "Bind",
    "Bound",
    "CallContext",
    "decode_special",
    "encode",
    "encode_failure",
    "encode_fault",
    "pack_call",
    "unpack_call",
]

_CALL: Final = struct.Struct("<IHH")
HEADER_SIZE: Final = _CALL.size
pack_call = _CALL.pack
"""Make a header of (object, method, length of context)."""
unpack_call = _CALL.unpack_from
"""Take (object, method, length of context) out of a payload."""

MAX_CONTEXT: Final = 1024
"""Bytes that the context of a call may have.

Source: a trace parent has 55 bytes, a causality id 16. Attack: the context is decoded before it is known whether the
method exists. Slack: some ten times.
"""

CONNECTION: Final = 0
"""The object that stands for the connection itself."""
BIND: Final = 1
"""Method of the connection: give me the object that serves this interface."""
RELEASE: Final = 2
"""Method of the connection, without an answer: these objects of yours are not needed any more."""
CHECK: Final = 3
"""Method of the connection, without an answer: release those of these objects of mine that you never heard of."""
PULL: Final = 1
"""Method of a stream: give me the next items, at most so many."""

SPECIAL: Final = 0xC1
UNREADABLE: Final = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)
"""What decoding the bytes of a stranger can raise.

Text that is not UTF-8 is a ValueError, an item of a set that cannot be hashed a TypeError, and a thousand arrays in one
another, which even a value that nobody asked for can be, a RecursionError.
"""

_FAULT: Final = b"\xc1\x01"
_FAILURE: Final = b"\xc1\x02"


_SHORT: Final = {"depth": "d", "priority": "p", "transfer": "t"}


class CallContext(msgspec.Struct, frozen=True, omit_defaults=True, rename=_SHORT, gc=False):
    """What a call brings along beside its arguments; only what is set travels.

    Attributes:
        depth: calls that this one is nested in.
        priority: a hint for the receiver; larger is more urgent.
        causality: an id that all calls share which one outer call has led to.
        trace: a W3C trace parent.
        transfer: how the result shall travel: 1 through the connection, 2 through shared memory, else as it is.
    """

    depth: int = 0
    priority: int = 0
    causality: bytes = b""
    trace: str = ""
    transfer: int = 0


class Bind(msgspec.Struct, frozen=True, array_like=True):
    """The arguments of `BIND`: an interface and the version that the caller has."""

    uuid: str
    major: int
    minor: int


class Bound(msgspec.Struct, frozen=True, array_like=True):
    """The result of `BIND`: the object, the receiver's minor version, and the fingerprint of its contract."""

    object: int
    minor: int
    fingerprint: str


class _FaultBody(msgspec.Struct, frozen=True, array_like=True):
    name: str
    fields: msgspec.Raw


class _FailureBody(msgspec.Struct, frozen=True, array_like=True):
    status: int
    reason: str
    incident: str


encode = msgspec.msgpack.Encoder().encode
_decode_fault = msgspec.msgpack.Decoder(_FaultBody).decode
_decode_failure = msgspec.msgpack.Decoder(_FailureBody).decode


def encode_fault(fault: Fault) -> bytes:
    """Return the answer that carries a declared fault."""
    return _FAULT + encode(_FaultBody(type(fault).fault_name(), msgspec.Raw(fault.encode_fields())))


def encode_failure(status: int, reason: str, incident: str) -> bytes:
    """Return the answer that carries a failure: a status, a sentence, and the id in the log of this side."""
    return _FAILURE + encode(_FailureBody(status, reason, incident))


def decode_special(data: Buffer, faults: Mapping[str, type[Fault]], message_id: int) -> Exception:
    """Return the error that an answer carries which begins with `SPECIAL`.

    Args:
        data: the answer.
        faults: the faults that the method declares, by name.
        message_id: the id of the request.
    """
    view = memoryview(data)
    kind, body = bytes(view[:2]), view[2:]
    reason = "an answer of an unknown kind"
    try:
        if kind == _FAILURE:
            failure = _decode_failure(body)
            status = status_of(failure.status)
            return RemoteFault(status=status, reason=failure.reason, message_id=message_id, incident=failure.incident)
        if kind == _FAULT:
            found = _decode_fault(body)
            fault = faults.get(found.name)
            if fault is not None:
                return fault.decode_fields(found.fields)
            reason = f"the fault {found.name[:80]!r}, which is not declared here"
    except UNREADABLE as error:
        reason = f"a fault that cannot be read: {error}"
    return RemoteFault(status=Status.HANDLER_FAILED, reason=reason, message_id=message_id)
