"""A pool of tasks that run a handler for every packet of a completion port.

Belongs here: `WorkerPool` and its workers. Never here: waiting and fairness (the port's queue).

Workers are long-lived tasks; nothing is created for a message. A worker takes one packet at a time. Before it runs the
handler it sees to it that one more worker is there, and awake while more packets wait: the one that went idle last. If
the handler never suspends, the first worker drains the queue alone and the other finds nothing to do; if it suspends,
the other goes on. That is what an I/O completion port does with threads.

Every worker has one cancel scope for its life. Cancelling a message cancels the scope of the worker that runs it, and
the pool replaces that worker. A deadline cancels in the same way, from one timer for the whole pool.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio
import msgspec

from ..port import MessageType
from ..wire import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

    from anyio.abc import TaskGroup

    from ..link import TimerHandle
    from ..port import Completion, Message, PacketQueue
    from ._port import CompletionPort

__all__ = ["WorkerPool", "WorkerPoolStatistics"]

_logger = logging.getLogger("alpc_async.completion")

PACKETS_PER_TURN: Final = 128
"""Packets that one worker handles in a row without letting the event loop turn.

Without it, handlers that never suspend would hold up sending and receiving until the queue is empty.
"""

_NOTICES: Final = frozenset({MessageType.PORT_CLOSED, MessageType.CLIENT_DIED, MessageType.LOST_REPLY})


class WorkerPoolStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker pool has done so far.

    Attributes:
        size: workers.
        running: workers that are inside a handler.
        idle: workers that wait for a packet.
        handled: handlers that returned.
        failed: handlers that raised an exception.
        cancelled: handlers that were cancelled because their message was, or because its deadline came.
        started: workers started, replacements included.
        largest_size: most workers at the same time.
    """

    size: int
    running: int
    idle: int
    handled: int
    failed: int
    cancelled: int
    started: int
    largest_size: int


class _Worker:
    """One worker task."""

    __slots__ = ("deadline", "running", "scope")

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.deadline = math.inf
        self.running = False


class WorkerPool:
    """Runs a handler for every packet of a completion port.

    ::

        async def handle(message):
            message.reply(await compute(message.data))

        async with alpc.WorkerPool(completion_port, handle, maximum=16):
            ...

    The handler is called with each packet: with the `Message` itself for messages, with a `Completion` for posted
    packets. When it raises an exception its request fails with ``Status.HANDLER_FAILED`` and the error is logged; the
    worker goes on. When it returns without a reply the request stays open, to be answered or released later.

    Leaving the block stops the workers, cancelling the handlers that still run; wait for them with `wait_idle`. The
    pool holds a task group, so it must be left in the task that entered it.

    Args:
        completion_port: where the packets come from.
        handler: an async function of one packet.
        minimum: workers that are always there.
        maximum: most handlers in flight at the same time.
        kind: ``"task"``: handlers are async functions of this event loop.
        notices: call the handler for closed ports, dead clients and lost replies too; by default they are dropped.

    Raises:
        ValueError: ``minimum`` and ``maximum`` do not fit together, or ``kind`` is unknown.
    """

    def __init__(
        self,
        completion_port: CompletionPort,
        handler: Callable[[Any], Awaitable[object]],
        *,
        minimum: int = 1,
        maximum: int = 64,
        kind: Literal["task"] = "task",
        notices: bool = False,
    ) -> None:
        if not 1 <= minimum <= maximum:
            raise ValueError(f"1 <= minimum <= maximum must hold, not minimum={minimum}, maximum={maximum}")
        if kind != "task":
            raise ValueError(f"kind must be 'task', not {kind!r}")
        self._handler: Callable[[Any], object] = handler
        self._minimum = minimum
        self._maximum = maximum
        self._unwanted = {MessageType.CANCELED} if notices else {MessageType.CANCELED, *_NOTICES}
        self._queue: PacketQueue = completion_port.queue
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._waking = False
        self._pausing = 0
        self._group: TaskGroup | None = None
        self._entered: AbstractAsyncContextManager[TaskGroup] | None = None
        self._stopping = False
        self._timer: TimerHandle | None = None
        self._timer_at = math.inf
        self._handled = 0
        self._failed = 0
        self._cancelled = 0
        self._started = 0
        self._largest_size = 0

    # -- life --------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._entered = anyio.create_task_group()
        self._group = await self._entered.__aenter__()
        for _ in range(self._minimum):
            self._start_worker()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        entered, self._entered, group = self._entered, None, self._group
        if entered is not None and group is not None:
            group.cancel_scope.cancel()
            # The group does not hear of an error of the block, or it would wrap it; the block's own error goes on.
            await entered.__aexit__(None, None, None)

    def _start_worker(self) -> None:
        if self._group is None or self._stopping:
            return
        worker = _Worker()
        self._workers.add(worker)
        self._started += 1
        self._largest_size = max(self._largest_size, len(self._workers))
        self._group.start_soon(self._work, worker, name="alpc_async worker")

    async def wait_idle(self) -> None:
        """Wait until no packet waits and no handler runs. Cancelling stops the wait."""
        while self._queue.ready or any(worker.running for worker in self._workers):  # noqa: ASYNC110  # IDLE_INTERVAL
            await anyio.sleep(IDLE_INTERVAL)

    def statistics(self) -> WorkerPoolStatistics:
        """Return what this pool has done so far."""
        return WorkerPoolStatistics(
            size=len(self._workers),
            running=sum(worker.running for worker in self._workers),
            idle=len(self._idle),
            handled=self._handled,
            failed=self._failed,
            cancelled=self._cancelled,
            started=self._started,
            largest_size=self._largest_size,
        )

    # -- working -----------------------------------------------------------------------------------------------------

    async def _work(self, worker: _Worker) -> None:
        try:
            with worker.scope:
                await self._take_packets(worker)
        finally:
            self._workers.discard(worker)
        if worker.scope.cancel_called and not self._stopping:
            self._cancelled += 1
            self._start_worker()

    async def _take_packets(self, worker: _Worker) -> None:
        queue = self._queue
        self._waking = False
        in_a_row = 0
        # A handler may outlive the cancellation of its scope; the next packet must not be taken inside that scope.
        while not worker.scope.cancel_called and not self._stopping:
            packet = queue.take()
            if packet is None:
                in_a_row = 0
                await self._park(worker)
                continue
            if not self._waking:
                self._call_another()
            message = packet.message
            if message is None:
                await self._handle(worker, packet)
            elif message.cancelled or message.type in self._unwanted:
                continue
            else:
                await self._handle_message(worker, message)
            in_a_row += 1
            if in_a_row >= PACKETS_PER_TURN:
                in_a_row = 0
                await self._pause()

    async def _pause(self) -> None:
        # A worker that pauses goes on by itself, so nobody else has to be called for the packets that wait.
        self._pausing += 1
        try:
            await self._queue.loop.checkpoint()
        finally:
            self._pausing -= 1

    async def _park(self, worker: _Worker) -> None:
        self._idle.append(worker)
        try:
            await self._queue.wait()
        finally:
            self._idle.remove(worker)
            self._waking = False

    def _call_another(self) -> None:
        # There must always be a worker that takes the next packet if this one's handler suspends: awake when packets
        # wait already, parked otherwise. One is enough, since it does the same in its turn.
        if self._idle:
            if self._queue.ready:
                self._waking = True
                self._queue.wake_one()
        elif not self._pausing and len(self._workers) < self._maximum:
            self._waking = True
            self._start_worker()
        elif self._queue.ready:
            # All of ours are busy; somebody else may wait at the same completion port.
            self._queue.wake_one()

    async def _handle_message(self, worker: _Worker, message: Message) -> None:
        message.on_cancel = worker.scope.cancel
        if message.deadline < math.inf:
            worker.deadline = message.deadline
            if message.deadline < self._timer_at:
                self._arm_timer(message.deadline)
        try:
            await self._handle(worker, message)
        except anyio.get_cancelled_exc_class():
            if worker.scope.cancel_called:
                self._answer(message, Status.DEADLINE_PASSED, "the handler was stopped at the deadline")
            else:
                self._answer(message, Status.ABANDONED, "the worker pool was closed")
            raise
        finally:
            message.on_cancel = None
            worker.deadline = math.inf

    async def _handle(self, worker: _Worker, packet: Completion) -> None:
        worker.running = True
        try:
            result = self._handler(packet)
            if not isinstance(result, Awaitable):
                name = getattr(self._handler, "__qualname__", repr(self._handler))
                raise TypeError(f"the handler must be an async function, but {name} returned {type(result).__name__}")
            await result
            self._handled += 1
        except Exception as error:
            self._failed += 1
            self._report_failure(packet, error)
        finally:
            worker.running = False

    def _report_failure(self, packet: Completion, error: Exception) -> None:
        _logger.error("the handler failed for %r", packet, exc_info=error)
        if packet.message is not None:
            self._answer(packet.message, Status.HANDLER_FAILED, "the handler failed; see the server's log")

    def _answer(self, message: Message, status: Status, reason: str) -> None:
        if message.answered:
            return
        if message.type is MessageType.REQUEST:
            message.fail(status, reason)
        elif message.type is MessageType.CONNECTION_REQUEST:
            message.refuse(status=status)

    # -- deadlines -----------------------------------------------------------------------------------------------------

    def _arm_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._queue.loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        now = self._queue.loop.time()
        following = math.inf
        for worker in self._workers:
            if worker.deadline <= now:
                worker.scope.cancel()
            elif worker.deadline < following:
                following = worker.deadline
        if following < math.inf:
            self._arm_timer(following)


IDLE_INTERVAL: Final = 0.005
"""Seconds between two looks of `WorkerPool.wait_idle`, which is for teardown and tests."""
