"""Finding the size of a pool while messages wait: what is tried next, and whether what was tried was better.

Belongs here: `Climb`. Never here: what happens while nothing waits (`_sizing`), what the measurements say (`_curve`).

A *search* takes large steps from wherever the size is; then the size is *held*, and a neighbour gets a *trial* where
there is a reason for one. Whether a size is better is a test of two measurements with their errors, which decides as
soon as the evidence is clear and at the latest after ``longest`` seconds. Where the processors that handlers can get
are all in use, no more workers are tried, and fewer are taken that keep them all in use and finish as many messages.
"""

from __future__ import annotations

import math
from typing import Final, Literal

from ._curve import Curve, compare, compare_messages
from ._law import Law, Rate, Tick

__all__ = ["Climb"]

FIRST: Final = 16
"""Finished messages after which a search takes its first step: enough to see that twice the workers do much more."""

FEW: Final = 16
"""Workers that are too few to do harm, so that a search from there takes bold steps."""

BOLD_STEP: Final = 4
"""Factor of a step of a search where a mistake is small, or soon seen: from few, and down from full processors."""

NEAR: Final = 0.8
"""Share of the processors above which more workers are taken even in doubt: only few more are tried there."""

SMALL_STEP: Final = 1.12
"""Factor of a trial at the bend: it only looks whether the bend has moved."""

FAR: Final = 1.75
"""Factor by which a size that is above the bend is not tried while that is believed: twice one worker, mostly."""

_Phase = Literal["search", "hold", "trial", "rest"]


class Climb:
    """Tells the number of workers that a pool should have while messages wait.

    Args:
        minimum: least number.
        maximum: largest number.
        law: what a worker costs.

    Attributes:
        size: the number.
        phase: what it is doing: looking for a size by large steps, holding one, trying a neighbour, or resting.
    """

    def __init__(self, minimum: int, maximum: int, law: Law) -> None:
        self._minimum = minimum
        self._maximum = maximum
        self._law = law
        self.size = minimum
        self.phase: _Phase
        self._settling_until = -math.inf
        self._good = minimum
        self._curve = Curve(law)
        self._forget(-math.inf)

    def _forget(self, now: float) -> None:
        """Begin anew: the load is another one."""
        self._curve.forget(self.size)
        self._base: Rate | None = None
        self._begin_rates()
        self._fastest = math.inf
        self._queued = 0
        self._unfinished = False
        self._up = True
        self._step = self._law.search
        self._holds = list(self._law.hold)
        self._trials = [now, now]
        self._climbed = False
        self._again = False
        self._strange = 0.0
        self._bold_up = True
        self._boldness = self._law.trial
        self.phase = "search"

    def _begin_rates(self) -> None:
        """Measure the size from now on: for a decision, for the last seconds, and for the last moment."""
        self._rate, self._recent, self._glance = Rate(self.size), Rate(self.size), Rate(self.size)

    def _change(self, now: float, size: int) -> None:
        size = max(self._minimum, min(self._maximum, size))
        # What was begun at the old size ends within about the time of one handler.
        settling = min(self._rate.time_in_handler, 1.0) if self._rate.count else 0.0
        if size != self.size:
            self._settling_until = now + settling
        self.size = size
        self._begin_rates()

    # -- measuring a size ----------------------------------------------------------------------------------------------

    def _measure(self, tick: Tick, seconds: float) -> None:
        rate = self._rate
        rate.add(seconds, tick)
        self._queued = tick.queued
        if self.phase == "hold":
            self._watch(tick, seconds)
        elif rate.seconds >= self._law.shortest - 1e-6:
            if self._base is not None:
                self._decide(tick.time, self._base)
            elif rate.count >= self._wanted() or self._curve.is_full(rate) or self._long_enough():
                self._curve.note(rate, tick.time)
                self._keep(rate)
                self._try_next(tick.time)

    def _wanted(self) -> int:
        """Return how many messages a measurement needs that others are compared with."""
        if self._again:
            return self._law.enough[0]
        return FIRST if self.size > 1 else FIRST // 2

    def _long_enough(self) -> bool:
        count, seconds = self._rate.count, self._rate.seconds
        if self.phase != "trial":
            return count >= self._law.enough[0] or seconds >= self._law.longest[0]
        # Fewer workers are tried with less patience: where they were too few, that is seen early.
        share = 1.0 if self._up else 0.25
        return count >= share * self._law.enough[1] or seconds >= share * self._law.longest[1]

    # -- deciding about it ---------------------------------------------------------------------------------------------

    def _decide(self, now: float, base: Rate) -> None:
        if not self._up and self._curve.is_full(base):
            self._decide_full(now, base)
        elif self._up and self._curve.is_full(self._rate):
            self._curve.note(self._rate, now)
            self._accept(now)
        else:
            self._compare(now, base)

    def _decide_full(self, now: float, base: Rate) -> None:
        """Decide about fewer workers where the processors were all in use: are they still?"""
        curve, rate, law = self._curve, self._rate, self._law
        if rate.count < FIRST // 2 and not self._long_enough():
            return
        curve.note(rate, now)
        # One message that takes very long can use them all while the others wait for it.
        gain, error = compare_messages(base, rate)
        fewer = gain < law.worth * math.log(rate.size / base.size) - law.sure[0] * error
        if curve.is_full(rate) and not fewer:
            self._accept(now)
        elif curve.reach(rate) < base.size and not fewer:
            self._keep(rate)
            self._up = True
            self._change(now, curve.reach(rate))
        else:
            self._change(now, base.size)
            self._settle(now)

    def _compare(self, now: float, base: Rate) -> None:
        """Decide by how much more is done, and how exactly that is known."""
        law, rate = self._law, self._rate
        trial = self.phase == "trial"
        gain, error = compare(base, rate)
        wanted = law.worth * math.log(rate.size / base.size)
        if abs(gain - wanted) < law.sure[trial] * error and not self._long_enough():
            return
        self._curve.note(rate, now)
        if not self._up:
            # Where all measurements together say that it is enough, this one need not say so as well.
            better = gain > wanted - law.doubt[rate.size < self._curve.knee] * error
        elif rate.time_in_handler > law.guard * self._fastest:
            better = False
        else:
            # What is not clear speaks against more workers, so that luck alone cannot make the size grow for ever.
            doubt = 0.0 if self._curve.fullness(base) > NEAR else law.doubt[0] if trial else 0.2 * law.doubt[0]
            better = gain > wanted + doubt * error or not self._curve.bends
        if better:
            self._accept(now, clear=gain - wanted >= law.sure[1] * error)
        else:
            self._fail(now, base)

    def _keep(self, rate: Rate) -> None:
        self._base = rate
        self._good = rate.size
        if rate.count >= FIRST:
            self._fastest = min(self._fastest, rate.time_in_handler)

    def _accept(self, now: float, *, clear: bool = True) -> None:
        rate = self._rate
        self._climbed = True
        self._again = False
        self._holds = list(self._law.hold)
        self._keep(rate)
        if self.phase == "search":
            if not self._up:
                self._step = self._law.search
            self._try_next(now)
            return
        # One that was right makes the next one bolder.
        self._step = self._boldness = min(self._law.search, self._step * self._law.trial)
        curve = self._curve
        # The bend is at the smallest size of all only because nothing is known of smaller ones.
        done = not clear if self._up else curve.lowest < rate.size <= self._law.spare * curve.knee
        if done and not curve.is_full(rate):
            self._settle(now)
        else:
            self._try_next(now)

    def _fail(self, now: float, base: Rate) -> None:
        law = self._law
        # With fewer workers more messages wait.
        self._queued = max(0, self._queued + self.size - base.size)
        self._change(now, base.size)
        if self.phase == "trial":
            down = not self._up
            self._holds[down] = min(law.longest_hold[down], self._holds[down] * 2)
            self._boldness = law.trial
            self._settle(now)
        elif base.count < law.enough[0] and not self._again:
            # What it was compared with may have been luck.
            self._again = True
            self._base = None
        elif self._up and not self._climbed and base.size > self._minimum:
            # More is worth nothing here, and never was: would fewer do?
            self._up = False
            self._climbed = True
            self._step = math.sqrt(law.search)
            self._try_next(now)
        elif self._step > law.trial:
            # The bend is nearer than that.
            self._step = max(law.trial, math.sqrt(self._step))
            self._try_next(now)
        else:
            self._settle(now)

    # -- what comes next -----------------------------------------------------------------------------------------------

    def _try_next(self, now: float) -> None:
        base = self._base
        if base is None:
            return
        if self._curve.is_full(base):
            size = self._fewer_full(base)
        else:
            size = self._more(base) if self._up else self._fewer(base)
        size = max(self._minimum, min(self._maximum, size))
        if size == base.size:
            self._settle(now)
        else:
            self._change(now, size)

    def _more(self, base: Rate) -> int:
        size = base.size
        if self.phase == "search":
            if size > self._law.spare * self._curve.knee:
                return size
            if not self._queued:
                # It goes on from here when messages wait again.
                self._unfinished = True
                return size
        step = BOLD_STEP if size <= FEW and self.phase == "search" else self._step
        # Those beyond the messages that wait would find nothing to do.
        most = min(round(size * step), self._curve.reach(base), size + self._queued)
        return max(size + 1, most)

    def _fewer(self, base: Rate) -> int:
        size = base.size
        knee = self._curve.knee
        if self.phase == "trial" and size > self._law.spare * knee:
            return max(size // 2, min(size - 1, round(1.1 * knee)))
        return min(size - 1, round(size / self._step))

    def _fewer_full(self, base: Rate) -> int:
        law, curve = self._law, self._curve
        self._up = False
        if self.phase == "search":
            self._step = BOLD_STEP
        if not curve.is_overfull(base):
            return base.size
        least = max(curve.too_few + 1, math.ceil(law.full * base.used))
        return min(base.size, max(least, round(base.size / self._step)))

    def _is_more_of_use(self, tick: Tick, base: Rate) -> bool:
        """Return whether nothing that is known speaks against a trial of more workers."""
        curve = self._curve
        # Where nothing waits they would find nothing to do, and even one more may be far beyond the bend.
        return tick.queued > 0 and self.size < min(self._maximum, FAR * curve.knee - 1) and not curve.is_full(base)

    # -- holding a size ------------------------------------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        if self.phase == "trial":
            self._trials[not self._up] = now + self._holds[not self._up]
        else:
            self._trials = [now + self._law.hold[0]] * 2
        self.phase = "hold"
        self._begin_rates()

    def _watch(self, tick: Tick, seconds: float) -> None:
        """Look whether the load is still the same, and when a neighbour is to be tried."""
        law, base = self._law, self._base
        if base is None or base.size != self.size:
            self.phase = "search"
            return
        recent, glance = self._recent, self._glance
        recent.add(seconds, tick)
        glance.add(seconds, tick)
        if self._unfinished and tick.queued:
            self._unfinished = False
            self._up = True
            self._step = law.search
            self.phase = "search"
            self._try_next(tick.time)
        elif glance.seconds >= max(law.shortest, min(base.time_in_handler, 1.0)) - 1e-6:
            self._glance = Rate(self.size)
            if self._curve.differ(base, glance):
                self._forget(tick.time)
        elif recent.seconds >= 5 * law.shortest and (recent.count >= 100 or recent.seconds >= law.longest[1]):
            self._judge(tick, base, recent)

    def _judge(self, tick: Tick, base: Rate, recent: Rate) -> None:
        """Decide whether the throughput is still the same; a load counts as another one when it is not, twice."""
        law = self._law
        drift = math.log(recent.per_second / base.per_second)
        strange = abs(drift) > max(law.change, 3 * math.sqrt(recent.variance + min(base.variance, recent.variance)))
        if strange and self._strange * drift > 0:
            self._forget(tick.time)
            self._curve.note(recent, tick.time)
            self._keep(recent)
            self._try_next(tick.time)
            return
        self._strange = drift if strange else 0.0
        if not strange:
            base.merge(recent)
            self._curve.note(recent, tick.time)
        base.fade(2 * law.longest[1])
        self._recent = Rate(self.size)
        self._try_neighbour(tick, base)

    def _try_neighbour(self, tick: Tick, base: Rate) -> None:
        now, law, curve = tick.time, self._law, self._curve
        curve.forget_slowly(now)
        up = self._is_more_of_use(tick, base) and now >= self._trials[0]
        down = self.size > self._minimum and now >= self._trials[1]
        if base.size > law.spare * curve.knee and self._holds[1] == law.hold[1]:
            # There is a reason, and no trial has refuted it yet: a smaller size is known to do as much.
            up, down = False, self.size > self._minimum and now >= self._trials[1] - law.hold[1] + law.hold[0]
        if not up and not down:
            return
        self.phase = "trial"
        self._up = up and not (down and self._trials[1] < self._trials[0])
        if self._up != self._bold_up:
            self._bold_up, self._boldness = self._up, law.trial
        self._step = SMALL_STEP if self._up and base.size > 1.05 * curve.knee else self._boldness
        self._try_next(now)
