"""Any bytes give events or one final violation, the same ones however split; nothing raises, memory is bounded."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from alpc_async.wire import (
    HEADER_SIZE,
    MAGIC,
    MAX_GREETING_OVERHEAD,
    VERSION,
    Endpoint,
    FrameType,
    PeerClosed,
    Refused,
    Replied,
    Request,
    Role,
    State,
    Ticket,
    Violated,
    pack,
)
from tests.wire.endpoints import ALL, SMALL, all_described, endpoint, open_pair

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST = HEADER_SIZE + SMALL.max_connect_data + MAX_GREETING_OVERHEAD
"""Bytes of the longest frame that an endpoint with these limits may wait for; reasons are shorter."""

likely_numbers = st.one_of(
    st.integers(0, 6), st.sampled_from([MAGIC, VERSION, 64, 65, 1 << 32, (1 << 64) - 1]), st.integers(0, (1 << 64) - 1)
)
likely_kinds = st.one_of(st.integers(0, 11), st.integers(0, (1 << 32) - 1))
frames = st.builds(pack, likely_kinds, likely_numbers, likely_numbers, st.binary(max_size=70))
good_frames = st.builds(
    pack,
    st.sampled_from([FrameType.REQUEST, FrameType.DATAGRAM]),
    st.integers(1, 3),
    st.just(0),
    st.binary(max_size=64),
)
streams = st.one_of(
    st.binary(max_size=200),
    st.lists(st.one_of(frames, good_frames), max_size=8).map(b"".join),
    st.tuples(st.lists(good_frames, max_size=3).map(b"".join), st.binary(max_size=60)).map(b"".join),
)
living = st.sampled_from([State.NEW, State.GREETED, State.OPEN])


def prepared(role: Role, state: State) -> Endpoint[Ticket]:
    """Return an endpoint that has two requests and a datagram in flight when it is open."""
    made = endpoint(role, state)
    if state is State.OPEN:
        made.request(Ticket(), b"", 0.0, None)
        made.request(Ticket(), b"", 0.0, None)
        made.datagram(b"12345")
        made.data_to_send(ALL)
    return made


def feed(receiver: Endpoint[Ticket], data: bytes, cuts: list[int]) -> list[dict[str, object]]:
    """Feed bytes in pieces, and check what must hold at any time."""
    events: list[dict[str, object]] = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for begin, end in pairwise(edges):
        got = receiver.receive_data(data[begin:end])
        assert not any(isinstance(event, Violated | PeerClosed | Refused) for event in got[:-1])
        assert not (events and events[-1]["event"] in ("Violated", "PeerClosed", "Refused") and got)
        events += all_described(got)
        assert len(receiver._rest) < LONGEST  # pyright: ignore[reportPrivateUsage]  # its size is the promise
    return events


@settings(max_examples=300, deadline=None)
@given(streams, st.sampled_from(list(Role)), living, st.lists(st.integers(0, 1000), max_size=12))
def test_any_bytes_however_split(data: bytes, role: Role, state: State, cuts: list[int]) -> None:
    """Splitting changes neither the events nor the state nor what is answered."""
    whole, split = prepared(role, state), prepared(role, state)
    assert feed(whole, data, []) == feed(split, data, cuts)
    assert whole.state is split.state
    assert whole.data_to_send(ALL) == split.data_to_send(ALL)


payloads = st.binary(max_size=70)
kinds = st.sampled_from([bytes, memoryview])
lone = st.one_of(
    st.builds(
        pack,
        st.sampled_from([FrameType.REQUEST, FrameType.REPLY]),
        st.integers(1, 2),
        st.just(0),
        st.binary(max_size=70),
    ),
    frames,
    streams,
)
mostly_open = st.sampled_from([State.OPEN, State.OPEN, State.OPEN, State.GREETED])


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(lone, streams), st.sampled_from(list(Role)), living, st.booleans(), st.sampled_from([bytes, memoryview])
)
def test_the_short_way_is_the_same_way(
    data: bytes, role: Role, state: State, started: bool, kind: Callable[[bytes], bytes | memoryview]
) -> None:
    """What is taken alone changes the endpoint as usual, and what is not taken alone does not change it at all."""
    usual, short = prepared(role, state), prepared(role, state)
    if started:
        for receiver in (usual, short):
            receiver.receive_data(pack(FrameType.DATAGRAM, 1, 0, b"1234")[:-2])
    event = short.receive_single(kind(data))
    events = short.receive_data(kind(data)) if event is None else [event]
    assert all_described(events) == all_described(usual.receive_data(kind(data)))
    assert short.state is usual.state
    assert short.outflow.pending.keys() == usual.outflow.pending.keys()
    assert short.inflow.owed.keys() == usual.inflow.owed.keys()
    for ours, theirs in ((short.outflow, usual.outflow), (short.inflow, usual.inflow)):
        assert (ours.free_messages, ours.free_bytes, ours.next_id) == (
            theirs.free_messages,
            theirs.free_bytes,
            theirs.next_id,
        )


def test_the_short_way_is_taken() -> None:
    """A request and a reply that come alone are taken the short way, and more than one message is not."""
    client, server = open_pair()
    client.request(Ticket(), b"question", 0.0, None)
    question = client.data_to_send(ALL)
    assert server.receive_single(question + question) is None
    assert isinstance(server.receive_single(question), Request)
    server.reply(1, b"answer")
    assert isinstance(client.receive_single(server.data_to_send(ALL)), Replied)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, SMALL.max_connect_data + MAX_GREETING_OVERHEAD), st.integers(1, 500))
def test_a_slow_drip_is_collected_once(size: int, step: int) -> None:
    """A long frame in small pieces is one event, and no more than the frame is ever kept."""
    data = pack(FrameType.HELLO, MAGIC, VERSION, b"\x80" + bytes(max(0, size - 1)))
    receiver = endpoint(Role.SERVER)
    events = feed(receiver, data, list(range(0, len(data), step)))
    assert len(events) == 1
    assert receiver.state in (State.GREETED, State.FAILED)


def test_after_its_own_goodbye_an_endpoint_keeps_nothing() -> None:
    """Bytes of a frame that was under way when this side closed are not collected any further."""
    receiver = endpoint(Role.SERVER, State.OPEN)
    receiver.receive_data(pack(FrameType.REQUEST, 1, 0, bytes(64))[:50])
    receiver.close()
    for _ in range(100):
        assert receiver.receive_data(bytes(50)) == []
        assert len(receiver._rest) < LONGEST  # pyright: ignore[reportPrivateUsage]  # its size is the promise
