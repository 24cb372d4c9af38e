"""The short ways of receiving what travels with views give what the long way gives, or do nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

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
    return made.state, *flows, open_requests, made.leases, made.shares, made.shared_numbers, made.data_to_send(ALL)


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
