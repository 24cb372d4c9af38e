"""Messages: every request ends once, whoever cancels, replies or expires first, and ceilings hold to the byte."""

from __future__ import annotations

import math
import struct
from typing import Any, cast

import pytest

from alpc_async.errors import MessageTooLong, ReplyMismatch
from alpc_async.limits import PortLimits
from alpc_async.wire import (
    HEADER_SIZE,
    MAX_REASON_LENGTH,
    MAX_TIMEOUT_MS,
    CancelRequested,
    Faulted,
    FrameType,
    PeerClosed,
    Replied,
    ReplyLost,
    Request,
    Role,
    State,
    Status,
    Ticket,
    TimedOut,
    Violated,
    pack,
    unpack_header,
)
from tests.wire.endpoints import ALL, SMALL, deliver, endpoint, open_pair


def violation(events: list[object]) -> str:
    """Return the text of the violation that the events must be."""
    (event,) = events
    assert isinstance(event, Violated)
    return str(event.error)


def test_a_request_and_its_reply() -> None:
    """A request arrives with its number, data and time; its reply comes back with its ticket."""
    client, server = open_pair()
    ticket = Ticket()
    client.request(ticket, b"question", 100.0, 2.5)
    assert (ticket.id, ticket.size, ticket.deadline) == (1, 8, 102.5)
    (request,) = deliver(client, server)
    assert isinstance(request, Request)
    assert (request.id, request.data, request.timeout_ms) == (1, b"question", 2501)
    server.reply(1, b"answer")
    assert deliver(server, client) == [Replied(ticket, b"answer")]
    for message_id in (1, 2):
        with pytest.raises(ReplyMismatch):
            server.reply(message_id, b"")
        with pytest.raises(ReplyMismatch):
            server.fault(message_id, 1, "")
    assert server.output_size == 0


def test_a_request_and_its_fault() -> None:
    """A fault carries its status and its reason, cut to the ceiling and readable even then."""
    client, server = open_pair()
    tickets = [Ticket(), Ticket()]
    for ticket in tickets:
        client.request(ticket, b"", 0.0, None)
    deliver(client, server)
    server.fault(1, 1234, "no paper")
    server.fault(2, Status.HANDLER_FAILED, "ä" * MAX_REASON_LENGTH)
    first, second = deliver(server, client)
    assert first == Faulted(tickets[0], 1234, "no paper")
    assert isinstance(second, Faulted)
    assert second.reason == "ä" * (MAX_REASON_LENGTH // 2)


def test_a_status_that_does_not_fit() -> None:
    """A fault that cannot be sent leaves the request waiting for another answer."""
    client, server = open_pair()
    ticket = Ticket()
    client.request(ticket, b"", 0.0, None)
    deliver(client, server)
    with pytest.raises(struct.error):
        server.fault(1, -1, "")
    server.reply(1, b"after all")
    assert deliver(server, client) == [Replied(ticket, b"after all")]


def test_reasons_that_are_no_text() -> None:
    """Lone surrogates are replaced when sent, wrong bytes when received."""
    client, server = open_pair()
    server.close(0, "\ud800!")
    assert deliver(server, client) == [PeerClosed(0, "?!")]
    (event,) = endpoint(Role.CLIENT, State.OPEN).receive_data(pack(FrameType.CLOSE, 0, 7, b"\xff!"))
    assert event == PeerClosed(7, "\ufffd!")


@pytest.mark.parametrize(
    ("timeout", "milliseconds", "deadline"),
    [
        (None, 0, math.inf),
        (math.inf, 0, math.inf),
        (0.0, 1, 10.0),
        (0.0001, 1, 10.0001),
        (1.0, 1001, 11.0),
        (1e9, MAX_TIMEOUT_MS, 10.0 + 1e9),
        (MAX_TIMEOUT_MS / 1000, MAX_TIMEOUT_MS, 10.0 + MAX_TIMEOUT_MS / 1000),
    ],
    ids=str,
)
def test_timeouts_on_the_wire(timeout: float | None, milliseconds: int, deadline: float) -> None:
    """The time that is left travels in milliseconds, rounded up, as far as the field goes; 0 stands for no end."""
    client, server = open_pair()
    ticket = Ticket()
    client.request(ticket, b"", 10.0, timeout)
    (request,) = deliver(client, server)
    assert isinstance(request, Request)
    assert (request.timeout_ms, ticket.deadline) == (milliseconds, deadline)
    assert client.outflow.next_deadline == deadline


@pytest.mark.parametrize("timeout", [-1.0, -math.inf, math.nan, cast("Any", "5")], ids=repr)
def test_timeouts_that_make_no_sense(timeout: float) -> None:
    """A refused timeout uses up no number and no quota."""
    client, server = open_pair()
    with pytest.raises((ValueError, TypeError), match="timeout must be a number of seconds"):
        client.request(Ticket(), bytes(64), 0.0, timeout)
    assert client.output_size == 0
    client.request(Ticket(), b"", 0.0, None)
    assert [getattr(event, "id", 0) for event in deliver(client, server)] == [1]


@pytest.mark.parametrize("extra", [0, 1])
def test_the_longest_message(extra: int) -> None:
    """Messages of exactly the limit pass; one byte more is refused by the sender and by the receiver's parser."""
    client, server = open_pair()
    data = bytes(SMALL.max_message_length + extra)
    if extra:
        for command in (
            lambda: client.request(Ticket(), data, 0.0, None),
            lambda: client.datagram(data),
            lambda: server.reply(1, data),
        ):
            with pytest.raises(MessageTooLong) as caught:
                command()
            assert (caught.value.size, caught.value.limit) == (65, 64)
        for kind in (FrameType.REQUEST, FrameType.REPLY, FrameType.DATAGRAM):
            text = violation([*endpoint(Role.SERVER, State.OPEN).receive_data(pack(kind, 1, 0, data)[:HEADER_SIZE])])
            assert f"{kind.name} announces 65 bytes of 64" in text
    else:
        client.request(Ticket(), data, 0.0, None)
        client.datagram(data)
        assert len(deliver(client, server)) == 2
        server.reply(1, data)
        assert len(deliver(server, client)) == 1


@pytest.mark.parametrize(
    ("kind", "ceiling"),
    [
        (FrameType.FAULT, MAX_REASON_LENGTH),
        (FrameType.CLOSE, MAX_REASON_LENGTH),
        (FrameType.CANCEL, 0),
        (FrameType.CREDIT, 0),
    ],
)
def test_the_ceilings_of_other_frames(kind: FrameType, ceiling: int) -> None:
    """What is announced within the ceiling is waited for, and refused beyond it before a byte of it has come."""
    at_edge = endpoint(Role.SERVER, State.OPEN)
    at_edge.request(Ticket(), b"", 0.0, None)
    at_edge.datagram(b"x")
    at_edge.receive_data(pack(FrameType.REQUEST, 1, 0))
    assert not any(isinstance(event, Violated) for event in at_edge.receive_data(pack(kind, 1, 1, bytes(ceiling))))
    text = violation([*endpoint(Role.SERVER, State.OPEN).receive_data(pack(kind, 1, 0, bytes(ceiling + 1))[:24])])
    assert f"{kind.name} announces {ceiling + 1} bytes of {ceiling}" in text


def test_cancelled_before_the_answer() -> None:
    """The handler's side is told and acknowledges by itself; the owner hears nothing more, the room comes back."""
    client, server = open_pair()
    ticket = Ticket()
    client.request(ticket, bytes(64), 0.0, None)
    (request,) = deliver(client, server)
    assert isinstance(request, Request)
    assert client.cancel(ticket)
    assert not client.cancel(ticket)
    assert deliver(client, server) == [CancelRequested(request)]
    with pytest.raises(ReplyMismatch):
        server.reply(1, b"")
    assert deliver(server, client) == []
    assert all(deliver(client, server) == [] for _ in range(2))
    for _ in range(SMALL.max_outstanding_messages):
        client.request(Ticket(), bytes(50), 0.0, None)


def test_a_reply_that_crosses_its_cancellation() -> None:
    """A late reply is dropped on one side and reported as lost on the other."""
    client, server = open_pair()
    ticket = Ticket()
    client.request(ticket, b"", 0.0, None)
    deliver(client, server)
    server.reply(1, b"too late")
    client.cancel(ticket)
    assert deliver(server, client) == []
    assert deliver(client, server) == [ReplyLost(1)]
    assert server.output_size == 0
    assert not client.cancel(ticket)


def test_cancelling_after_the_end() -> None:
    """Who has said goodbye may still give a request up, but says nothing any more."""
    client, _ = open_pair()
    ticket = Ticket()
    client.request(ticket, b"", 0.0, None)
    client.close()
    client.data_to_send(ALL)
    assert client.cancel(ticket)
    assert client.output_size == 0


@pytest.mark.parametrize("message_id", [0, 2, 1 << 63])
def test_cancelling_what_was_never_sent(message_id: int) -> None:
    """Only messages that came can be cancelled."""
    server = endpoint(Role.SERVER, State.OPEN)
    server.receive_data(pack(FrameType.REQUEST, 1, 0))
    text = violation([*server.receive_data(pack(FrameType.CANCEL, message_id, 0))])
    assert f"only sent requests are cancelled, once (message {message_id})" in text


def test_cancelling_again_and_again() -> None:
    """A request that was answered may be cancelled late as often as messages came, and not once more."""
    server = endpoint(Role.SERVER, State.OPEN)
    for number in (1, 2, 3):
        server.receive_data(pack(FrameType.REQUEST, number, 0))
        server.reply(number, b"")
    for _ in range(4):
        assert [type(event).__name__ for event in server.receive_data(pack(FrameType.CANCEL, 2, 0))] == ["ReplyLost"]
    text = violation([*server.receive_data(pack(FrameType.CANCEL, 2, 0))])
    assert "only sent requests are cancelled, once (message 2)" in text


@pytest.mark.parametrize("kind", [FrameType.REPLY, FrameType.FAULT])
def test_answers_to_nothing(kind: FrameType) -> None:
    """An answer without a request, a second one, and one to a datagram are violations."""
    for message_id in (0, 1, 2, 3):
        client = endpoint(Role.CLIENT, State.OPEN)
        client.request(Ticket(), b"", 0.0, None)
        client.datagram(b"")
        if message_id == 1:
            assert len(client.receive_data(pack(kind, 1, 0))) == 1
        text = violation([*client.receive_data(pack(kind, message_id, 0))])
        assert f"only open requests are answered, once (message {message_id})" in text


@pytest.mark.parametrize("kind", [FrameType.REQUEST, FrameType.DATAGRAM])
@pytest.mark.parametrize("message_id", [0, 1, 3, 1 << 63])
def test_numbers_have_no_gaps(kind: FrameType, message_id: int) -> None:
    """A number that is missing or repeated is a violation."""
    server = endpoint(Role.SERVER, State.OPEN)
    server.receive_data(pack(FrameType.DATAGRAM, 1, 0))
    text = violation([*server.receive_data(pack(kind, message_id, 0))])
    assert f"numbered without gaps (got {message_id}, expected 2)" in text


def test_requests_expire() -> None:
    """At its deadline a request ends here and is cancelled there; the next deadline is known."""
    client, server = open_pair()
    tickets = [Ticket() for _ in range(4)]
    for ticket, timeout in zip(tickets, (3.0, 1.0, None, 2.0), strict=True):
        client.request(ticket, b"", 100.0, timeout)
    assert client.outflow.next_deadline == 101.0
    deliver(client, server)
    assert client.expire(100.999) == []
    assert client.expire(102.0) == [TimedOut(tickets[1]), TimedOut(tickets[3])]
    assert client.outflow.next_deadline == 103.0
    assert [type(event) for event in deliver(client, server)] == [CancelRequested, CancelRequested]
    assert client.expire(102.0) == []
    assert client.expire(103.0) == [TimedOut(tickets[0])]
    assert client.outflow.next_deadline == math.inf


def test_the_link_is_lost() -> None:
    """Both sides get back what was open, oldest first, once."""
    client, server = open_pair()
    tickets = [Ticket() for _ in range(3)]
    for ticket in tickets:
        client.request(ticket, b"", 0.0, 5.0)
    requests = deliver(client, server)
    client.cancel(tickets[1])
    server.reply(3, b"")
    assert client.abort() == ([tickets[0], tickets[2]], [])
    assert server.abort() == ([], requests[:2])
    assert (client.abort(), server.abort()) == (([], []), ([], []))
    assert client.outflow.next_deadline == math.inf
    assert not client.cancel(tickets[0])


def test_whole_frames_are_sent() -> None:
    """Frames are given out whole, as many as fit, and one that alone is longer than the limit as well."""
    client, _ = open_pair(PortLimits())
    for size in (10, 20, 1000, 30):
        client.datagram(bytes(size))
    sizes = [10 + HEADER_SIZE, 20 + HEADER_SIZE, 1000 + HEADER_SIZE, 30 + HEADER_SIZE]
    assert client.output_size == sum(sizes)
    assert len(client.data_to_send(1)) == sizes[0]
    assert client.output_size == sum(sizes[1:])
    assert len(client.data_to_send(sizes[1] + sizes[2] - 1)) == sizes[1]
    assert len(client.data_to_send(sizes[2] + sizes[3])) == sizes[2] + sizes[3]
    assert (client.data_to_send(100), client.output_size) == (b"", 0)


def test_dropped_output() -> None:
    """Nothing of what was queued leaves any more, and a goodbye may follow."""
    client, server = open_pair()
    client.request(Ticket(), b"", 0.0, None)
    client.drop_output()
    assert (client.output_size, client.data_to_send(ALL)) == (0, b"")
    client.close(0, "bye")
    assert deliver(client, server) == [PeerClosed(0, "bye")]


def test_replies_that_did_not_leave() -> None:
    """When the link is gone the replies that cannot have arrived whole are known."""
    client, server = open_pair(PortLimits())
    for _ in range(5):
        client.request(Ticket(), b"", 0.0, None)
    deliver(client, server)
    server.reply(1, b"sent")
    server.fault(2, 1, "sent")
    server.reply(3, b"half")
    server.datagram(b"not a reply")
    run = server.data_to_send(ALL)
    server.reply(5, b"queued")
    server.fault(4, 1, "queued")
    first = HEADER_SIZE + 4
    assert server.lost_replies(run, len(run)) == [5]
    assert server.lost_replies(run, first) == [3, 5]
    assert server.lost_replies(run, first - 1) == [1, 3, 5]
    assert server.lost_replies(b"", 0) == [5]


def test_a_violation_is_answered_and_ends_everything() -> None:
    """The other side is told what it did wrong, with the rule, and nothing that it sends counts any more."""
    client, server = open_pair()
    server.receive_data(pack(FrameType.REQUEST, 9, 0))
    assert server.state is State.FAILED
    data = server.data_to_send(ALL)
    assert unpack_header(data)[1:] == (FrameType.CLOSE, 0, Status.VIOLATION)
    (event,) = client.receive_data(data)
    assert isinstance(event, PeerClosed)
    assert "numbered without gaps" in event.reason
    assert server.receive_data(pack(FrameType.REQUEST, 1, 0)) == []
    server.close()
    assert server.output_size == 0


def test_what_came_before_a_violation_counts() -> None:
    """What came before a violation in the same bytes is reported before it."""
    server = endpoint(Role.SERVER, State.OPEN)
    events = server.receive_data(pack(FrameType.DATAGRAM, 1, 0, b"fine") + pack(FrameType.DATAGRAM, 1, 0, b"again"))
    assert [type(event).__name__ for event in events] == ["Datagram", "Violated"]
