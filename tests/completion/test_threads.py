"""Worker pools whose handlers block: answers from threads, size, cancellation and the end."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import anyio
import pytest

import alpc_async as alpc
from alpc_async import Status
from tests.completion.test_pools import pool_of
from tests.port.support import WAIT, until


class Stall:
    """A handler that holds its thread until it is let go."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.inside: list[bytes] = []
        self.saw_cancelled = threading.Event()

    def __call__(self, message: Any) -> None:
        """Hold the thread, watching for cancellation; then answer."""
        self.inside.append(message.data)
        while not self.free.wait(0.001):
            if message.cancelled:
                self.saw_cancelled.set()
        message.reply(message.data)


async def test_blocking_handlers_answer_from_their_threads() -> None:
    """Every request gets its own answer, from another thread than the loop's, with the loop free meanwhile."""
    threads: set[int] = set()

    def handle(message: Any) -> None:
        threads.add(threading.get_ident())
        time.sleep(0.001)
        message.reply(message.data)

    async with pool_of(handle, kind="thread", maximum=8) as (pool, left, _):
        pending = [left.start_request(b"%d" % number) for number in range(100)]
        assert [(await request).data for request in pending] == [b"%d" % number for number in range(100)]
        await pool.wait_idle()
        assert (pool.statistics().handled, pool.statistics().failed) == (100, 0)
    assert threading.get_ident() not in threads


async def test_a_handler_that_is_async_is_a_mistake() -> None:
    """A pool of threads takes plain functions: the coroutine of another one would never run, and nobody be answered."""

    async def handle(message: Any) -> None:
        message.reply(message.data)

    class Handler:
        async def __call__(self, message: Any) -> None:
            message.reply(message.data)

    async with alpc.CompletionPort() as completion_port:
        for handler in (handle, Handler()):
            with pytest.raises(
                TypeError, match=r"the handler of kind='thread' must be a plain function, and .* is async"
            ):
                alpc.WorkerPool(completion_port, handler, kind="thread")


async def test_an_answer_leaves_before_its_handler_ends() -> None:
    """A handler that goes on after its answer does not hold the answer up."""
    free = threading.Event()

    def handle(message: Any) -> None:
        message.reply(b"early")
        free.wait(WAIT)

    async with pool_of(handle, kind="thread") as (pool, left, _):
        try:
            assert (await left.request(b"", timeout=WAIT)).data == b"early"
            assert pool.statistics().running == 1
        finally:
            free.set()
        await pool.wait_idle()


async def test_a_message_in_a_thread_has_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    """Payload, key, type, sender, port and deadline are there; a second answer and text are mistakes."""
    seen: list[Any] = []

    def handle(message: Any) -> None:
        seen.extend([message.data, message.key, message.type, message.sender.uid, message.sequence, message.message])
        assert message.deadline > 0
        with pytest.raises(ValueError, match="status"):
            message.fail(0, "no status")
        message.reply(b"once")
        with pytest.raises(alpc.ReplyMismatch):
            message.reply(b"twice")

    async with pool_of(handle, kind="thread") as (pool, left, port):
        assert (await left.request(b"x")).data == b"once"
        await pool.wait_idle()
        assert seen[:3] == [b"x", "key", alpc.MessageType.REQUEST]
        port.post("mine", 5)
        await until(lambda: pool.statistics().failed == 1)
    assert len(caplog.records) == 1


async def test_a_blocking_handler_that_fails_fails_its_request_only(caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets a fault, the log has the error once, and the thread goes on."""

    def handle(message: Any) -> None:
        if message.data == b"bad":
            raise ValueError("the secret detail")
        if message.data == b"fault":
            message.fail(1234, "not today")
        else:
            message.reply(message.data)

    async with pool_of(handle, kind="thread") as (pool, left, _):
        with caplog.at_level(logging.ERROR, "alpc_async"), pytest.raises(alpc.RemoteFault) as caught:
            await left.request(b"bad")
        assert caught.value.status == Status.HANDLER_FAILED
        with pytest.raises(alpc.RemoteFault, match="not today") as caught:
            await left.request(b"fault")
        assert caught.value.status == 1234
        assert (await left.request(b"good")).data == b"good"
        assert pool.statistics().failed == 1
    assert len(caplog.records) == 1


async def test_a_cancelled_message_is_told_to_its_thread(caplog: pytest.LogCaptureFixture) -> None:
    """The handler sees that nobody waits, one that goes on is reported, and its worker takes the next message."""
    stall = Stall()
    async with pool_of(stall, kind="thread", maximum=1, cancel_grace=0.02) as (pool, left, _):
        try:
            pending = left.start_request(b"first")
            await until(lambda: stall.inside)
            pending.cancel()
            await until(stall.saw_cancelled.is_set)
            await until(lambda: pool.statistics().overdue == 1)
        finally:
            stall.free.set()
        assert (await left.request(b"second", timeout=WAIT)).data == b"second"
        await pool.wait_idle()
        statistics = pool.statistics()
        assert (statistics.cancelled, statistics.handled, statistics.started) == (1, 1, 1)
    assert any("ignores the cancellation" in record.message for record in caplog.records)


async def test_a_deadline_answers_for_a_thread_that_goes_on() -> None:
    """At the deadline the caller hears of it, although the thread cannot be stopped."""
    stall = Stall()
    async with pool_of(stall, kind="thread", maximum=1) as (pool, left, _):
        try:
            with pytest.raises((alpc.DeadlineExceeded, alpc.RemoteFault)):
                await left.request(b"x", timeout=0.03)
            await until(stall.saw_cancelled.is_set)
        finally:
            stall.free.set()
        await pool.wait_idle()
        assert pool.statistics().cancelled == 1


async def test_leaving_the_pool_does_not_wait_for_a_stuck_thread(caplog: pytest.LogCaptureFixture) -> None:
    """A pool ends after its grace time, says what it cut, and the caller is answered."""
    stall = Stall()
    try:
        with anyio.fail_after(WAIT):
            async with pool_of(stall, kind="thread") as (pool, left, _):
                pending = left.start_request(b"stuck")
                await until(lambda: stall.inside)
                report = await pool.shut_down(0.02)
                assert (report.finished, len(report.cut)) == (0, 1)
                with pytest.raises(alpc.RemoteFault) as caught:
                    await pending
                assert caught.value.status == Status.ABANDONED
    finally:
        stall.free.set()
    assert any("cancelled for" in record.message for record in caplog.records)


async def test_threads_come_with_the_load_and_go_with_it() -> None:
    """Blocking handlers get more threads while messages wait, and silence takes them away."""

    def handle(message: Any) -> None:
        time.sleep(0.005)
        message.reply(b"")

    async with pool_of(handle, kind="thread", minimum=1, maximum=16) as (pool, left, _):
        with anyio.move_on_after(1.5):
            while pool.statistics().limit < 8:
                for request in [left.start_request(b"") for _ in range(64)]:
                    await request
        assert pool.statistics().limit >= 8
        await until(lambda: pool.statistics().size == 1)
        assert pool.statistics().stopped == pool.statistics().started - 1 >= 3


async def test_a_blocked_thread_gives_its_slot_back() -> None:
    """With one running at most, a handler inside blocked() lets another one run."""
    inside = threading.Event()
    free = threading.Event()

    async with alpc.port_pair() as (left, right), alpc.CompletionPort(concurrency=1) as completion_port:
        completion_port.associate(right)

        def handle(message: Any) -> None:
            if message.data == b"blocks":
                with completion_port.blocked():
                    inside.set()
                    free.wait(WAIT)
            message.reply(b"")

        async with alpc.WorkerPool(completion_port, handle, kind="thread") as pool:
            try:
                blocked = left.start_request(b"blocks")
                await until(inside.is_set)
                await until(lambda: completion_port.statistics().blocked == 1)
                await left.request(b"passes", timeout=WAIT)
                assert pool.statistics().limit == 2
            finally:
                free.set()
            await blocked
            await until(lambda: completion_port.statistics().blocked == 0)
            await until(lambda: pool.statistics().limit == 1)
