"""How fast the clients of one user may send, all of them together.

Belongs here: `Pace`, a bucket of messages that refills with time. Never here: which users have one (`_users`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link import Loop, TimerHandle

__all__ = ["PACED_RECEIVE", "Pace"]

PACE_SPAN: Final = 0.02
"""Seconds whose worth of messages a user may send at once: longer than most turns of a loop, shorter than a person
notices."""

PACED_RECEIVE: Final = 4 * 1024
"""Bytes taken with one receive from a user with a pace: some fifty short messages.

What came with one receive is handled in one go, and a whole buffer of 256 KiB holds three thousand short messages: a
pause afterwards keeps the rate, but everybody else has waited 30 ms (decision record 23).
"""


class Pace:
    """Keeps a user to a rate, by not reading from it for a while: it then waits where it sends.

    Args:
        loop: the running loop.
        rate: messages per second.

    Attributes:
        rate: the same.
    """

    __slots__ = ("_burst", "_loop", "_paused", "_time", "_timer", "_tokens", "rate")

    def __init__(self, loop: Loop, rate: float) -> None:
        self._loop = loop
        self.rate = rate
        self._burst = max(1.0, rate * PACE_SPAN)
        self._tokens = self._burst
        self._time = loop.time()
        self._paused: set[Callable[[bool], None]] = set()
        self._timer: TimerHandle | None = None

    def count(self, throttle: Callable[[bool], None], messages: int) -> None:
        """Count messages that arrived, and stop reading from their connection when they were too many.

        Args:
            throttle: stops reading from the connection, or goes on.
            messages: how many, long ones counted several times.
        """
        self._refill()
        self._tokens -= messages
        if self._tokens < 0:
            throttle(True)
            self._paused.add(throttle)
            self._wait()

    def _refill(self) -> None:
        now = self._loop.time()
        self._tokens = min(self._burst, self._tokens + (now - self._time) * self.rate)
        self._time = now

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_at(self._time - self._tokens / self.rate, self._go_on)

    def forget(self, throttle: Callable[[bool], None]) -> None:
        """Note that a connection is over.

        Args:
            throttle: what it was counted with.
        """
        self._paused.discard(throttle)

    def _go_on(self) -> None:
        self._timer = None
        self._refill()
        if self._tokens < 0 and self._paused:
            # Other connections brought more meanwhile.
            self._wait()
            return
        paused, self._paused = self._paused, set()
        for throttle in paused:
            throttle(False)

    def end(self) -> None:
        """Hold nobody up any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        paused, self._paused = self._paused, set()
        for throttle in paused:
            throttle(False)
