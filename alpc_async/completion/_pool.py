"""A pool of workers that run a handler for every packet of a completion port, as a user sees it.

Belongs here: `WorkerPool`. Never here: its workers (`_sized`, `_crew`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._sized import CANCEL_GRACE, SizedCrew

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

    from ._port import CompletionPort
    from ._sized import KindName
    from ._statistics import WorkerPoolReport, WorkerPoolStatistics

__all__ = ["WorkerPool"]


class WorkerPool:
    """Runs a handler for every packet of a completion port.

    ::

        async def handle(message):
            message.reply(await compute(message.data))

        async with alpc.WorkerPool(completion_port, handle, maximum=16):
            ...

    The handler is called with each packet: with the `Message` itself for messages, with a `Completion` for posted
    packets. When it raises an exception its request fails with ``Status.HANDLER_FAILED`` and the error is logged; the
    worker goes on. When it returns without a reply the request stays open, to be answered or released later. A message
    whose deadline has passed is not started; its request fails with ``Status.DEADLINE_PASSED``.

    ``kind`` says what the handler does:

    ``"task"``
        It is an async function and runs in this event loop. Cancelling a message cancels it.
    ``"thread"``
        It is a plain function that blocks, and runs in a thread. It gets the message with the same fields, and answers
        with ``message.reply`` from its thread. It cannot be interrupted; ``message.cancelled`` tells it to stop.
    ``"process"``
        It is the name of a plain function that computes, as ``"module:function"``, and runs in a process of its own
        that imports it. It gets a message likewise. A process that dies is replaced, and the message that it was
        working on fails with ``Status.WORKER_DIED``. Posted packets need bytes, or nothing, as their value.
    ``"interpreter"``
        Experimental, from CPython 3.14 on. As ``"process"``, but in an interpreter of its own inside of this process.
        The modules that the handler imports have to bear that, which many extension modules do not. It cannot be ended;
        ``message.cancelled`` tells it to stop.

    Leaving the block takes no more packets, gives handlers that still run ``grace`` seconds, and then cancels them;
    wait for all of them with `wait_idle` before, or use `shut_down` to hear which were cut. The pool holds a task
    group, so it must be left in the task that entered it.

    Args:
        completion_port: where the packets come from.
        handler: what to call with each.
        minimum: workers that are always there.
        maximum: most handlers in flight at the same time.
        kind: ``"task"``, ``"thread"``, ``"process"`` or ``"interpreter"``.
        notices: call the handler for closed ports, dead clients and lost replies too; by default they are dropped.
        grace: time for handlers to end when the block is left, in seconds.
        cancel_grace: time for a cancelled handler to end before it is reported in the log, in seconds; a process is
            ended then.

    Raises:
        ValueError: ``minimum`` and ``maximum`` do not fit together, or ``kind`` is unknown.
        TypeError: the handler is not what the kind takes.
        InterpretersMissing: ``kind`` is ``"interpreter"``, and this Python has none that can be used.
    """

    def __init__(
        self,
        completion_port: CompletionPort,
        handler: Callable[[Any], Awaitable[object]] | Callable[[Any], object] | str,
        *,
        minimum: int = 1,
        maximum: int = 64,
        kind: KindName = "task",
        notices: bool = False,
        grace: float = 0.0,
        cancel_grace: float = CANCEL_GRACE,
    ) -> None:
        self._crew = SizedCrew(
            completion_port,
            handler,
            minimum=minimum,
            maximum=maximum,
            kind=kind,
            notices=notices,
            grace=grace,
            cancel_grace=cancel_grace,
        )

    async def __aenter__(self) -> Self:
        await self._crew.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._crew.__aexit__(kind, error, traceback)

    async def shut_down(self, grace: float = 0.0) -> WorkerPoolReport:
        """Take no more packets, give the handlers that run some time, then cancel those that still do.

        Packets that were not taken stay at the completion port. Cancelling cancels the handlers at once.

        Args:
            grace: time for the handlers to end, in seconds.

        Returns:
            How many ended by themselves, and what the others were working on.
        """
        return await self._crew.shut_down(grace)

    async def wait_idle(self) -> None:
        """Wait until no packet waits and no handler runs. Cancelling stops the wait."""
        await self._crew.wait_idle()

    def statistics(self) -> WorkerPoolStatistics:
        """Return what this pool has done so far."""
        return self._crew.statistics()
