"""How many workers there should be, from what the workers did: the same ticks always give the same sizes.

Belongs here: `Sizer`: when to look for a size, and when to let it sink. Never here: how a size is found (`_climb`),
clocks, timers, tasks, workers; time comes in with each tick.

The sizer looks for the bend of the curve of throughput over size. A larger size is worth its workers when the
throughput grows by at least the share ``worth`` of the growth in size, both as logarithms: with ``worth`` of 0.15,
doubling the workers has to bring 11 % more. Where handlers compute, the bend is where the processors are all in use,
and that is measured and not sought; a lock that lets fewer handlers compute at a time counts as so many processors,
once clearly more workers were seen to use no more. When the load is no longer what it was, everything that was measured
is forgotten and the search begins again; what was not measured again for a minute is forgotten as well. While nothing
waits, the size sinks to what is in use; the size that was good is remembered for a while, for the next burst.
"""

from __future__ import annotations

import math

from ._climb import Climb
from ._law import THREADS, Law, Tick

__all__ = ["Sizer"]


class Sizer(Climb):
    """Tells the number of workers that a pool should have.

    Args:
        minimum: least number.
        maximum: largest number.
        law: what a worker costs.

    Attributes:
        size: the number.
        phase: what it is doing: looking for a size by large steps, holding one, trying a neighbour, or resting.
    """

    def __init__(self, minimum: int, maximum: int, law: Law = THREADS) -> None:
        super().__init__(minimum, maximum, law)
        self._last = -math.inf
        self._last_finished = -math.inf
        self._quiet_since: float | None = None
        self._most_in_use = 0.0
        self._sink_at = 0.0

    def advance(self, tick: Tick) -> int:
        """Take one tick into account.

        Args:
            tick: what happened since the last one.

        Returns:
            The size, also as the attribute.
        """
        seconds, self._last = tick.time - self._last, tick.time
        if tick.finished or not seconds < math.inf:
            self._last_finished = tick.time
        if self._has_spare(tick):
            self._rest(tick)
        elif self._quiet_since is not None:
            self._wake(tick)
        elif self._is_stuck(tick):
            self._last_finished = tick.time
            self._change(tick.time, self.size + max(1, self.size // 4))
            self._forget(tick.time)
        elif tick.time >= self._settling_until and tick.workers == self.size and 0 < seconds < math.inf:
            self._measure(tick, seconds)
        return self.size

    def _has_spare(self, tick: Tick) -> bool:
        """Whether there are clearly more workers than messages."""
        if tick.queued:
            return False
        size = self._base.size if self._base is not None and self.phase != "hold" else self.size
        return tick.busy < max(0.75 * size, 0.5)

    def _is_stuck(self, tick: Tick) -> bool:
        """Whether handlers may wait for each other, or for messages that wait here; not while they compute."""
        return (
            tick.queued > 0
            and tick.time - self._last_finished >= self._law.stuck
            and tick.computing < self._law.full * min(self.size, tick.processors)
        )

    def _rest(self, tick: Tick) -> None:
        law = self._law
        if self._quiet_since is None:
            self._quiet_since = tick.time
            self._most_in_use = 0.0
            self._sink_at = tick.time + law.patience
        self._most_in_use = max(self._most_in_use, tick.busy)
        if tick.time >= self._sink_at:
            self._sink_at = tick.time + 1
            in_use = math.ceil(self._most_in_use * law.trial)
            self._most_in_use = tick.busy
            size = max(self._minimum, min(self.size, max(in_use, self.size // 2)))
            if size != self.size:
                self.size = size
                self.phase = "rest"

    def _wake(self, tick: Tick) -> None:
        quiet = tick.time - (self._quiet_since or 0.0)
        self._quiet_since = None
        self._last_finished = tick.time
        if self.phase == "rest":
            base = self._base
            remembered = base is not None and quiet <= self._law.memory
            self._change(tick.time, max(self.size, self._good) if remembered else self.size)
            if base is not None and remembered and base.size == self.size:
                self.phase = "hold"
            else:
                self._forget(tick.time)
        # The time since the last tick was quiet in part.
        self._settling_until = max(self._settling_until, math.nextafter(tick.time, math.inf))
        self._trials[1] = max(self._trials[1], tick.time + self._law.hold[1])
