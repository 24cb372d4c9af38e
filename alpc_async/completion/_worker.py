"""One worker of a pool, and what kinds of workers have in common.

Belongs here: `Worker` and the interface `Kind`. Never here: how many there are (`_pool`), how one kind works.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..port import Completion, Message
    from ._computed import Computed
    from ._law import Law

__all__ = ["Kind", "Worker"]


async def _unequipped(_packet: object) -> None:
    raise RuntimeError("this worker has no handler yet")


class Worker:
    """One worker task.

    Attributes:
        scope: the cancel scope of its life.
        cancelled: whether it is to end.
        handler: what it calls with each packet.
        packet: what it is working on.
        since: when it began with that, in seconds.
        deadline: when the handler has to be stopped, in seconds.
        ready: whether it can take packets.
        retired: whether it is to end because there are too many.
        on_cancel: what its message calls when it is cancelled.
        interrupt: stops the handler; by default by cancelling the scope.
    """

    __slots__ = (
        "cancelled",
        "deadline",
        "handler",
        "interrupt",
        "on_cancel",
        "packet",
        "ready",
        "retired",
        "scope",
        "since",
    )

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        # What the scope says of itself costs a call for every packet.
        self.cancelled = False
        self.handler: Callable[[Any], Any] = _unequipped
        self.packet: Completion | None = None
        self.since = 0.0
        self.deadline = math.inf
        self.ready = False
        self.retired = False
        self.on_cancel: Callable[[], None] | None = None
        self.interrupt: Callable[[Message], None] | None = None

    def cancel(self) -> None:
        """End it, with the handler that it is in."""
        self.cancelled = True
        self.scope.cancel()

    @property
    def running(self) -> bool:
        """Whether it is inside a handler."""
        return self.packet is not None


class Kind(Protocol):
    """How the workers of a pool run a handler."""

    law: Law | None
    """How the number of workers is found; ``None`` when they cost next to nothing."""

    restarted: int
    """Workers that lost what they work with and got it anew."""

    def take_computed(self) -> Computed:
        """Return the processor time since the last call; nothing where it is not known."""
        ...

    async def open(self) -> None:
        """Get what all workers share."""
        ...

    async def equip(self, worker: Worker) -> None:
        """Give a worker its handler, and whatever it needs for it."""
        ...

    async def dismiss(self, worker: Worker) -> None:
        """Take that away again. Completes also when cancelled."""
        ...

    async def close(self) -> None:
        """Give back what all workers share."""
        ...
