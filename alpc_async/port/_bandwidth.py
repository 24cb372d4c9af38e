"""How much one connection may bring per second.

Belongs here: `Bandwidth`, a bucket of bytes that refills with time. Never here: what the bytes are.

The message that goes over the limit waits until the bucket has refilled, and so do all behind it. They keep their place
in the quota, so the other side has to wait as well. Answers to requests of ours are never held up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link import Loop, TimerHandle

__all__ = ["Bandwidth"]


class Bandwidth:
    """Holds one connection to a number of bytes per second; a second's worth may come at once.

    Args:
        rate: bytes per second.
        loop: the running loop.
        hold: called with whether messages are to wait.
    """

    __slots__ = ("_hold", "_loop", "_rate", "_time", "_timer", "_tokens")

    def __init__(self, rate: int, loop: Loop, hold: Callable[[bool], None]) -> None:
        self._rate = float(rate)
        self._loop = loop
        self._hold = hold
        self._tokens = self._rate
        self._time = loop.time()
        self._timer: TimerHandle | None = None

    @property
    def holding(self) -> bool:
        """Whether messages wait because of this."""
        return self._timer is not None

    def count(self, size: int) -> None:
        """Note that a message arrived.

        Args:
            size: its length in bytes, however it travelled.
        """
        now = self._loop.time()
        self._tokens = min(self._rate, self._tokens + (now - self._time) * self._rate) - size
        self._time = now
        if self._tokens < 0.0 and self._timer is None:
            self._wait(now)
            self._hold(True)

    def _wait(self, now: float) -> None:
        self._timer = self._loop.call_at(now - self._tokens / self._rate, self._go_on)

    def _go_on(self) -> None:
        self._timer = None
        self.count(0)
        if self._timer is None:
            self._hold(False)

    def stop(self) -> None:
        """Forget the timer, because the connection is over. Stopping again does nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
