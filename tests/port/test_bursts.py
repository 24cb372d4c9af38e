"""Many messages in one turn, long ones, and several that wait for them: numbers, order and contents."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest

import alpc_async as alpc
from alpc_async.port import arrived
from tests.port.support import WAIT, until

INLINE = alpc.PortLimits(max_view_size=0)
COPIED = 16 * 1024
"""Bytes of one receive from which on payloads are taken out of the receive buffer itself."""


@pytest.mark.parametrize(
    ("count", "size", "sends"),
    [(31, 10, 1), (32, 10, 1), (33, 10, 2), (100, 10, 4), (18, 10_000, 1), (21, 10_000, 2), (2, 60_000, 1)],
)
async def test_bursts_of_requests(count: int, size: int, sends: int) -> None:
    """What is asked in one turn leaves 32 messages or 192 KiB at a time and the rest with its end, all in order."""
    async with alpc.port_pair(limits=INLINE) as (left, right):
        await alpc_turn()
        before = left.statistics().sends
        pending = [left.start_request(b"%5d" % number + bytes(size - 5)) for number in range(count)]
        got: list[int] = []
        with anyio.fail_after(WAIT):
            while len(got) < count:
                got += [int(message.data[:5]) for message in await right.receive_batch()]
        assert got == list(range(count))
        assert left.statistics().sends - before == sends
        for request in pending:
            request.cancel()


async def alpc_turn() -> None:
    """Let the loop turn until nothing of the opening is under way."""
    for _ in range(4):
        await anyio.lowlevel.checkpoint()


async def test_bursts_of_replies() -> None:
    """Replies of one turn leave in bursts likewise, and each reaches its request."""
    async with alpc.port_pair(limits=INLINE) as (left, right):
        pending = [left.start_request(b"%d" % number) for number in range(100)]
        taken: list[alpc.Message] = []
        with anyio.fail_after(WAIT):
            while len(taken) < 100:
                taken += await right.receive_batch()
        await alpc_turn()
        before = right.statistics().sends
        for message in reversed(taken):
            message.reply(message.data)
        assert [(await request).data for request in pending] == [b"%d" % number for number in range(100)]
        assert right.statistics().sends - before == 4


async def test_long_payloads_do_not_share_the_receive_buffer() -> None:
    """What was received stays as it was when later messages fill the same buffer, whichever way they came."""
    sizes = [COPIED - 30, COPIED - 24, COPIED, COPIED + 1, 20_000, 60_000]

    def payload(seed: int, size: int) -> bytes:
        return bytes([seed]) * (size // 2) + bytes([255 - seed]) * (size - size // 2)

    async with alpc.port_pair(limits=INLINE) as (left, right):
        kept: list[bytes] = []
        for seed in range(4):
            for size in sizes:
                await left.post(payload(seed, size))
            with anyio.fail_after(WAIT):
                while len(kept) < (seed + 1) * len(sizes):
                    kept += [message.data for message in await right.receive_batch()]
        assert kept == [payload(seed, size) for seed in range(4) for size in sizes]
        assert all(type(data) is bytes for data in kept)
        single = left.start_request(payload(9, 50_000))
        (await right.receive()).reply(payload(8, 50_000))
        assert (await single).data == payload(8, 50_000)


@pytest.mark.parametrize("victim", ["first", "second"])
async def test_a_wake_up_is_not_lost_with_the_task_that_got_it(victim: str) -> None:
    """Of two tasks that wait, whichever is cancelled in the turn of the wake-up, the other gets the message."""
    got: list[object] = []
    scopes = {"first": anyio.CancelScope(), "second": anyio.CancelScope()}

    async with alpc.CompletionPort() as completion_port, anyio.create_task_group() as tasks:

        async def take(name: str) -> None:
            with scopes[name]:
                got.extend(packet.key for packet in await completion_port.get_batch(1))

        tasks.start_soon(take, "first")
        await until(lambda: completion_port.statistics().waiting == 1)
        tasks.start_soon(take, "second")
        await until(lambda: completion_port.statistics().waiting == 2)
        completion_port.post("packet")
        scopes[victim].cancel()
        await until(lambda: got)
        assert got == ["packet"]
        scopes["first"].cancel()
        scopes["second"].cancel()


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"])
async def test_a_wake_up_survives_the_cancellation_that_asyncio_offers(anyio_backend: object) -> None:
    """A cancel scope spares a task that has been woken; ``Task.cancel`` does not, and then the other task is woken."""
    async with alpc.CompletionPort() as completion_port:
        waiting = asyncio.create_task(completion_port.get_batch(1))
        await until(lambda: completion_port.statistics().waiting == 1)
        woken_first = asyncio.create_task(completion_port.get_batch(1))
        await until(lambda: completion_port.statistics().waiting == 2)
        completion_port.post("packet")
        woken_first.cancel()
        with anyio.fail_after(WAIT):
            (packet,) = await waiting
        assert packet.key == "packet"
        with pytest.raises(asyncio.CancelledError):
            await woken_first


async def test_a_request_goes_to_the_task_that_waits_past_the_queue() -> None:
    """A request that comes alone is with the waiting task at once; no queue holds it, and cancelling tells the task."""
    async with alpc.port_pair(limits=INLINE) as (left, right), anyio.create_task_group() as tasks:
        got: list[alpc.Message] = []

        async def take() -> None:
            got.append(await right.receive())

        tasks.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        request = left.start_request(b"question")
        await until(lambda: got)
        assert right.statistics().queued == 0
        assert request.cancel() is alpc.CancelOutcome.CANCELLED
        await until(lambda: got[0].cancelled)


@pytest.mark.parametrize("after", ["nothing", "another request"])
async def test_a_request_that_was_handed_to_a_cancelled_task_is_not_lost(after: str) -> None:
    """When the task that a request was given to is cancelled before it runs, the request is received next and first."""
    async with alpc.port_pair(limits=INLINE) as (left, right):
        first = left.start_request(b"first")
        message = await right.receive()
        got: list[bytes] = []
        scope = anyio.CancelScope()

        async def take() -> None:
            with scope:
                got.append((await right.receive()).data)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            await anyio.wait_all_tasks_blocked()
            # As if it had just arrived; this task runs, so the other one has to wait for its turn.
            arrived(message).channel.source.hand_over(message)
            if after != "nothing":
                left.start_request(after.encode())
            scope.cancel()
        expected = [b"first", b"another request"] if after != "nothing" else [b"first"]
        with anyio.fail_after(WAIT):
            while len(got) < len(expected):
                got += [received.data for received in await right.receive_batch()]
        assert got == expected
        message.reply(b"answer")
        assert (await first).data == b"answer"


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"])
@pytest.mark.parametrize("way", ["port", "completion port"])
async def test_a_handed_request_survives_the_cancellation_that_asyncio_offers(anyio_backend: object, way: str) -> None:
    """``Task.cancel`` reaches a task that has been woken, and then the request goes back to be received first."""
    async with alpc.port_pair(limits=INLINE) as (left, right), alpc.CompletionPort() as completion_port:
        if way != "port":
            completion_port.associate(right)
        receive = right.receive_batch if way == "port" else completion_port.get_batch
        requests = [left.start_request(data) for data in (b"first", b"second")]
        messages = [packet.message for packet in await receive()]
        first, second = messages
        assert first is not None
        assert second is not None
        waiting = asyncio.create_task(receive())
        await anyio.wait_all_tasks_blocked()
        for message in (first, second):
            arrived(message).channel.source.hand_over(arrived(message))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with anyio.fail_after(WAIT):
            assert [packet.message for packet in await receive()] == messages
        for message, request in ((first, requests[0]), (second, requests[1])):
            message.reply(message.data)
            assert (await request).data == message.data


async def test_two_tasks_share_what_comes() -> None:
    """Two tasks that wait at one port get every message between them, also when both are woken for the same ones."""
    got: dict[str, list[bytes]] = {"first": [], "second": []}
    async with alpc.port_pair(limits=INLINE) as (left, right), anyio.create_task_group() as tasks:

        async def take(name: str) -> None:
            while True:
                got[name].append((await right.receive()).data)

        tasks.start_soon(take, "first")
        tasks.start_soon(take, "second")
        await alpc_turn()
        for number in range(200):
            await left.post(b"%d" % number)
        await until(lambda: sum(map(len, got.values())) == 200)
        assert sorted(got["first"] + got["second"], key=int) == [b"%d" % number for number in range(200)]
        tasks.cancel_scope.cancel()
