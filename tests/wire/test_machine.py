"""Two endpoints back to back, doing anything in any order over a stream that is cut anywhere."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from alpc_async.errors import QuotaExceeded, ReplyMismatch
from alpc_async.limits import PortLimits
from alpc_async.wire import (
    CancelRequested,
    Datagram,
    Endpoint,
    Faulted,
    PeerClosed,
    Replied,
    ReplyLost,
    Request,
    Ticket,
)
from tests.wire.endpoints import ALL, open_pair

LIMITS = PortLimits(max_message_length=16, max_connect_data=1, max_pool_usage=40, max_outstanding_messages=4)
sides = st.integers(0, 1)
payloads = st.binary(max_size=16)


class Side:
    """One end, with everything that it did and saw."""

    def __init__(self, end: Endpoint[Ticket]) -> None:
        self.end = end
        self.stream = bytearray()
        self.open: dict[int, Ticket] = {}
        self.ended: dict[int, str] = {}
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
        self.received_ids: list[int] = []
        self.owed: dict[int, Request] = {}
        self.answered: set[int] = set()
        self.waiting: deque[Datagram] = deque()
        self.over = False

    def end_request(self, ticket: Ticket, how: str) -> None:
        """Note that a request has ended; it must have been open."""
        assert self.open.pop(ticket.id) is ticket
        assert ticket.id not in self.ended
        self.ended[ticket.id] = how

    def see(self, event: Any) -> None:
        """Check and note an event."""
        assert not self.over, "nothing follows the end"
        match event:
            case Request() | Datagram():
                self.received.append(event.data)
                self.received_ids.append(event.id)
                if isinstance(event, Request):
                    self.owed[event.id] = event
                else:
                    self.waiting.append(event)
            case Replied(ticket=Ticket() as ticket) | Faulted(ticket=Ticket() as ticket):
                self.end_request(ticket, "answered")
            case CancelRequested():
                assert self.owed.pop(event.request.id) is event.request
            case ReplyLost():
                assert event.id in self.answered
                self.answered.remove(event.id)
            case PeerClosed():
                self.over = True
            case _:
                raise AssertionError(f"an honest peer cannot cause {event}")


class Connection(RuleBasedStateMachine):
    """Any sequence of commands on both sides, with bytes under way in both directions."""

    def __init__(self) -> None:
        super().__init__()
        client, server = open_pair(LIMITS)
        self.sides = [Side(client), Side(server)]
        self.now = 0.0

    @rule(at=sides, data=payloads, timeout=st.sampled_from([None, 1.0, 3.0]))
    def request(self, at: int, data: bytes, timeout: float | None) -> None:
        """Send a request, if there is room."""
        side = self.sides[at]
        if side.over:
            return
        ticket = Ticket()
        room = side.end.outflow.has_room(len(data))
        try:
            side.end.request(ticket, data, self.now, timeout)
        except QuotaExceeded:
            assert not room
        else:
            assert room
            side.open[ticket.id] = ticket
            side.sent.append(data)

    @rule(at=sides, data=payloads)
    def datagram(self, at: int, data: bytes) -> None:
        """Send a datagram, if there is room."""
        side = self.sides[at]
        if not side.over and side.end.outflow.has_room(len(data)):
            side.end.datagram(data)
            side.sent.append(data)

    @rule(at=sides, choice=st.integers(0, 10), data=payloads, well=st.booleans())
    def answer(self, at: int, choice: int, data: bytes, well: bool) -> None:
        """Answer one of the requests that came, well or with a fault, once."""
        side = self.sides[at]
        if side.over or not side.owed:
            return
        message_id = sorted(side.owed)[choice % len(side.owed)]
        del side.owed[message_id]
        if well:
            side.end.reply(message_id, data)
        else:
            side.end.fault(message_id, 1000, "no")
        side.answered.add(message_id)
        try:
            side.end.reply(message_id, data)
        except ReplyMismatch:
            return
        raise AssertionError("a request was answered twice")

    @rule(at=sides, choice=st.integers(0, 10))
    def cancel(self, at: int, choice: int) -> None:
        """Give up one of our requests."""
        side = self.sides[at]
        if not side.over and side.open:
            ticket = side.open[sorted(side.open)[choice % len(side.open)]]
            assert side.end.cancel(ticket)
            side.end_request(ticket, "cancelled")

    @rule(at=sides, count=st.integers(1, 4))
    def take(self, at: int, count: int) -> None:
        """Take datagrams out of the queue."""
        side = self.sides[at]
        taken = [side.waiting.popleft() for _ in range(min(count, len(side.waiting)))]
        if taken and not side.over:
            side.end.taken(len(taken), sum(len(datagram.data) for datagram in taken))

    @rule(seconds=st.sampled_from([0.5, 2.0]))
    def time_passes(self, seconds: float) -> None:
        """Let deadlines come."""
        self.now += seconds
        for side in self.sides:
            if not side.over:
                for event in side.end.expire(self.now):
                    side.end_request(event.ticket, "expired")
                assert all(ticket.deadline > self.now for ticket in side.open.values())

    @rule(at=sides, limit=st.integers(1, 200), length=st.integers(1, 300))
    def carry(self, at: int, limit: int, length: int) -> None:
        """Carry some bytes from one side to the other, cut anywhere."""
        sender, receiver = self.sides[at], self.sides[1 - at]
        sender.stream += sender.end.data_to_send(limit)
        piece = bytes(sender.stream[:length])
        del sender.stream[:length]
        for event in receiver.end.receive_data(piece):
            receiver.see(event)

    def settle(self) -> None:
        """Carry everything until nothing is under way."""
        while any(side.stream or side.end.output_size for side in self.sides):
            for at in (0, 1):
                self.carry(at, ALL, 10_000_000)

    @precondition(lambda self: not any(side.over for side in self.sides))
    @rule()
    def calm_down(self) -> None:
        """When all is carried, taken and answered, nothing is open and both sides count the same."""
        self.settle()
        for at in (0, 1):
            self.take(at, 4)
            while self.sides[at].owed:
                self.answer(at, 0, b"", True)
        self.settle()
        for near, far in (self.sides, reversed(self.sides)):
            assert not near.open
            assert near.end.outflow.has_room(LIMITS.max_message_length)
            assert far.received == near.sent
            sending, taking = near.end.outflow, far.end.inflow
            untold = taking._untold_messages, taking._untold_bytes  # pyright: ignore[reportPrivateUsage]  # the sums are the promise
            assert sending.free_messages + untold[0] == LIMITS.max_outstanding_messages
            assert sending.free_bytes + untold[1] == LIMITS.max_pool_usage
            assert taking.free_messages == LIMITS.max_outstanding_messages
            assert taking.free_bytes == LIMITS.max_pool_usage

    @precondition(lambda self: not any(side.over for side in self.sides))
    @rule(at=sides, flush=st.booleans())
    def leave(self, at: int, flush: bool) -> None:
        """Close one side; the other sees the end last, and every request of both ends once."""
        leaving, other = self.sides[at], self.sides[1 - at]
        if not flush:
            leaving.end.drop_output()
        leaving.end.close()
        leaving.over = True
        leaving.stream += leaving.end.data_to_send(ALL)
        for event in other.end.receive_data(bytes(leaving.stream)):
            other.see(event)
        leaving.stream.clear()
        assert other.over
        for side in self.sides:
            tickets, requests = side.end.abort()
            assert {ticket.id for ticket in tickets} == side.open.keys()
            assert [request.id for request in requests] == sorted(side.owed)
            for ticket in tickets:
                side.end_request(ticket, "lost")
            side.owed.clear()
            side.stream.clear()
            side.end.drop_output()

    @invariant()
    def numbers_have_no_gaps(self) -> None:
        """What arrived is what was sent, from the first on, numbered from 1."""
        for near, far in ((self.sides[0], self.sides[1]), (self.sides[1], self.sides[0])):
            assert far.received == near.sent[: len(far.received)]
            assert far.received_ids == list(range(1, len(far.received) + 1))
            assert not near.open.keys() & near.ended.keys()


Connection.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestConnection = Connection.TestCase
