"""The benchmark of the ways of moving a message: its stamps, its arithmetic, and runs with real processes."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

from alpc_async.tools import _bench_transfer as bench
from alpc_async.tools._bench_process import ChildFailed
from alpc_async.tools._bench_report import machine
from alpc_async.tools._bench_transfer import transfer_command
from alpc_async.tools._bench_transfer_data import PAGE, WAYS, Payloads, seen, stamp
from alpc_async.tools._bench_transfer_plain import PlainEnds
from alpc_async.tools._bench_transfer_report import (
    Sample,
    Settings,
    TransferReport,
    as_text,
    crossing,
    judge,
    panels,
    summarize,
)
from alpc_async.tools._svg import line_chart

if TYPE_CHECKING:
    from pathlib import Path

    from alpc_async.tools._backends import BackendName

KIB = 1024
MIB = 1024 * KIB


@pytest.mark.parametrize("size", [1, PAGE - 1, PAGE, PAGE + 1, 10 * PAGE])
def test_stamps(size: int) -> None:
    """Every page carries the stamp, and a single page with another one is noticed."""
    memory = memoryview(bytearray(size))
    stamp(memory, 7)
    assert seen(memory) == b"\x07"
    for position in range(0, size, PAGE):
        memory[position] = 8
        assert seen(memory) == (b"\0" if size > PAGE else b"\x08")
        memory[position] = 7


def test_payloads_alternate() -> None:
    """Two transfers in a row never carry the same stamp, so an old payload is not taken for a new one."""
    payloads = Payloads(3 * PAGE)
    (first, one), (second, two), (third, three) = (payloads.take(turn) for turn in range(3))
    assert (seen(first), seen(second), seen(third)) == (one, two, three)
    assert one == three
    assert one != two


def samples(way: str, size: int, *times: float) -> list[Sample]:
    """Return what so many rounds of one way gave."""
    return [Sample(way, size, number, time) for number, time in enumerate(times)]


def test_medians_and_ratios() -> None:
    """Ratios are taken within each round, and then their median."""
    rows = summarize(samples("pipe", KIB, 10, 100, 30) + samples("view", KIB, 5, 10, 60))
    pipe, view = rows
    assert (pipe.microseconds, pipe.times_pipe) == (30, 1.0)
    assert (view.microseconds, view.times_pipe) == (10, 2.0)


def test_verdicts() -> None:
    """Each target is judged by what it compares, at least or at most, and left out when that was not measured."""
    found = samples("pipe", 64 * MIB, 100, 100) + samples("place", 64 * MIB, 5, 5) + samples("view", 64 * MIB, 40, 40)
    found += samples("auto in turns", 4 * KIB, 105, 105) + samples("inline in turns", 4 * KIB, 100, 100)
    found += samples("held", MIB, 131, 131) + samples("empty", 0, 100, 100)
    verdicts = {verdict.target.partition(",")[0]: verdict for verdict in judge(summarize(found))}
    assert {target: (verdict.ratio, verdict.passed) for target, verdict in verdicts.items()} == {
        "64 MiB in place": (20.0, True),
        "64 MiB view of bytes": (2.5, False),
        "4 KiB auto": (1.05, True),
        "1 MiB view round trip": (1.31, False),
    }


def test_crossing_points() -> None:
    """A way wins from the size from which it is never slower again; nowhere, if it loses at the last size."""
    rows = summarize(
        [
            *(
                sample
                for size, time in ((4, 9), (8, 3), (16, 9), (32, 5), (64, 6))
                for sample in samples("view", size, time)
            ),
            *(
                sample
                for size, time in ((4, 1), (8, 4), (16, 8), (32, 5), (64, 7))
                for sample in samples("inline", size, time)
            ),
            *samples("view", 128, 1),
        ]
    )
    assert crossing(rows, "view", "inline") == 32
    assert crossing(rows, "inline", "view") is None
    assert crossing(rows, "place", "inline") is None


def test_the_report_shows_everything() -> None:
    """The text names every way, every size and every target with its outcome; the drawing has a line for each way."""
    sizes = [4 * KIB, MIB]
    found = [sample for way in WAYS for size in sizes for sample in samples(way, size, size / 100)]
    found += samples("auto in turns", 4 * KIB, 105, 95, 101) + samples("inline in turns", 4 * KIB, 100, 100, 100)
    rows = summarize(found + samples("empty", 0, 100, 100) + samples("held", MIB, 200, 200))
    report = TransferReport(machine(), Settings("asyncio", 0.1, 1, sizes), rows, judge(rows), found)
    text = as_text(report)
    for part in ("4 KiB", "1 MiB", "multiprocessing", "view in place", "from 4 KiB", "pass  4 KiB auto", "1 of 2 met"):
        assert part in text, text
    drawing = ET.fromstring(line_chart(panels(report)))  # noqa: S314  # it was made here
    assert len(drawing.findall("{http://www.w3.org/2000/svg}polyline")) == 10


def test_a_run(
    backend: BackendName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run measures every way at every size, writes its figures and its drawing, and leaves nothing behind."""
    monkeypatch.setattr(bench, "QUICK_SIZES", (4 * KIB, 100_000, 17 * MIB))
    monkeypatch.setattr(bench, "LEAST_TRANSFERS", 1)
    before = os.sched_getaffinity(0)
    plot, figures = tmp_path / "plot.svg", tmp_path / "figures.json"
    assert transfer_command(backend=backend, seconds=0.001, rounds=1, plot=plot, json=figures, quick=True) == 0
    assert os.sched_getaffinity(0) == before
    report: dict[str, Any] = json.loads(figures.read_text())
    measured = {(row["way"], row["size"]) for row in report["rows"]}
    expected = {(way, size) for way in WAYS for size in (4 * KIB, 100_000, 17 * MIB)} - {("inline", 17 * MIB)}
    in_turns = {("auto in turns", 4 * KIB), ("inline in turns", 4 * KIB), ("empty", 0), ("held", MIB)}
    assert measured == expected | in_turns
    taken = [(sample["way"], sample["round"]) for sample in report["samples"][-4 * bench.TURNS :]]
    inline, auto, empty, held = "inline in turns", "auto in turns", "empty", "held"
    assert taken[:8] == [
        *((way, 0) for way in (inline, auto, empty, held)),
        *((way, 1) for way in (auto, inline, held, empty)),
    ]
    assert len({number for _, number in taken}) == bench.TURNS
    assert all(row["microseconds"] > 0 for row in report["rows"])
    ET.parse(plot)  # noqa: S314  # it was made here
    output = capsys.readouterr()
    assert "targets" in output.out
    assert "everything measured" in output.out


def test_a_receiver_that_does_not_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A process that ends at once is named, and the command fails."""
    monkeypatch.setattr(bench, "MODULE", "alpc_async.tools.no_such_module")
    assert transfer_command(seconds=0.001, rounds=1, quick=True) == 1
    assert "the benchmark's receiver ended with exit status 1" in capsys.readouterr().err


def test_what_arrives_wrong_is_no_measurement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A transfer of which the receiver saw something else than was sent fails the command."""
    monkeypatch.setattr(bench, "QUICK_SIZES", (4 * KIB,))

    def forge(ends: PlainEnds, data: bytes) -> bytes:
        return b"c"

    monkeypatch.setattr(PlainEnds, "by_socket", forge)
    assert transfer_command(seconds=0.001, rounds=1, quick=True) == 1
    assert "4096 bytes by the way 'socket' arrived with stamp b'c', not b'\\x01'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [{"seconds": 0}, {"rounds": 0}], ids=str)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing can be measured in no time or no rounds."""
    assert transfer_command(**arguments) == 2
    assert "must be positive" in capsys.readouterr().err


def test_an_interrupted_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the command with the status that says so."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "measure_all", interrupt)
    assert transfer_command(quick=True) == 130


def test_failures_name_the_process() -> None:
    """What failed is said in the words of the benchmark."""
    assert str(ChildFailed(child="receiver", exit_status=None)) == "the benchmark's receiver did not answer in time"
