"""The simulator: its machine, its oracle, the verdict on the sizing, and the drawings."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import msgspec
import pytest

from alpc_async.tools._simulate import LEAST_SHARE, judge, judge_load, oracle, oracles, panels
from alpc_async.tools._simulated_loads import LOADS, TUNED, UNTUNED
from alpc_async.tools._simulator import Phase, Run, simulate
from alpc_async.tools._svg import Panel, Series, line_chart
from alpc_async.tools._workers import Report, workers_command
from alpc_async.tools._workers_live import Target, fairness, processes, tasks_inline
from alpc_async.tools._workers_served import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from alpc_async.completion import Tick


def steady(phase: Phase, size: int, seed: int = 1) -> Run:
    """Work through one phase with a fixed size."""
    return simulate([phase], lambda _tick: size, size=size, interval=0.1, seed=seed)


@pytest.mark.parametrize(
    ("phase", "size", "expected"),
    [
        (Phase(seconds=50, callers=50, computing=0.02), 2, 100),
        (Phase(seconds=50, callers=50, computing=0.02, switching=0.0), 40, 200),
        (Phase(seconds=50, callers=50, waiting=0.1), 20, 200),
        (Phase(seconds=50, callers=10, waiting=0.1), 20, 100),
        (Phase(seconds=50, callers=50, waiting=0.1, places=5), 40, 50),
        (Phase(seconds=50, callers=50, waiting=0.03, computing=0.01, spread="even"), 4, 100),
        (Phase(seconds=50, callers=50, computing=0.02, switching=0.0, together=1), 8, 50),
    ],
)
def test_throughput_is_what_queues_say(phase: Phase, size: int, expected: float) -> None:
    """Processors, waiting, callers and places bound the throughput as they should."""
    assert steady(phase, size).finished[0] / phase.seconds == pytest.approx(expected, rel=0.07)


def test_too_many_that_compute_cost_throughput() -> None:
    """Each handler beyond the processors costs its share."""
    phase = Phase(seconds=50, callers=104, computing=0.02, switching=0.01)
    assert steady(phase, 104).finished[0] == pytest.approx(steady(phase, 4).finished[0] / 2, rel=0.07)


def test_a_heavy_tail_has_the_mean_that_was_asked_for() -> None:
    """Times with a heavy tail are right on average, as far as a finite run can tell."""
    phase = Phase(seconds=2000, callers=8, waiting=0.05, spread="heavy")
    assert steady(phase, 8).finished[0] == pytest.approx(8 * 2000 / 0.05, rel=0.1)


@pytest.mark.parametrize(("size", "together", "expected"), [(2, 0, 2.0), (9, 0, 4.0), (9, 1, 1.0)])
def test_what_is_computed_is_told(size: int, together: int, expected: float) -> None:
    """A tick tells how many of the processors are in use, as the clocks of threads would, and how many there are."""
    ticks: list[Tick] = []

    def decide(tick: Tick) -> int:
        ticks.append(tick)
        return size

    phase = Phase(seconds=5, callers=20, computing=0.02, together=together)
    simulate([phase], decide, size=size, interval=0.1)
    assert {(round(tick.computing, 6), tick.processors) for tick in ticks} == {(expected, 4)}


def test_silence_is_silent() -> None:
    """Without callers nothing is finished, and what was begun ends."""
    busy = Phase(seconds=5, callers=20, waiting=0.1)
    run = simulate([busy, msgspec.structs.replace(busy, callers=0)], lambda _: 8, size=8, interval=0.1)
    assert run.finished[1] <= 20
    assert [moment.finished for moment in run.moments[-30:]] == [0] * 30


def test_the_oracle_finds_the_knee() -> None:
    """The best fixed size is as many as there are processors, places or callers, whichever binds."""
    assert oracle(Phase(seconds=1, callers=100, computing=0.02))[0] == 4
    assert oracle(Phase(seconds=1, callers=16, waiting=0.02))[0] == 16
    assert oracle(Phase(seconds=1, callers=0)) == (0, 0.0)


def test_runs_can_be_repeated() -> None:
    """The same seed gives the same run, another seed another one."""
    phases = LOADS["mixed"]
    best = oracles(phases)
    assert judge_load("x", phases, best, seed=3) == judge_load("x", phases, best, seed=3)
    assert judge_load("x", phases, best, seed=3) != judge_load("x", phases, best, seed=4)


@pytest.mark.parametrize(
    "name", ["computing", "waiting, 10 places", "changing", "short bursts", "heavy tail, computing"]
)
def test_the_sizing_comes_near_the_oracle(name: str) -> None:
    """Under each sort of load the pool reaches the wanted share of the oracle's throughput at the wanted size."""
    judgement, _ = judge(name, LOADS[name], range(1, 4))
    assert judgement.share >= LEAST_SHARE
    assert judgement.passed


def test_fixed_times_leave_nothing_to_chance() -> None:
    """Times without any spread are a load of their own; no load is both tuned on and judged apart."""
    (phase,) = LOADS["fixed times"]
    assert {*LOADS} == {*TUNED, *UNTUNED}
    assert not {*TUNED} & {*UNTUNED}
    alone = msgspec.structs.replace(phase, seconds=4.01, callers=1)
    assert steady(alone, 1, seed=1).finished == steady(alone, 1, seed=2).finished == [100]


def test_runs_above_the_size_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict goes by the median, and beside it stands how many single runs were above."""
    phases = [Phase(seconds=13, callers=20, waiting=0.05)]
    judgement, _ = judge("short", phases, range(1, 4))
    assert (judgement.runs, judgement.runs_over) == (3, 0)
    monkeypatch.setattr("alpc_async.tools._simulate.MOST_SIZE", 0.1)
    judgement, _ = judge("short", phases, range(1, 4))
    assert (judgement.runs_over, judgement.passed) == (3, False)


def test_a_chart_is_well_formed() -> None:
    """Lines, steps, dashes, logarithms and a single point all give XML with one line for each series."""
    flat = Panel("a < b", "x", "y", [Series("one", [(1.0, 5.0)])])
    curves = Panel("c", "x", "y", [Series("two", [(1, 1), (1000, 0.1)]), Series("three", [(1, 2), (9, 3)], True, True)])
    text = line_chart([flat, msgspec.structs.replace(curves, log_x=True, log_y=True), curves])
    root = ET.fromstring(text)  # noqa: S314  # our own text
    lines = [node for node in root.iter() if node.tag.endswith("polyline")]
    assert len(lines) == 5
    assert all(" " in line.attrib["points"] for line in lines[1:])
    assert "nan" not in text


def test_a_run_can_be_drawn() -> None:
    """Size and throughput stand beside the oracle's."""
    phases = [Phase(seconds=4, callers=20, waiting=0.05)]
    drawn = panels(judge_load("short", phases, oracles(phases)))
    assert [[series.name for series in panel.series] for panel in drawn] == [["pool", "oracle"]] * 2


def test_the_command_writes_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command prints a verdict for each load, draws the chosen one and writes everything down."""
    monkeypatch.setattr(
        "alpc_async.tools._workers.LOADS",
        {name: [Phase(seconds=15, callers=20, waiting=0.05)] for name in ("first", "second")},
    )
    plot, json = tmp_path / "p.svg", tmp_path / "r.json"
    assert workers_command(simulate=True, seeds=1, plot=plot, json=json, load="second") == 0
    printed = capsys.readouterr().out
    assert len([line for line in printed.splitlines() if line.startswith(("  pass", "  FAIL"))]) == 3
    assert "second: workers" in plot.read_text()
    assert "first: workers" not in plot.read_text()
    report = msgspec.json.decode(json.read_bytes(), type=Report)
    assert [row.load for row in report.simulated] == ["first", "second"]
    assert report.measured == []
    assert workers_command(load="third") == 2
    assert workers_command(rounds=0) == 2


def test_targets_are_met_from_the_right_side() -> None:
    """A ratio has to reach its limit, a time or a count has to stay below it."""
    assert [Target("ratio", value, 0.9, True, "").passed for value in (0.89, 0.9)] == [False, True]
    assert [Target("count", value, 0, False, "").passed for value in (0, 1)] == [True, False]


@pytest.mark.parametrize(("load", "outcome"), [(1.0, "pass"), (1.5, "-")])
def test_there_is_no_verdict_on_a_busy_machine(
    load: float, outcome: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers and both loads are printed in any case; whether they meet their targets only after a quiet minute."""

    def run(*_arguments: object) -> list[Target]:
        return [Target("a ratio", 0.95, 0.9, True, "")]

    loads = iter([load, 3.25])
    monkeypatch.setattr("os.getloadavg", lambda: (next(loads), 0.0, 0.0))
    monkeypatch.setattr("alpc_async.tools._workers.LOADS", {"one": [Phase(seconds=13, callers=4, waiting=0.05)]})
    monkeypatch.setattr("alpc_async.tools._backends.run", run)
    assert workers_command(seeds=1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"load {load} before the run, 3.25 after it" in lines[0]
    (measured,) = [line for line in lines if "a ratio" in line]
    assert measured.split()[0] == outcome
    assert any("no verdict" in line for line in lines) == (outcome == "-")


async def test_pools_are_measured() -> None:
    """Short runs of the comparisons give numbers that make sense."""
    targets = [*await tasks_inline(1, 0.05), *await fairness(1, 0.2), *await processes(1, 1.0)]
    assert all(0 < target.value < 100 for target in targets)


async def test_servers_are_measured(runtime_directory: Path) -> None:
    """A replacement under load refuses and loses nothing, and is said to."""
    targets = await replacing(str(runtime_directory))
    assert [target.value for target in targets] == [0, 0]
    assert " 0 answered" not in targets[0].detail
