"""``alpc bench workers``: worker pools against their targets.

Belongs here: the command and its report. Never here: loads, measuring, drawing.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path  # noqa: TC003  # the command line library reads the annotations of commands
from statistics import mean
from typing import TYPE_CHECKING, Final

import msgspec

from . import _backends
from ._backends import BackendName  # noqa: TC001  # likewise
from ._bench_report import Machine, machine
from ._simulate import LEAST_AVERAGE, LEAST_SHARE, MOST_SIZE, Judgement, judge, panels
from ._simulated_loads import LOADS, UNTUNED
from ._svg import line_chart
from ._workers_live import SCENARIOS, Target
from ._workers_served import replacing, scaling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._svg import Panel

__all__ = ["Report", "workers_command"]

SEEDS: Final = 5
"""Runs of the simulator under each load; the medians count."""

FIRST_SEED: Final = 15001
"""Seed of the first of them. The law was looked at with seeds up to 12005, so those would judge it too well."""

MOST_LOAD: Final = 1.0
"""Largest load of the last minute before the run with which what was measured is judged.

On two processors one more process that computes takes half of what a second worker could bring.
"""


class Report(msgspec.Struct, frozen=True):
    """One run; what ``--json`` writes.

    Attributes:
        machine: where.
        simulated: the sizing under each load.
        average: mean share of the oracle's throughput.
        measured: the targets that were measured with real pools; none with ``--simulate``.
        load_after: like the load of the machine, when everything was measured; the run itself is part of it.
    """

    machine: Machine
    simulated: list[Judgement]
    average: float
    measured: list[Target]
    load_after: float

    @property
    def quiet(self) -> bool:
        """Whether the machine was quiet enough before the run for a verdict on what was measured."""
        return self.machine.load <= MOST_LOAD


def _simulate(seeds: int, plotted: list[Panel]) -> tuple[list[Judgement], float]:
    judgements: list[Judgement] = []
    for name, phases in LOADS.items():
        judgement, outcome = judge(name, phases, range(FIRST_SEED, FIRST_SEED + seeds))
        judgements.append(judgement)
        plotted += panels(outcome)
    return judgements, round(mean(judgement.share for judgement in judgements), 4)


async def _measure(rounds: int, seconds: float) -> list[Target]:
    targets: list[Target] = []
    for scenario in SCENARIOS:
        targets += await scenario(rounds, seconds)
    with tempfile.TemporaryDirectory(prefix="alpc-bench-") as directory:
        before = os.environ.get("ALPC_RUNTIME_DIR")
        os.environ["ALPC_RUNTIME_DIR"] = directory
        try:
            targets += await scaling(rounds, seconds, directory)
            targets += await replacing(directory)
        finally:
            os.environ.pop("ALPC_RUNTIME_DIR")
            if before is not None:
                os.environ["ALPC_RUNTIME_DIR"] = before
    return targets


def _simulated_text(report: Report, seeds: int) -> Iterator[str]:
    yield f"sizing with a virtual clock, medians of {seeds} runs (in brackets the worst of them)"
    yield (
        f"  {'':<6}{'load':<28}{'share of the oracle':>22}{'largest size / oracle':>24}{f'runs > {MOST_SIZE:g}':>13}"
        f"{'changes':>10}"
    )
    for row in report.simulated:
        outcome = "pass" if row.passed else "FAIL"
        share = f"{row.share:.3f} ({row.least_share:.3f})"
        size = f"{row.overshoot:.2f} ({row.most_overshoot:.2f})"
        name = row.load + " *" * (row.load in UNTUNED)
        over = f"{row.runs_over} of {row.runs}"
        yield f"  {outcome:<6}{name:<28}{share:>22}{size:>24}{over:>13}{row.changes:>10g}"
    outcome = "pass" if report.average >= LEAST_AVERAGE else "FAIL"
    yield f"  {outcome:<6}{'average share':<28}{report.average:>14.3f}"
    yield (
        f"  wanted: at least {LEAST_SHARE:g} of the oracle's throughput under every load and {LEAST_AVERAGE:g} on "
        f"average,\n  and after settling never more than {MOST_SIZE:g} times its size; verdicts are on medians; "
        "* is a load that the law was not tuned on"
    )


def _measured_text(report: Report) -> Iterator[str]:
    where = report.machine
    yield (
        f"{where.python}, {where.kernel}, {where.processors} x {where.processor}, load {where.load} before the run, "
        f"{report.load_after} after it"
    )
    if not report.quiet:
        yield f"  no verdict: the load before the run was above {MOST_LOAD:g}, so something else took part; wait for it"
    for target in report.measured:
        outcome = ("pass" if target.passed else "FAIL") if report.quiet else "-"
        wanted = f"wanted {'>=' if target.at_least else '<='} {target.limit:g}"
        detail = f"  ({target.detail})" if target.detail else ""
        yield f"  {outcome:<6}{target.name:<62}{target.value:>8.2f}  {wanted}{detail}"
    yield ""


def _chosen(drawn: Sequence[Panel], load: str) -> list[Panel]:
    return [panel for panel in drawn if not load or panel.title.startswith(f"{load}:")]


def workers_command(
    *,
    simulate: bool = False,
    seeds: int = SEEDS,
    rounds: int = 3,
    seconds: float = 1.0,
    backend: BackendName = "asyncio",
    plot: Path | None = None,
    load: str = "",
    json: Path | None = None,
) -> int:
    """Measure worker pools and several servers behind one name, and judge the sizing with a virtual clock.

    The default run takes about three minutes. A missed target is reported and is no failure. When the load
    before the run is above 1, what is measured is reported without a verdict.

    Args:
        simulate: judge the sizing only, with a virtual clock; takes a minute.
        seeds: runs of the simulator under each load.
        rounds: how often each comparison is measured.
        seconds: measured time of each sample, in seconds.
        backend: event loop to measure on.
        plot: file to draw sizes and throughput of the simulator to, as SVG.
        load: draw this load only.
        json: file to write everything to.

    Returns:
        Exit status: 0, 1 when it could not be carried through, 2 when the arguments make no sense.
    """
    if seeds < 1 or rounds < 1 or not seconds > 0 or (load and load not in LOADS):
        print(f"alpc bench workers: nothing to do, or no such load: {', '.join(LOADS)}", file=sys.stderr)
        return 2
    where = machine()
    drawn: list[Panel] = []
    try:
        measured = [] if simulate else _backends.run(backend, _measure, rounds, seconds)
    except (_backends.BackendMissing, RuntimeError) as error:
        print(f"alpc bench workers: {error}", file=sys.stderr)
        return 1
    load_after = round(os.getloadavg()[0], 2)
    report = Report(where, *_simulate(seeds, drawn), measured, load_after)
    print("\n".join((*(() if simulate else _measured_text(report)), *_simulated_text(report, seeds))))
    if plot is not None:
        plot.write_text(line_chart(_chosen(drawn, load)))
        print(f"drawn: {plot}")
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
        print(f"everything: {json}")
    return 0
