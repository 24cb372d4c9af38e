"""``alpc bench workers``: worker pools against their targets.

Belongs here: the command and its report. Never here: loads, measuring, drawing.
"""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003  # the command line library reads the annotations of commands
from statistics import mean
from typing import TYPE_CHECKING, Final

import msgspec

from ._simulate import LEAST_AVERAGE, LEAST_SHARE, LOADS, MOST_SIZE, Judgement, judge, panels
from ._svg import line_chart

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._svg import Panel

__all__ = ["Report", "workers_command"]

SEEDS: Final = 5
"""Runs of the simulator under each load; the medians count."""


class Report(msgspec.Struct, frozen=True):
    """One run; what ``--json`` writes.

    Attributes:
        simulated: the sizing under each load.
        average: mean share of the oracle's throughput.
    """

    simulated: list[Judgement]
    average: float


def _simulate(seeds: int, plotted: list[Panel]) -> Report:
    judgements: list[Judgement] = []
    for name, phases in LOADS.items():
        judgement, outcome = judge(name, phases, range(1, seeds + 1))
        judgements.append(judgement)
        plotted += panels(outcome)
    return Report(judgements, round(mean(judgement.share for judgement in judgements), 4))


def _text(report: Report, seeds: int) -> Iterator[str]:
    yield f"sizing with a virtual clock, medians of {seeds} runs (in brackets the worst of them)"
    yield f"  {'':<6}{'load':<28}{'share of the oracle':>22}{'largest size / oracle':>24}{'changes':>10}"
    for row in report.simulated:
        outcome = "pass" if row.passed else "FAIL"
        share = f"{row.share:.3f} ({row.least_share:.3f})"
        size = f"{row.overshoot:.2f} ({row.most_overshoot:.2f})"
        yield f"  {outcome:<6}{row.load:<28}{share:>22}{size:>24}{row.changes:>10g}"
    outcome = "pass" if report.average >= LEAST_AVERAGE else "FAIL"
    yield f"  {outcome:<6}{'average share':<28}{report.average:>14.3f}"
    yield (
        f"wanted: at least {LEAST_SHARE:g} of the oracle's throughput under every load and {LEAST_AVERAGE:g} on "
        f"average,\nand after settling never more than {MOST_SIZE:g} times its size"
    )


def _chosen(drawn: Sequence[Panel], load: str) -> list[Panel]:
    return [panel for panel in drawn if not load or panel.title.startswith(f"{load}:")]


def workers_command(
    *,
    simulate: bool = True,
    seeds: int = SEEDS,
    plot: Path | None = None,
    load: str = "",
    json: Path | None = None,
) -> int:
    """Judge the sizing of worker pools against an oracle that knows the load, with a virtual clock.

    A missed target is reported and is no failure.

    Args:
        simulate: judge the sizing with a virtual clock.
        seeds: runs under each load.
        plot: file to draw sizes and throughput to, as SVG.
        load: draw this load only.
        json: file to write everything to.

    Returns:
        Exit status: 0, or 2 when the arguments make no sense.
    """
    if seeds < 1 or (load and load not in LOADS) or not simulate:
        print(f"alpc bench workers: --seeds must be at least 1, --load one of {', '.join(LOADS)}", file=sys.stderr)
        return 2
    drawn: list[Panel] = []
    report = _simulate(seeds, drawn)
    print("\n".join(_text(report, seeds)))
    if plot is not None:
        plot.write_text(line_chart(_chosen(drawn, load)))
        print(f"drawn: {plot}")
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
        print(f"everything: {json}")
    return 0
