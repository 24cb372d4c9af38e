"""Waiters that are woken at once, and the timers of trio: what the shortest ways must not break."""

from __future__ import annotations

import contextvars
import gc
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from alpc_async.link import current_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from alpc_async.link import Waiter

place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="nowhere")
CANCELLED_KEPT = 101
"""Cancelled timers that may stay in the heap beside none that count."""


@pytest.fixture
def runs_at_once(anyio_backend: tuple[str, dict[str, Any]]) -> bool:
    """Whether this event loop can run a task from a callback."""
    return anyio_backend[0] == "asyncio"


async def settle() -> None:
    """Let every callback that is due run."""
    for _ in range(4):
        await current_loop().checkpoint()


def soon(callback: Callable[[], None]) -> None:
    """Run something from a callback of the loop, where no task is running."""
    current_loop().call_soon(callback)


async def test_a_callback_wakes_a_task_before_it_returns(runs_at_once: bool) -> None:
    """Where the loop can do that the task runs inside of the wake-up, in its own context; elsewhere soon after."""
    loop = current_loop()
    waiter = loop.create_waiter()
    calls: list[str] = []

    async def wait() -> None:
        place.set("in the task")
        await waiter
        calls.append(f"woken {place.get()}")

    def wake() -> None:
        loop.wake_now(waiter)
        calls.append(f"returned {place.get()}")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await settle()
        soon(wake)
    expected = ["woken in the task", "returned nowhere"]
    assert calls == (expected if runs_at_once else expected[::-1])


async def test_a_task_does_not_run_inside_of_another() -> None:
    """Woken by a task that runs, a task waits for its turn; so does one that is woken by what a prompt wake-up ran."""
    loop = current_loop()
    first, second = loop.create_waiter(), loop.create_waiter()
    calls: list[str] = []

    async def wait_first() -> None:
        await first
        loop.wake_now(second)
        calls.append("first goes on")

    async def wait_second() -> None:
        await second
        calls.append("second")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait_first)
        tasks.start_soon(wait_second)
        await settle()
        soon(lambda: loop.wake_now(first))
        await settle()
        assert calls == ["first goes on", "second"]
        third = loop.create_waiter()

        async def wait_third() -> None:
            await third
            calls.append("third")

        tasks.start_soon(wait_third)
        await settle()
        loop.wake_now(third)
        assert third.done()
        assert "third" not in calls
    assert calls[-1] == "third"


@pytest.mark.parametrize("order", ["wake first", "cancel first"])
async def test_a_wake_up_and_a_cancellation_in_one_turn(order: str) -> None:
    """Cancelling is not lost, whichever comes first, and a cancelled waiter says that there is nobody to wake."""
    loop = current_loop()
    waiter: Waiter = loop.create_waiter()
    ended: list[str] = []
    scope = anyio.CancelScope()

    async def wait() -> None:
        with scope:
            await waiter
            ended.append("woken")
            await anyio.sleep_forever()
        ended.append("over")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await settle()
        if order == "wake first":
            loop.wake_now(waiter)
            scope.cancel()
        else:
            scope.cancel()
            await settle()
            assert waiter.done()
    assert ended[-1] == "over"


async def test_a_waiter_that_is_done_does_not_wait() -> None:
    """A result that came before anybody waited is not missed."""
    loop = current_loop()
    waiter = loop.create_waiter()
    loop.wake_now(waiter)
    assert waiter.done()
    with anyio.fail_after(20):
        await waiter


@pytest.mark.parametrize("anyio_backend", [("trio", {})], ids=["trio"])
async def test_cancelled_timers_of_trio_are_thrown_out(anyio_backend: object) -> None:
    """Guarding a thousand things that happen in time does not leave a thousand timers, and a kept one still fires."""
    loop = current_loop()
    fired: list[float] = []
    beginning = loop.time()

    def timers() -> int:
        return sum(type(entry).__name__ == "TrioTimer" for entry in gc.get_objects())

    before = timers()
    loop.call_at(beginning + 0.05, lambda: fired.append(loop.time()))
    for number in range(2000):
        loop.call_at(beginning + 1000.0 + number, lambda: fired.append(-1.0)).cancel()
        assert timers() - before <= CANCELLED_KEPT + 1 if number % 200 == 0 else True
    assert timers() - before <= CANCELLED_KEPT + 1
    with anyio.fail_after(20):
        while not fired:  # noqa: ASYNC110  # a timer announces itself by running
            await anyio.sleep(0.005)
    assert len(fired) == 1
    assert fired[0] >= beginning + 0.05
