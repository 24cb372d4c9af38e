"""Workers that are processes: handlers compute.

Belongs here: `ProcessKind`: starting, feeding, replacing and ending child processes. Never here: what runs inside
(`_child`), what is said (`_envelope`).

Each worker has a process that lives as long as the worker does. It is reached through a port over an inherited socket,
has one message at a time, and ends with the pool: when the socket closes, and by the kernel when the pool's process was
killed. A process that dies takes the message that it was working on along, no other.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import anyio

from ..errors import (
    DeadlineExceeded,
    Disconnected,
    HandlerNotLoaded,
    PortClosed,
    RemoteFault,
    RequestCancelled,
    WorkerDied,
)
from ..link import ChildProcess, current_loop
from ..port import Message, MessageType, close_now, inheritable_pair
from ..wire import Status
from ._computed import ProcessMeter
from ._envelope import LIMITS, Outcome, open_answer, seal_work, work_of
from ._law import PROCESSES

if TYPE_CHECKING:
    from ..port import Completion, PendingRequest
    from ._computed import Computed
    from ._law import Law
    from ._worker import Worker

__all__ = ["HandlerError", "ProcessKind"]

_log = logging.getLogger("alpc_async.completion")

MODULE: Final = "alpc_async.completion._child"

FAREWELL: Final = 2.0
"""Seconds that an idle process gets to end by itself."""

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
"""Seconds before a process is started again that died young: the first pause, doubled up to the longest."""

YOUNG: Final = 1.0
"""Age in seconds at which a process has proved that it can be started."""


class HandlerError(Exception):
    """A handler in another process raised an exception; the text is its traceback there."""


class _Child:
    """One process, and the port to it.

    Args:
        target: the handler's name.
    """

    def __init__(self, target: str) -> None:
        self._loop = current_loop()
        self._target = target
        self.port, sock = inheritable_pair(LIMITS)
        try:
            fd = sock.fileno()
            self._process = ChildProcess(self._loop, MODULE, (str(fd), target), (fd,))
        except BaseException:
            close_now(self.port)
            raise
        finally:
            sock.close()
        self.started = self._loop.time()
        self.pending: PendingRequest | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def young(self) -> bool:
        """Whether it was started a moment ago."""
        return self._loop.time() - self.started < YOUNG

    async def ready(self) -> None:
        """Wait until it takes messages.

        Raises:
            HandlerNotLoaded: the handler cannot be imported there.
            WorkerDied: it ended instead.
        """
        try:
            await self.ask(b"")
        except WorkerDied:
            raise
        except RemoteFault as error:
            raise HandlerNotLoaded(target=self._target, reason=error.reason, kind="process") from None

    async def ask(self, data: bytes, timeout: float | None = None) -> bytes:
        """Give it something to do and return the answer. Cancelling leaves it busy: kill it then.

        Raises:
            WorkerDied: it ended before it answered.
            RequestCancelled: the request was cancelled.
            DeadlineExceeded: it did not answer in time.
        """
        try:
            self.pending = self.port.start_request(data, timeout=timeout)
            return (await self.pending).data
        except (Disconnected, PortClosed):
            self.pending = None
            status = await self._process.wait()
            raise WorkerDied(status=Status.WORKER_DIED, exit_status=status) from None

    async def end(self) -> None:
        """See to it that it is gone: at once when it is busy. Completes also when cancelled."""
        with anyio.CancelScope(shield=True):
            if self.pending is not None and not self.pending.done:
                self._process.kill()
            await self.port.aclose()
            with anyio.move_on_after(FAREWELL):
                await self._process.wait()
            self._process.kill()


class ProcessKind:
    """Calls the handler in a process of the worker's own.

    Args:
        target: its name, as ``"module:function"``.
        cancel_grace: time for a cancelled handler to end before its process is ended, in seconds.
    """

    law: Law | None = PROCESSES

    def __init__(self, target: str, cancel_grace: float) -> None:
        self._target = target
        self._cancel_grace = cancel_grace
        self._children: dict[Worker, _Child] = {}
        self._spare: _Child | None = None
        self._pause = 0.0
        self._meter = ProcessMeter()
        self.restarted = 0

    def take_computed(self) -> Computed:
        """Return the processor time of the processes, and of this one, since the last call."""
        return self._meter.take(child.pid for child in self._children.values())

    async def open(self) -> None:
        """Start the first process, so that a handler that cannot be imported is seen where the pool is opened.

        Raises:
            HandlerNotLoaded: the handler cannot be imported there.
            WorkerDied: the process ended at once; what it wrote to the standard error says why.
        """
        child = _Child(self._target)
        try:
            await child.ready()
        except BaseException:
            await child.end()
            raise
        self._spare = child

    async def equip(self, worker: Worker) -> None:
        """Give a worker its process."""
        await self._start(worker)

        async def run(packet: Completion) -> None:
            await self._run(worker, packet)

        def interrupt(_message: Message) -> None:
            child = self._children.get(worker)
            if child is not None and child.pending is not None:
                child.pending.cancel()

        worker.handler = run
        worker.interrupt = interrupt

    async def _start(self, worker: Worker) -> _Child:
        child, self._spare = self._spare, None
        while child is None:
            if self._pause:
                await anyio.sleep(self._pause)
            child = _Child(self._target)
            self._children[worker] = child
            try:
                await child.ready()
            except (HandlerNotLoaded, WorkerDied) as error:
                # It could be loaded when the pool was opened, so this may pass.
                _log.error("a worker process cannot be started again yet: %s", error)
                await self._bury(worker, child)
                child = None
        self._children[worker] = child
        return child

    async def _bury(self, worker: Worker, child: _Child) -> None:
        self._children.pop(worker, None)
        self.restarted += 1
        self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE) if child.young else 0.0
        await child.end()

    async def _run(self, worker: Worker, packet: Completion) -> None:
        child = self._children.get(worker) or await self._start(worker)
        message = packet.message
        try:
            answer = await child.ask(seal_work(*work_of(packet)))
        except WorkerDied:
            await self._bury(worker, child)
            raise
        except RequestCancelled:
            await self._free(worker, child)
            return
        self._pause = 0.0
        outcome, status, data = open_answer(answer)
        if outcome is Outcome.RAISED:
            raise HandlerError(data.decode("utf-8", "replace"))
        if message is None or message.answered or message.type is not MessageType.REQUEST:
            return
        if outcome is Outcome.REPLIED:
            message.reply(data)
        elif outcome is Outcome.FAILED:
            message.fail(status, data.decode("utf-8", "replace"))

    async def _free(self, worker: Worker, child: _Child) -> None:
        """Wait until a handler that was cancelled has ended, for the grace time; then end its process."""
        try:
            await child.ask(b"", self._cancel_grace)
        except (DeadlineExceeded, WorkerDied):
            await self._bury(worker, child)

    async def dismiss(self, worker: Worker) -> None:
        """End the worker's process. Completes also when cancelled."""
        child = self._children.pop(worker, None)
        if child is not None:
            await child.end()

    async def close(self) -> None:
        """End a process that no worker took."""
        child, self._spare = self._spare, None
        if child is not None:
            await child.end()
