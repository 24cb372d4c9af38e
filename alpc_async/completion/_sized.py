"""The workers of a pool: their life, and how many there are.

Belongs here: `SizedCrew`. Never here: what a user sees of it (`_pool`), what a worker does with a packet (`_crew`),
waiting and fairness (the port's queue), how one kind of worker runs a handler.

Nothing is created for a message: workers live as long as they are needed. How many there are follows the demand. Tasks
cost next to nothing, so there are as many as handlers wait at the same time, up to the maximum; those that find nothing
to do for a while go. Threads and processes are limited by a `Sizer` as well, which is told what they do in regular
ticks, as long as there is something to tell.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio

from ..link import usable_processors
from ._crew import Crew
from ._interpreters import InterpreterKind
from ._law import Tick
from ._port import core_of
from ._processes import ProcessKind
from ._sizing import Sizer
from ._statistics import WorkerPoolReport, WorkerPoolStatistics
from ._tasks import TaskKind
from ._threads import ThreadKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

    from anyio.abc import TaskGroup

    from ..link import TimerHandle, Waiter
    from ._port import CompletionPort
    from ._worker import Kind, Worker

__all__ = ["CANCEL_GRACE", "KINDS", "KindName", "SizedCrew"]

KindName = Literal["task", "thread", "process", "interpreter"]

KINDS: Final = ("task", "thread", "process", "interpreter")

CANCEL_GRACE: Final = 5.0
"""Seconds that a cancelled handler has to end before it is reported: a few times what cleaning up takes."""

TRIM_INTERVAL: Final = 5.0
"""Seconds between two looks for tasks that found nothing to do since the last one."""


class SizedCrew(Crew):
    """The workers of a pool, as many as are needed. Arguments and errors like `WorkerPool`."""

    __slots__ = (
        "_allowance",
        "_counted",
        "_entered",
        "_grace",
        "_group",
        "_idle_waiters",
        "_last_tick",
        "_least_idle",
        "_limit_now",
        "_maximum",
        "_minimum",
        "_port",
        "_sizer",
        "_tick_timer",
    )

    def __init__(
        self,
        completion_port: CompletionPort,
        handler: Callable[[Any], Awaitable[object]] | Callable[[Any], object] | str,
        *,
        minimum: int,
        maximum: int,
        kind: KindName,
        notices: bool,
        grace: float,
        cancel_grace: float,
    ) -> None:
        if not 1 <= minimum <= maximum:
            raise ValueError(f"1 <= minimum <= maximum must hold, not minimum={minimum}, maximum={maximum}")
        super().__init__(completion_port, _kind(completion_port, handler, kind, cancel_grace), notices, cancel_grace)
        self._port = completion_port
        self._minimum = minimum
        self._maximum = maximum
        self._grace = grace
        self._sizer = Sizer(minimum, maximum, self.kind.law) if self.kind.law is not None else None
        self._allowance = 0
        self._limit_now = self._compute_limit()
        self._group: TaskGroup | None = None
        self._entered: AbstractAsyncContextManager[TaskGroup] | None = None
        self._tick_timer: TimerHandle | None = None
        self._last_tick = -math.inf
        self._counted = 0
        self._least_idle = 0
        self._idle_waiters: list[Waiter] = []

    # -- life --------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.kind.open()
        if self._sizer is not None:
            core_of(self._port).watch_blocked(self._note_blocked)
        self._entered = anyio.create_task_group()
        self._group = await self._entered.__aenter__()
        for _ in range(self._minimum):
            self._start_worker()
        self._arm_tick()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        entered, self._entered = self._entered, None
        if entered is None:
            return
        try:
            if self._grace and kind is None:
                await self.shut_down(self._grace)
        finally:
            self._cut()
            if self._group is not None:
                self._group.cancel_scope.cancel()
            try:
                # The group does not hear of an error of the block, or it would wrap it; the block's own goes on.
                await entered.__aexit__(None, None, None)
            finally:
                await self.kind.close()

    async def shut_down(self, grace: float = 0.0) -> WorkerPoolReport:
        """See `WorkerPool.shut_down`."""
        self.stopping = True
        running = len([worker for worker in self.workers if worker.running])
        for worker in [worker for worker in self.workers if not worker.running]:
            worker.cancel()
        cut: tuple[str, ...] = ()
        try:
            with anyio.move_on_after(grace):
                await self._wait_until_quiet()
        finally:
            cut = tuple(repr(worker.packet) for worker in self.workers if worker.running)
            self._cut()
        if cut:
            self._note_cut(cut, grace)
            await self.queue.loop.checkpoint()
        return WorkerPoolReport(running - len(cut), cut)

    def _cut(self) -> None:
        self.stopping = True
        if self._tick_timer is not None:
            self._tick_timer.cancel()
            self._tick_timer = None
        self._stop_timer()
        # One by one: the group's own scope holds the block of the user as well.
        for worker in list(self.workers):
            worker.cancel()

    async def wait_idle(self) -> None:
        """See `WorkerPool.wait_idle`."""
        await self.queue.loop.checkpoint()
        while self.queue.ready or self._is_running():
            await self._wait_until_quiet(once=True)

    async def _wait_until_quiet(self, *, once: bool = False) -> None:
        while self._is_running() or once:
            once = False
            waiter = self.queue.loop.create_waiter()
            self._idle_waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._idle_waiters:
                    self._idle_waiters.remove(waiter)

    def _note_quiet(self) -> None:
        """Wake those who wait for quiet, when there is some; workers call this when they find nothing to do."""
        if self._idle_waiters and not self._is_running():
            waiters, self._idle_waiters = self._idle_waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def statistics(self) -> WorkerPoolStatistics:
        """See `WorkerPool.statistics`."""
        return WorkerPoolStatistics(
            size=len(self.workers),
            limit=self._limit_now,
            running=sum(worker.running for worker in self.workers),
            idle=len(self.idle),
            queued=len(self.queue),
            oldest=self.queue.age(),
            handled=self.handled,
            failed=self.failed,
            cancelled=self.cancelled,
            shed=self.shed,
            overdue=self.overdue,
            started=self.started,
            stopped=self.stopped,
            restarted=self.kind.restarted,
            largest_size=self.largest_size,
            batch_sizes=tuple(self.batch_sizes),
        )

    # -- how many ------------------------------------------------------------------------------------------------------

    def _limit(self) -> int:
        """Return how many workers there may be."""
        return self._limit_now

    def _compute_limit(self) -> int:
        if self._sizer is None:
            return self._maximum
        size = self._sizer.size
        if self._port.concurrency:
            # Of those that run at most so many; those that wait for something else do not run.
            size = min(size, self._port.concurrency)
        return max(self._minimum, min(size + self._allowance, self._maximum + self._allowance))

    def _note_blocked(self, change: int) -> None:
        if self._port.concurrency and not self.stopping:
            self._allowance = max(0, self._allowance + change)
            self._set_limit()

    def _set_limit(self) -> None:
        self._limit_now = limit = self._compute_limit()
        while len(self.workers) > limit and self.idle:
            # The one that went idle first; the others are warmer.
            self._retire(self.idle[0])
        if self.queue.ready and len(self.workers) < limit:
            self._call_another()

    def _retire(self, worker: Worker) -> None:
        worker.retired = True
        self.idle.remove(worker)
        self.workers.discard(worker)
        self.stopped += 1
        worker.cancel()

    def _start_worker(self) -> None:
        """Start one more worker."""
        if self._group is None or self.stopping:
            return
        self._group.start_soon(self._work, self._new_worker(), name="alpc_async worker")
        self._arm_tick()

    def _arm_tick(self) -> None:
        if self._tick_timer is None and not self.stopping:
            law = self.kind.law
            loop = self.queue.loop
            if law is None:
                if len(self.workers) <= self._minimum:
                    return
                self._least_idle = len(self.idle)
                self._tick_timer = loop.call_at(loop.time() + TRIM_INTERVAL, self._trim)
            else:
                self._tick_timer = loop.call_at(loop.time() + law.interval, self._tick)

    def _note_begun(self) -> None:
        """Note that a packet was taken; it begins the ticks, which rest while nothing comes."""
        if self._tick_timer is None:
            self._arm_tick()

    def _note_less_idle(self, idle: int) -> None:
        """Note how many workers are idle after one more was called."""
        self._least_idle = min(self._least_idle, idle)

    def _trim(self) -> None:
        self._tick_timer = None
        surplus = min(self._least_idle, len(self.workers) - self._minimum)
        for worker in self.idle[: max(0, surplus)]:
            self._retire(worker)
        self._arm_tick()

    def _tick(self) -> None:
        self._tick_timer = None
        sizer = self._sizer
        if sizer is None:
            return
        now = self.queue.loop.time()
        ended = self.handled + self.failed + self.cancelled
        ready = sum(worker.ready for worker in self.workers)
        # Where the concurrency of the port decides, there is nothing to find out.
        present = sizer.size if ready >= self._limit_now else ready
        queued, finished = len(self.queue), ended - self._counted
        busy, computed = self._take_busy_seconds(now), self.kind.take_computed()
        elapsed = now - self._last_tick
        if elapsed == math.inf:
            # What came before the first tick of a load belongs to no time.
            sizer.advance(Tick(now, present, queued, 0.0, finished))
        elif elapsed > 0:
            processors = max(usable_processors() - computed.others / elapsed, 0.1)
            tick = Tick(now, present, queued, busy / elapsed, finished, computed.handlers / elapsed, processors)
            sizer.advance(tick)
        self._last_tick = now
        self._counted = ended
        if sizer.size != self._limit_now or queued:
            self._set_limit()
        if queued or busy or sizer.size > self._minimum or self._is_running():
            self._arm_tick()
        else:
            self._last_tick = -math.inf


def _kind(completion_port: CompletionPort, handler: Any, kind: str, cancel_grace: float) -> Kind:
    if kind in {"process", "interpreter"}:
        if not isinstance(handler, str) or handler.count(":") != 1:
            raise TypeError(f"the handler of kind={kind!r} is named as 'module:function', not {handler!r}")
        return ProcessKind(handler, cancel_grace) if kind == "process" else InterpreterKind(handler)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, not {kind!r}")
    if not callable(handler):
        raise TypeError(f"the handler must be a function, not {type(handler).__name__}")
    if kind == "thread":
        if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__):
            name = getattr(handler, "__qualname__", repr(handler))
            raise TypeError(f"the handler of kind='thread' must be a plain function, and {name} is async")
        return ThreadKind(handler, completion_port)
    return TaskKind(handler)
