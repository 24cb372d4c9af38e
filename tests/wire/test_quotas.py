"""Quotas: both sides count the same, nobody can go over, and whoever waits gets room again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpc_async.errors import QuotaExceeded
from alpc_async.limits import PortLimits
from alpc_async.wire import Datagram, FrameType, Request, Role, State, Ticket, Violated, pack
from tests.wire.endpoints import ALL, deliver, endpoint, open_pair


def test_the_quota_of_messages() -> None:
    """As many messages as agreed may be in flight, of either kind, and one more after one has ended."""
    client, server = open_pair()
    client.request(Ticket(), b"", 0.0, None)
    for _ in range(3):
        client.datagram(b"")
    assert not client.outflow.has_room(0)
    for command in (lambda: client.datagram(b""), lambda: client.request(Ticket(), b"", 0.0, None)):
        with pytest.raises(QuotaExceeded) as caught:
            command()
        assert (caught.value.setting, caught.value.limit) == ("max_outstanding_messages", 4)
    deliver(client, server)
    server.reply(1, b"")
    deliver(server, client)
    assert client.outflow.has_room(0)
    client.datagram(b"")


def test_the_quota_of_bytes() -> None:
    """As many bytes as agreed may be in flight, to the byte."""
    client, server = open_pair()
    for size in (64, 64, 64):
        client.request(Ticket(), bytes(size), 0.0, None)
    assert client.outflow.has_room(8)
    assert not client.outflow.has_room(9)
    with pytest.raises(QuotaExceeded) as caught:
        client.datagram(bytes(9))
    assert (caught.value.setting, caught.value.limit) == ("max_pool_usage", 200)
    client.datagram(bytes(8))
    assert len(deliver(client, server)) == 4


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ((0, 0, 0, 0, 0), "0 bytes, with room for 0 messages and 200 bytes"),
        ((64, 64, 64, 9), "9 bytes, with room for 1 messages and 8 bytes"),
    ],
)
def test_a_peer_that_goes_over(sizes: tuple[int, ...], text: str) -> None:
    """What is over the quota is a violation; everything up to it is taken."""
    server = endpoint(Role.SERVER, State.OPEN)
    *fine, last = server.receive_data(
        b"".join(pack(FrameType.DATAGRAM, number, 0, bytes(size)) for number, size in enumerate(sizes, 1))
    )
    assert [type(event) for event in fine] == [Datagram] * (len(sizes) - 1)
    assert isinstance(last, Violated)
    assert last.error.detail == text


def test_giving_up_is_no_way_around() -> None:
    """A cancelled request keeps its room until the other side has let it go."""
    client, server = open_pair()
    tickets = [Ticket() for _ in range(4)]
    for ticket in tickets:
        client.request(ticket, b"", 0.0, None)
    deliver(client, server)
    for ticket in tickets:
        client.cancel(ticket)
    assert not client.outflow.has_room(0)
    deliver(client, server)
    assert not client.outflow.has_room(0)
    deliver(server, client)
    for _ in range(4):
        client.request(Ticket(), b"", 0.0, None)


@pytest.mark.parametrize(("messages", "size"), [(2, 0), (0, 6), (2, 6), (1 << 63, 0), (0, 1 << 63)])
def test_too_much_credit(messages: int, size: int) -> None:
    """More cannot be given back than was used for datagrams; requests do not count."""
    client = endpoint(Role.CLIENT, State.OPEN)
    client.request(Ticket(), bytes(50), 0.0, None)
    client.datagram(b"12345")
    (event,) = client.receive_data(pack(FrameType.CREDIT, size, messages))
    assert isinstance(event, Violated)
    assert event.error.detail == f"{messages} messages of {size} bytes"


def test_credit_is_collected() -> None:
    """Credit is given back in one frame when half of the messages, or of the bytes, were taken."""
    client, server = open_pair()
    for _ in range(2):
        client.datagram(b"")
    deliver(client, server)
    server.taken(1, 0)
    assert server.output_size == 0
    server.taken(1, 0)
    assert server.data_to_send(ALL) == pack(FrameType.CREDIT, 0, 2)
    server.taken(0, 0)
    assert server.output_size == 0


def test_credit_after_the_end() -> None:
    """Nothing is given back over a connection that has ended."""
    client, server = open_pair()
    for _ in range(4):
        client.datagram(b"")
    deliver(client, server)
    server.close()
    server.data_to_send(ALL)
    server.taken(4, 0)
    assert server.output_size == 0


@st.composite
def narrow_limits(draw: st.DrawFn) -> PortLimits:
    """Limits so narrow that everything is at an edge."""
    length = draw(st.integers(1, 20))
    return PortLimits(
        max_message_length=length,
        max_connect_data=1,
        max_pool_usage=draw(st.integers(length, 3 * length)),
        max_outstanding_messages=draw(st.integers(1, 5)),
    )


@given(narrow_limits(), st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=60))
def test_after_everything_was_taken_there_is_room(limits: PortLimits, messages: list[tuple[int, bool]]) -> None:
    """Once all was taken and answered one longest message can be sent, whatever came before."""
    client, server = open_pair(limits)
    for size, wants_answer in messages:
        data = bytes(min(size, limits.max_message_length))
        if wants_answer:
            client.request(Ticket(), data, 0.0, None)
        else:
            client.datagram(data)
        for event in deliver(client, server):
            if isinstance(event, Datagram):
                server.taken(1, len(event.data))
            else:
                assert isinstance(event, Request)
                server.reply(event.id, b"")
        deliver(server, client)
        assert client.outflow.has_room(limits.max_message_length)
