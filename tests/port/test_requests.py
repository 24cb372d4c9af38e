"""Requests: the reply, who owns what, time, withdrawing, and answering exactly once."""

from __future__ import annotations

import array
import math
from typing import Any, cast

import anyio
import pytest

import alpc_async as alpc
from alpc_async import CancelOutcome, MessageType, Status
from tests.port.support import NAME, WAIT, connected, echo_server, serve, until


async def test_a_request_returns_the_reply_to_it() -> None:
    """The reply has the answer's payload and the request's id."""
    async with alpc.port_pair() as (left, right):
        pending = left.start_request(b"question")
        message = await right.receive()
        assert (message.type, message.data) == (MessageType.REQUEST, b"question")
        message.reply(b"answer")
        reply = await pending
        assert (reply.type, reply.data, reply.id) == (MessageType.REPLY, b"answer", message.id)
        assert (reply.transfer, reply.port) == (alpc.Transfer.INLINE, left)


async def test_replies_go_to_the_request_that_they_answer() -> None:
    """Many requests at once each get their own reply, in whatever order they are answered."""
    async with alpc.port_pair() as (left, right):
        replies: dict[int, bytes] = {}

        async def ask(number: int) -> None:
            replies[number] = (await left.request(b"%d" % number)).data

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(ask, number)
            messages: list[alpc.Message] = []
            while len(messages) < 20:
                messages += await right.receive_batch()
            for message in reversed(messages):
                message.reply(b"re " + message.data)
        assert replies == {number: b"re %d" % number for number in range(20)}


async def test_a_server_asks_its_client() -> None:
    """Requests go in both directions of one connection at the same time."""
    async with connected() as (server, client), anyio.create_task_group() as tasks:
        pending = client.start_request(b"please")
        message = await server.receive()
        tasks.start_soon(serve, client)
        assert (await message.port.request(b"who are you")).data == b"who are you"
        message.reply(b"done")
        assert (await pending).data == b"done"
        await client.aclose()


async def test_the_context_of_a_request_comes_back_with_its_reply() -> None:
    """What was given as context is the reply's context, as the same object; it does not travel."""
    cookie = object()
    async with alpc.port_pair() as (left, right), anyio.create_task_group() as tasks:
        tasks.start_soon(serve, right)
        assert (await left.request(b"", context=cookie)).context is cookie
        assert (await left.start_request(b"", context=cookie)).context is cookie
        await right.aclose()


async def test_a_message_has_the_context_of_its_port_unless_it_was_given_its_own() -> None:
    """The port's context is the default of every message that comes through it."""
    async with alpc.port_pair() as (left, right):
        left.context, right.context = "left", "right"
        pending = left.start_request(b"")
        message = await right.receive()
        assert message.context == "right"
        message.context = "own"
        assert (message.context, right.context) == ("own", "right")
        message.reply()
        assert (await pending).context == "left"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bytearray(b"abcd"), id="bytearray"),
        pytest.param(memoryview(b"abcd"), id="memoryview"),
        pytest.param(memoryview(b"aXbXcXdX")[::2], id="strided"),
        pytest.param(array.array("H", b"abcd"), id="array"),
    ],
)
async def test_any_buffer_is_a_payload(data: bytearray) -> None:
    """Requests, datagrams and replies take every contiguous or strided buffer, and the receiver gets bytes."""
    async with alpc.port_pair() as (left, right):
        pending = left.start_request(data)
        await left.post(data)
        asked, told = await right.receive(), await right.receive()
        assert (asked.data, told.data) == (b"abcd", b"abcd")
        asked.reply(data)
        reply = await pending
        assert reply.data == b"abcd"
        assert type(asked.data) is type(reply.data) is bytes


async def test_a_payload_is_copied() -> None:
    """A buffer may be changed as soon as the call returned; what was sent stays as it was."""
    async with alpc.port_pair() as (left, right):
        data = bytearray(b"as it was")
        pending = left.start_request(data)
        await left.post(data)
        data[:] = b"changed since"
        asked, told = await right.receive(), await right.receive()
        assert (asked.data, told.data) == (b"as it was", b"as it was")
        data[:] = b"reply"
        asked.reply(data)
        data.clear()
        assert (await pending).data == b"reply"


async def test_text_is_not_a_payload() -> None:
    """Text is a TypeError wherever a payload is given, and nothing of it is sent."""
    text = cast("Any", "text")
    async with alpc.port_pair() as (left, right):
        for call in (left.request, left.post):
            with pytest.raises(TypeError, match="encode"):
                await call(text)
        with pytest.raises(TypeError, match="encode"):
            left.start_request(text)
        with pytest.raises(TypeError, match="encode"):
            alpc.connect(NAME, data=text)
        pending = left.start_request(b"first")
        message = await right.receive()
        assert message.sequence == 1
        with pytest.raises(TypeError, match="encode"):
            message.reply(text)
        message.reply(b"still possible")
        assert (await pending).data == b"still possible"


async def test_a_fault_carries_status_and_reason() -> None:
    """The caller sees what the receiver failed the request with."""
    async with alpc.port_pair() as (left, right):
        pending = left.start_request(b"")
        message = await right.receive()
        message.fail(1042, "no paper")
        with pytest.raises(alpc.RemoteFault) as caught:
            await pending
        assert (caught.value.status, caught.value.reason, caught.value.message_id) == (1042, "no paper", message.id)


async def test_a_long_reason_is_cut() -> None:
    """A reason is cut to 4 KiB instead of breaking the connection."""
    async with alpc.port_pair() as (left, right):
        pending = left.start_request(b"")
        (await right.receive()).fail(Status.HANDLER_FAILED, "x" * 10_000)
        with pytest.raises(alpc.RemoteFault) as caught:
            await pending
        assert caught.value.reason == "x" * 4096
        assert left.connected


async def test_a_request_is_answered_once() -> None:
    """Whatever follows the first answer is a ReplyMismatch, and the caller has the first."""
    async with alpc.port_pair() as (left, right):
        pending = left.start_request(b"")
        message = await right.receive()
        message.reply(b"first")
        with pytest.raises(alpc.ReplyMismatch) as caught:
            message.reply(b"second")
        assert caught.value.message_id == message.id
        with pytest.raises(alpc.ReplyMismatch):
            message.fail(1000, "third")
        message.release()
        assert (await pending).data == b"first"


async def test_what_is_not_a_request_cannot_be_answered() -> None:
    """Datagrams, replies and notices take no reply, and are neither accepted nor refused."""
    async with alpc.port_pair() as (left, right):
        await left.post(b"told")
        datagram = await right.receive()
        pending = left.start_request(b"")
        request = await right.receive()
        request.reply()
        reply = await pending
        await left.aclose()
        notice = await right.receive()
        assert notice.type is MessageType.PORT_CLOSED
        for message in (datagram, reply, notice):
            with pytest.raises(alpc.ReplyMismatch, match=message.type.name):
                message.reply()
            with pytest.raises(alpc.ReplyMismatch, match=message.type.name):
                message.fail(1000, "")
        for message in (datagram, request):
            with pytest.raises(alpc.ReplyMismatch):
                message.accept()
            with pytest.raises(alpc.ReplyMismatch):
                message.refuse()


async def test_a_reply_that_is_too_long_can_be_given_again() -> None:
    """A reply over the limit is refused with all the facts, and the request still waits for its answer."""
    limits = alpc.PortLimits(max_view_size=0, max_message_length=100, max_connect_data=10)
    async with alpc.port_pair(limits=limits) as (left, right):
        pending = left.start_request(b"")
        message = await right.receive()
        with pytest.raises(alpc.MessageTooLong) as caught:
            message.reply(bytes(101))
        assert (caught.value.size, caught.value.limit, caught.value.setting) == (101, 100, "max_message_length")
        message.reply(bytes(100))
        assert (await pending).data == bytes(100)


async def test_data_that_is_too_long_for_a_view_makes_one_error() -> None:
    """The error names the bound that counts, and does not drag the one along that views exist to overcome."""
    limits = alpc.PortLimits(max_view_size=100_000)
    async with alpc.port_pair(limits=limits) as (left, _):
        for send, data in (
            (left.request, bytes(100_001)),
            (left.post, bytes(100_001)),
            (left.post_batch, [bytes(100_001)]),
        ):
            with pytest.raises(alpc.MessageTooLong) as caught:
                await cast("Any", send)(data)
            assert (caught.value.setting, caught.value.__cause__) == ("max_view_size", None)
            assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "batch", [b"one", bytearray(b"one"), memoryview(b""), "one"], ids=lambda value: type(value).__name__
)
async def test_a_batch_is_a_list(batch: Any) -> None:
    """One message where a list of them belongs is told apart from what it holds."""
    async with alpc.port_pair() as (left, _):
        with pytest.raises(TypeError, match=f"takes a list of messages, not {type(batch).__name__}; use post"):
            await left.post_batch(batch)


async def test_a_released_request_fails() -> None:
    """Leaving the block of a message without an answer tells the caller so; with an answer it changes nothing."""
    async with alpc.port_pair() as (left, right):
        abandoned, answered = left.start_request(b"1"), left.start_request(b"2")
        with await right.receive():
            pass
        with await right.receive() as message:
            message.reply(b"kept")
        with pytest.raises(alpc.RemoteFault) as caught:
            await abandoned
        assert caught.value.status == Status.ABANDONED
        assert f"with status ABANDONED ({int(Status.ABANDONED)}): " in str(caught.value)
        assert (await answered).data == b"kept"


# -- time --------------------------------------------------------------------------------------------------------------


async def test_a_request_without_a_reply_in_time_ends() -> None:
    """The caller gets DeadlineExceeded with its timeout, and the other side is told."""
    async with alpc.port_pair() as (left, right):
        with pytest.raises(alpc.DeadlineExceeded) as caught:
            await left.request(b"slow", timeout=0.03)
        assert caught.value.timeout == 0.03
        assert left.statistics().expired == 1
        await left.post(b"mark")
        # The request was never taken, so the receiver does not see it at all.
        assert (await right.receive()).data == b"mark"
        assert (left.statistics().pending, right.statistics().owed) == (0, 0)


async def test_started_requests_end_in_the_order_of_their_deadlines() -> None:
    """Each of several requests keeps its own deadline, also when the later one was sent first."""
    async with alpc.port_pair() as (left, right), anyio.create_task_group() as tasks:
        ended: list[str] = []

        async def wait(name: str, pending: alpc.PendingRequest) -> None:
            with pytest.raises(alpc.DeadlineExceeded):
                await pending
            ended.append(name)

        tasks.start_soon(wait, "late", left.start_request(b"", timeout=0.1))
        tasks.start_soon(wait, "early", left.start_request(b"", timeout=0.02))
        tasks.start_soon(wait, "middle", left.start_request(b"", timeout=0.06))
        await until(lambda: len(ended) == 3)
        assert ended == ["early", "middle", "late"]
        await until(lambda: right.statistics().owed == 0)


async def test_the_default_timeout_comes_from_the_limits() -> None:
    """A request without a timeout of its own gets that of PortLimits."""
    async with alpc.port_pair(limits=alpc.PortLimits(request_timeout=0.02)) as (left, _):
        for pending in (left.request(b""), left.start_request(b"")):
            with pytest.raises(alpc.DeadlineExceeded) as caught:
                await pending
            assert caught.value.timeout == 0.02


async def test_the_receiver_knows_the_deadline() -> None:
    """A message shows when its sender stops waiting, on this side's clock; infinity when never."""
    async with alpc.port_pair() as (left, right):
        before = anyio.current_time()
        left.start_request(b"", timeout=100.0)
        left.start_request(b"", timeout=None)
        await left.post(b"")
        timed, endless, datagram = [await right.receive() for _ in range(3)]
        assert before + 99.0 < timed.deadline < anyio.current_time() + 101.0
        assert (endless.deadline, datagram.deadline) == (math.inf, math.inf)


@pytest.mark.parametrize("timeout", [math.inf, 1e12, -1.0, math.nan, 0.0])
async def test_no_timeout_breaks_the_connection(timeout: float) -> None:
    """However odd a timeout is, the call ends in an error of its own or a reply, and the connection goes on."""
    async with alpc.port_pair() as (left, right), anyio.create_task_group() as tasks:
        tasks.start_soon(serve, right)
        for call in (left.request, left.post):
            try:
                with anyio.fail_after(WAIT):
                    await call(b"odd", timeout=timeout)
            except (ValueError, alpc.DeadlineExceeded):
                pass
        assert (await left.request(b"sound")).data == b"sound"
        assert left.statistics().pending == 0
        await right.aclose()


async def test_an_endless_timeout_is_no_timeout() -> None:
    """Infinity means the same as None."""
    async with echo_server() as server, alpc.connect(NAME) as client:
        assert (await client.request(b"x", timeout=math.inf)).data == b"x"
        await client.aclose()
        await server.aclose()


# -- withdrawing -------------------------------------------------------------------------------------------------------


async def test_a_withdrawn_request_ends_at_once() -> None:
    """Cancelling says CANCELLED the first time and TOO_LATE from then on; awaiting raises RequestCancelled."""
    async with alpc.port_pair() as (left, _):
        pending = left.start_request(b"")
        states = [pending.done]
        assert pending.cancel() is CancelOutcome.CANCELLED
        states.append(pending.done)
        assert states == [False, True]
        assert pending.cancel() is CancelOutcome.TOO_LATE
        for _again in range(2):
            with pytest.raises(alpc.RequestCancelled) as caught:
                await pending
            assert caught.value.message_id == pending.id
        assert left.statistics().cancelled == 1


async def test_withdrawing_wakes_whoever_awaits() -> None:
    """A task that awaits the request gets RequestCancelled when another task withdraws it."""
    async with alpc.port_pair() as (left, _), anyio.create_task_group() as tasks:
        pending = left.start_request(b"")
        ended = anyio.Event()

        async def wait() -> None:
            with pytest.raises(alpc.RequestCancelled):
                await pending
            ended.set()

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        pending.cancel()
        with anyio.fail_after(WAIT):
            await ended.wait()


async def test_withdrawing_after_the_reply_is_too_late() -> None:
    """A request that has its reply keeps it."""
    async with alpc.port_pair() as (left, right):
        pending = left.start_request(b"")
        (await right.receive()).reply(b"kept")
        await until(lambda: pending.done)
        assert pending.cancel() is CancelOutcome.TOO_LATE
        assert (await pending).data == b"kept"
        assert (await pending).data == b"kept"


async def test_an_untaken_request_that_is_withdrawn_is_never_seen() -> None:
    """The receiver gets what was sent around it, and neither the request nor a notice of it."""
    async with alpc.port_pair() as (left, right):
        await left.post(b"before")
        pending = left.start_request(b"withdrawn")
        await left.post(b"after")
        await until(lambda: right.statistics().queued == 3)
        pending.cancel()
        await left.post(b"last")
        await until(lambda: right.statistics().messages_received == 5)
        assert [message.data for message in await right.receive_batch()] == [b"before", b"after", b"last"]
        assert right.statistics().owed == 0


async def test_a_taken_request_that_is_withdrawn_is_reported() -> None:
    """The message is marked, a CANCELED notice with its id comes, and a late reply is dropped and counted."""
    async with alpc.port_pair() as (left, right):
        pending = left.start_request(b"taken")
        message = await right.receive()
        marks = [message.cancelled]
        pending.cancel()
        notice = await right.receive()
        assert (notice.type, notice.id, notice.data) == (MessageType.CANCELED, message.id, b"")
        marks.append(message.cancelled)
        assert marks == [False, True]
        message.reply(b"late")
        assert right.statistics().dropped_replies == 1
        with pytest.raises(alpc.ReplyMismatch):
            message.reply(b"later")
        assert (left.statistics().pending, right.statistics().owed) == (0, 0)
        # The place in the quota comes back: the connection goes on.
        again = left.start_request(b"again")
        (await right.receive()).reply(b"fine")
        assert (await again).data == b"fine"


async def test_a_reply_that_crosses_the_withdrawal_is_reported_as_lost() -> None:
    """When the reply is under way while the request is withdrawn, its sender gets LOST_REPLY with the id."""
    async with alpc.port_pair() as (left, right):
        pending = left.start_request(b"")
        message = await right.receive()
        # Both happen before either side's loop turns, so the frames cross.
        message.reply(b"nobody will see this")
        pending.cancel()
        notice = await right.receive()
        assert (notice.type, notice.id) == (MessageType.LOST_REPLY, message.id)
        with pytest.raises(alpc.RequestCancelled):
            await pending
        await left.post(b"on")
        assert (await right.receive()).data == b"on"


async def test_cancelling_the_wait_leaves_a_started_request_running() -> None:
    """A request whose awaiting task was cancelled can be awaited again."""
    async with alpc.port_pair() as (left, right):
        pending = left.start_request(b"")
        with anyio.move_on_after(0.01):
            await pending
        assert not pending.done
        (await right.receive()).reply(b"kept")
        assert (await pending).data == b"kept"


async def test_a_started_request_is_awaited_by_one_task() -> None:
    """A second task that awaits the same request gets BusyResourceError and the first gets the reply."""
    async with alpc.port_pair() as (left, right), anyio.create_task_group() as tasks:
        pending = left.start_request(b"")
        got: list[bytes] = []

        async def wait() -> None:
            got.append((await pending).data)

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await pending
        (await right.receive()).reply(b"one")
        await until(lambda: got)
        assert got == [b"one"]


async def test_cancelling_a_request_cancels_it_on_the_other_side() -> None:
    """A cancelled call withdraws its request and leaves nothing behind on either side."""
    async with alpc.port_pair() as (left, right), anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def ask() -> None:
            with scope:
                await left.request(b"")

        tasks.start_soon(ask)
        message = await right.receive()
        scope.cancel()
        assert (await right.receive()).type is MessageType.CANCELED
        assert message.cancelled
        assert (left.statistics().pending, left.statistics().cancelled, right.statistics().owed) == (0, 1, 0)


async def test_replies_of_one_turn_leave_in_one_flush() -> None:
    """A batch of replies costs one send call."""
    async with alpc.port_pair() as (left, right):
        pending = [left.start_request(b"%d" % number) for number in range(20)]
        await until(lambda: right.statistics().queued == 20)
        batch = await right.receive_batch()
        before = right.statistics().sends
        for message in batch:
            message.reply(message.data)
        for number, request in enumerate(pending):
            assert (await request).data == b"%d" % number
        assert right.statistics().sends == before + 1
        assert left.statistics().sends == 1
