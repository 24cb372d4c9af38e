"""How many workers there should be, from what the workers did: the same ticks always give the same sizes.

Belongs here: `Sizer`. Never here: clocks, timers, tasks, workers; time comes in with each tick.

The sizer looks for the knee of the curve of throughput over size. A larger size is worth its workers when the
throughput grows by at least the share ``worth`` of the growth in size, both as logarithms: with ``worth`` of 0.15,
doubling the workers has to bring 11 % more. Whether it did is a test of two rates with their counting errors, which
decides as soon as the evidence is clear and at the latest after ``longest`` seconds.

While messages wait, it first *searches*: it multiplies the size as long as that is worth it. Then it *holds*, and tries
a neighbouring size from time to time, more seldom each time the trial fails. When the throughput at the held size is no
longer what it was, everything that was measured is forgotten and the search begins again. While nothing waits, the size
sinks to what is in use; the size that was good is remembered for a while, for the next burst.
"""

from __future__ import annotations

import math
from typing import Final, Literal

from ._law import THREADS, Law, Rate, Tick

__all__ = ["Sizer"]


FIRST: Final = 16
"""Finished messages after which a search takes its first step: enough to see that twice the workers do much more."""

_Phase = Literal["search", "hold", "trial", "rest"]


class Sizer:
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
        self._minimum = minimum
        self._maximum = maximum
        self._law = law
        self.size = minimum
        self.phase: _Phase
        self._last = -math.inf
        self._settling_until = -math.inf
        self._last_finished = -math.inf
        self._quiet_since: float | None = None
        self._most_in_use = 0.0
        self._sink_at = 0.0
        self._good = minimum
        self._forget(-math.inf)

    def _forget(self, now: float) -> None:
        self._base: Rate | None = None
        self._rate = Rate(self.size)
        self._recent = Rate(self.size)
        self._fastest = math.inf
        self._up = True
        self._step = self._law.search
        self._holds = list(self._law.hold)
        self._trials = [now, now]
        self._climbed = False
        self._again = False
        self._strange = 0.0
        self._boldness = self._law.trial
        self.phase = "search"

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
        elif tick.queued and tick.time - self._last_finished >= self._law.stuck:
            # Handlers may wait for each other, or for messages that wait here.
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

    def _change(self, now: float, size: int) -> None:
        size = max(self._minimum, min(self._maximum, size))
        # What was begun at the old size ends within about the time of one handler.
        settling = min(self._rate.time_in_handler, 1.0) if self._rate.count else 0.0
        if size != self.size:
            self._settling_until = now + settling
        self.size = size
        self._rate = Rate(size)
        self._recent = Rate(size)

    # -- nothing waits -------------------------------------------------------------------------------------------------

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
        self._trials = [max(at, tick.time + hold) for at, hold in zip(self._trials, self._law.hold, strict=True)]

    # -- messages wait -------------------------------------------------------------------------------------------------

    def _measure(self, tick: Tick, seconds: float) -> None:
        self._rate.add(seconds, tick.finished, tick.busy)
        if self.phase == "hold":
            self._watch(tick, seconds)
        elif self._base is None:
            wanted = self._law.enough[0] if self._again else FIRST
            if self._rate.seconds >= self._law.shortest and (self._rate.count >= wanted or self._long_enough()):
                self._keep(self._rate)
                self._try_next(tick.time)
        elif self._rate.seconds >= self._law.shortest:
            self._decide(tick.time, self._base)

    def _long_enough(self) -> bool:
        count, seconds = self._rate.count, self._rate.seconds
        if self.phase != "trial":
            return count >= self._law.enough[0] or seconds >= self._law.longest[0]
        # Fewer workers are tried with less patience: where they were too few, that is seen early.
        share = 1.0 if self._up else 0.25
        return count >= share * self._law.enough[1] or seconds >= share * self._law.longest[1]

    def _keep(self, rate: Rate) -> None:
        self._base = rate
        self._good = rate.size
        self._fastest = min(self._fastest, rate.time_in_handler)

    def _decide(self, now: float, base: Rate) -> None:
        law = self._law
        rate = self._rate
        gain = math.log(rate.per_second / base.per_second)
        wanted = law.worth * math.log(rate.size / base.size)
        error = math.sqrt(rate.variance + base.variance)
        if abs(gain - wanted) < law.sure[self.phase == "trial"] * error and not self._long_enough():
            return
        # What is not clear speaks against more workers, so that luck alone cannot make the size grow for ever.
        if self._up:
            better = gain > wanted + law.doubt[0] * error * (1.0 if self.phase == "trial" else 0.2)
        else:
            better = gain > wanted - law.doubt[1] * error
        if self._up and better and rate.time_in_handler > law.guard * self._fastest:
            better = False
        if better:
            self._climbed = True
            self._again = False
            self._holds = list(law.hold)
            self._keep(rate)
            if self.phase == "trial":
                # One that was right makes the next one bolder.
                self._boldness = min(law.search, self._step * law.trial)
                self._step = self._boldness
            elif not self._up:
                self._step = law.search
            if self.phase == "trial" and self._up and gain - wanted < law.sure[1] * error:
                self._settle(now)
            else:
                self._try_next(now)
        else:
            self._fail(now, base)

    def _try_next(self, now: float) -> None:
        base = self.size
        size = max(base + 1, round(base * self._step)) if self._up else min(base - 1, round(base / self._step))
        size = max(self._minimum, min(self._maximum, size))
        if size == base:
            self._settle(now)
        else:
            self._change(now, size)

    def _fail(self, now: float, base: Rate) -> None:
        law = self._law
        self._change(now, base.size)
        if self.phase == "search" and base.count < law.enough[0] and not self._again:
            # What it was compared with may have been luck.
            self._again = True
            self._base = None
        elif self.phase == "search" and self._up and not self._climbed and base.size > self._minimum:
            # More is worth nothing here, and never was: would fewer do?
            self._up = False
            self._climbed = True
            self._step = math.sqrt(law.search)
            self._try_next(now)
        elif self.phase == "search" and self._step > law.trial:
            # The knee is nearer than that.
            self._step = max(law.trial, math.sqrt(self._step))
            self._try_next(now)
        else:
            if self.phase == "trial":
                down = not self._up
                self._holds[down] = min(law.longest_hold[down], self._holds[down] * 2)
            self._boldness = law.trial
            self._settle(now)

    def _settle(self, now: float) -> None:
        if self.phase == "trial":
            self._trials[not self._up] = now + self._holds[not self._up]
        else:
            self._trials = [now + self._law.hold[0]] * 2
        self.phase = "hold"
        self._rate = Rate(self.size)
        self._recent = Rate(self.size)

    def _watch(self, tick: Tick, seconds: float) -> None:
        law = self._law
        base, recent = self._base, self._recent
        if base is None or base.size != self.size:
            self.phase = "search"
            return
        recent.add(seconds, tick.finished, tick.busy)
        if recent.seconds >= law.shortest * 5 and (recent.count >= 100 or recent.seconds >= law.longest[1]):
            drift = math.log(recent.per_second / base.per_second)
            strange = abs(drift) > max(law.change, 3 * math.sqrt(recent.variance))
            if strange and self._strange * drift > 0:
                self._forget(tick.time)
                self._keep(recent)
                self._try_next(tick.time)
                return
            self._strange = drift if strange else 0.0
            if not strange:
                base.merge(recent)
            base.fade(2 * law.longest[1])
            self._recent = Rate(self.size)
            self._try_neighbour(tick)

    def _try_neighbour(self, tick: Tick) -> None:
        # Where nothing waits, more workers would find nothing to do.
        up = tick.queued > 0 and self.size < self._maximum and tick.time >= self._trials[0]
        down = self.size > self._minimum and tick.time >= self._trials[1]
        if up or down:
            self.phase = "trial"
            self._up = up and not (down and self._trials[1] < self._trials[0])
            self._step = self._boldness
            self._try_next(tick.time)
