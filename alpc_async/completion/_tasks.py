"""Workers that are tasks: handlers are async functions of this event loop.

Belongs here: `TaskKind`. Never here: threads and processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._computed import Computed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._law import Law
    from ._worker import Worker

__all__ = ["TaskKind"]


class TaskKind:
    """Calls the handler in the worker's own task.

    Args:
        handler: an async function of one packet.
    """

    law: Law | None = None
    restarted = 0

    def __init__(self, handler: Callable[[Any], Any]) -> None:
        self._handler: Callable[[Any], Awaitable[object]] = handler

    def take_computed(self) -> Computed:
        """Nobody asks: tasks are not sized."""
        return Computed(0.0, 0.0)

    async def open(self) -> None:
        """Nothing is shared."""

    async def equip(self, worker: Worker) -> None:
        """Give a worker the handler."""
        worker.handler = self._handler

    async def dismiss(self, worker: Worker) -> None:
        """Nothing has to be taken away."""

    async def close(self) -> None:
        """Nothing is shared."""
