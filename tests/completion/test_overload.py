"""Too much at once: shedding, turns by weight and by size, push-back on senders, barriers and statistics."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

import alpc_async as alpc
from alpc_async import Status
from alpc_async.completion import core_of
from alpc_async.port import QUANTUM
from tests.completion.test_pools import Gate, echo, pool_of
from tests.port.support import NAME, WAIT, until


async def test_a_message_that_is_too_late_is_not_started() -> None:
    """A request whose deadline passed while it waited fails without a handler, and is counted."""
    started: list[bytes] = []
    async with alpc.port_pair() as (left, right), alpc.CompletionPort() as completion_port:
        completion_port.associate(right)

        async def handle(message: alpc.Message) -> None:
            started.append(message.data)
            await echo(message)

        late = [left.start_request(b"late", timeout=WAIT) for _ in range(2)]
        await until(lambda: completion_port.statistics().queued == 2)
        for packet in core_of(completion_port).queue.ring[0].packets:
            assert packet.message is not None
            packet.message.deadline = anyio.current_time()
        in_time = left.start_request(b"in time", timeout=WAIT)
        async with alpc.WorkerPool(completion_port, handle) as pool:
            assert (await in_time).data == b"in time"
            for request in late:
                with pytest.raises(alpc.RemoteFault) as caught:
                    await request
                assert caught.value.status == Status.DEADLINE_PASSED
        assert started == [b"in time"]
        assert pool.statistics().shed == 2


@pytest.mark.parametrize("batch", [1, 256])
@pytest.mark.parametrize(("weight", "size", "expected"), [(1, 10, QUANTUM), (3, 10, 3 * QUANTUM), (1, 12_288, 4)])
async def test_senders_take_turns_by_weight_and_size(batch: int, weight: int, size: int, expected: int) -> None:
    """A heavier sender has longer turns, one with long messages shorter ones; each gets its share."""
    async with alpc.CompletionPort() as port, alpc.port_pair() as heavy, alpc.port_pair() as light:
        for pair, key in ((heavy, "heavy"), (light, "light")):
            port.associate(pair.right, key)
        heavy.right.weight = weight
        assert heavy.right.weight == weight
        await heavy.left.post_batch([bytes(size)] * 200)
        await light.left.post_batch([b"x"] * 200)
        await until(lambda: port.statistics().queued == 400)
        taken: list[object] = []
        while len(taken) < 200:
            taken += [packet.key for packet in await port.get_batch(batch)]
        share = taken[:200].count("heavy") / taken[:200].count("light")
        assert share == pytest.approx(expected / QUANTUM, rel=0.35)
        with pytest.raises(ValueError, match="at least 1"):
            heavy.right.weight = 0


async def test_a_full_queue_pushes_back_on_the_senders() -> None:
    """Above the bound nothing more is read, senders wait, and everything comes once there is room again."""
    limits = alpc.PortLimits(max_pool_usage=64 * 1024 * 1024, max_outstanding_messages=100_000)
    async with (
        alpc.CompletionPort(max_messages=1000, max_bytes=4 * 1024 * 1024) as completion_port,
        alpc.listen(NAME, completion_port=completion_port, limits=limits),
        alpc.connect(NAME, limits=limits) as client,
        anyio.create_task_group() as tasks,
    ):
        sent = 0
        total = 2000

        async def send() -> None:
            nonlocal sent
            for _ in range(total):
                await client.post(bytes(16_384), timeout=None)
                sent += 1

        tasks.start_soon(send)
        await until(lambda: completion_port.statistics().throttled == 1)
        await anyio.wait_all_tasks_blocked()
        queued = completion_port.statistics().queued
        assert queued * 16_384 < 16 * 1024 * 1024
        assert sent < total
        assert completion_port.statistics().oldest > 0
        received = 0
        with anyio.fail_after(WAIT):
            while received < total:
                received += len(await completion_port.get_batch())
        assert completion_port.statistics().throttled == 0


async def test_a_connection_that_we_wait_for_is_read_all_the_same() -> None:
    """A full queue does not keep the answer to our own request away."""
    async with (
        alpc.CompletionPort(max_messages=10) as completion_port,
        alpc.listen(NAME, completion_port=completion_port) as server,
        alpc.connect(NAME) as client,
    ):
        await client.post(b"first")
        (packet,) = await completion_port.get_batch()
        assert packet.port is not None
        question = packet.port.start_request(b"?")
        await client.post_batch([b"x"] * 500)
        await until(lambda: completion_port.statistics().queued > 10)
        (await client.receive()).reply(b"!")
        with anyio.fail_after(WAIT):
            assert (await question).data == b"!"
        assert server.statistics().connections == 1


async def test_the_barrier_is_an_event() -> None:
    """Several tasks wait for an idle pool, and all go on when the last handler has ended."""
    gate = Gate()
    async with pool_of(gate, maximum=4) as (pool, left, _):
        pending = [left.start_request(b"") for _ in range(4)]
        await until(lambda: gate.inside == 4)
        passed: list[int] = []

        async def wait(number: int) -> None:
            await pool.wait_idle()
            passed.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(wait, number)
            await anyio.wait_all_tasks_blocked()
            assert passed == []
            gate.open.set()
        assert sorted(passed) == [0, 1, 2]
        for request in pending:
            await request


async def test_shutting_down_in_two_steps(caplog: pytest.LogCaptureFixture) -> None:
    """What ends in time ends, what does not is cancelled and named, and what was not taken stays."""
    gate, stuck = Gate(), Gate()

    async def handle(message: alpc.Message) -> None:
        await (stuck if message.data == b"stuck" else gate)(message)

    async with pool_of(handle, maximum=3) as (pool, left, completion_port):
        ends = left.start_request(b"ends")
        never = left.start_request(b"stuck")
        await until(lambda: gate.inside and stuck.inside)

        async def open_gate() -> None:
            # Runs when `shut_down` waits already.
            left.start_request(b"too late")
            await until(lambda: completion_port.statistics().queued == 1)
            gate.open.set()

        report = alpc.WorkerPoolReport(0, ())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_gate)
            with caplog.at_level(logging.WARNING):
                report = await pool.shut_down(0.2)
        assert (report.finished, len(report.cut)) == (1, 1)
        assert "5 bytes" in report.cut[0]
        assert (await ends).data == b"ends"
        with pytest.raises(alpc.RemoteFault) as caught:
            await never
        assert caught.value.status == Status.ABANDONED
        assert completion_port.statistics().queued == 1


async def test_the_grace_of_a_pool_counts_when_its_block_ends() -> None:
    """With a grace time, leaving the block lets handlers finish."""
    finished = False
    inside = anyio.Event()

    async def handle(message: alpc.Message) -> None:
        nonlocal finished
        inside.set()
        await anyio.sleep(0.02)
        message.reply(b"")
        finished = True

    async with alpc.port_pair() as (left, right), alpc.CompletionPort() as completion_port:
        completion_port.associate(right)
        async with alpc.WorkerPool(completion_port, handle, grace=WAIT):
            pending = left.start_request(b"")
            await inside.wait()
        assert finished
        await pending


async def test_a_handler_that_ignores_its_cancellation_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """After the grace time the log names the message, and the pool counts it."""
    free = anyio.Event()

    async def handle(_message: alpc.Message) -> None:
        with anyio.CancelScope(shield=True):
            await free.wait()

    async with pool_of(handle, cancel_grace=0.02) as (pool, left, _):
        pending = left.start_request(b"")
        await until(lambda: pool.statistics().running)
        pending.cancel()
        await until(lambda: pool.statistics().overdue == 1)
        free.set()
    assert any("request 1" in record.message and "ignores" in record.message for record in caplog.records)


async def test_tasks_that_find_nothing_to_do_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of a burst do not stay for ever."""
    monkeypatch.setattr("alpc_async.completion._sized.TRIM_INTERVAL", 0.02)
    gate = Gate()
    async with pool_of(gate, maximum=16) as (pool, left, _):
        pending = [left.start_request(b"") for _ in range(16)]
        await until(lambda: gate.inside == 16)
        gate.open.set()
        for request in pending:
            await request
        await until(lambda: pool.statistics().size == 1)
        assert pool.statistics().stopped == 15
        assert (await left.request(b"", timeout=WAIT)).data == b""


async def test_a_framework_wait_gives_the_slot_back() -> None:
    """An iterator that waits for a reply lets another one run, and counts as running afterwards."""
    async with alpc.CompletionPort(concurrency=1) as completion_port, alpc.port_pair() as (left, right):
        completion_port.post("first")
        completion_port.post("second")
        order: list[object] = []

        async def work() -> None:
            async for batch in completion_port:
                for packet in batch:
                    order.append(packet.key)
                    if packet.key == "first":
                        await left.request(b"?")
                        assert completion_port.statistics().running == 1
                        order.append("answered")

        async def take_one() -> None:
            async for batch in completion_port:
                order.extend(packet.key for packet in batch)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await until(lambda: order)
            order.clear()
            tasks.start_soon(take_one)
            await until(lambda: completion_port.statistics().blocked == 1)
            completion_port.post("third")
            await until(lambda: "third" in order)
            (await right.receive()).reply(b"!")
            await until(lambda: "answered" in order)
            completion_port.close()
        assert completion_port.statistics().running == 0


async def test_a_block_gives_the_slot_back() -> None:
    """Inside blocked() another iterator may run; a child task of the holder gives nothing back."""
    async with alpc.CompletionPort(concurrency=1) as completion_port:
        completion_port.post("first")
        free = anyio.Event()
        seen: list[Any] = []

        async def child() -> None:
            async with completion_port.blocked():
                seen.append(completion_port.statistics().blocked)

        async def work() -> None:
            async for batch in completion_port:
                if batch[0].key == "first":
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(child)
                    async with completion_port.blocked():
                        seen.append(completion_port.statistics().blocked)
                        await free.wait()
                else:
                    seen.append(batch[0].key)
                    free.set()

        async with completion_port.blocked(), anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            tasks.start_soon(work)
            await until(lambda: len(seen) == 2)
            completion_port.post("second")
            await until(lambda: len(seen) == 3)
            completion_port.close()
        assert seen == [0, 1, "second"]
        assert (completion_port.statistics().running, completion_port.statistics().blocked) == (0, 0)


async def test_batches_are_counted_by_size() -> None:
    """The histogram of batches has classes of doubling size."""
    async with alpc.CompletionPort() as completion_port:
        for count in (1, 3, 8, 256, 2000):
            for number in range(count):
                completion_port.post(number)
            await completion_port.get_batch(5000)
        assert completion_port.statistics().batch_sizes == (1, 1, 0, 1, 0, 0, 0, 0, 1, 1)
        for bounds in ({"max_messages": 0}, {"max_bytes": 0}):
            with pytest.raises(ValueError, match="positive"):
                alpc.CompletionPort(**bounds)
