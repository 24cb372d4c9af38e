"""What the benchmark found: every sample, the medians, the shares of the floor, and the verdicts.

Belongs here: the numbers of a run as values, and what follows from them. Never here: measuring, printing.

The floor and the framework are measured in turns within each round, a tenth of a second each, by the same two processes
on the same processors, and their ratio is taken within the round too. So what disturbs the machine for longer than a
round disturbs both; of the ratios of all rounds the median counts, and the quartiles say how far it can be trusted.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from .._version import __version__
from ._bench_load import Measured, Placement, RoundTrip
from ._bench_subjects import FLOOR, PORT, SubjectName

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Machine", "Ratio", "Report", "Row", "Sample", "Settings", "Verdict", "judge", "machine", "summarize"]

TARGET_CALLERS: Final = 100
"""Concurrent callers at which the throughput is judged."""

LEAST_THROUGHPUT: Final = 0.60
"""Target: least share of the floor's throughput."""

LEAST_ROUNDS: Final = 9
"""Rounds without which there are no quartiles worth the name, and no verdicts."""

LEAST_SECONDS: Final = 0.5
"""Measured seconds of each combination without which there are no verdicts."""

MOST_ROUND_TRIP: Final = 1.25
"""Target: largest multiple of the floor's median serial round trip."""


class Sample(msgspec.Struct, frozen=True):
    """One measurement.

    Attributes:
        backend: event loop.
        subject: what was measured.
        size: payload in bytes, each way.
        callers: requests in flight at the same time.
        round: number of the round, from 0.
        measured: what came out.
        placement: where client and server ran.
    """

    backend: str
    subject: SubjectName
    size: int
    callers: int
    round: int
    measured: Measured
    placement: Placement = "apart"

    @property
    def per_second(self) -> float:
        """Requests answered per second."""
        return self.measured.requests / self.measured.seconds


class Ratio(msgspec.Struct, frozen=True):
    """The ratios of all rounds to the floor of the same round.

    Attributes:
        low: first quartile.
        median: what counts.
        high: third quartile.
    """

    low: float
    median: float
    high: float


class Row(msgspec.Struct, frozen=True):
    """What all rounds of one combination give.

    Attributes:
        backend: event loop.
        subject: what was measured.
        size: payload in bytes, each way.
        callers: requests in flight at the same time.
        placement: where client and server ran.
        per_second: median of requests answered per second.
        round_trip: medians of the percentiles, in microseconds; with one caller only.
        throughput_share: ratios of the throughput; ``None`` for the floor itself.
        round_trip_ratio: ratios of the p50; with one caller only.
    """

    backend: str
    subject: SubjectName
    size: int
    callers: int
    placement: Placement
    per_second: float
    round_trip: RoundTrip | None
    throughput_share: Ratio | None
    round_trip_ratio: Ratio | None


class Verdict(msgspec.Struct, frozen=True):
    """Whether one target was met.

    Attributes:
        target: which, as ``"throughput"`` or ``"round trip"``.
        backend: event loop.
        size: payload in bytes, each way.
        placement: where client and server ran.
        ratio: what was measured, relative to the floor.
        limit: what was wanted: at least this for throughput, at most this for the round trip.
        passed: whether it was met.
    """

    target: Literal["throughput", "round trip"]
    backend: str
    size: int
    placement: Placement
    ratio: Ratio
    limit: float
    passed: bool


class Machine(msgspec.Struct, frozen=True):
    """Where the numbers were measured.

    Attributes:
        processor: model name.
        processors: how many this process may use.
        load: processes that wanted to run in the last minute before the run, on average.
        kernel: name and release.
        python: implementation and version.
        packages: versions of what took part.
    """

    processor: str
    processors: int
    load: float
    kernel: str
    python: str
    packages: dict[str, str]


class Settings(msgspec.Struct, frozen=True):
    """How the run was made.

    Attributes:
        seconds: measured time of one sample.
        rounds: how often each combination was measured.
        backends: event loops.
    """

    seconds: float
    rounds: int
    backends: list[str]

    @property
    def long_enough(self) -> bool:
        """Whether the run can be judged by the targets."""
        return self.rounds >= LEAST_ROUNDS and self.rounds * self.seconds >= LEAST_SECONDS


class Report(msgspec.Struct, frozen=True):
    """One run; what ``--json`` writes.

    Attributes:
        machine: where.
        settings: how.
        rows: medians and shares.
        verdicts: the targets; empty when the run was too short to judge.
        samples: every single measurement, in the order in which they were made.
    """

    machine: Machine
    settings: Settings
    rows: list[Row]
    verdicts: list[Verdict]
    samples: list[Sample]


def machine() -> Machine:
    """Describe this machine."""
    return Machine(
        processor=_processor(),
        processors=len(os.sched_getaffinity(0)),
        load=round(os.getloadavg()[0], 2),
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        packages={"alpc-async": __version__, **_versions("anyio", "msgspec", "trio", "uvloop")},
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _versions(*names: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def summarize(samples: Sequence[Sample]) -> list[Row]:
    """Take the medians of all rounds, and the shares of the floor.

    Args:
        samples: all measurements; each of the framework's needs one of the floor in its round.
    """
    groups: dict[tuple[str, SubjectName, int, int, Placement], list[Sample]] = {}
    for sample in samples:
        key = sample.backend, sample.subject, sample.size, sample.callers, sample.placement
        groups.setdefault(key, []).append(sample)
    rows: list[Row] = []
    for (backend, subject, size, callers, placement), group in groups.items():
        floor = {sample.round: sample for sample in groups[backend, FLOOR, size, callers, placement]}
        pairs = [(sample, floor[sample.round]) for sample in group] if subject != FLOOR else []
        rows.append(
            Row(
                backend=backend,
                subject=subject,
                size=size,
                callers=callers,
                placement=placement,
                per_second=round(median(sample.per_second for sample in group), 1),
                round_trip=_median_round_trip(group),
                throughput_share=_ratio(pairs, lambda sample: sample.per_second),
                round_trip_ratio=_ratio(pairs, _p50),
            )
        )
    return rows


def _median_round_trip(group: Sequence[Sample]) -> RoundTrip | None:
    trips = [sample.measured.round_trip for sample in group if sample.measured.round_trip is not None]
    if not trips:
        return None
    return RoundTrip(
        p50=round(median(trip.p50 for trip in trips), 3),
        p99=round(median(trip.p99 for trip in trips), 3),
        p999=round(median(trip.p999 for trip in trips), 3),
    )


def _p50(sample: Sample) -> float | None:
    trip = sample.measured.round_trip
    return None if trip is None else trip.p50


def _ratio(pairs: Sequence[tuple[Sample, Sample]], value: Callable[[Sample], float | None]) -> Ratio | None:
    ratios: list[float] = []
    for sample, floor in pairs:
        ours, theirs = value(sample), value(floor)
        if ours is not None and theirs is not None:
            ratios.append(ours / theirs)
    if not ratios:
        return None
    low, high = (ratios[0], ratios[0]) if len(ratios) == 1 else quantiles(ratios, n=4, method="inclusive")[::2]
    return Ratio(round(low, 4), round(median(ratios), 4), round(high, 4))


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """Compare the plain port with the targets, for every event loop and size.

    Args:
        rows: what `summarize` returned.
    """
    verdicts: list[Verdict] = []
    for row in rows:
        if row.subject != PORT:
            continue
        if row.callers == TARGET_CALLERS and (share := row.throughput_share) is not None:
            passed = share.median >= LEAST_THROUGHPUT
            verdicts.append(
                Verdict("throughput", row.backend, row.size, row.placement, share, LEAST_THROUGHPUT, passed)
            )
        if row.callers == 1 and (ratio := row.round_trip_ratio) is not None:
            passed = ratio.median <= MOST_ROUND_TRIP
            verdicts.append(Verdict("round trip", row.backend, row.size, row.placement, ratio, MOST_ROUND_TRIP, passed))
    return verdicts
