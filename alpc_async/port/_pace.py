"""How fast the clients of one user may send, all of them together, and whether that matters right now.

Belongs here: `Pace`, a bucket of messages that refills with time, and `Activity`, which tells whether anybody else
could notice. Never here: which users have one (`_users`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link import Loop, TimerHandle

__all__ = ["ACTIVE_SPAN", "PACED_RECEIVE", "Activity", "Pace"]

PACE_SPAN: Final = 0.02
"""Seconds whose worth of messages a user may send at once: longer than most turns of a loop, shorter than a person
notices."""

ACTIVE_SPAN: Final = 1.0
"""Seconds after its last message for which a user counts as active, so that the others leave it room."""

PACED_RECEIVE: Final = 4 * 1024
"""Bytes taken with one receive from a user with a pace: some fifty short messages.

What came with one receive is handled in one go, and a whole buffer of 256 KiB holds three thousand short messages: a
pause afterwards keeps the rate, but everybody else has waited 30 ms (decision record 23).
"""


class Activity:
    """When the users of one port were active last: the latest of them, and the latest of all others."""

    __slots__ = ("_last", "_others", "_user")

    def __init__(self) -> None:
        self._user: object = None
        self._last = -math.inf
        self._others = -math.inf

    def note(self, user: object, now: float) -> None:
        """Note that a user is active.

        Args:
            user: the user.
            now: the time in seconds.
        """
        if user is not self._user:
            self._user, self._others = user, self._last
        self._last = now

    def of_others(self, user: object) -> float:
        """Return when anybody but a user was active last, in seconds; minus infinity for never.

        Args:
            user: the user.
        """
        return self._others if user is self._user else self._last


class Pace:
    """Keeps a user to a rate, by not reading from it for a while: it then waits where it sends.

    Args:
        loop: the running loop.
        rate: messages per second; 0 is no limit.
        shared_rate: the same while somebody else is active.
        activity: that of all users of the port.

    Attributes:
        rates: both rates.
    """

    __slots__ = ("_activity", "_loop", "_paused", "_time", "_timer", "_tokens", "rates")

    def __init__(self, loop: Loop, rate: float, shared_rate: float = 0, activity: Activity | None = None) -> None:
        self._loop = loop
        self.rates = rate, shared_rate
        self._activity = activity if activity is not None else Activity()
        self._tokens = math.inf
        self._time = loop.time()
        self._paused: set[Callable[[bool], None]] = set()
        self._timer: TimerHandle | None = None

    def count(self, throttle: Callable[[bool], None], messages: int) -> None:
        """Count messages that arrived, and stop reading from their connection when they were too many.

        Args:
            throttle: stops reading from the connection, or goes on.
            messages: how many, long ones counted several times.
        """
        now = self._loop.time()
        self._activity.note(self, now)
        rate = self._refill(now)
        self._tokens -= messages
        if self._tokens < 0:
            throttle(True)
            self._paused.add(throttle)
            self._wait(rate)

    def _refill(self, now: float) -> float:
        """Refill the bucket; return the rate that counts now, or 0 for none."""
        rate, shared_rate = self.rates
        if shared_rate and now - self._activity.of_others(self) < ACTIVE_SPAN:
            rate = min(rate, shared_rate) if rate else shared_rate
        if rate:
            burst = max(1.0, rate * PACE_SPAN)
            self._tokens = min(burst, self._tokens + (now - self._time) * rate)
        else:
            self._tokens = math.inf
        self._time = now
        return rate

    def _wait(self, rate: float) -> None:
        if self._timer is None:
            due = self._time - self._tokens / rate
            if not self.rates[0]:
                # Without anybody else who is active there is nothing to wait for.
                due = min(due, self._activity.of_others(self) + ACTIVE_SPAN)
            self._timer = self._loop.call_at(due, self._go_on)

    def forget(self, throttle: Callable[[bool], None]) -> None:
        """Note that a connection is over.

        Args:
            throttle: what it was counted with.
        """
        self._paused.discard(throttle)

    def _go_on(self) -> None:
        self._timer = None
        rate = self._refill(self._loop.time())
        if self._tokens < 0 and self._paused:
            # Other connections brought more meanwhile, or somebody else was active again.
            self._wait(rate)
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
