"""What is known of the load that a pool has now: how much is done at which size, and where that bends.

Belongs here: `Curve`, `compare` and `compare_messages`. Never here: decisions (`_climb`).

Two things bend the curve of throughput over size. The processors that handlers can get: how much of them is in use is
known exactly, so their end is seen without trying a larger size. There are as many as the machine has, or fewer: where
clearly more workers used no more of them, something like the lock of the interpreter is in the way, and what they used
is the *ceiling*. And whatever else the handlers wait for: below its end a handler takes the same time at every size,
above it the throughput is the same, so the bend is at the product of both (Little's law). Where it is, is the most
likely of all places, by what was measured at all sizes together.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from ._law import Rate

if TYPE_CHECKING:
    from ._law import Law

__all__ = ["Curve", "compare", "compare_messages"]

NOTED: Final = 0.5
"""Share of the processors above which they count: a size that leaves some of them unused is remembered as too small."""

AHEAD: Final = 1.05
"""How far beyond the size that would be enough, if workers did not wait for processors, the next one is."""

EXACT: Final = 0.02
"""Error of the processors in use, as a share, below which they are known well enough to see a ceiling."""

CERTAIN: Final = 4.5
"""How much more likely a bend has to be than none, as a logarithm: three standard errors."""


class Curve:
    """What was measured under one load.

    Args:
        law: the numbers.

    Attributes:
        too_few: largest size that was seen to leave processors unused.
        ceiling: processors that handlers use however many workers there are; infinity while there is no sign of that.
        knee: size from which on the throughput stays the same, by everything that was measured; infinity while there
            is no sign of one.
    """

    def __init__(self, law: Law) -> None:
        self._law = law
        self._rates: dict[int, Rate] = {}
        self._noted: dict[int, float] = {}
        self.too_few = 0
        self._too_few_at = -math.inf
        self.ceiling = math.inf
        self._ceiling_at = -math.inf
        self.knee = math.inf

    @property
    def bends(self) -> bool:
        """Whether there is a sign of a bend."""
        return self.knee < math.inf

    @property
    def lowest(self) -> int:
        """Smallest size that was measured."""
        return min(self._rates, default=0)

    def note(self, rate: Rate, now: float) -> None:
        """Remember what was measured.

        Args:
            rate: what, and at which size.
            now: when, in seconds.
        """
        for size in [size for size, last in self._noted.items() if now - last > self._law.believed]:
            del self._noted[size], self._rates[size]
        known = self._rates.get(rate.size)
        if known is not None and _contradict(known, rate, self._law):
            self.forget(rate.size)
            known = None
        if known is None:
            known = self._rates[rate.size] = Rate(rate.size)
        known.merge(rate)
        known.fade(2 * self._law.longest[1])
        self._noted[rate.size] = now
        self.knee = self._find_knee()
        self._note_ceiling(rate, now)
        if self.is_full(rate):
            self.too_few = min(self.too_few, rate.size - 1)
        elif rate.size >= self.too_few and self.fullness(rate) > NOTED:
            self.too_few, self._too_few_at = rate.size, now

    def forget(self, size: int) -> None:
        """Forget what was measured: the load is another one.

        Args:
            size: workers that there are now. More than the ceiling show at once when it is there no more; else it is
                forgotten, too.
        """
        self._rates.clear()
        self._noted.clear()
        self.too_few = 0
        self.knee = math.inf
        if size <= self.ceiling:
            self.ceiling = math.inf

    def forget_slowly(self, now: float) -> None:
        """Let a size that was too small some time ago be tried again."""
        if now - self._too_few_at > self._law.longest_hold[1]:
            self.too_few, self._too_few_at = int(self.too_few / self._law.trial), now

    def fullness(self, rate: Rate) -> float:
        """Return the share in use of the processors that handlers can get; a little instead of none."""
        return rate.used / min(rate.processors, self.ceiling)

    def is_full(self, rate: Rate) -> bool:
        """Return whether the processors were all in use, nearly."""
        return self.fullness(rate) >= self._law.full

    def is_overfull(self, rate: Rate) -> bool:
        """Return whether they were so much in use that fewer workers may do as much."""
        return self.fullness(rate) >= self._law.overfull and rate.size > self._law.spare * self.too_few

    def differ(self, base: Rate, glance: Rate) -> bool:
        """Return whether the processors are all in use now and clearly were not, or the other way round."""
        if self.is_full(base) == self.is_full(glance):
            return False
        # Neighbouring ticks are alike.
        error = math.sqrt(2 * max(base.used_spread, glance.used_spread) / glance.ticks)
        sudden = self._law.sudden * min(glance.processors, self.ceiling)
        return abs(glance.used - base.used) > max(sudden, 3 * error)

    def reach(self, rate: Rate) -> int:
        """Return a size at which the processors may all be in use, but hardly a worker more than that takes.

        The more workers there are, the more they wait for each other, so each of them uses no more than now.
        """
        return round(min(AHEAD * rate.size / self.fullness(rate), 1e9))

    def _note_ceiling(self, rate: Rate, now: float) -> None:
        level = self._find_level()
        if level:
            self.ceiling, self._ceiling_at = max(rate.used for rate in level), self._noted[level[-1].size]
        elif now - self._ceiling_at > self._law.believed or rate.used * self._law.full > self.ceiling:
            self.ceiling = math.inf

    def _find_level(self) -> list[Rate]:
        """Return sizes, smallest first, of which clearly more workers use no more of the processors than fewer."""
        exact = [rate for rate in self._rates.values() if rate.used_variance <= EXACT * EXACT]
        most = max((rate.used for rate in exact), default=0.0)
        level = sorted((rate for rate in exact if rate.used >= self._law.full * most), key=lambda rate: rate.size)
        if not level or level[-1].size < self._law.spare * level[0].size:
            return []
        # Where more workers finish more messages with no more computing, it is not the processors that they lack.
        gain, error = compare_messages(level[0], level[-1])
        wanted = self._law.worth * math.log(level[-1].size / level[0].size)
        return level if gain < wanted + 3 * error else []

    def _find_knee(self) -> float:
        rates = sorted((rate for rate in self._rates.values() if rate.busy), key=lambda rate: rate.size)
        best, knee = -math.inf, math.inf
        for split in range(1, len(rates) + 1):
            below, above = rates[:split], rates[split:]
            time = sum(rate.busy for rate in below) / max(sum(rate.count for rate in below), 0.5)
            most = sum(rate.count for rate in above) / sum(rate.seconds for rate in above) if above else math.inf
            likelihood = sum(_likelihood(rate, rate.busy / rate.seconds / time) for rate in below)
            likelihood += sum(_likelihood(rate, most) for rate in above) if above else CERTAIN
            if likelihood > best:
                best, knee = likelihood, time * most
        return knee


def _likelihood(rate: Rate, expected: float) -> float:
    """Return the logarithm of the likelihood of a rate, as that of a Poisson process, but for a constant."""
    return rate.count * math.log(max(expected, 1e-9)) - rate.seconds * expected


def _contradict(known: Rate, rate: Rate, law: Law) -> bool:
    """Return whether the load must have changed since a size was measured."""
    gain, error = compare_messages(known, rate)
    return abs(gain) >= max(law.change, 3 * error)


def compare_messages(base: Rate, rate: Rate) -> tuple[float, float]:
    """Return how many more messages are finished, as a logarithm, and the standard error of that."""
    return math.log(rate.per_second / base.per_second), math.sqrt(base.variance + rate.variance)


def compare(base: Rate, rate: Rate) -> tuple[float, float]:
    """Return how much more is done at one size than at another, as a logarithm, and the standard error of that.

    Counted in messages, or in processor time where handlers compute a good part of their time and that is known more
    exactly: then a few long messages among many short ones do no harm.
    """
    gain, error = compare_messages(base, rate)
    processors = math.sqrt(base.used_variance + rate.used_variance)
    if processors < error and (base.share > NOTED / 2 or base.used > NOTED * base.processors):
        return math.log(rate.used / base.used), processors
    return gain, error
