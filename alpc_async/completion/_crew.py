"""What the workers of a pool do: taking packets, running the handler, and how that ends.

Belongs here: `Crew`. Never here: how many workers there are, and when the pool ends (`_pool`).

A worker takes one packet at a time. Before it runs the handler it sees to it that one more worker is there, and awake
while more packets wait: the one that went idle last. If the handler never suspends, the first worker drains the queue
alone and the other finds nothing to do; if it suspends, the other goes on. That is what an I/O completion port does
with threads.

Every worker has one cancel scope for its life. Cancelling a message of a task cancels the scope of the worker that runs
it, and the pool replaces that worker. A deadline stops a handler in the same way, from one timer for the whole pool.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from ..errors import WorkerDied
from ..port import Arrived, MessageType
from ..wire import Status
from ._port import core_of
from ._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link import TimerHandle
    from ..port import Completion, Message, PacketQueue
    from ._port import CompletionPort
    from ._worker import Kind

__all__ = ["Crew"]

_logger = logging.getLogger("alpc_async.completion")

PACKETS_PER_TURN: Final = 128
"""Packets that one worker handles in a row without letting the event loop turn.

Without it, handlers that never suspend would hold up sending and receiving until the queue is empty.
"""

TURN: Final = 2
"""Packets of one sender in a turn, for each unit of its weight.

While all workers are busy, somebody who asks for one thing waits for that many handlers of each other sender at most.
Workers take packets one by one, so short turns cost next to nothing here.
"""

_NOTICES: Final = frozenset({MessageType.PORT_CLOSED, MessageType.CLIENT_DIED, MessageType.LOST_REPLY})
_NEVER: Final = math.inf
_REQUEST: Final = MessageType.REQUEST


def _mistaken(handler: Callable[[Any], object], result: object) -> TypeError:
    """Return the error of a handler that is no async function."""
    name = getattr(handler, "__qualname__", repr(handler))
    return TypeError(f"the handler must be an async function, but {name} returned {type(result).__name__}")


class Crew:
    """The workers of a pool.

    Args:
        completion_port: where the packets come from.
        kind: how the workers run a handler.
        notices: hand out notices as well.
        cancel_grace: time for a cancelled handler to end before it is reported, in seconds.
    """

    __slots__ = (
        "_busy_from",
        "_busy_seconds",
        "_cancel_grace",
        "_now",
        "_pausing",
        "_sized",
        "_timer",
        "_timer_at",
        "_unwanted",
        "_waking",
        "batch_sizes",
        "cancelled",
        "failed",
        "handled",
        "idle",
        "kind",
        "largest_size",
        "overdue",
        "queue",
        "shed",
        "started",
        "stopped",
        "stopping",
        "workers",
    )

    def __init__(self, completion_port: CompletionPort, kind: Kind, notices: bool, cancel_grace: float) -> None:
        self.kind = kind
        self.queue: PacketQueue = core_of(completion_port).queue
        self.queue.turn = TURN
        self._now = self.queue.loop.time
        self.workers: set[Worker] = set()
        self.idle: list[Worker] = []
        self.stopping = False
        self.handled = 0
        self.failed = 0
        self.cancelled = 0
        self.shed = 0
        self.overdue = 0
        self.started = 0
        self.stopped: int = 0
        self.largest_size = 0
        self.batch_sizes = [0] * PACKETS_PER_TURN.bit_length()
        self._sized = kind.law is not None
        self._cancel_grace = cancel_grace
        self._unwanted = {MessageType.CANCELED} if notices else {MessageType.CANCELED, *_NOTICES}
        self._waking = False
        self._pausing = 0
        self._timer: TimerHandle | None = None
        self._timer_at = _NEVER
        self._busy_seconds = 0.0
        self._busy_from = -_NEVER

    # -- what the pool decides -----------------------------------------------------------------------------------------

    def _limit(self) -> int:
        """Return how many workers there may be."""
        raise NotImplementedError

    def _start_worker(self) -> None:
        """Start one more worker."""
        raise NotImplementedError

    def _note_begun(self) -> None:
        """Note that a packet was taken."""
        raise NotImplementedError

    def _note_quiet(self) -> None:
        """Note that a worker found nothing to do."""
        raise NotImplementedError

    def _note_less_idle(self, idle: int) -> None:
        """Note how many workers are idle after one more was called."""
        raise NotImplementedError

    def _is_running(self) -> bool:
        """Return whether any handler runs."""
        return any(worker.running for worker in self.workers)

    def _new_worker(self) -> Worker:
        """Return a worker that is going to be started."""
        worker = Worker()
        worker.on_cancel = partial(self._interrupt, worker)
        self.workers.add(worker)
        self.started += 1
        self.largest_size = max(self.largest_size, len(self.workers))
        return worker

    # -- working -----------------------------------------------------------------------------------------------------

    async def _work(self, worker: Worker) -> None:
        """Be a worker until the pool ends, or until this one is cancelled or retired."""
        try:
            with worker.scope:
                await self.kind.equip(worker)
                worker.ready = True
                self._waking = False
                await self._take_packets(worker)
        finally:
            self.workers.discard(worker)
            await self.kind.dismiss(worker)
        if worker.scope.cancel_called and not self.stopping and not worker.retired:
            self.cancelled += 1
            self._start_worker()
        self._note_quiet()

    async def _take_packets(self, worker: Worker) -> None:
        sized = self._sized
        in_a_row = 0
        # A handler may outlive the cancellation of its scope; the next packet must not be taken inside that scope.
        try:
            while not worker.cancelled and not self.stopping:
                packet = self._begin(worker)
                if packet is None:
                    self._note_batch(in_a_row)
                    in_a_row = 0
                    await self._park(worker)
                    continue
                in_a_row += 1
                # The handler is called here: a coroutine around it would cost as much as all the rest.
                try:
                    result = worker.handler(packet)
                    # Nearly always a coroutine; asking the abstract class costs much more.
                    if type(result) is not CoroutineType and not isinstance(result, Awaitable):
                        raise _mistaken(worker.handler, result)
                    await result
                    if sized and isinstance(packet, Arrived) and packet.cancelled:
                        self.cancelled += 1
                    else:
                        self.handled += 1
                except Exception as error:
                    self.failed += 1
                    self._report_failure(packet, error)
                except BaseException:
                    self._note_stopped(packet)
                    raise
                finally:
                    worker.packet = None
                    if isinstance(packet, Arrived):
                        packet.on_cancel = None
                        worker.deadline = _NEVER
                    if sized:
                        self._busy_seconds += self.queue.loop.time() - max(worker.since, self._busy_from)
                if sized and len(self.workers) > self._limit() and not self.stopping:
                    worker.retired = True
                    self.stopped += 1
                    return
                if in_a_row >= PACKETS_PER_TURN:
                    self._note_batch(in_a_row)
                    in_a_row = 0
                    await self._pause()
        finally:
            self._note_batch(in_a_row)

    def _begin(self, worker: Worker) -> Completion | None:
        """Return the packet that a worker is to handle now; ``None`` when none waits."""
        queue, now = self.queue, self._now
        while (packet := queue.take()) is not None:
            if not self._waking and (queue.ring or not self.idle):
                self._call_another()
            if isinstance(packet, Arrived):
                # Whether a type is in a set takes a call to find out, and nearly every message is a request.
                if packet.cancelled or (packet.type is not _REQUEST and packet.type in self._unwanted):
                    continue
                deadline = packet.deadline
                if deadline < _NEVER:
                    if deadline <= now():
                        self._shed(packet)
                        continue
                    worker.deadline = deadline
                    if deadline < self._timer_at:
                        self._arm_timer(deadline)
                packet.on_cancel = worker.on_cancel
            worker.packet = packet
            if self._sized:
                worker.since = now()
            return packet
        return None

    def _note_batch(self, packets: int) -> None:
        if packets:
            self.batch_sizes[packets.bit_length() - 1] += 1

    def _shed(self, message: Arrived) -> None:
        """Answer a message that is not started any more."""
        self.shed += 1
        self._answer(message, Status.DEADLINE_PASSED, "the deadline passed before the request was started")

    async def _pause(self) -> None:
        # A worker that pauses goes on by itself, so nobody else has to be called for the packets that wait.
        self._pausing += 1
        try:
            await self.queue.loop.checkpoint()
        finally:
            self._pausing -= 1

    async def _park(self, worker: Worker) -> None:
        self.idle.append(worker)
        self._note_quiet()
        try:
            await self.queue.wait()
        finally:
            if not worker.retired:
                self.idle.remove(worker)
            self._waking = False

    def _call_another(self) -> None:
        """See to it that there is a worker for the next packet if the handler that begins now suspends.

        It has to be awake when packets wait already, and may be parked otherwise. One is enough, since it does the
        same in its turn.
        """
        if self.idle:
            if self.queue.ready:
                self._waking = True
                self._note_less_idle(len(self.idle) - 1)
                self.queue.wake_one()
        elif not self._pausing and len(self.workers) < self._limit():
            self._waking = True
            self._note_less_idle(0)
            self._start_worker()
        elif self.queue.ready:
            # All of ours are busy; somebody else may wait at the same completion port.
            self.queue.wake_one()
        if self._sized:
            self._note_begun()

    def _note_stopped(self, packet: Completion) -> None:
        message = packet.message
        if message is None:
            return
        if self.stopping:
            self._answer(message, Status.ABANDONED, "the worker pool was closed")
        else:
            self._answer(message, Status.DEADLINE_PASSED, "the handler was stopped at the deadline")

    def _take_busy_seconds(self, now: float) -> float:
        """Return the time that workers spent in handlers since the last call, in seconds."""
        seconds = self._busy_seconds
        for worker in self.workers:
            if worker.running:
                seconds += now - max(worker.since, self._busy_from)
        self._busy_seconds = 0.0
        self._busy_from = now
        return seconds

    def _report_failure(self, packet: Completion, error: Exception) -> None:
        message = packet.message
        if isinstance(error, WorkerDied):
            _logger.error("%s; it was working on %r", error, packet)
            if message is not None:
                self._answer(message, Status.WORKER_DIED, "the process that worked on it died")
            return
        _logger.error("the handler failed for %r", packet, exc_info=error)
        if message is not None:
            self._answer(message, Status.HANDLER_FAILED, "the handler failed; see the server's log")

    def _answer(self, message: Message, status: Status, reason: str) -> None:
        if message.answered:
            return
        if message.type is MessageType.REQUEST:
            message.fail(status, reason)
        elif message.type is MessageType.CONNECTION_REQUEST:
            message.refuse(status=status)

    # -- stopping a handler --------------------------------------------------------------------------------------------

    def _interrupt(self, worker: Worker) -> None:
        """Stop the handler that runs, in the way that this kind of worker can, and see whether it stops."""
        message = worker.packet.message if worker.packet is not None else None
        if message is None:
            return
        if worker.interrupt is None:
            worker.cancel()
        else:
            worker.interrupt(message)
        loop = self.queue.loop
        loop.call_at(loop.time() + self._cancel_grace, partial(self._check_stopped, worker, message))

    def _check_stopped(self, worker: Worker, message: Message) -> None:
        if worker.packet is message:
            self.overdue += 1
            _logger.warning(
                "the handler of %r was cancelled %g s ago and still runs; it ignores the cancellation",
                message,
                self._cancel_grace,
            )

    def _note_cut(self, cut: tuple[str, ...], grace: float) -> None:
        """Report handlers that were cancelled because the pool ends."""
        _logger.warning("the worker pool ended after %g s with handlers cancelled for %s", grace, ", ".join(cut))

    def _arm_timer(self, deadline: float) -> None:
        self._stop_timer()
        self._timer_at = deadline
        self._timer = self.queue.loop.call_at(deadline, self._expire)

    def _stop_timer(self) -> None:
        """Forget the timer of the deadlines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        self._timer_at = _NEVER
        now = self.queue.loop.time()
        following = _NEVER
        for worker in list(self.workers):
            if worker.deadline <= now:
                worker.deadline = _NEVER
                message = worker.packet.message if worker.packet is not None else None
                if message is not None:
                    self._stop_at_deadline(worker, message)
            elif worker.deadline < following:
                following = worker.deadline
        if following < _NEVER:
            self._arm_timer(following)

    def _stop_at_deadline(self, worker: Worker, message: Message) -> None:
        if worker.interrupt is not None:
            # It may go on for long; the caller hears of the deadline now.
            self._answer(message, Status.DEADLINE_PASSED, "the deadline of the request came")
            message.cancelled = True
        self._interrupt(worker)
