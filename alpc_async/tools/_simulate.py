"""``alpc bench workers --simulate``: the sizing of worker pools against an oracle.

Belongs here: the oracle, the verdict, the targets. Never here: the machine (`_simulator`), the loads
(`_simulated_loads`), the sizing (completion).

The oracle knows each phase beforehand and works through it with the best fixed size, found by a sweep; its throughput
is that of the steady state, with no time lost on changes. Of the sizes that come within one percent of the best it has
the smallest.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Final

import msgspec

from ..completion import THREADS, Sizer, Tick
from ._simulator import Moment, Phase, simulate
from ._svg import Panel, Series

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "LEAST_AVERAGE",
    "LEAST_SHARE",
    "MOST_SIZE",
    "Judgement",
    "Outcome",
    "judge",
    "judge_load",
    "oracle",
    "oracles",
    "panels",
]

MAXIMUM: Final = 128
"""Largest size, in the sweep and for the sizing."""

SIZES: Final = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)
"""Sizes of the sweep."""

SETTLING: Final = 12.0
"""Seconds after which the size counts as settled."""

CLOSE: Final = 0.99
"""Share of the best throughput of the sweep that a smaller size has to reach to be taken as the best."""

LEAST_SHARE: Final = 0.9
"""Target: least share of the oracle's throughput under every load."""

LEAST_AVERAGE: Final = 0.95
"""Target: least share on average of all loads."""

MOST_SIZE: Final = 1.5
"""Target: largest size after settling, as a multiple of the oracle's."""


class Outcome(msgspec.Struct, frozen=True):
    """How the sizing did under one load, with one seed.

    Attributes:
        load: name of the load.
        share: share of the oracle's throughput, over the whole time.
        overshoot: largest size after settling, as a multiple of the oracle's.
        oracle: the oracle's size in each phase.
        ideal: the oracle's throughput in each phase, in requests per second.
        changes: how often the size changed after settling, trials included.
        moments: every tick.
    """

    load: str
    share: float
    overshoot: float
    oracle: list[int]
    ideal: list[float]
    changes: int
    moments: list[Moment]


class Judgement(msgspec.Struct, frozen=True):
    """How the sizing did under one load, over all seeds.

    Attributes:
        load: name of the load.
        share: median share of the oracle's throughput.
        least_share: smallest one.
        overshoot: median of the largest sizes after settling, as multiples of the oracle's.
        most_overshoot: largest of all.
        runs: runs, one for each seed.
        runs_over: how many of them had a size above the target after settling.
        changes: median of the changes of size after settling.
        passed: whether the median share and the median overshoot meet their targets.
    """

    load: str
    share: float
    least_share: float
    overshoot: float
    most_overshoot: float
    runs: int
    runs_over: int
    changes: float
    passed: bool


class _Fixed:
    """Always decides the same.

    Args:
        size: the size.
    """

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, _tick: Tick) -> int:
        return self._size


def oracle(phase: Phase, *, seed: int = 7) -> tuple[int, float]:
    """Return the best fixed size for a phase, and its throughput in requests per second.

    Args:
        phase: the load.
        seed: for the spread of the times.
    """
    if not phase.callers:
        return 0, 0.0
    rates: dict[int, float] = {}
    for size in SIZES:
        if size > phase.callers:
            break
        # The first part brings the machine into its steady state.
        warm = msgspec.structs.replace(phase, seconds=5.0)
        measured = msgspec.structs.replace(phase, seconds=30.0)
        run = simulate([warm, measured], _Fixed(size), size=size, interval=1.0, seed=seed)
        rates[size] = run.finished[1] / 30.0
    best = max(rates.values())
    return next((size, best) for size, rate in rates.items() if rate >= CLOSE * best)


def oracles(phases: Sequence[Phase]) -> list[tuple[int, float]]:
    """Return what `oracle` says of each phase; equal phases are swept once.

    Args:
        phases: the load.
    """
    known: dict[Phase, tuple[int, float]] = {}
    keys = [msgspec.structs.replace(phase, seconds=1.0) for phase in phases]
    for key in keys:
        if key not in known:
            known[key] = oracle(key)
    return [known[key] for key in keys]


def judge_load(name: str, phases: Sequence[Phase], best: Sequence[tuple[int, float]], *, seed: int = 1) -> Outcome:
    """Let the sizing work through a load, and compare it with the oracle.

    Args:
        name: name of the load.
        phases: the load.
        best: what `oracles` said.
        seed: for the spread of the times.
    """
    sizer = Sizer(1, MAXIMUM, THREADS)
    run = simulate(phases, sizer.advance, size=1, interval=THREADS.interval, seed=seed)
    ideal = sum(rate * phase.seconds for (_, rate), phase in zip(best, phases, strict=True))
    settled = _settled(phases, run.moments)
    sizes = [moment.size for moment in settled]
    return Outcome(
        load=name,
        share=sum(run.finished) / ideal,
        overshoot=max((moment.size / best[moment.phase][0] for moment in settled), default=0.0),
        oracle=[size for size, _ in best],
        ideal=[rate for _, rate in best],
        changes=sum(left != right for left, right in pairwise(sizes)),
        moments=run.moments,
    )


def _settled(phases: Sequence[Phase], moments: Sequence[Moment]) -> list[Moment]:
    """Return the ticks that count: messages come, and the load has been of this sort for a while."""
    began: list[float] = []
    sort: tuple[float, ...] | None = None
    time = since = 0.0
    for phase in phases:
        kind = (phase.computing, phase.waiting, phase.places, phase.processors, phase.together)
        if kind != sort:
            sort, since = kind, time
        began.append(since)
        time += phase.seconds
    return [
        moment for moment in moments if phases[moment.phase].callers and moment.time >= began[moment.phase] + SETTLING
    ]


def judge(name: str, phases: Sequence[Phase], seeds: Sequence[int]) -> tuple[Judgement, Outcome]:
    """Judge the sizing under one load.

    Args:
        name: name of the load.
        phases: the load.
        seeds: one run is made for each.

    Returns:
        The verdict, and the run with the first seed.
    """
    best = oracles(phases)
    outcomes = [judge_load(name, phases, best, seed=seed) for seed in seeds]
    share = median(outcome.share for outcome in outcomes)
    overshoot = median(outcome.overshoot for outcome in outcomes)
    judgement = Judgement(
        load=name,
        share=round(share, 4),
        least_share=round(min(outcome.share for outcome in outcomes), 4),
        overshoot=round(overshoot, 2),
        most_overshoot=round(max(outcome.overshoot for outcome in outcomes), 2),
        runs=len(outcomes),
        runs_over=sum(outcome.overshoot > MOST_SIZE for outcome in outcomes),
        changes=median(outcome.changes for outcome in outcomes),
        passed=share >= LEAST_SHARE and overshoot <= MOST_SIZE,
    )
    return judgement, outcomes[0]


def _steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points at which the value changes, and both ends."""
    changes = [right for left, right in pairwise(points) if left[1] != right[1]]
    return [points[0], *changes, points[-1]]


def panels(outcome: Outcome) -> list[Panel]:
    """Return the diagrams of one run: the size, and the throughput, each beside the oracle's.

    Args:
        outcome: the run.
    """
    moments = outcome.moments
    seconds = max(1, round(1 / (moments[1].time - moments[0].time)))
    rates = [
        (moments[at].time, float(sum(moment.finished for moment in moments[at : at + seconds])))
        for at in range(0, len(moments) - seconds + 1, seconds)
    ]
    size = [
        Series("pool", _steps([(moment.time, float(moment.size)) for moment in moments]), steps=True),
        Series(
            "oracle", _steps([(moment.time, float(outcome.oracle[moment.phase])) for moment in moments]), True, True
        ),
    ]
    throughput = [
        Series("pool", rates),
        Series("oracle", _steps([(moment.time, outcome.ideal[moment.phase]) for moment in moments]), True, True),
    ]
    return [
        Panel(f"{outcome.load}: workers", "seconds", "workers", size),
        Panel(f"{outcome.load}: requests per second", "seconds", "1/s", throughput),
    ]
