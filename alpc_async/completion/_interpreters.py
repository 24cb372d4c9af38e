"""Workers that are interpreters of this process: handlers compute, each under a lock of its own. Experimental.

Belongs here: `InterpreterKind`: finding out whether this Python has them, making, feeding and ending them. Never here:
what runs inside (`_interpreter_code`).

Only ``concurrent.interpreters`` is used, which CPython has from 3.14 on. The private modules under it are there
earlier, with other rules in each version.
"""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyio import CancelScope, CapacityLimiter, to_thread

from ..errors import HandlerNotLoaded, InterpretersMissing
from ..port import MessageType
from ._computed import ThreadMeter
from ._envelope import Outcome, work_of
from ._law import PROCESSES
from ._processes import HandlerError

if TYPE_CHECKING:
    from ..port import Completion, Message
    from ._computed import Computed
    from ._law import Law
    from ._worker import Worker

__all__ = ["InterpreterKind", "find_interpreters"]

MODULE: Final = "concurrent.interpreters"

WANTED: Final = ("create", "create_queue", "ExecutionFailed")
"""What is used of the module, beside the methods of what it returns."""

CODE: Final = Path(__file__).with_name("_interpreter_code.py")

OPEN: Final = """
import sys
sys.path[:] = list(alpc_path)
import concurrent.interpreters
"""
"""What comes first: queues and memory can be given to an interpreter only after it has imported the module itself."""

PREPARE: Final = """
import runpy
alpc_names = runpy.run_path(alpc_code, run_name="alpc_interpreter_code")
alpc_handler = alpc_names["load"](alpc_target)
"""

RUN: Final = "alpc_answers.put(alpc_names['run'](alpc_handler, alpc_work, alpc_flag))"


def find_interpreters() -> Any:
    """Return the module for interpreters.

    Raises:
        InterpretersMissing: this Python does not have it, or lacks some of it.
    """
    try:
        module = importlib.import_module(MODULE)
    except ImportError:
        raise InterpretersMissing(python=sys.version.split()[0], lacks=f"the module {MODULE}") from None
    for name in WANTED:
        if not hasattr(module, name):
            raise InterpretersMissing(python=sys.version.split()[0], lacks=f"{MODULE}.{name}")
    return module


class _Inside:
    """One interpreter with the handler loaded. Making, running and closing block; they belong into a thread.

    Args:
        module: ``concurrent.interpreters``.
        target: the handler's name.

    Raises:
        HandlerNotLoaded: it cannot be imported there.
    """

    def __init__(self, module: Any, target: str) -> None:
        self._interpreter = module.create()
        self._flag = bytearray(1)
        self._answers = module.create_queue()
        self._lock = threading.Lock()
        self._busy = False
        self._unwanted = False
        self._closed = False
        try:
            self._interpreter.prepare_main(alpc_path=tuple(sys.path))
            self._interpreter.exec(OPEN)
            self._interpreter.prepare_main(
                alpc_code=str(CODE),
                alpc_target=target,
                alpc_flag=memoryview(self._flag),
                alpc_answers=self._answers,
            )
            self._interpreter.exec(PREPARE)
        except module.ExecutionFailed as error:
            self.close()
            raise HandlerNotLoaded(target=target, reason=str(error)) from None
        except BaseException:
            self.close()
            raise

    def run(self, work: tuple[Any, ...]) -> tuple[Outcome, int, bytes]:
        """Call the handler, and return how it ended."""
        with self._lock:
            if self._closed:
                return Outcome.SILENT, 0, b""
            self._busy = True
        try:
            self._interpreter.prepare_main(alpc_work=work)
            self._interpreter.exec(RUN)
            outcome, status, data = self._answers.get_nowait()
            return Outcome(outcome), status, data
        finally:
            with self._lock:
                self._busy = False
                unwanted = self._unwanted
            if unwanted:
                self.close()

    def begin(self) -> None:
        """Forget that a handler was cancelled before."""
        self._flag[0] = 0

    def cancel(self) -> None:
        """Tell the handler that nobody waits any more."""
        self._flag[0] = 1

    def close(self) -> None:
        """End it; where a handler still runs, as soon as that returns."""
        with self._lock:
            self._unwanted = True
            if not self._busy and not self._closed:
                self._closed = True
                self._interpreter.close()


class InterpreterKind:
    """Calls the handler in an interpreter of the worker's own.

    Args:
        target: its name, as ``"module:function"``.

    Raises:
        InterpretersMissing: this Python has none that can be used.
    """

    law: Law | None = PROCESSES
    restarted = 0

    def __init__(self, target: str) -> None:
        self._module = find_interpreters()
        self._target = target
        self._inside: dict[Worker, _Inside] = {}
        self._spare: _Inside | None = None
        self._meter = ThreadMeter()
        # As many as there are workers; each has one message at a time.
        self._limiter = CapacityLimiter(float("inf"))

    def take_computed(self) -> Computed:
        """Return the processor time of the handlers, and of others, since the last call."""
        return self._meter.take()

    async def open(self) -> None:
        """Make the first interpreter, so that a handler that cannot be loaded is seen where the pool is opened.

        Raises:
            HandlerNotLoaded: it cannot be imported in an interpreter.
        """
        self._spare = await self._make()

    async def _make(self) -> _Inside:
        return await to_thread.run_sync(_Inside, self._module, self._target, limiter=self._limiter)

    async def equip(self, worker: Worker) -> None:
        """Give a worker its interpreter."""
        inside, self._spare = self._spare, None
        if inside is None:
            inside = await self._make()
        self._inside[worker] = inside

        async def run(packet: Completion) -> None:
            await self._run(inside, packet)

        def interrupt(_message: Message) -> None:
            inside.cancel()

        worker.handler = run
        worker.interrupt = interrupt

    async def _run(self, inside: _Inside, packet: Completion) -> None:
        facts, data = work_of(packet)
        inside.begin()
        outcome, status, answer = await to_thread.run_sync(
            self._meter.call,
            inside.run,
            (data, facts.key, facts.sender, facts.deadline),
            limiter=self._limiter,
            abandon_on_cancel=True,
        )
        message = packet.message
        if outcome is Outcome.RAISED:
            raise HandlerError(answer.decode("utf-8", "replace"))
        if message is None or message.answered or message.type is not MessageType.REQUEST:
            return
        if outcome is Outcome.REPLIED:
            message.reply(answer)
        elif outcome is Outcome.FAILED:
            message.fail(status, answer.decode("utf-8", "replace"))

    async def dismiss(self, worker: Worker) -> None:
        """End the worker's interpreter, or leave that to its thread while a handler runs there."""
        inside = self._inside.pop(worker, None)
        if inside is not None:
            inside.cancel()
            await self._end(inside)

    async def _end(self, inside: _Inside) -> None:
        with CancelScope(shield=True):
            await to_thread.run_sync(inside.close, limiter=self._limiter)

    async def close(self) -> None:
        """End an interpreter that no worker took."""
        inside, self._spare = self._spare, None
        if inside is not None:
            await self._end(inside)
