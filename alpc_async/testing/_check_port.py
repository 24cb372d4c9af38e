"""What every pair of connected ports must do, as checks that anybody can run over links of his own.

Belongs here: the contract between the two ends of a connection, one function per clause. Never here: names, security,
completion ports, or how the ends came about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from ..errors import (
    AlpcError,
    DeadlineExceeded,
    Disconnected,
    MessageTooLong,
    PortClosed,
    QuotaExceeded,
    RemoteFault,
    ReplyMismatch,
    RequestCancelled,
)
from ..port import CancelOutcome, MessageType
from ..wire import APPLICATION_STATUS, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..port import CommunicationPort, Message, PortPair

__all__ = ["check_port"]

ErrorT = TypeVar("ErrorT", bound=AlpcError)


async def check_port(make: Callable[[], PortPair]) -> None:
    """Check that two connected ports keep the contract that programs rely on.

    Cancelling stops the check and closes the ports.

    Args:
        make: makes two connected ports.

    Raises:
        AssertionError: they do not; the text is the clause that is broken.
    """
    for check in CHECKS:
        for reverse in (False, True):
            async with make() as (left, right):
                await (check(right, left) if reverse else check(left, right))


def _claim(condition: bool, clause: str) -> None:
    if not condition:
        raise AssertionError(clause)


async def _failure(kind: type[ErrorT], awaitable: Awaitable[object], clause: str) -> ErrorT:
    try:
        await awaitable
    except kind as error:
        return error
    raise AssertionError(clause)


def _refusal(kind: type[ErrorT], call: Callable[[], object], clause: str) -> ErrorT:
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(clause)


async def _still_works(near: CommunicationPort, far: CommunicationPort) -> None:
    pending = near.start_request(b"still there?")
    message = await far.receive()
    _claim(message.data == b"still there?", "the connection works after an error of a single message")
    message.reply(b"yes")
    _claim((await pending).data == b"yes", "the connection works after an error of a single message")


async def _requests_are_answered(near: CommunicationPort, far: CommunicationPort) -> None:
    pending = near.start_request(b"ping", context="cookie")
    _claim(not pending.done, "a request is not done before its reply")
    message = await far.receive()
    _claim(message.type is MessageType.REQUEST, "a request arrives as a request")
    _claim(message.data == b"ping", "the data of a request arrives unchanged")
    _claim(message.context is None, "the context of a request does not travel")
    message.reply(b"pong")
    _refusal(ReplyMismatch, lambda: message.reply(b"again"), "a request is answered once")
    _refusal(ReplyMismatch, lambda: message.fail(APPLICATION_STATUS, "again"), "a request is answered once")
    reply = await pending
    _claim(reply.type is MessageType.REPLY, "a reply arrives as a reply")
    _claim(reply.data == b"pong", "the data of a reply arrives unchanged")
    _claim(reply.id == message.id, "a reply has the number of its request")
    _claim(reply.context == "cookie", "a reply shows the context of its request")
    _refusal(ReplyMismatch, lambda: reply.reply(b""), "only requests are answered")


async def _replies_find_their_requests(near: CommunicationPort, far: CommunicationPort) -> None:
    count = min(50, near.limits.max_outstanding_messages)
    pending = [near.start_request(b"%d" % number) for number in range(count)]
    messages: list[Message] = []
    while len(messages) < len(pending):
        messages += await far.receive_batch()
    for message in reversed(messages):
        message.reply(b"re " + message.data)
    replies = [(await request).data for request in pending]
    _claim(replies == [b"re %d" % number for number in range(count)], "replies find their requests in any order")


async def _datagrams_arrive_in_order(near: CommunicationPort, far: CommunicationPort) -> None:
    sent = [bytes([number]) * (number * 37) for number in range(min(100, near.limits.max_outstanding_messages))]
    await near.post_batch(sent)
    received: list[Message] = []
    while len(received) < len(sent):
        received += await far.receive_batch()
    _claim([message.data for message in received] == sent, "datagrams arrive whole, in order, and once")
    _claim({message.type for message in received} == {MessageType.DATAGRAM}, "a datagram arrives as a datagram")
    sequences = [message.sequence for message in received]
    _claim(sequences == list(range(1, len(sent) + 1)), "messages are numbered from 1 without gaps")
    _refusal(ReplyMismatch, lambda: received[0].reply(b""), "only requests are answered")


async def _faults_reach_the_caller(near: CommunicationPort, far: CommunicationPort) -> None:
    pending = near.start_request(b"")
    (await far.receive()).fail(APPLICATION_STATUS + 1, "no paper")
    error = await _failure(RemoteFault, pending, "a request that fails there raises RemoteFault here")
    _claim(error.status == APPLICATION_STATUS + 1, "the status of a fault arrives")
    _claim(error.reason == "no paper", "the reason of a fault arrives")
    pending = near.start_request(b"")
    with await far.receive():
        pass
    error = await _failure(RemoteFault, pending, "a released request raises RemoteFault at its caller")
    _claim(error.status == Status.ABANDONED, "a request that is released without an answer is abandoned")


async def _requests_can_be_withdrawn(near: CommunicationPort, far: CommunicationPort) -> None:
    pending = near.start_request(b"")
    message = await far.receive()
    _claim(pending.cancel() is CancelOutcome.CANCELLED, "a request that waits can be withdrawn")
    _claim(pending.cancel() is CancelOutcome.TOO_LATE, "a request is withdrawn once")
    await _failure(RequestCancelled, pending, "a withdrawn request raises RequestCancelled")
    notice = await far.receive()
    _claim(notice.type is MessageType.CANCELED, "the receiver hears that a request was withdrawn")
    _claim(notice.id == message.id, "the notice names the request")
    _claim(message.cancelled, "a withdrawn request is marked")
    message.reply(b"too late")
    await _still_works(near, far)


async def _deadlines_are_kept(near: CommunicationPort, far: CommunicationPort) -> None:
    await _failure(DeadlineExceeded, near.request(b"", timeout=0.02), "a request without a reply ends at its deadline")
    with anyio.move_on_after(0.02):
        # Whether the request was seen before it was withdrawn is chance; it must be gone in either case.
        while True:
            await far.receive()
    _claim(not near.statistics().pending, "a request that has ended is not pending")
    _claim(not far.statistics().owed, "a request that has ended is not owed an answer")
    await _still_works(near, far)


async def _long_messages_are_refused(near: CommunicationPort, far: CommunicationPort) -> None:
    limit = near.limits.max_message_length
    # Never touched, so it takes no memory.
    long = bytes(max(limit, near.limits.max_view_size) + 1)
    clause = "a message over the limit is refused"
    _refusal(MessageTooLong, lambda: near.start_request(long), clause)
    await _failure(MessageTooLong, near.request(long), clause)
    await _failure(MessageTooLong, near.post(long), clause)
    pending = near.start_request(bytes(limit))
    message = await far.receive()
    _claim(len(message.data) == limit, "a message of exactly the limit arrives")
    _refusal(MessageTooLong, lambda: message.reply(long), "a reply over the limit is refused")
    message.reply(bytes(limit))
    _claim(len((await pending).data) == limit, "a reply may follow one that was too long")


async def _quotas_are_kept(near: CommunicationPort, far: CommunicationPort) -> None:
    quota = near.limits.max_outstanding_messages
    pending = [near.start_request(b"") for _ in range(quota)]
    error = _refusal(QuotaExceeded, lambda: near.start_request(b""), "a request over the quota is refused")
    _claim(error.limit == quota, "the refusal names the quota")
    answered = 0
    while answered < quota:
        for message in await far.receive_batch():
            message.reply(b"")
            answered += 1
    for request in pending:
        await request
    await _still_works(near, far)


async def _senders_wait_for_room(near: CommunicationPort, far: CommunicationPort) -> None:
    limits = near.limits
    size = limits.max_message_length
    count = 2 * max(1, limits.max_pool_usage // size) + 1
    received = 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(near.post_batch, [bytes(size)] * count)
        while received < count:
            received += len(await far.receive_batch())
    _claim(received == count, "more than the quota arrives when the sender waits for room")
    await _still_works(near, far)


async def _an_end_is_told_to_everybody(near: CommunicationPort, far: CommunicationPort) -> None:
    pending = near.start_request(b"unanswered")
    message = await far.receive()
    await far.aclose()
    await far.aclose()
    await _failure(Disconnected, pending, "a request that cannot be answered any more raises Disconnected")
    notice = await near.receive()
    _claim(notice.type is MessageType.PORT_CLOSED, "the last message says that the other side closed")
    await _failure(Disconnected, near.receive(), "receiving after the last message raises Disconnected")
    await _failure(Disconnected, near.request(b""), "sending to a closed side raises Disconnected")
    _claim(not near.connected, "a connection that ended is not connected")
    await _failure(PortClosed, far.receive(), "receiving from a port that was closed here raises PortClosed")
    await _failure(PortClosed, far.request(b""), "sending from a port that was closed here raises PortClosed")
    _claim(message.cancelled, "a request whose connection ended is marked")


async def _what_was_sent_before_closing_arrives(near: CommunicationPort, far: CommunicationPort) -> None:
    await near.post_batch([b"one", b"two"])
    await near.aclose()
    received = [await far.receive(), await far.receive(), await far.receive()]
    _claim([message.data for message in received[:2]] == [b"one", b"two"], "what was sent before closing arrives")
    _claim(received[2].type is MessageType.PORT_CLOSED, "the end comes after everything else")


CHECKS: Final = (
    _requests_are_answered,
    _replies_find_their_requests,
    _datagrams_arrive_in_order,
    _faults_reach_the_caller,
    _requests_can_be_withdrawn,
    _deadlines_are_kept,
    _long_messages_are_refused,
    _quotas_are_kept,
    _senders_wait_for_room,
    _an_end_is_told_to_everybody,
    _what_was_sent_before_closing_arrives,
)
