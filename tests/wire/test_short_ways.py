"""The short ways of receiving what travels with views give what the long way gives, or do nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpc_async.errors import MessageTooLong, QuotaExceeded
from alpc_async.handles import Handle
from alpc_async.wire import (
    Attributes,
    Carrier,
    Extended,
    FrameType,
    Replied,
    Role,
    SectionKind,
    SectionOffered,
    State,
    Ticket,
    ViewMode,
    ViewRecord,
    pack,
)
from tests.wire.endpoints import ALL, SMALL, all_described, endpoint, open_pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from alpc_async.wire import Endpoint, Event

LENDING = int(FrameType.REQUEST) | 0x40 << 8
small = st.integers(0, 3)
records = st.builds(ViewRecord, small, st.sampled_from([0, 1, 2, 3, 4]), small, small, small).map(ViewRecord.encode)
lent = st.tuples(
    st.sampled_from([LENDING, LENDING, LENDING, LENDING | 0x80 << 8, LENDING | 1 << 16]),
    st.integers(0, 2),
    small,
    st.one_of(records, records.map(lambda record: record[:20])),
    st.binary(max_size=70),
).map(lambda parts: pack(*parts[:3], parts[3] + parts[4]))
releases = st.builds(
    pack,
    st.sampled_from([FrameType.RELEASE, FrameType.RELEASE, FrameType.RELEASE, FrameType.CREDIT]),
    small,
    st.integers(0, 1),
    st.sampled_from([b"", b"", b"", b"x"]),
)
followers = st.one_of(
    st.builds(
        pack,
        st.sampled_from([FrameType.REPLY, FrameType.REPLY, FrameType.REQUEST, FrameType.FAULT, FrameType.RELEASE]),
        small,
        st.just(0),
        st.binary(max_size=70),
    ),
    lent,
    st.binary(max_size=30),
)
answers = st.tuples(releases, followers).map(b"".join)
kinds = st.sampled_from([bytes, memoryview])


def borrower() -> Endpoint[Ticket]:
    """Return a server that knows one section of the client."""
    client, server = open_pair(SMALL)
    client.offer_section(Handle(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)), SectionKind.LIVE)
    carrier = client.data_to_send(ALL)
    assert isinstance(carrier, Carrier)
    server.receive_handles(list(carrier.handles), False)
    (offered,) = server.receive_data(bytes(carrier))
    assert isinstance(offered, SectionOffered)
    assert offered.handle is not None
    offered.handle.close()
    return server


def lender() -> Endpoint[Ticket]:
    """Return a client that has two requests open and two ranges lent."""
    made = endpoint(Role.CLIENT, State.OPEN)
    for record in ("first", "second"):
        made.request(Ticket(), b"12345", 0.0, None)
        made.lend(record)
    made.data_to_send(ALL)
    return made


def facts(made: Endpoint[Ticket]) -> tuple[object, ...]:
    """Return what an endpoint knows, as plain data."""
    flows = ((flow.free_messages, flow.free_bytes, flow.next_id) for flow in (made.outflow, made.inflow))
    open_requests = list(made.outflow.pending), list(made.inflow.owed)
    return (
        made.state,
        *flows,
        open_requests,
        made.leases,
        made.shares,
        made.borrows,
        made.shared_numbers,
        made.data_to_send(ALL),
    )


def facts_kept(made: Endpoint[Ticket]) -> tuple[object, ...]:
    """Return what an endpoint knows, without taking what it has to send."""
    frames = list(made.frames)
    known = made.outflow.free_messages, made.outflow.free_bytes, made.outflow.next_id, made.outflow.next_deadline
    return frames, made.output_size, known, list(made.outflow.pending), made.leases


@settings(max_examples=300, deadline=None)
@given(lent, st.booleans(), kinds)
def test_a_lone_request_with_a_view(data: bytes, begun: bool, kind: Callable[[bytes], bytes | memoryview]) -> None:
    """A request that lends a view and comes alone is taken as usual; the short way leaves other bytes alone."""
    usual, short = borrower(), borrower()
    if begun:
        for receiver in (usual, short):
            receiver.receive_data(pack(FrameType.DATAGRAM, 1, 0, b"1234")[:-2])
    event = short.receive_single(kind(data))
    events = [event] if event is not None else short.receive_data(kind(data))
    assert all_described(events) == all_described(usual.receive_data(kind(data)))
    assert facts(short) == facts(usual)


@settings(max_examples=300, deadline=None)
@given(answers, st.booleans(), kinds)
def test_a_range_that_comes_back_with_a_message(
    data: bytes, begun: bool, kind: Callable[[bytes], bytes | memoryview]
) -> None:
    """A released range and a message that come together are taken as usual; the short way leaves other bytes alone."""
    usual, short = lender(), lender()
    if begun:
        for receiver in (usual, short):
            receiver.receive_data(pack(FrameType.DATAGRAM, 1, 0, b"1234")[:-2])
    pair = short.receive_pair(kind(data))
    events: list[Event[Ticket]] = [*pair] if pair is not None else short.receive_data(kind(data))
    assert all_described(events) == all_described(usual.receive_data(kind(data)))
    assert facts(short) == facts(usual)


def test_the_short_ways_are_taken() -> None:
    """What is meant for the short ways takes them."""
    server = borrower()
    view = ViewRecord(1, 0, 1, 0, 10)
    event = server.receive_single(pack(LENDING, 1, 0, view.encode() + b"data"))
    assert isinstance(event, Extended)
    assert (event.attributes, event.only_view) == (Attributes(view=view), True)
    pair = lender().receive_pair(pack(FrameType.RELEASE, 2, 0) + pack(FrameType.REPLY, 1, 0, b"answer"))
    assert pair is not None
    released, reply = pair
    assert isinstance(reply, Replied)
    assert (released.record, reply.data) == ("second", b"answer")


owners = st.tuples(
    st.binary(max_size=70),
    st.sampled_from([None, 1.0, 5.0]),
    st.tuples(st.just(1), st.sampled_from([0, int(ViewMode.IS_DATA)]), st.integers(0, 2**40), st.integers(0, 2**40)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(owners, min_size=1, max_size=6))
def test_a_request_that_lends(requests: list[tuple[bytes, float | None, tuple[int, int, int, int]]]) -> None:
    """The short way of sending a request with a view leaves what the long way leaves, or does nothing."""
    usual, short = endpoint(Role.CLIENT, State.OPEN), endpoint(Role.CLIENT, State.OPEN)
    for number, (data, timeout, place) in enumerate(requests):
        tickets = Ticket(), Ticket()
        before = facts_kept(short)
        sent = short.request_lending(tickets[0], data, 7.0, timeout, number, place)
        if sent is None:
            assert facts_kept(short) == before
        for made, ticket in ((usual, tickets[1]), *(() if sent is not None else ((short, tickets[0]),))):
            section, mode, offset, length = place
            view = ViewRecord(section, mode, made.lend(number), offset, length)
            try:
                made.request(ticket, data, 7.0, timeout, Attributes(view=view))
            except (MessageTooLong, QuotaExceeded):
                made.withdraw(view.lease)
                assert sent is None
        shown = [(ticket.id, ticket.size, ticket.deadline) for ticket in tickets]
        assert shown[0] == shown[1]
    assert short.outflow.next_deadline == usual.outflow.next_deadline
    assert facts(short) == facts(usual)


def test_the_short_way_of_lending_is_taken() -> None:
    """It is taken from the second request of a timeout on, as long as there is room and the connection is open."""
    place = 1, 0, 0, 10
    client = endpoint(Role.CLIENT, State.OPEN)
    client.request(Ticket(), b"", 0.0, 1.5)
    assert client.request_lending(Ticket(), b"", 0.0, 2.5, "range", place) is None
    sent = [client.request_lending(Ticket(), b"", 0.0, 1.5, "range", place) for _ in range(4)]
    assert sent == [b"", b"", b"", None]
    assert (client.leases, client.withdraw(2)) == (3, "range")
    for timed_out in client.expire(1.5):
        client.receive_data(pack(FrameType.FAULT, timed_out.ticket.id, 7))
    assert client.request_lending(Ticket(), b"", 10.0, 1.5, "range", place) == b""
    assert client.outflow.next_deadline == 11.5
    closed = endpoint(Role.CLIENT, State.OPEN)
    closed.close()
    assert closed.request_lending(Ticket(), b"", 0.0, None, "range", place) is None


@pytest.mark.parametrize("lends", [False, True])
def test_a_lone_request_is_given_out(lends: bool) -> None:
    """It is the frame that would be queued; behind another one it is queued, and what was not sent can be."""
    usual, alone = endpoint(Role.CLIENT, State.OPEN), endpoint(Role.CLIENT, State.OPEN)

    def request(made: Endpoint[Ticket], *, alone: bool) -> bytes | None:
        if lends:
            return made.request_lending(Ticket(), b"data", 0.0, None, "range", (1, 0, 0, 10), alone)
        return made.request(Ticket(), b"data", 0.0, None, None, alone)

    assert not request(usual, alone=False)
    frame = request(alone, alone=True)
    assert frame
    assert (alone.output_size, alone.data_to_send(ALL)) == (0, b"")
    alone.queue(frame)
    assert alone.output_size == len(frame)
    assert not request(alone, alone=True)
    assert not request(usual, alone=False)
    assert alone.data_to_send(ALL) == usual.data_to_send(ALL)


def test_a_lone_answer_takes_what_goes_back_with_it() -> None:
    """A released range leaves in front of the answer; behind anything else, a descriptor included, it is queued."""

    def owing() -> Endpoint[Ticket]:
        made = borrower()
        view = ViewRecord(1, 0, 1, 0, 10)
        assert made.receive_single(pack(LENDING, 1, 0, view.encode())) is not None
        made.data_to_send(ALL)
        return made

    plain = owing()
    answer = pack(FrameType.REPLY, 1, 0, b"answer")
    assert plain.reply(1, b"answer", None, True) == answer
    returned = owing()
    returned.release(1)
    assert returned.reply(1, b"answer", None, True) == pack(FrameType.RELEASE, 1, 0) + answer
    assert (returned.output_size, returned.data_to_send(ALL)) == (0, b"")
    behind = owing()
    behind.release(1)
    behind.datagram(b"")
    assert behind.reply(1, b"answer", None, True) is None
    assert behind.data_to_send(ALL) == pack(FrameType.RELEASE, 1, 0) + pack(FrameType.DATAGRAM, 1, 0) + answer
    carrying = owing()
    with Handle(os.memfd_create("section")) as handle:
        carrying.offer_section(handle, SectionKind.LIVE)
        assert carrying.reply(1, b"answer", None, True) is None
        assert isinstance(carrying.data_to_send(ALL), Carrier)
        assert carrying.data_to_send(ALL) == answer
