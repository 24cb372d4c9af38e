"""Running handlers: tasks that take messages from a queue, one at a time, and belong to no task group.

Belongs here: `Dispatcher` and its workers: starting, waking, cancelling, deadlines, stopping. Never here: what a
message means (`_session`).

The rules are those of `alpc_async.completion.WorkerPool`: no task per message, one cancel scope per worker, one timer
for all deadlines. The difference is that nothing here holds a task group, so a proxy or a service can be opened in one
task and closed in another, in any order; and that messages are taken in batches which all workers share.
"""

from __future__ import annotations

import contextvars
import logging
import math
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio

from ..port import MessageType
from ..wire import Status
from ._call import set_current

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..link import Loop, TimerHandle, Waiter
    from ..port import Arrived, PacketQueue, Seat
    from ._call import Call

__all__ = ["Dispatcher", "Worker"]

_logger = logging.getLogger("alpc_async.service")

BATCH: Final = 128
"""Messages that are taken from the queue at a time, and handled before the loop turns again."""

SPARE: Final = 8
"""Idle workers that are kept; making one takes some ten times as long as waking one."""


class Worker:
    """One task that handles messages.

    Attributes:
        scope: cancelling it cancels the handler that runs, and ends the task.
        deadline: when that happens by itself, on the loop's clock, in seconds.
        call: the call that is handled, or was handled last.
        since: when the batch was taken that the message came in, on the loop's clock, in seconds.
        cancelled: whether `cancel` was called; trio's scopes read the clock to answer the same question.
    """

    __slots__ = ("call", "cancelled", "deadline", "scope", "since")

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.deadline = math.inf
        self.call: Call | None = None
        self.cancelled = False
        self.since = 0.0

    def cancel(self) -> None:
        """Cancel the handler that runs, and end the task."""
        self.cancelled = True
        self.scope.cancel()


class Dispatcher:
    """Hands the messages of a queue to a function, each in a worker.

    Args:
        loop: the running loop.
        queue: where the messages come from.
        handle: called for each; must not raise anything but a cancellation.
        maximum: most handlers in flight at the same time.
    """

    def __init__(
        self, loop: Loop, queue: PacketQueue, handle: Callable[[Arrived, Worker], Awaitable[None]], *, maximum: int
    ) -> None:
        self._loop = loop
        self._queue = queue
        self._handle = handle
        self._maximum = maximum
        self._ready: deque[Any] = deque()
        self._workers: set[Worker] = set()
        self._idle = 0
        self._waking = False
        self._stopping = False
        self._context = contextvars.copy_context()
        self._timer: TimerHandle | None = None
        self._timer_at = math.inf
        self._ended: list[Waiter] = []
        self._quiet: list[Waiter] = []
        self._spawned = 0
        self._taken_at = 0.0
        self.handled = 0

    @property
    def size(self) -> int:
        """Workers that are there."""
        return len(self._workers)

    @property
    def running(self) -> int:
        """Workers that handle a message."""
        return len(self._workers) - self._idle

    def calls(self) -> list[tuple[Call, float]]:
        """Return the calls that are being handled, each with the time since when, on the loop's clock, in seconds."""
        return [(worker.call, worker.since) for worker in self._workers if worker.call is not None]

    def start(self) -> None:
        """Start the first worker."""
        self._start_worker()

    def spawn(self, function: Callable[[], Any], name: str) -> None:
        """Run an async function in a task of its own, which logs what it raises.

        Args:
            function: the function.
            name: of the task.
        """

        async def run() -> None:
            try:
                await function()
            except Exception:
                _logger.exception("%s failed", name)
            finally:
                self._spawned -= 1
                if not self._spawned:
                    _wake_all(self._quiet)

        self._spawned += 1
        self._loop.spawn(run, name=name, context=self._context.copy())

    def _start_worker(self) -> None:
        worker = Worker()
        self._workers.add(worker)
        self._loop.spawn(partial(self._work, worker), name="alpc_async service worker", context=self._context.copy())

    async def _work(self, worker: Worker) -> None:
        try:
            with worker.scope:
                await self._take_messages(worker)
        finally:
            self._note_end(worker)

    async def _take_messages(self, worker: Worker) -> None:  # noqa: C901  # a further coroutine per message is slower
        ready, queue, ring, handle = self._ready, self._queue, self._queue.ring, self._handle
        cancel, never, time = worker.cancel, math.inf, self._loop.time
        self._waking = False
        while not self._stopping:
            if ready:
                message: Any = ready.popleft()
            elif ring:
                # Looking at the ring is quicker than being told that there is no batch.
                ready.extend(queue.take_batch(BATCH))
                self._taken_at = time()
                continue
            elif self._idle >= SPARE:
                return
            else:
                seat = self._sit_down()
                try:
                    await seat.waiter
                except BaseException:
                    queue.leave_seat(seat)
                    raise
                finally:
                    self._idle -= 1
                    self._waking = False
                if seat.batch is None:
                    continue
                # One request, past the queue.
                message = seat.batch[0]
                self._taken_at = time()
            if message.cancelled:
                continue
            if not self._waking and (ready or not self._idle):
                self._call_another()
            message.on_cancel = cancel
            worker.since = self._taken_at
            deadline = message.deadline
            if deadline < never:
                worker.deadline = deadline
                if deadline < self._timer_at:
                    self._arm_timer(deadline)
            await handle(message, worker)
            worker.call = None
            self.handled += 1
            if message.on_cancel is cancel:
                message.on_cancel = None
            worker.deadline = never
            # A handler may outlive the cancellation of its scope; nothing else may run inside that scope.
            if worker.cancelled:
                return
            if ring and not ready:
                # Let the loop send and receive before the next batch.
                await self._loop.checkpoint()

    def _note_end(self, worker: Worker) -> None:
        self._workers.discard(worker)
        if self._stopping and not self._workers:
            _wake_all(self._ended)
        elif not self._stopping and worker.cancelled:
            # Its place is taken only now, since the cancelled handler counted until it ended.
            self._call_another()

    def _sit_down(self) -> Seat:
        # What was handled last must not be kept alive by a task that waits.
        set_current(None)
        self._idle += 1
        return self._queue.take_seat(True)

    def _call_another(self) -> None:
        if self._idle:
            if self._ready:
                self._waking = True
                self._queue.wake_one()
        elif len(self._workers) < self._maximum:
            self._waking = True
            self._start_worker()

    # -- deadlines ---------------------------------------------------------------------------------------------------

    def _arm_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        now = self._loop.time()
        following = math.inf
        for worker in self._workers:
            if worker.deadline <= now:
                worker.cancel()
            elif worker.deadline < following:
                following = worker.deadline
        if following < math.inf:
            self._arm_timer(following)

    # -- stopping ----------------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Cancel every handler, take no more messages."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for message in self._ready:
            if message.type is MessageType.REQUEST and not message.cancelled:
                message.fail(Status.ABANDONED, "the service was closed")
        self._ready.clear()
        for worker in self._workers:
            worker.cancel()

    async def stop(self, timeout: float) -> None:
        """Cancel every handler, and wait until they have ended.

        Completes at once when it is cancelled; the handlers then end by themselves.

        Args:
            timeout: how long to wait for handlers that do not end, in seconds.
        """
        self.cancel()
        if self._workers:
            await self._wait(self._ended, timeout)
        else:
            await self._loop.checkpoint()

    async def wait_spawned(self, timeout: float) -> None:
        """Wait until what `spawn` started has ended. Cancelling stops the wait.

        Args:
            timeout: how long to wait, in seconds.
        """
        if self._spawned:
            await self._wait(self._quiet, timeout)

    async def _wait(self, waiters: list[Waiter], timeout: float) -> None:
        with anyio.move_on_after(timeout):
            waiter = self._loop.create_waiter()
            waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in waiters:
                    waiters.remove(waiter)


def _wake_all(waiters: list[Waiter]) -> None:
    while waiters:
        waiter = waiters.pop()
        if not waiter.done():
            waiter.set_result(None)
