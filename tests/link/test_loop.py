"""The adapters of the event loops: the same behaviour on all of them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
import trio
import trio.testing

from alpc_async.errors import ForkedPort
from alpc_async.link import Loop, current_loop, socket_pair

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator


@pytest.fixture
def pair() -> Generator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    left, right = socket_pair()
    yield left, right
    left.close()
    right.close()


async def settle() -> None:
    """Let every callback that is due run."""
    for _ in range(4):
        await current_loop().checkpoint()


async def until_called(calls: list[str], count: int) -> None:
    """Wait until something was called so often."""
    with anyio.fail_after(20):
        while len(calls) < count:  # noqa: ASYNC110  # what is tested is below events
            await anyio.sleep(0.001)


# -- finding the loop --------------------------------------------------------------------------------------------------


async def test_one_adapter_per_loop() -> None:
    """Everybody in one loop gets the same adapter."""
    loop = current_loop()
    assert current_loop() is loop
    found: list[Loop] = []
    async with anyio.create_task_group() as tasks:

        async def find() -> None:
            found.append(current_loop())

        tasks.start_soon(find)
    assert found == [loop]


def test_every_run_has_an_adapter_of_its_own(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """An adapter is not used by another loop after its own has ended."""

    async def find() -> Loop:
        return current_loop()

    backend, options = anyio_backend
    first = anyio.run(find, backend=backend, backend_options=options)
    second = anyio.run(find, backend=backend, backend_options=options)
    assert first is not second


def test_without_a_loop_there_is_no_adapter() -> None:
    """Asking where no loop runs is an error."""
    with pytest.raises((RuntimeError, anyio.NoEventLoopError)):
        current_loop()


def test_trio_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where trio was never imported it is not asked."""
    monkeypatch.delitem(sys.modules, "trio")

    async def find() -> Loop:
        return current_loop()

    assert type(anyio.run(find, backend="asyncio")).__name__ == "AsyncioLoop"
    assert "trio" not in sys.modules


# -- callbacks and timers ----------------------------------------------------------------------------------------------


async def test_callbacks_run_in_order_in_a_later_turn() -> None:
    """What is called soon is not called now, runs in the order given, and what it adds runs after it."""
    loop = current_loop()
    calls: list[str] = []

    def first() -> None:
        calls.append("first")
        loop.call_soon(lambda: calls.append("third"))

    loop.call_soon(first)
    loop.call_soon(lambda: calls.append("second"))
    assert calls == []
    await until_called(calls, 3)
    assert calls == ["first", "second", "third"]
    loop.call_soon(lambda: calls.append("later"))
    await until_called(calls, 4)


async def test_tasks_run_between_the_turns_of_callbacks() -> None:
    """Callbacks that call themselves again do not keep tasks from running."""
    loop = current_loop()
    turns: list[str] = []

    def again() -> None:
        turns.append("turn")
        if len(turns) < 1000:
            loop.call_soon(again)

    loop.call_soon(again)
    await settle()
    assert len(turns) < 1000
    await until_called(turns, 1000)


async def test_timers_run_in_the_order_of_their_times() -> None:
    """Timers fire not before their time, the earliest first, also when it was set last."""
    loop = current_loop()
    now = loop.time()
    calls: list[str] = []
    times: list[float] = []

    def note(name: str) -> None:
        calls.append(name)
        times.append(loop.time())

    loop.call_at(now + 0.03, lambda: note("last"))
    loop.call_at(now + 0.01, lambda: note("first"))
    loop.call_at(now + 0.02, lambda: note("second"))
    past = loop.call_at(now - 1, lambda: note("past"))
    await until_called(calls, 4)
    assert calls == ["past", "first", "second", "last"]
    assert all(time >= now + delay - 0.001 for time, delay in zip(times, (-1, 0.01, 0.02, 0.03), strict=True))
    past.cancel()


async def test_an_earlier_timer_goes_first_while_a_later_one_is_waited_for() -> None:
    """A timer that is set while the loop already waits for a later one fires at its own time."""
    loop = current_loop()
    calls: list[str] = []
    late = loop.call_at(loop.time() + 1000, lambda: calls.append("late"))
    await settle()
    loop.call_at(loop.time() + 0.01, lambda: calls.append("early"))
    await until_called(calls, 1)
    assert calls == ["early"]
    late.cancel()


async def test_cancelled_timers_do_not_fire() -> None:
    """A timer that was cancelled is forgotten, the others are kept; cancelling again is harmless."""
    loop = current_loop()
    now = loop.time()
    calls: list[str] = []
    early = loop.call_at(now + 0.01, lambda: calls.append("early"))
    also = loop.call_at(now + 0.015, lambda: calls.append("also"))
    loop.call_at(now + 0.02, lambda: calls.append("late"))
    never = loop.call_at(now + 1e9, lambda: calls.append("never"))
    early.cancel()
    early.cancel()
    also.cancel()
    await until_called(calls, 1)
    assert calls == ["late"]
    never.cancel()


async def test_a_timer_may_set_timers() -> None:
    """A timer set by a timer fires as well, also after all others had fired."""
    loop = current_loop()
    calls: list[str] = []

    def tick() -> None:
        calls.append("tick")
        if len(calls) < 3:
            loop.call_at(loop.time(), tick)

    loop.call_at(loop.time(), tick)
    await until_called(calls, 3)
    await settle()
    assert calls == ["tick"] * 3
    loop.call_at(loop.time(), lambda: calls.append("anew"))
    await until_called(calls, 4)
    assert calls[3:] == ["anew"]


def test_trio_timers_follow_the_clock_of_the_run() -> None:
    """With trio's own test clock timers fire at exactly their times, without waiting for them."""

    async def main() -> None:
        loop = current_loop()
        now = loop.time()
        fired: list[float] = []
        for delay in (3600.0, 60.0, 7200.0):
            loop.call_at(now + delay, lambda: fired.append(loop.time() - now))
        await trio.sleep(10_000)
        assert fired == [60.0, 3600.0, 7200.0]
        assert loop.time() == now + 10_000

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_callback_that_fails_is_reported_and_the_loop_goes_on(
    anyio_backend: tuple[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """An exception out of a callback is logged; callbacks after it still run."""
    calls: list[str] = []

    def fail() -> None:
        raise ValueError("of a test")

    async def main() -> None:
        current_loop().call_soon(fail)
        current_loop().call_soon(lambda: calls.append("next"))
        await until_called(calls, 1)

    backend, options = anyio_backend
    # In a run of its own: the plugin fails a test of whose loop an error is reported.
    anyio.run(main, backend=backend, backend_options=options)
    assert calls == ["next"]
    assert "of a test" in caplog.text
    assert {record.name for record in caplog.records} == {"alpc_async.link" if backend == "trio" else "asyncio"}


# -- readiness ---------------------------------------------------------------------------------------------------------


async def test_readers_are_called_until_they_are_removed(pair: tuple[socket.socket, socket.socket]) -> None:
    """One registration serves any number of messages, and ends with its removal."""
    left, right = pair
    loop = current_loop()
    calls: list[str] = []

    def read() -> None:
        calls.append(left.recv(100).decode())

    loop.add_reader(left.fileno(), read)
    for number in range(3):
        right.send(b"%d" % number)
        await until_called(calls, number + 1)
    assert calls == ["0", "1", "2"]
    loop.remove_reader(left.fileno())
    loop.remove_reader(left.fileno())
    right.send(b"unseen")
    await settle()
    assert len(calls) == 3


async def test_writers_are_called_when_there_is_room(pair: tuple[socket.socket, socket.socket]) -> None:
    """A full socket becomes writable when the other side reads."""
    left, right = pair
    loop = current_loop()
    calls: list[str] = []
    try:
        while True:
            left.send(bytes(65536))
    except BlockingIOError:
        pass

    def write() -> None:
        calls.append("room")
        loop.remove_writer(left.fileno())

    loop.add_writer(left.fileno(), write)
    await settle()
    assert calls == []
    while not calls:
        try:
            right.recv(65536)
        except BlockingIOError:
            pass
        await settle()
    loop.remove_writer(left.fileno())
    await settle()
    assert calls == ["room"]


async def test_reading_and_writing_one_descriptor(pair: tuple[socket.socket, socket.socket]) -> None:
    """A descriptor can be watched for both at once, and one of them ended without the other."""
    left, right = pair
    loop = current_loop()
    reads: list[str] = []
    writes: list[str] = []

    def write() -> None:
        writes.append("writable")
        loop.remove_writer(left.fileno())

    loop.add_reader(left.fileno(), lambda: reads.append(left.recv(10).decode()))
    loop.add_writer(left.fileno(), write)
    await until_called(writes, 1)
    right.send(b"x")
    await until_called(reads, 1)
    assert (reads, writes) == (["x"], ["writable"])
    loop.remove_reader(left.fileno())


async def test_registering_again_replaces_the_callback(pair: tuple[socket.socket, socket.socket]) -> None:
    """The last registered callback of a descriptor counts."""
    left, right = pair
    loop = current_loop()
    calls: list[str] = []
    loop.add_reader(left.fileno(), lambda: calls.append("old"))
    await settle()

    def read() -> None:
        calls.append("new")
        left.recv(10)

    loop.add_reader(left.fileno(), read)
    right.send(b"x")
    await until_called(calls, 1)
    await settle()
    assert calls == ["new"]
    loop.remove_reader(left.fileno())


async def test_removing_what_is_ready(pair: tuple[socket.socket, socket.socket]) -> None:
    """A callback that is removed while its descriptor is ready, or before it ever waited, is not called."""
    left, right = pair
    loop = current_loop()
    calls: list[str] = []
    right.send(b"x")
    loop.add_reader(left.fileno(), lambda: calls.append("never"))
    loop.remove_reader(left.fileno())
    await settle()
    loop.add_reader(left.fileno(), lambda: calls.append("never"))
    await loop.checkpoint()
    if not calls:
        loop.remove_reader(left.fileno())
        seen = list(calls)
        await settle()
        assert calls == seen
    loop.remove_reader(left.fileno())


def test_after_its_end_a_loop_can_be_told_to_stop_watching(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """What is closed after the loop has ended does not fail."""

    async def find() -> Loop:
        return current_loop()

    loop = anyio.run(find, backend=anyio_backend[0], backend_options=anyio_backend[1])
    left, right = socket_pair()
    loop.remove_reader(left.fileno())
    loop.remove_writer(left.fileno())
    left.close()
    right.close()
    assert (left.fileno(), right.fileno()) == (-1, -1)


# -- waiters -----------------------------------------------------------------------------------------------------------


async def test_a_waiter_waits_until_it_has_a_result() -> None:
    """Setting the result wakes the task; a waiter that has one does not wait, but lets others run."""
    loop = current_loop()
    waiter = loop.create_waiter()
    calls: list[str] = []

    async def wait() -> None:
        await waiter
        calls.append("woken")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await settle()
        assert calls == []
        assert not waiter.done()
        waiter.set_result(None)
        assert waiter.done()
        assert calls == []
    assert calls == ["woken"]
    early = loop.create_waiter()
    early.set_result(None)
    await early


async def test_cancelling_marks_a_waiter_as_done() -> None:
    """Who would wake a cancelled task sees that there is nobody to wake."""
    waiter = current_loop().create_waiter()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await waiter
    assert scope.cancelled_caught
    assert waiter.done()


async def test_cancelling_a_task_that_waits() -> None:
    """A cancelled wait ends at once; results that came before win over a later cancellation of others."""
    loop = current_loop()
    waiters = [loop.create_waiter() for _ in range(3)]
    woken: list[str] = []

    async def wait(index: int) -> None:
        await waiters[index]
        woken.append(str(index))

    async with anyio.create_task_group() as tasks:
        for index in range(3):
            tasks.start_soon(wait, index)
        await settle()
        waiters[1].set_result(None)
        await settle()
        tasks.cancel_scope.cancel()
    assert woken == ["1"]
    assert all(waiter.done() for waiter in waiters)


async def test_a_checkpoint_notices_cancellation() -> None:
    """A checkpoint in a cancelled scope ends it."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await current_loop().checkpoint()
    assert scope.cancelled_caught


# -- where a port may be used ------------------------------------------------------------------------------------------


async def test_check_in_place() -> None:
    """Where the loop runs its check passes."""
    loop = current_loop()
    loop.check("port")
    assert not loop.forked


async def test_check_in_another_thread() -> None:
    """In a thread the loop is elsewhere."""
    loop = current_loop()
    with pytest.raises(ForkedPort, match="port 'x' belongs to"):
        await anyio.to_thread.run_sync(loop.check, "port 'x'")


async def test_check_in_another_loop(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """In another loop, in whatever thread, the check fails."""
    loop = current_loop()

    async def check() -> None:
        with pytest.raises(ForkedPort):
            loop.check("port")
        current_loop().check("port")

    backend, options = anyio_backend
    await anyio.to_thread.run_sync(lambda: anyio.run(check, backend=backend, backend_options=options))


async def test_check_after_the_loop_has_ended(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """A loop that is over is not the running one."""

    async def find() -> Loop:
        return current_loop()

    backend, options = anyio_backend
    ended = await anyio.to_thread.run_sync(lambda: anyio.run(find, backend=backend, backend_options=options))
    with pytest.raises(ForkedPort):
        ended.check("port")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_check_in_a_forked_child() -> None:
    """A child that was forked out of the loop is another process, though everything looks the same to it."""
    loop = current_loop()
    child = os.fork()
    if not child:
        code = 2
        try:
            loop.check("port")
            code = 1
        except ForkedPort:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # noqa: ASYNC222  # the child ends at once
    loop.check("port")
