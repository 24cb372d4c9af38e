"""Workers that are threads: handlers block.

Belongs here: `ThreadKind`. Never here: how answers come back (`_blocking`).

The threads are anyio's, which keep for a while after use; a limiter of the pool's own keeps it apart from everything
else that uses them. A thread cannot be interrupted: cancelling a message tells its handler so, through
``message.cancelled``, and where a pool ends before its handlers do, their threads go on without anybody who waits for
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, to_thread

from ..link import current_loop
from ..port import Message
from ._blocking import BlockingMessage, Bridge
from ._computed import ThreadMeter
from ._core import blocked_hook
from ._law import THREADS
from ._port import core_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..port import Completion
    from ._computed import Computed
    from ._law import Law
    from ._port import CompletionPort
    from ._worker import Worker

__all__ = ["ThreadKind"]


class ThreadKind:
    """Calls the handler in a thread.

    Args:
        handler: a plain function of one packet.
        completion_port: is told of handlers that are blocked.
    """

    law: Law | None = THREADS
    restarted = 0

    def __init__(self, handler: Callable[[Any], object], completion_port: CompletionPort) -> None:
        self._handler = handler
        self._core = core_of(completion_port)
        self._bridge: Bridge | None = None
        self._meter = ThreadMeter()
        # As many as there are workers; each has one message at a time.
        self._limiter = CapacityLimiter(float("inf"))

    def take_computed(self) -> Computed:
        """Return the processor time of the handlers, and of others, since the last call."""
        return self._meter.take()

    async def open(self) -> None:
        """Open the way back into the loop."""
        self._bridge = Bridge(current_loop())

    async def equip(self, worker: Worker) -> None:
        """Give a worker the handler."""
        worker.handler = self._run
        worker.interrupt = _leave_alone

    async def _run(self, packet: Completion) -> None:
        bridge = self._bridge
        if bridge is None:
            raise RuntimeError("the pool is closed")
        target = BlockingMessage(packet, bridge) if isinstance(packet, Message) else packet
        try:
            await to_thread.run_sync(self._call, target, limiter=self._limiter, abandon_on_cancel=True)
        finally:
            # The answers come before what follows from the end of the handler.
            bridge.carry()

    def _call(self, target: object) -> None:
        blocked_hook.set(self._note_blocked)
        self._meter.call(self._handler, target)

    def _note_blocked(self, change: int) -> None:
        bridge = self._bridge
        if bridge is not None:
            bridge.call(lambda: self._core.note_blocked(change))

    async def dismiss(self, worker: Worker) -> None:
        """Nothing has to be taken away."""

    async def close(self) -> None:
        """Close the way back into the loop."""
        if self._bridge is not None:
            self._bridge.close()


def _leave_alone(_message: Message) -> None:
    """The handler sees by itself that its message was cancelled."""
