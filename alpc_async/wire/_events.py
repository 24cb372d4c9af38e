"""What an endpoint reports: one small value per thing that happened.

Belongs here: the event types and `Ticket`, the record of one request that we sent. Never here: behaviour.

Events are msgspec structs without garbage-collector tracking, since none outlives the receive that made it. Making one
costs a fraction of a slotted class (decision record 2), and one is made for every message.
"""

from __future__ import annotations

from typing import Generic, TypeAlias, TypeVar

import msgspec

from ..errors import ProtocolViolation
from ..handles import Handle
from ._attributes import Attributes

__all__ = [
    "CancelRequested",
    "Datagram",
    "Event",
    "Extended",
    "Faulted",
    "Greeted",
    "PeerClosed",
    "Refused",
    "Released",
    "Replied",
    "ReplyLost",
    "Request",
    "Revoked",
    "SectionGone",
    "SectionOffered",
    "Taken",
    "Ticket",
    "TicketT",
    "TimedOut",
    "Violated",
    "Welcomed",
]


class Ticket(msgspec.Struct, eq=False):
    """One request that was sent and is not answered. A driver subclasses it to add what it needs to wake its caller.

    Attributes:
        id: number of the message, set by the endpoint.
        size: length of the payload in bytes, set by the endpoint.
        deadline: when the request expires, on the clock that the driver uses; infinity for never.
    """

    id: int = 0
    size: int = 0
    deadline: float = 0.0


TicketT = TypeVar("TicketT", bound=Ticket)


class Greeted(msgspec.Struct, frozen=True, gc=False):
    """A client said HELLO; decide with `Endpoint.accept` or `Endpoint.refuse`."""

    version: int
    features: int
    data: bytes
    level: int = 1
    dynamic: bool = False
    cookie: tuple[int, bytes] | None = None


class Welcomed(msgspec.Struct, frozen=True, gc=False):
    """The server accepted."""

    version: int
    features: int
    data: bytes
    level: int = 1
    dynamic: bool = False


class Refused(msgspec.Struct, frozen=True, gc=False):
    """The server declined; the connection is over."""

    status: int
    data: bytes


class Request(msgspec.Struct, eq=False):
    """A message that wants an answer. The endpoint keeps it until the answer is given.

    Attributes:
        id: number of the message among those of its sender.
        data: the payload.
        timeout_ms: time that the sender still gives it, in milliseconds; 0 for no end.
        size: bytes that it takes of the quota: the data, and the attributes that came with it.
        context: belongs to the driver, which finds here what it made of the request when the request is cancelled.
    """

    id: int
    data: bytes
    timeout_ms: int
    size: int
    context: object = None


class Datagram(msgspec.Struct, frozen=True, gc=False):
    """A message that wants no answer."""

    id: int
    data: bytes


class Replied(msgspec.Struct, Generic[TicketT], frozen=True, gc=False):
    """The answer to one of our requests."""

    ticket: TicketT
    data: bytes


class Faulted(msgspec.Struct, Generic[TicketT], frozen=True, gc=False):
    """One of our requests failed at the other side."""

    ticket: TicketT
    status: int
    reason: str


class Extended(msgspec.Struct, Generic[TicketT], frozen=True):
    """A message that came with attributes.

    Attributes:
        event: the message; ``None`` for the answer to a request that was given up, whose attributes must be let go.
        attributes: what came with it; its descriptors belong to whoever handles this.
        size: bytes of the payload, the attributes included.
        only_view: a range that the sender lends is the only attribute.
    """

    event: Request | Datagram | Replied[TicketT] | None
    attributes: Attributes
    size: int
    only_view: bool = False


class SectionOffered(msgspec.Struct, frozen=True):
    """The other side shares a section.

    Attributes:
        section: its number among those of the other side.
        kind: a `SectionKind`.
        handle: the descriptor, which belongs to whoever handles this; ``None`` when it was lost on the way.
        error: why it was lost, as an error number, when the sender knows.
    """

    section: int
    kind: int
    handle: Handle | None
    error: int


class SectionGone(msgspec.Struct, frozen=True, gc=False):
    """The other side takes a section back; views of it that are still held stay valid."""

    section: int


class Released(msgspec.Struct, frozen=True):
    """The other side gave a lease of ours back; ``record`` is what was lent under it.

    ``lost`` says that the section had never arrived there.
    """

    record: object
    lost: bool = False


class Taken(msgspec.Struct, frozen=True):
    """A message of ours was taken out of the queue; ``record`` is what waited for that.

    With a ``status`` it was dropped instead and will never be taken.
    """

    record: object
    status: int = 0


class Revoked(msgspec.Struct, frozen=True, gc=False):
    """The other side revoked a security context of its own: nothing may be done under it any more."""

    context: int


class TimedOut(msgspec.Struct, Generic[TicketT], frozen=True, gc=False):
    """One of our requests expired; the other side has been told."""

    ticket: TicketT


class CancelRequested(msgspec.Struct, frozen=True, gc=False):
    """The sender gave up a request that we have not answered; that was acknowledged, so no answer may follow."""

    request: Request


class ReplyLost(msgspec.Struct, frozen=True, gc=False):
    """The sender gave up a request after we had answered it: nobody will see that answer."""

    id: int


class PeerClosed(msgspec.Struct, frozen=True, gc=False):
    """The other side said goodbye; the connection is over."""

    status: int
    reason: str


class Violated(msgspec.Struct, frozen=True):
    """The other side broke the protocol; the connection is over and it has been told why."""

    error: ProtocolViolation


Event: TypeAlias = (
    Greeted
    | Welcomed
    | Refused
    | Request
    | Datagram
    | Replied[TicketT]
    | Faulted[TicketT]
    | TimedOut[TicketT]
    | CancelRequested
    | ReplyLost
    | PeerClosed
    | Violated
    | Extended[TicketT]
    | SectionOffered
    | SectionGone
    | Released
    | Taken
    | Revoked
)
