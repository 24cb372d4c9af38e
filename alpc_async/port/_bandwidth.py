"""How many bytes may move per second in one direction.

Belongs here: `Bandwidth`, a bucket of bytes that refills with time. Never here: what the bytes are, and who waits for
them (`_metered`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link import Loop, TimerHandle

__all__ = ["Bandwidth"]


class Bandwidth:
    """Counts bytes against a rate; a second's worth may move at once.

    Args:
        rate: bytes per second.
        loop: the running loop.
        refilled: called when what was asked for last may be there; whoever still misses something asks again.
    """

    __slots__ = ("_loop", "_rate", "_refilled", "_time", "_timer", "_timer_at", "_tokens")

    def __init__(self, rate: int, loop: Loop, refilled: Callable[[], None]) -> None:
        self._rate = float(rate)
        self._loop = loop
        self._refilled = refilled
        self._tokens = self._rate
        self._time = loop.time()
        self._timer: TimerHandle | None = None
        self._timer_at = math.inf

    def count(self, size: int) -> None:
        """Note that bytes moved, whether there was room for them or not.

        Args:
            size: how many, whatever way they took.
        """
        self._refill()
        self._tokens -= size

    def has_room(self, size: int) -> bool:
        """Return whether bytes may move now; if not, have it told when they may.

        What is longer than a second's worth may move when the bucket is full; what follows waits all the longer.

        Args:
            size: how many; with 0, whether those that have moved are made up for.
        """
        self._refill()
        missing = min(float(size), self._rate) - self._tokens
        if missing <= 0.0:
            return True
        at = self._time + missing / self._rate
        if at < self._timer_at:
            self.stop()
            self._timer_at = at
            self._timer = self._loop.call_at(at, self._go_on)
        return False

    def _refill(self) -> None:
        now = self._loop.time()
        self._tokens = min(self._rate, self._tokens + (now - self._time) * self._rate)
        self._time = now

    def _go_on(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        self._refilled()

    def stop(self) -> None:
        """Forget the timer, because the connection is over. Stopping again does nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._timer_at = math.inf
