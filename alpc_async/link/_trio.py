"""trio as a `Loop`.

Belongs here: the translation of the `Loop` interface into trio's system tasks. Never here: policy, sockets or buffers
of a connection. This is the only module of the framework that names trio.

trio has no callbacks, so each watched descriptor has one system task that waits and calls back; one more runs what
`call_soon` collected in the next turn; one more keeps the timers. System tasks live as long as the run, belong to no
nursery of the user, and are cancelled by trio itself when the main task ends. A waiter parks its task with
``wait_task_rescheduled``, which costs a fraction of a ``trio.Event`` per message.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import (
    Abort,
    checkpoint,
    current_task,
    current_trio_token,
    in_trio_run,
    reschedule,
    spawn_system_task,
    wait_readable,
    wait_task_rescheduled,
    wait_writable,
)

from ..errors import ForkedPort

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from contextvars import Context

    from ._loop import Waiter

__all__ = ["TrioLoop", "in_trio_run"]

RECEIVE_BUFFER_SIZE = 256 * 1024

MANY_TIMERS = 100
"""Cancelled timers that are kept in the heap anyway; beyond that they are thrown out when they are the most.

Nearly every timer here is cancelled, because what it guards happens in time.
"""

FAILED = "a callback of the link layer failed: %r"

_logger = logging.getLogger("alpc_async.link")


class TrioWaiter:
    """Parks one task until `set_result`."""

    __slots__ = ("_done", "_task")

    def __init__(self) -> None:
        self._done = False
        self._task: trio.lowlevel.Task | None = None

    def done(self) -> bool:
        return self._done

    def set_result(self, _result: None, /) -> None:
        self._done = True
        task = self._task
        if task is not None:
            self._task = None
            reschedule(task)

    def __await__(self) -> Generator[Any, Any, None]:
        # Handing out the inner generator instead of awaiting in a coroutine saves a frame per message.
        if self._done:
            return checkpoint().__await__()  # noqa: ASYNC105  # awaited by our caller
        self._task = current_task()
        return wait_task_rescheduled(self._abort).__await__()  # noqa: ASYNC105  # awaited by our caller

    def _abort(self, _raise_cancel: Callable[[], Any]) -> Abort:
        self._done = True
        self._task = None
        return Abort.SUCCEEDED


class TrioTimer:
    """One entry of the timer heap."""

    __slots__ = ("_loop", "callback")

    def __init__(self, callback: Callable[[], None], loop: TrioLoop) -> None:
        self.callback: Callable[[], None] | None = callback
        self._loop = loop

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._loop.note_cancelled_timer()


class Watch:
    """One watched descriptor: the scope of its task, and whether it is still wanted.

    The flag says what ``scope.cancel_called`` would, which reads the clock each time.
    """

    __slots__ = ("active", "scope")

    def __init__(self) -> None:
        self.active = True
        self.scope = trio.CancelScope()


class TrioLoop:
    """The running trio event loop. Must be made inside a trio task."""

    def __init__(self) -> None:
        self._token = current_trio_token()
        self.forked = False
        # Bound once: it runs per message, and `trio.current_time` looks the clock up through three calls.
        self.time: Callable[[], float] = trio.lowlevel.current_clock().current_time
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER_SIZE))
        self._soon: list[Callable[[], None]] = []
        self._turn_task: trio.lowlevel.Task | None = None
        self._timers: list[tuple[float, int, TrioTimer]] = []
        self._timer_numbers = itertools.count()
        self._timer_scope: trio.CancelScope | None = None
        self._cancelled_timers = 0
        self._watches: dict[tuple[int, bool], Watch] = {}
        spawn_system_task(self._run_turns, name="alpc_async turns")

    def create_waiter(self) -> TrioWaiter:
        return TrioWaiter()

    def wake_now(self, waiter: Waiter) -> None:
        # trio runs a task only from its own scheduler.
        waiter.set_result(None)

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], /, *, name: str, context: Context) -> None:
        spawn_system_task(function, name=name, context=context)

    async def checkpoint(self) -> None:
        await checkpoint()

    def check(self, port: str) -> None:
        # trio keeps its run across a fork, which the hook of `notice_forks` has noted.
        try:
            if current_trio_token() is self._token and not self.forked:
                return
        except RuntimeError:
            pass
        raise ForkedPort(port=port)

    def call_soon(self, callback: Callable[[], None], /) -> None:
        self._soon.append(callback)
        task = self._turn_task
        if task is not None:
            self._turn_task = None
            reschedule(task)

    def call_soon_threadsafe(self, callback: Callable[[], None], /) -> None:
        self._token.run_sync_soon(_run, callback)

    async def _run_turns(self) -> None:
        def abort(_raise_cancel: Callable[[], Any]) -> Abort:
            self._turn_task = None
            return Abort.SUCCEEDED

        while True:
            if not self._soon:
                self._turn_task = current_task()
                await wait_task_rescheduled(abort)
            callbacks, self._soon = self._soon, []
            for callback in callbacks:
                _run(callback)
            # Callbacks that were added by callbacks belong to the next turn, and other tasks come first.
            if self._soon:
                await checkpoint()

    def call_at(self, when: float, callback: Callable[[], None], /) -> TrioTimer:
        timer = TrioTimer(callback, self)
        heapq.heappush(self._timers, (when, next(self._timer_numbers), timer))
        if self._timer_scope is None:
            self._timer_scope = trio.CancelScope()
            spawn_system_task(self._run_timers, self._timer_scope, name="alpc_async timers")
        elif when < self._timer_scope.deadline:
            self._timer_scope.deadline = when
        return timer

    def note_cancelled_timer(self) -> None:
        """Throw cancelled timers away when they are the most; timers call this."""
        self._cancelled_timers += 1
        if self._cancelled_timers > max(MANY_TIMERS, len(self._timers) // 2):
            self._timers = [entry for entry in self._timers if entry[2].callback is not None]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0

    async def _run_timers(self, scope: trio.CancelScope) -> None:
        while self._timers:
            self._timer_scope = scope
            scope.deadline = self._timers[0][0]
            with scope:
                await trio.sleep_forever()
            scope = trio.CancelScope()
            self._timer_scope = scope
            now = self.time()
            while self._timers and self._timers[0][0] <= now:
                timer = heapq.heappop(self._timers)[2]
                callback, timer.callback = timer.callback, None
                if callback is not None:
                    _run(callback)
            while self._timers and self._timers[0][2].callback is None:
                heapq.heappop(self._timers)
        self._timer_scope = None

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> None:
        self._watch(fd, False, wait_readable, callback)

    def remove_reader(self, fd: int, /) -> None:
        self._unwatch(fd, False)

    def add_writer(self, fd: int, callback: Callable[[], None], /) -> None:
        self._watch(fd, True, wait_writable, callback)

    def remove_writer(self, fd: int, /) -> None:
        self._unwatch(fd, True)

    def _watch(
        self, fd: int, writing: bool, wait: Callable[[int], Awaitable[None]], callback: Callable[[], None]
    ) -> None:
        self._unwatch(fd, writing)
        watch = self._watches[fd, writing] = Watch()

        async def run() -> None:
            with watch.scope:
                while watch.active:
                    await wait(fd)
                    if watch.active:
                        try:
                            callback()
                        except Exception:
                            _logger.exception(FAILED, callback)

        spawn_system_task(run, name=f"alpc_async {'writes' if writing else 'reads'} {fd}")

    def _unwatch(self, fd: int, writing: bool) -> None:
        watch = self._watches.pop((fd, writing), None)
        if watch is not None:
            watch.active = False
            watch.scope.cancel()


def _run(callback: Callable[[], None]) -> None:
    # An exception that leaves a system task ends the whole run as an internal error of trio; asyncio logs and goes on.
    try:
        callback()
    except Exception:
        _logger.exception(FAILED, callback)
