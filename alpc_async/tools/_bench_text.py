"""The report of the benchmark for people.

Belongs here: turning a `Report` into text. Never here: measuring, judging.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ._bench_subjects import FLOOR, POOL, PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._bench_report import Machine, Ratio, Report, Row, Settings, Verdict
    from ._bench_subjects import SubjectName

__all__ = ["as_text"]

_TITLES: Final[dict[SubjectName, str]] = {FLOOR: "floor", PORT: "port", POOL: "worker pool"}

_EXPLANATION: Final = (
    "floor: a bare loop over one socket, doing the same typed work. port: requests to a port that iterates over\n"
    "batches. worker pool: requests to a port that a worker pool serves. Ratios are medians of the rounds' ratios\n"
    "to the floor, with the quartiles in brackets. apart: client and server have a processor each, and a round trip\n"
    "wakes two idle ones; together: they share one."
)


def as_text(report: Report) -> str:
    """Return the whole report as lines of text, without a newline at the end.

    Args:
        report: what was measured.
    """
    lines = [*_head(report.machine, report.settings)]
    for backend in report.settings.backends:
        for size in sorted({row.size for row in report.rows}):
            rows = [row for row in report.rows if row.backend == backend and row.size == size]
            lines += ["", f"{backend}, {_bytes(size)} each way", *_round_trips(rows), *_throughputs(rows)]
    lines += ["", _EXPLANATION, ""]
    if report.verdicts:
        met = sum(verdict.passed for verdict in report.verdicts)
        lines += ["targets (port)", *(_verdict(verdict) for verdict in report.verdicts)]
        lines.append(f"  {met} of {len(report.verdicts)} met")
    else:
        lines.append("targets: not judged, the run was too short for that")
    return "\n".join(lines)


def _head(machine: Machine, settings: Settings) -> Iterator[str]:
    yield f"{machine.python}, {machine.kernel}, {machine.processors} x {machine.processor}, load {machine.load}"
    yield ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    yield f"{settings.rounds} rounds of {settings.seconds:g} s for each number; medians"


def _bytes(size: int) -> str:
    return f"{size // 1024} KiB" if size % 1024 == 0 else f"{size} B"


def _round_trips(rows: list[Row]) -> Iterator[str]:
    yield f"  {'round trip, 1 caller':<32}{'p50 µs':>12}{'p99 µs':>12}{'p99.9 µs':>12}{'p50 / floor':>22}"
    for row in rows:
        trip = row.round_trip
        if trip is None:
            continue
        ratio = "" if row.round_trip_ratio is None else _ratio(row.round_trip_ratio)
        title = f"{_TITLES[row.subject]}, {row.placement}"
        yield f"    {title:<30}{trip.p50:>12.1f}{trip.p99:>12.1f}{trip.p999:>12.1f}{ratio:>22}"


def _ratio(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} [{ratio.low:.2f}-{ratio.high:.2f}]"


def _throughputs(rows: list[Row]) -> Iterator[str]:
    rows = [row for row in rows if row.placement == "apart"]
    counts = sorted({row.callers for row in rows})
    yield f"  {'requests/s at callers':<22}" + "".join(f"{count:>12,}" for count in counts)
    found = {(row.subject, row.callers): row for row in rows}
    for subject, title in _TITLES.items():
        ours = [found[subject, count] for count in counts if (subject, count) in found]
        yield f"    {title:<20}" + "".join(f"{row.per_second:>12,.0f}" for row in ours)
        if subject != FLOOR:
            shares = [row.throughput_share for row in ours]
            yield f"    {'  / floor':<20}" + "".join(f"{share.median:>12.2f}" for share in shares if share is not None)


def _verdict(verdict: Verdict) -> str:
    outcome = "pass" if verdict.passed else "FAIL"
    if verdict.target == "throughput":
        what, wanted = "throughput at 100 callers", f">= {verdict.limit:.2f}"
    else:
        what, wanted = "serial round trip, p50", f"<= {verdict.limit:.2f}"
    where = f"{verdict.backend}, {_bytes(verdict.size)}, {verdict.placement}"
    return f"  {outcome}  {what:<26}{where:<28}{_ratio(verdict.ratio)} of the floor, wanted {wanted}"
