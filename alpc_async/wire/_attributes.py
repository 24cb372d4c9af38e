"""What a message may have beside its data: views, direct ranges, handles, a security context, the wish for a receipt.

Belongs here: the layout of each attribute, and taking them out of a payload in which anything may stand. Never here:
memory, descriptors themselves, or whether a section or a range exists.

The flags of the header say which attributes stand in front of the data; their order is that of `Attribute`, highest bit
first, and each is of fixed length or says its own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from ..errors import ProtocolViolation
from ..handles import Handle
from ._ceilings import MAX_DIRECT_RANGES, MAX_HANDLE_STATE, MAX_LEVEL
from ._frames import Attribute

__all__ = [
    "DIRECT_DATA",
    "DIRECT_WRITABLE",
    "VIEW_SIZE",
    "Attributes",
    "DirectRecord",
    "HandleRecord",
    "SecurityRecord",
    "ViewMode",
    "ViewRecord",
    "pack_lending",
    "take_attributes",
    "unpack_view",
]

# Plain numbers: an operation on a member of an enumeration costs as much as packing the whole attribute.
_HAS_SECURITY: Final = int(Attribute.SECURITY)
_HAS_VIEW: Final = int(Attribute.VIEW)
_HAS_DIRECT: Final = int(Attribute.DIRECT)
_HAS_HANDLES: Final = int(Attribute.HANDLES)
_HAS_RECEIPT: Final = int(Attribute.RECEIPT)
_IS_SYSTEM: Final = int(Attribute.SYSTEM)

_SECURITY: Final = struct.Struct("<II")
_VIEW: Final = struct.Struct("<IIQQQ")
VIEW_SIZE: Final = _VIEW.size
"""Bytes of a view's attribute."""
unpack_view = _VIEW.unpack_from
"""Take (section, mode, lease, offset, length) out of a buffer."""
pack_lending = struct.Struct("<IIQQIIQQQ").pack
"""Make the header of a message, (length, kind, id, value), and behind it the attribute of a view, as above."""
_DIRECT: Final = struct.Struct("<Q16sI")
_RANGE: Final = struct.Struct("<QQI")
_LENGTH: Final = struct.Struct("<I")

_ADDRESS_END: Final = 2**63
"""No program of any architecture has addresses from here on, and lengths have to fit a signed number."""

NO_IMPERSONATION: Final = 1
"""Bit of `SecurityRecord.flags`."""
_LEVEL_SHIFT: Final = 4
_MOST_FLAGS: Final = (MAX_LEVEL + 1) << _LEVEL_SHIFT | NO_IMPERSONATION


DIRECT_WRITABLE: Final = 1
"""The receiver may write the range."""

DIRECT_DATA: Final = 2
"""The range, the only one then, is the data of the message."""


class ViewMode:
    """Bits of `ViewRecord.mode`."""

    RETURNED: Final = 1
    """The range is of a section of the receiver: it comes back, and the lease with it."""
    IS_DATA: Final = 2
    """The range is the data of the message, which travelled here because it is long."""


class SecurityRecord(msgspec.Struct, frozen=True, gc=False):
    """Which security context counts for a message, and what may not be done with it.

    Attributes:
        context: number of the context; 0 for that of the connection.
        flags: 1: do not impersonate; bits 4 to 6: the level of the context plus 1, or 0 for that of the connection.
    """

    context: int
    flags: int

    @classmethod
    def of(cls, context: int, level: int | None, *, impersonate: bool = True) -> SecurityRecord:
        """Make a record.

        Args:
            context: number of the context.
            level: what it allows, as in a greeting; ``None`` for what the connection allows.
            impersonate: ``False`` forbids acting under the sender's identity for this message.
        """
        return cls(context, (0 if level is None else level + 1) << _LEVEL_SHIFT | (not impersonate))

    @property
    def level(self) -> int | None:
        """What the context allows, or ``None`` when it is what the connection allows."""
        found = self.flags >> _LEVEL_SHIFT
        return found - 1 if found else None

    @property
    def impersonate(self) -> bool:
        """Whether acting under the sender's identity is allowed, as far as the level goes."""
        return not self.flags & NO_IMPERSONATION


class ViewRecord(msgspec.Struct, frozen=True, gc=False):
    """A range of a shared section.

    Attributes:
        section: number of the section, among those of its owner.
        mode: bits of `ViewMode`.
        lease: number of the lease, among those of the owner of the section; released by this number.
        offset: first byte in the section.
        length: bytes.
    """

    section: int
    mode: int
    lease: int
    offset: int
    length: int

    def encode(self) -> bytes:
        """Return the record as it travels."""
        return _VIEW.pack(self.section, self.mode, self.lease, self.offset, self.length)


class DirectRecord(msgspec.Struct, frozen=True):
    """Ranges of the sender's memory.

    Attributes:
        cookie_address: where the cookie stands in the sender's memory.
        cookie: what stands there as long as the process is the same program.
        ranges: (address, bytes, `DIRECT_WRITABLE`, `DIRECT_DATA` or 0) of each.
    """

    cookie_address: int
    cookie: bytes
    ranges: tuple[tuple[int, int, int], ...]


class HandleRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the sender says of a descriptor.

    Attributes:
        state: for a connected port that is handed over, what its new owner has to know; untrusted.
    """

    state: Annotated[bytes, msgspec.Meta(max_length=MAX_HANDLE_STATE)] = b""


_records_decoder: Final = msgspec.msgpack.Decoder(list[HandleRecord])


class Attributes(msgspec.Struct, kw_only=True):
    """The attributes of one message, sent or received.

    Attributes:
        security: see `SecurityRecord`.
        view: see `ViewRecord`.
        direct: see `DirectRecord`.
        handles: one record a descriptor.
        receipt: the sender wants to know when the message is taken.
        system: the message is a request of the framework itself.
        received: the descriptors, when received; they belong to whoever takes them from here.
        lost: descriptors of this message were lost on the way.
        returned: what was lent under the lease that comes back with the message.
    """

    security: SecurityRecord | None = None
    view: ViewRecord | None = None
    direct: DirectRecord | None = None
    handles: Sequence[HandleRecord] = ()
    receipt: bool = False
    system: bool = False
    received: list[Handle] = []
    lost: bool = False
    returned: object = None

    @property
    def only_view(self) -> bool:
        """Whether nothing that travels is set, a view apart."""
        return not (self.handles or self.receipt or self.system) and self.security is None and self.direct is None

    def encode(self) -> tuple[int, bytes]:
        """Return the flags for the header and the bytes that go in front of the data."""
        view = self.view
        if view is not None and self.only_view:
            return _HAS_VIEW, view.encode()
        flags = 0
        parts: list[bytes] = []
        if self.security is not None:
            flags |= _HAS_SECURITY
            parts.append(_SECURITY.pack(self.security.context, self.security.flags))
        if view is not None:
            flags |= _HAS_VIEW
            parts.append(view.encode())
        if self.direct is not None:
            flags |= _HAS_DIRECT
            direct = self.direct
            parts.append(_DIRECT.pack(direct.cookie_address, direct.cookie, len(direct.ranges)))
            parts += [_RANGE.pack(*piece) for piece in direct.ranges]
        if self.handles:
            flags |= _HAS_HANDLES
            records = msgspec.msgpack.encode(self.handles)
            parts += [_LENGTH.pack(len(records)), records]
        if self.receipt:
            flags |= _HAS_RECEIPT
        if self.system:
            flags |= _IS_SYSTEM
        return flags, b"".join(parts)


def take_attributes(flags: int, payload: bytes) -> tuple[Attributes, bytes]:
    """Split a payload into its attributes and the data behind them.

    Args:
        flags: the flags of the header.
        payload: everything behind the header.

    Returns:
        The attributes, without descriptors, and the data.

    Raises:
        ProtocolViolation: the payload is shorter than its attributes, or one of them has no such form.
    """
    attributes = Attributes(receipt=bool(flags & _HAS_RECEIPT), system=bool(flags & _IS_SYSTEM))
    position = 0
    try:
        if flags & _HAS_SECURITY:
            attributes.security = _take_security(payload, position)
            position += _SECURITY.size
        if flags & _HAS_VIEW:
            attributes.view = ViewRecord(*_VIEW.unpack_from(payload, position))
            position += _VIEW.size
        if flags & _HAS_DIRECT:
            attributes.direct, position = _take_direct(payload, position)
        if flags & _HAS_HANDLES:
            attributes.handles, position = _take_records(payload, position)
    except struct.error:
        raise ProtocolViolation(
            rule="attributes are inside their frame", detail=f"flags {flags:#x}, {len(payload)} bytes"
        ) from None
    return attributes, payload[position:]


def _take_security(payload: bytes, position: int) -> SecurityRecord:
    record = SecurityRecord(*_SECURITY.unpack_from(payload, position))
    if record.flags > _MOST_FLAGS or record.flags & 0xE:
        raise ProtocolViolation(rule="a security attribute has only known flags", detail=f"{record.flags:#x}")
    return record


def _take_direct(payload: bytes, position: int) -> tuple[DirectRecord, int]:
    address, cookie, count = _DIRECT.unpack_from(payload, position)
    position += _DIRECT.size
    if not 0 < count <= MAX_DIRECT_RANGES:
        raise ProtocolViolation(rule=f"a message declares 1 to {MAX_DIRECT_RANGES} direct ranges", detail=f"{count}")
    ranges: list[tuple[int, int, int]] = []
    for _ in range(count):
        start, length, writable = _RANGE.unpack_from(payload, position)
        position += _RANGE.size
        if (
            not start
            or start + length > _ADDRESS_END
            or writable > DIRECT_DATA
            or (writable == DIRECT_DATA and count > 1)
        ):
            raise ProtocolViolation(rule="a direct range is inside an address space", detail=f"{length} at {start:#x}")
        ranges.append((start, length, writable))
    if not 0 < address < _ADDRESS_END - len(cookie):
        raise ProtocolViolation(rule="a cookie is inside an address space", detail=f"{address:#x}")
    if sum(length for _, length, _ in ranges) >= _ADDRESS_END:
        raise ProtocolViolation(rule="direct ranges are no more than an address space", detail=f"{count} ranges")
    return DirectRecord(address, cookie, tuple(ranges)), position


def _take_records(payload: bytes, position: int) -> tuple[list[HandleRecord], int]:
    (length,) = _LENGTH.unpack_from(payload, position)
    position += _LENGTH.size
    after = position + length
    if after > len(payload):
        raise ProtocolViolation(rule="attributes are inside their frame", detail=f"{length} bytes of handle records")
    try:
        return _records_decoder.decode(payload[position:after]), after
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolViolation(
            rule="handle records are MessagePack of the documented form", detail=str(error)
        ) from None
