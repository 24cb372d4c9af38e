"""One side of a connection: bytes in, events out; commands in, bytes out.

Belongs here: ids, quotas in flight, the tables of open requests in both directions, deadlines. Never here: a socket, a
clock, a task, a callback. The driver feeds `Endpoint.receive_data`, sends what `Endpoint.data_to_send` gives, and calls
`Endpoint.expire` at ``outflow.next_deadline``.

Four kinds of method, no overlap: **commands** (`hello` … `close`) queue bytes; **receive_data** turns bytes into events
and never raises, and `Endpoint.receive_single` is a shorter way for a message that comes alone; **data_to_send**
empties the queue; **expire** is told the time.

Quotas. Each side may have ``max_outstanding_messages`` messages of together ``max_pool_usage`` bytes in flight to the
other. A request is in flight until its final frame (REPLY or FAULT) arrives, a datagram until the other side says in a
CREDIT frame that it was taken. So a receiver never stops reading: replies cannot get stuck behind requests, and the
memory that a peer can occupy is bounded by what it agreed to.

Every request has exactly one final frame. A cancelled one is answered by a FAULT with status CANCELLED unless its REPLY
was already on the way; until either arrives its id stays known as *abandoned* and keeps its place in the quota.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from ..errors import ProtocolViolation
from ._attributes import VIEW_SIZE, Attributes, ViewMode, ViewRecord, unpack_view
from ._ceilings import MAX_ATTRIBUTES
from ._events import (
    CancelRequested,
    Datagram,
    Event,
    Extended,
    Faulted,
    Greeted,
    PeerClosed,
    Refused,
    Released,
    Replied,
    ReplyLost,
    Request,
    Revoked,
    TicketT,
    TimedOut,
    Violated,
    Welcomed,
)
from ._frames import (
    HEADER_SIZE,
    MAX_HANDLES_PER_FRAME,
    VERSION,
    Attribute,
    FrameType,
    Status,
    header_violation,
    pack,
    unpack_header,
)
from ._greeting import Greeting, WrongVersion, agree, check_magic, check_welcome
from ._sharing import EXTENDED, LENDING, SharingCommands
from ._states import Role, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..limits import PortLimits

__all__ = ["Endpoint"]

_WELCOME: Final = int(FrameType.WELCOME)
_REQUEST: Final = int(FrameType.REQUEST)
_REPLY: Final = int(FrameType.REPLY)
_FAULT: Final = int(FrameType.FAULT)
_DATAGRAM: Final = int(FrameType.DATAGRAM)
_SECTION: Final = int(FrameType.SECTION)
_HANDLES: Final = int(FrameType.HANDLES)
_RELEASE: Final = int(FrameType.RELEASE)
_VIEW: Final = int(Attribute.VIEW)
_RETURNED: Final = ViewMode.RETURNED
_PLAIN: Final = 0x100
"""Kinds from here on have flags or descriptors."""
# Looking a member up in its enumeration costs as much as a method call (CPython 3.11), and happens per message.
_OPEN: Final = State.OPEN
_CLOSED: Final = State.CLOSED


class Endpoint(SharingCommands[TicketT]):
    """One side of a connection.

    Args:
        role: which side.
        limits: what this side offers; `limits` holds the agreed values once the connection is open.
        label: what the port calls itself, for error messages.
        features: bit set of optional parts of the protocol that this side has.
    """

    __slots__ = ("_receivers", "_rest", "_rest_needed")

    def __init__(self, role: Role, limits: PortLimits, *, label: str = "port", features: int = 0) -> None:
        self._rest = bytearray()
        self._rest_needed = HEADER_SIZE
        self._batches = deque()
        super().__init__(role, limits, label=label, features=features)
        self._receivers: tuple[Callable[[int, int, bytes], Event[TicketT] | None], ...] = (
            self._receive_nothing,
            self._receive_hello,
            self._receive_welcome,
            self._receive_refuse,
            self._receive_request,
            self._receive_reply,
            self._receive_fault,
            self._receive_datagram,
            self._receive_cancel,
            self._receive_credit,
            self._receive_close,
            lambda number, value, _: self._receive_section(0, number, value),
            lambda number, _value, _payload: self._receive_section_gone(number),
            lambda lease, value, _payload: self._receive_release(lease, value),
            lambda _id, _value, _payload: self._receive_basket(0),
            lambda message_id, value, _payload: self._receive_taken(message_id, value),
            lambda context, _value, _payload: Revoked(context),
        )
        self._reset_sharing()

    def _enter(self, state: State) -> None:
        super()._enter(state)
        self._note_regular()

    def _note_regular(self) -> None:
        # Whether a message may arrive: nothing of a frame, and no descriptors, came before.
        self._regular = self.state is _OPEN and not self._rest and not self._batches

    # -- time --------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> list[TimedOut[TicketT]]:
        """Give up the requests that are due.

        Args:
            now: the time, on the driver's clock, in seconds.

        Returns:
            One `TimedOut` for each.
        """
        due = self.outflow.due(now)
        for ticket in due:
            self.cancel(ticket)
        return [TimedOut(ticket) for ticket in due]

    def abort(self) -> tuple[list[TicketT], list[Request]]:
        """End the connection because the link is gone.

        Returns:
            Our requests that will never be answered, and the other side's that we have not answered; oldest first.
        """
        if self.state < _CLOSED:
            self._enter(_CLOSED)
        return self.outflow.end(), self.inflow.end()

    # -- bytes in ----------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes | memoryview) -> list[Event[TicketT]]:
        """Take bytes from the other side.

        Args:
            data: any number of bytes, cut anywhere. A view is copied from and not kept.

        Returns:
            What happened, in order; the same events however the bytes are cut. `Violated` and `PeerClosed` are last.
        """
        events: list[Event[TicketT]] = []
        try:
            rest = self._rest
            while rest:
                # A frame that comes in pieces is collected until it is whole, so slow drips cost linear time.
                missing = self._rest_needed - len(rest)
                rest += data[:missing]
                if len(data) < missing:
                    data = b""
                    break
                data = data[missing:]
                piece = bytes(rest)
                rest.clear()
                self._take_frames(piece, events)
            if data:
                self._take_frames(data, events)
            # Descriptors may belong to any frame of these bytes, so they are counted when all have been looked at.
            if self._batches and self.state < _CLOSED:
                self._check_batches(partial=bool(self._rest))
            self._note_regular()
        except ProtocolViolation as error:
            self._fail(error)
            events.append(Violated(error))
        return events

    def receive_single(self, data: bytes | memoryview) -> Event[TicketT] | None:
        """Take bytes that are exactly one REQUEST or REPLY, plain or a request that lends a view, and nothing else.

        The short way of `receive_data`.

        Args:
            data: what one receive call brought.

        Returns:
            The event that `receive_data` would have given. ``None``: nothing was done, give the bytes to that instead.
        """
        size = len(data) - HEADER_SIZE
        if size < 0 or not self._regular:
            return None
        length, kind, message_id, value = unpack_header(data)
        if length != size or size > self._longest:
            return None
        if kind == _REPLY:
            outflow = self.outflow
            ticket = outflow.pending.pop(message_id, None)
            if ticket is None:
                return None
            outflow.free_bytes += ticket.size
            outflow.free_messages += 1
            return Replied(ticket, bytes(data[HEADER_SIZE:]))
        if kind != _REQUEST:
            return self._receive_lent(message_id, value, bytes(data[HEADER_SIZE:])) if kind == LENDING else None
        inflow = self.inflow
        if message_id != inflow.next_id or size > inflow.free_bytes or not inflow.free_messages:
            return None
        inflow.next_id = message_id + 1
        inflow.free_messages -= 1
        inflow.free_bytes -= size
        request = inflow.owed[message_id] = Request(message_id, bytes(data[HEADER_SIZE:]), value, size)
        return request

    def _receive_lent(self, message_id: int, value: int, payload: bytes) -> Extended[TicketT] | None:
        """Take a request whose only attribute is a range that the other side lends, if nothing is wrong with it."""
        inflow = self.inflow
        size = len(payload)
        if (
            message_id != inflow.next_id
            or size > inflow.free_bytes
            or not inflow.free_messages
            or self._basket_announced
            or size < VIEW_SIZE
        ):
            return None
        section, mode, lease, offset, length = unpack_view(payload)
        # `_may_borrow`, without the call.
        if mode & _RETURNED or section not in self._foreign_sections or lease <= self._last_foreign_lease:
            return None
        inflow.next_id = message_id + 1
        inflow.free_messages -= 1
        inflow.free_bytes -= size
        self._last_foreign_lease = lease
        self._held.add(lease)
        request = inflow.owed[message_id] = Request(message_id, payload[VIEW_SIZE:], value, size)
        return Extended(request, Attributes(view=ViewRecord(section, mode, lease, offset, length)), size, True)

    def receive_pair(self, data: bytes | memoryview) -> tuple[Released, Event[TicketT]] | None:
        """Take bytes that are exactly a RELEASE and what `receive_single` takes: a range comes back with a message.

        Args:
            data: what one receive call brought.

        Returns:
            The two events that `receive_data` would have given. ``None``: nothing was done.
        """
        if len(data) < 2 * HEADER_SIZE:
            return None
        size, kind, lease, lost = unpack_header(data)
        if kind != _RELEASE or size or lease not in self._leases:
            return None
        event = self.receive_single(data[HEADER_SIZE:])
        return None if event is None else (Released(self._leases.pop(lease), bool(lost)), event)

    def _take_frames(self, data: bytes | memoryview, events: list[Event[TicketT]]) -> None:
        length: int
        kind: int
        message_id: int
        value: int
        end = len(data)
        receivers = self._receivers
        state, receivable, ceilings = self.state, self._receivable, self._ceilings
        position = self._take_plain(data, events) if state is _OPEN and not self._batches else 0
        while state < _CLOSED:
            body = position + HEADER_SIZE
            if body > end:
                self._rest_needed = HEADER_SIZE
                break
            length, kind, message_id, value = unpack_header(data, position)
            following = receivable.get(kind)
            if following is None or length > ceilings[kind]:
                if following is not None or state is not _OPEN or not self._is_extended(length, kind):
                    ceiling = ceilings[kind] if following is not None else None
                    where = f"to the {self.role.value} in state {state.name}"
                    raise header_violation(bytes(data[position:body]), ceiling, where)
                following = state
            elif kind <= _WELCOME:
                check_magic(message_id, value)
            after = body + length
            if after > end:
                self._rest_needed = HEADER_SIZE + length
                break
            # Of bytes this makes a copy of the payload, or nothing if it is all there is; of a view, the only copy.
            if kind < _PLAIN:
                event = receivers[kind](message_id, value, bytes(data[body:after]))
            else:
                event = self._receive_extended(kind, message_id, value, bytes(data[body:after]))
            position = after
            if event is not None:
                events.append(event)
            if following is not state:
                self._enter(following)
                state, receivable, ceilings = following, self._receivable, self._ceilings
        if state < _CLOSED and position < end:
            self._rest += data[position:]

    def _take_plain(self, data: bytes | memoryview, events: list[Event[TicketT]]) -> int:
        """Take the requests and replies at the beginning that have nothing unusual, without a call for each.

        Returns:
            Where they end. What stands there is untouched.
        """
        size: int
        kind: int
        message_id: int
        value: int
        inflow, outflow = self.inflow, self.outflow
        pending, owed = outflow.pending, inflow.owed
        next_id, free_messages, free_bytes = inflow.next_id, inflow.free_messages, inflow.free_bytes
        settled = settled_bytes = position = 0
        end = len(data)
        longest = self._longest
        while position + HEADER_SIZE <= end:
            size, kind, message_id, value = unpack_header(data, position)
            body = position + HEADER_SIZE
            after = body + size
            if after > end or size > longest:
                break
            if kind == _REQUEST:
                if message_id != next_id or size > free_bytes or not free_messages:
                    break
                next_id += 1
                free_messages -= 1
                free_bytes -= size
                request = owed[message_id] = Request(message_id, bytes(data[body:after]), value, size)
                events.append(request)
            elif kind == _REPLY and (ticket := pending.pop(message_id, None)) is not None:
                settled += 1
                settled_bytes += ticket.size
                events.append(Replied(ticket, bytes(data[body:after])))
            else:
                break
            position = after
        inflow.next_id, inflow.free_messages, inflow.free_bytes = next_id, free_messages, free_bytes
        outflow.free_messages += settled
        outflow.free_bytes += settled_bytes
        return position

    def _is_extended(self, length: int, kind: int) -> bool:
        """Return whether a kind that is no plain frame type is a legal frame with descriptors or attributes."""
        base, flags, handles = kind & 0xFF, kind >> 8 & 0xFF, kind >> 16
        if base in (_SECTION, _HANDLES):
            return not flags and not length and handles <= MAX_HANDLES_PER_FRAME
        if not flags or flags & ~EXTENDED.get(base, 0) or handles:
            return False
        return length <= self.limits.max_message_length + MAX_ATTRIBUTES

    def _receive_extended(self, kind: int, message_id: int, value: int, payload: bytes) -> Event[TicketT] | None:
        base = kind & 0xFF
        if base == _SECTION:
            return self._receive_section(kind >> 16, message_id, value)
        if base == _HANDLES:
            self._receive_basket(kind >> 16)
            return None
        if base != _REPLY:
            # Numbered and charged first: what follows may leave a lease or a receipt behind.
            self.inflow.accept(message_id, len(payload))
        attributes, data = self._receive_attributes(kind, message_id, payload)
        event: Request | Datagram | Replied[TicketT] | None
        if base == _REQUEST:
            event = self.inflow.owed[message_id] = Request(message_id, data, value, len(payload))
        elif base == _DATAGRAM:
            event = Datagram(message_id, data)
        else:
            ticket = self.outflow.settle(message_id)
            event = Replied(ticket, data) if ticket is not None else None
        view = attributes.view
        lent = view is not None and kind >> 8 == _VIEW and not view.mode & ViewMode.RETURNED and not attributes.lost
        return Extended(event, attributes, len(payload), lent)

    @property
    def partial(self) -> bool:
        """Whether the first bytes of a frame have arrived and not yet the last."""
        return bool(self._rest)

    def violate(self, error: ProtocolViolation) -> None:
        """End the connection because of something that only the driver could see.

        Args:
            error: the rule that the other side broke.
        """
        if self.state < _CLOSED:
            self._fail(error)

    def _fail(self, error: ProtocolViolation) -> None:
        self.close(Status.WRONG_VERSION if isinstance(error, WrongVersion) else Status.VIOLATION, str(error))
        self._enter(State.FAILED)

    def _receive_nothing(self, _message_id: int, _value: int, _payload: bytes) -> None:
        raise NotImplementedError  # holds the place of type 0, which is in no table

    def _receive_hello(self, _magic: int, version: int, payload: bytes) -> Event[TicketT]:
        greeting = Greeting.decode(payload)
        self._agree(agree(greeting, self.limits))
        self.features &= greeting.features
        return Greeted(
            min(version, VERSION), self.features, greeting.data, greeting.level, greeting.dynamic, greeting.cookie
        )

    def _receive_welcome(self, _magic: int, version: int, payload: bytes) -> Event[TicketT]:
        greeting = Greeting.decode(payload)
        check_welcome(greeting, self.limits, self.features)
        self._agree(agree(greeting, self.limits))
        self.features = greeting.features
        return Welcomed(min(version, VERSION), self.features, greeting.data, greeting.level, greeting.dynamic)

    def _receive_refuse(self, _message_id: int, status: int, payload: bytes) -> Event[TicketT]:
        return Refused(status, payload)

    def _receive_request(self, message_id: int, timeout_ms: int, payload: bytes) -> Event[TicketT]:
        size = len(payload)
        inflow = self.inflow
        inflow.accept(message_id, size)
        request = inflow.owed[message_id] = Request(message_id, payload, timeout_ms, len(payload))
        return request

    def _receive_datagram(self, message_id: int, _value: int, payload: bytes) -> Event[TicketT]:
        self.inflow.accept(message_id, len(payload))
        return Datagram(message_id, payload)

    def _receive_reply(self, message_id: int, _value: int, payload: bytes) -> Event[TicketT] | None:
        ticket = self.outflow.settle(message_id)
        return Replied(ticket, payload) if ticket is not None else None

    def _receive_fault(self, message_id: int, status: int, payload: bytes) -> Event[TicketT] | None:
        ticket = self.outflow.settle(message_id)
        return None if ticket is None else Faulted(ticket, status, payload.decode("utf-8", "replace"))

    def _receive_cancel(self, message_id: int, _value: int, _payload: bytes) -> Event[TicketT]:
        request = self.inflow.cancel(message_id)
        if request is None:
            return ReplyLost(message_id)
        self.queue(pack(_FAULT, message_id, Status.CANCELLED))
        return CancelRequested(request)

    def _receive_credit(self, size: int, messages: int, _payload: bytes) -> None:
        self.outflow.credit(messages, size)

    def _receive_close(self, _message_id: int, status: int, payload: bytes) -> Event[TicketT]:
        return PeerClosed(status, payload.decode("utf-8", "replace"))
