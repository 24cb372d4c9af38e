"""What ``alpc bench transfer`` found: every sample, the medians, the verdicts, the crossing points.

Belongs here: the numbers of a run as values, what follows from them, and the text of it. Never here: measuring.

All ways are measured in turns within each round, and ratios are taken within the round too, so that what disturbs the
machine for longer than a round disturbs both sides of a ratio; of the ratios of all rounds the median counts. Where two
ways hardly differ a round is many short pairs in changing order, so that noise of a round does not decide.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

import msgspec

from ._bench_report import Machine  # msgspec reads annotations at run time
from ._bench_transfer_data import FRAMEWORK, TITLES, WAYS, Way
from ._svg import Panel, Series

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "Row",
    "Sample",
    "Settings",
    "TransferReport",
    "Verdict",
    "as_text",
    "crossing",
    "judge",
    "panels",
    "summarize",
]

KIB: Final = 1024
MIB: Final = 1024 * KIB
BIG: Final = 64 * MIB
"""Size at which the ways are judged, in bytes."""


class Sample(msgspec.Struct, frozen=True):
    """One measurement.

    Attributes:
        way: how the bytes travelled; ``"empty"`` for requests without any, ``"held"`` for one view sent again,
            ``"auto in turns"`` and ``"inline in turns"`` for short samples that alternate.
        size: bytes of one transfer.
        round: number of the round, from 0; of the pair, where samples alternate.
        microseconds: median time from sending to the answer.
    """

    way: str
    size: int
    round: int
    microseconds: float


class Row(msgspec.Struct, frozen=True):
    """What all rounds of one way and size give.

    Attributes:
        way: as in `Sample`.
        size: bytes of one transfer.
        microseconds: median of the rounds.
        times_pipe: median of the rounds' ratios to the bytes per second of the pipe.
        by_round: the samples, by round.
    """

    way: str
    size: int
    microseconds: float
    times_pipe: float | None
    by_round: list[float]


class Verdict(msgspec.Struct, frozen=True):
    """Whether one target was met.

    Attributes:
        target: what was wanted, in words.
        ratio: what was measured.
        limit: what was wanted.
        at_least: whether the limit is the least or the most.
        passed: whether it was met.
    """

    target: str
    ratio: float
    limit: float
    at_least: bool
    passed: bool


class Settings(msgspec.Struct, frozen=True):
    """How the run was made.

    Attributes:
        backend: event loop.
        seconds: measured time of one sample.
        rounds: how often each sample was taken.
        sizes: bytes of one transfer.
    """

    backend: str
    seconds: float
    rounds: int
    sizes: list[int]


class TransferReport(msgspec.Struct, frozen=True):
    """One run; what ``--json`` writes.

    Attributes:
        machine: where.
        settings: how.
        rows: medians and ratios.
        verdicts: the targets.
        samples: every single measurement, in the order in which they were made.
    """

    machine: Machine
    settings: Settings
    rows: list[Row]
    verdicts: list[Verdict]
    samples: list[Sample]


def summarize(samples: Sequence[Sample]) -> list[Row]:
    """Take the medians of all rounds.

    Args:
        samples: all measurements, the rounds of a way and size in order.
    """
    groups: dict[tuple[str, int], list[float]] = {}
    for sample in samples:
        groups.setdefault((sample.way, sample.size), []).append(sample.microseconds)
    rows: list[Row] = []
    for (way, size), times in groups.items():
        pipe = groups.get(("pipe", size)) if way in WAYS else None
        share = round(_ratio(pipe, times), 3) if pipe else None
        rows.append(Row(way, size, round(median(times), 2), share, times))
    return rows


def _ratio(one: Sequence[float], other: Sequence[float]) -> float:
    return median(left / right for left, right in zip(one, other, strict=True))


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """Compare with the targets, as far as what they need was measured.

    Args:
        rows: what `summarize` returned.
    """
    found = {(row.way, row.size): row for row in rows}
    targets = (
        ("64 MiB in place, bytes/s of the pipe", "pipe", BIG, "place", BIG, 20.0, True),
        ("64 MiB view of bytes, bytes/s of the pipe", "pipe", BIG, "view", BIG, 3.0, True),
        ("64 MiB direct, bytes/s of the pipe", "pipe", BIG, "direct", BIG, 3.0, True),
        ("4 KiB auto, time of inline", "auto in turns", 4 * KIB, "inline in turns", 4 * KIB, 1.05, False),
        ("1 MiB view round trip, time of an empty one", "held", MIB, "empty", 0, 1.3, False),
    )
    verdicts: list[Verdict] = []
    for target, way, size, other_way, other_size, limit, at_least in targets:
        one, other = found.get((way, size)), found.get((other_way, other_size))
        if one is not None and other is not None:
            ratio = round(_ratio(one.by_round, other.by_round), 3)
            verdicts.append(Verdict(target, ratio, limit, at_least, ratio >= limit if at_least else ratio <= limit))
    return verdicts


def crossing(rows: Sequence[Row], way: Way, other: Way) -> int | None:
    """Return the smallest measured size from which one way is never slower than another, or ``None``.

    Args:
        rows: what `summarize` returned.
        way: the way that wins for large messages.
        other: the way that wins for small ones; sizes that it cannot carry are left out.
    """
    times = {(row.way, row.size): row.microseconds for row in rows}
    sizes = sorted(row.size for row in rows if row.way == other and (way, row.size) in times)
    from_here: int | None = None
    for size in reversed(sizes):
        if times[way, size] > times[other, size]:
            break
        from_here = size
    return from_here


def size_text(size: int) -> str:
    """Return a size in the unit in which it is a whole number."""
    if size and size % MIB == 0:
        return f"{size // MIB} MiB"
    return f"{size // KIB} KiB" if size and size % KIB == 0 else f"{size} B"


def as_text(report: TransferReport) -> str:
    """Return the whole report as lines of text, without a newline at the end.

    Args:
        report: what was measured.
    """
    return "\n".join([*_head(report), "", *_table(report), "", *_crossings(report), "", *_verdicts(report)])


def _head(report: TransferReport) -> Iterator[str]:
    machine, settings = report.machine, report.settings
    yield f"{machine.python}, {machine.kernel}, {machine.processors} x {machine.processor}, load {machine.load}"
    yield ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    yield f"{settings.backend}, {settings.rounds} rounds of {settings.seconds:g} s for each number; medians"


def _table(report: TransferReport) -> Iterator[str]:
    found = {(row.way, row.size): row for row in report.rows}
    sizes = report.settings.sizes
    yield f"{'µs from sending to answer':<26}" + "".join(f"{size_text(size):>12}" for size in sizes)
    for way in WAYS:
        rows = [found.get((way, size)) for size in sizes]
        cells = ["-" if row is None else f"{row.microseconds:,.0f}" for row in rows]
        yield f"  {TITLES[way]:<24}" + "".join(f"{cell:>12}" for cell in cells)
    yield ""
    yield f"{'bytes/s, the pipe being 1':<26}" + "".join(f"{size_text(size):>12}" for size in sizes)
    for way in WAYS:
        shares = [row.times_pipe if row else None for row in (found.get((way, size)) for size in sizes)]
        yield f"  {TITLES[way]:<24}" + "".join(f"{'-' if share is None else f'{share:.2f}':>12}" for share in shares)


def _crossings(report: TransferReport) -> Iterator[str]:
    yield "crossing points"
    pairs: tuple[tuple[Way, Way], ...] = (
        ("view", "inline"),
        ("copy", "inline"),
        ("place", "inline"),
        ("direct", "inline"),
        ("handle", "inline"),
        ("direct", "copy"),
    )
    for way, other in pairs:
        size = crossing(report.rows, way, other)
        where = "at no measured size" if size is None else f"from {size_text(size)}"
        yield f"  {TITLES[way]} is at least as fast as {TITLES[other]} {where}"


def _verdicts(report: TransferReport) -> Iterator[str]:
    yield "targets"
    for verdict in report.verdicts:
        outcome = "pass" if verdict.passed else "FAIL"
        wanted = f"{'>=' if verdict.at_least else '<='} {verdict.limit:g}"
        yield f"  {outcome}  {verdict.target:<46}{verdict.ratio:>8.2f}, wanted {wanted}"
    missed = sum(not verdict.passed for verdict in report.verdicts)
    yield f"  {len(report.verdicts) - missed} of {len(report.verdicts)} met"


def panels(report: TransferReport) -> list[Panel]:
    """Return the diagrams of a report.

    Args:
        report: what was measured.
    """
    small: tuple[Way, ...] = ("inline", "auto", "view", "copy", "place")
    large: tuple[Way, ...] = ("pipe", "socket", "direct", "handle", "place")
    return [
        _panel(report, "a port's ways", small),
        _panel(report, "beside a plain socket and multiprocessing", large),
    ]


def _panel(report: TransferReport, title: str, ways: Sequence[Way]) -> Panel:
    series = [
        Series(
            TITLES[way],
            sorted((row.size / KIB, row.microseconds) for row in report.rows if row.way == way),
            dashed=way not in FRAMEWORK,
        )
        for way in ways
    ]
    return Panel(title, "KiB", "µs", [line for line in series if line.points], log_x=True, log_y=True)
