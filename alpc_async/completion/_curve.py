"""What is known of the load that a pool has now: how much is done at which size, and where that bends.

Belongs here: `Curve` and `compare`. Never here: decisions (`_climb`).

Two things bend the curve of throughput over size. The processors of this machine: how much of them is in use is known
exactly, so their end is seen without trying a larger size. And whatever else the handlers wait for: below its end a
handler takes the same time at every size, above it the throughput is the same, so the bend is at the product of both
(Little's law). Where it is, is the most likely of all places, by what was measured at all sizes together.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from ._law import Rate

if TYPE_CHECKING:
    from ._law import Law

__all__ = ["Curve", "compare"]

NOTED: Final = 0.5
"""Share of the processors above which they count: a size that leaves some of them unused is remembered as too small."""

AHEAD: Final = 1.05
"""How far beyond the size that would be enough, if workers did not wait for processors, the next one is."""

CERTAIN: Final = 4.5
"""How much more likely a bend has to be than none, as a logarithm: three standard errors."""


class Curve:
    """What was measured under one load.

    Args:
        law: the numbers.

    Attributes:
        too_few: largest size that was seen to leave processors unused.
        knee: size from which on the throughput stays the same, by everything that was measured; infinity while there
            is no sign of one.
    """

    def __init__(self, law: Law) -> None:
        self._law = law
        self._rates: dict[int, Rate] = {}
        self.too_few = 0
        self._too_few_at = -math.inf
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
        known = self._rates.get(rate.size)
        if known is None or self._contradict(known, rate):
            known = self._rates[rate.size] = Rate(rate.size)
        known.merge(rate)
        known.fade(2 * self._law.longest[1])
        self.knee = self._find_knee()
        if self.is_full(rate):
            self.too_few = min(self.too_few, rate.size - 1)
        elif rate.size >= self.too_few and rate.fullness > NOTED:
            self.too_few, self._too_few_at = rate.size, now

    def _contradict(self, known: Rate, rate: Rate) -> bool:
        """Return whether the load must have changed since a size was measured; then all of that is forgotten."""
        change = abs(math.log(rate.per_second / known.per_second))
        if change < max(self._law.change, 3 * math.sqrt(known.variance + rate.variance)):
            return False
        self._rates.clear()
        self.too_few = 0
        return True

    def forget_slowly(self, now: float) -> None:
        """Let a size that was too small some time ago be tried again."""
        if now - self._too_few_at > self._law.longest_hold[1]:
            self.too_few, self._too_few_at = int(self.too_few / self._law.trial), now

    def is_full(self, rate: Rate) -> bool:
        """Return whether the processors were all in use, nearly."""
        return rate.fullness >= self._law.full

    def is_overfull(self, rate: Rate) -> bool:
        """Return whether they were so much in use that fewer workers may do as much."""
        return rate.fullness >= self._law.overfull and rate.size > self._law.spare * self.too_few

    def differ(self, base: Rate, recent: Rate) -> bool:
        """Return whether the processors are all in use now and clearly were not, or the other way round."""
        if self.is_full(base) == self.is_full(recent):
            return False
        return abs(math.log(recent.fullness / base.fullness)) > self._law.change

    def reach(self, rate: Rate) -> int:
        """Return a size at which the processors may all be in use, but hardly a worker more than that takes.

        The more workers there are, the more they wait for each other, so each of them uses no more than now.
        """
        return round(min(AHEAD * rate.size / rate.fullness, 1e9))

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


def compare(base: Rate, rate: Rate) -> tuple[float, float]:
    """Return how much more is done at one size than at another, as a logarithm, and the standard error of that.

    Counted in messages, or in processor time where handlers compute a good part of their time and that is known more
    exactly: then a few long messages among many short ones do no harm.
    """
    messages = math.sqrt(base.variance + rate.variance)
    processors = math.sqrt(base.used_variance + rate.used_variance)
    if processors < messages and (base.share > NOTED / 2 or base.fullness > NOTED):
        return math.log(rate.used / base.used), processors
    return math.log(rate.per_second / base.per_second), messages
