"""The benchmark: its floor, its load, its arithmetic, and runs with real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import msgspec
import psutil  # type: ignore[import-untyped]  # it comes without annotations
import pytest

from alpc_async.tools import _backends
from alpc_async.tools._bench import CELLS, bench_command, run_bench
from alpc_async.tools._bench_load import Cell, Measured, RoundTrip, measure
from alpc_async.tools._bench_process import ChildFailed, Children
from alpc_async.tools._bench_report import Ratio, Report, Sample, Settings, judge, summarize
from alpc_async.tools._bench_subjects import SUBJECTS, SubjectName, open_client, open_server
from alpc_async.tools._bench_text import as_text
from alpc_async.tools._floor import HEADER_SIZE, Answer, Work, answer_all, decode_answer, encode, pack_header

if TYPE_CHECKING:
    from collections.abc import Generator

    from alpc_async.tools._backends import BackendName

ROOT = Path(__file__).parents[2]
COMMAND = "import sys; from alpc_async.tools._bench import bench_command; sys.exit(bench_command({arguments}))"


def _name(backend: tuple[str, dict[str, Any]]) -> BackendName:
    if backend[0] == "trio":
        return "trio"
    return "uvloop" if backend[1]["use_uvloop"] else "asyncio"


def _sample(subject: SubjectName, callers: int, number: int, requests: int, p50: float | None = None) -> Sample:
    trip = None if p50 is None else RoundTrip(p50, p50 * 2, p50 * 3)
    return Sample("asyncio", subject, 64, callers, number, Measured(requests, 0.5, trip))


# -- the floor -------------------------------------------------------------------------------------------------------


def test_answers_only_whole_frames() -> None:
    """The floor answers what has arrived whole, and leaves the rest for the next receive."""
    frames = b"".join(
        pack_header(len(data), number) + data
        for number, data in enumerate([encode(Work(7, b"a")), encode(Work(8, b"b"))])
    )
    for filled in range(len(frames) + 1):
        parts: list[bytes] = []
        used = answer_all(memoryview(frames), filled, parts)
        whole = 2 * filled // len(frames)
        assert used == whole * len(frames) // 2
        assert [decode_answer(data) for data in parts[1::2]] == [Answer(7, b"a"), Answer(8, b"b")][:whole]
        assert all(len(header) == HEADER_SIZE for header in parts[::2])


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("size", [0, 64, 60_000])
async def test_answers_belong_to_their_requests(
    anyio_backend: tuple[str, dict[str, Any]], runtime_directory: Path, subject: SubjectName, size: int
) -> None:
    """Every subject gives each of many callers its own answer, also when a batch is larger than any socket buffer."""
    place = str(runtime_directory / "echo")
    backend = _name(anyio_backend)
    answers: dict[int, Answer] = {}

    async def ask(number: int) -> None:
        answers[number] = await call(Work(number, bytes([number]) * size))

    async with (
        open_server(subject, backend, place),
        open_client(subject, backend, place) as call,
        anyio.create_task_group() as group,
    ):
        for number in range(100):
            group.start_soon(ask, number)
    assert answers == {number: Answer(number, bytes([number]) * size) for number in range(100)}


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_callers_are_told_when_the_server_goes(
    anyio_backend: tuple[str, dict[str, Any]], runtime_directory: Path, subject: SubjectName
) -> None:
    """A client whose server has ended gets an error instead of waiting for ever."""
    place = str(runtime_directory / "echo")
    backend = _name(anyio_backend)
    async with anyio.create_task_group() as group:
        served, stopped, scope = anyio.Event(), anyio.Event(), anyio.CancelScope()

        async def serve() -> None:
            with scope:
                async with open_server(subject, backend, place):
                    served.set()
                    await anyio.sleep_forever()
            stopped.set()

        group.start_soon(serve)
        await served.wait()
        async with open_client(subject, backend, place) as call:
            assert await call(Work(1, b"x")) == Answer(1, b"x")
            scope.cancel()
            await stopped.wait()
            with anyio.fail_after(5), pytest.raises((ConnectionResetError, anyio.BrokenResourceError)):
                await call(Work(2, b"x"))


async def test_a_call_in_flight_is_told_when_the_server_goes(
    anyio_backend: tuple[str, dict[str, Any]], runtime_directory: Path
) -> None:
    """A caller of the floor that waits for its answer gets an error when the connection ends."""
    place = str(runtime_directory / "silent")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        async with open_client("floor", _name(anyio_backend), place) as call:
            with listener.accept()[0] as silent, pytest.raises(ExceptionGroup) as caught:  # noqa: PT012  # one scenario

                async def ask() -> None:
                    await call(Work(1, b"x"))

                async with anyio.create_task_group() as group:
                    group.start_soon(ask)
                    await anyio.wait_readable(silent)
                    silent.close()
    assert caught.group_contains(ConnectionResetError, match="went away")


# -- the load --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("callers", [1, 20])
async def test_counts_the_requests_of_the_measured_time(anyio_backend: object, callers: int) -> None:
    """A subject that needs a known time for each request is measured at the rate which follows from it."""
    pause = 0.005

    async def call(work: Work) -> Answer:
        await anyio.sleep(pause)
        return Answer(work.number, work.payload)

    measured = await measure(call, Cell(64, callers), 0.2)
    assert measured.seconds >= 0.19
    # A busy machine makes sleeps longer, never shorter.
    assert 0 < measured.requests / measured.seconds <= 1.05 * callers / pause
    if callers == 1:
        trip = measured.round_trip
        assert trip is not None
        assert pause * 1e6 * 0.99 <= trip.p50 <= trip.p99 <= trip.p999
    else:
        assert measured.round_trip is None


@pytest.mark.parametrize("callers", [1, 3])
async def test_refuses_a_wrong_answer(anyio_backend: object, callers: int) -> None:
    """A subject that answers somebody else's request is found out, also when it begins well."""
    answered = 0

    async def call(work: Work) -> Answer:
        nonlocal answered
        answered += 1
        await anyio.lowlevel.checkpoint()
        return Answer(work.number + (answered > 10), work.payload)

    with pytest.raises((ValueError, ExceptionGroup)) as caught:
        await measure(call, Cell(64, callers), 0.05)
    assert caught.group_contains(ValueError, match="got the answer") if callers > 1 else caught.type is ValueError


@pytest.mark.parametrize("size", [0, 64, 4096])
async def test_sends_the_size_that_it_says(anyio_backend: object, size: int) -> None:
    """The payload of the work has the size of the cell."""
    sizes: set[int] = set()

    async def call(work: Work) -> Answer:
        sizes.add(len(work.payload))
        await anyio.lowlevel.checkpoint()
        return Answer(work.number, work.payload)

    await measure(call, Cell(size, 1), 0.01)
    await measure(call, Cell(size, 2), 0.01)
    assert sizes == {size}


# -- the arithmetic --------------------------------------------------------------------------------------------------


def test_takes_ratios_within_rounds() -> None:
    """The share of the floor is the median of the rounds' ratios, not the ratio of the medians."""
    floor = [_sample("floor", 100, number, requests) for number, requests in enumerate([1000, 100, 10])]
    ours = [_sample("port", 100, number, requests) for number, requests in enumerate([700, 50, 12])]
    rows = {row.subject: row for row in summarize([*floor, *ours])}
    assert rows["port"].throughput_share == Ratio(0.6, 0.7, 0.95)
    assert rows["port"].per_second == 100.0
    assert rows["floor"].throughput_share is None
    assert rows["floor"].per_second == 200.0


@pytest.mark.parametrize(("requests", "p50", "passed"), [(600, 125.0, True), (599, 125.2, False)])
def test_judges_by_the_targets(requests: int, p50: float, passed: bool) -> None:
    """A target is met at its limit and missed just beyond."""
    samples = [
        _sample("floor", 100, 0, 1000),
        _sample("port", 100, 0, requests),
        _sample("pool", 100, 0, 1),
        _sample("floor", 1, 0, 10, 100.0),
        _sample("port", 1, 0, 10, p50),
        _sample("pool", 1, 0, 10, 900.0),
        _sample("floor", 10, 0, 1000),
        _sample("port", 10, 0, 1),
    ]
    verdicts = judge(summarize(samples))
    assert {(verdict.target, verdict.passed) for verdict in verdicts} == {
        ("throughput", passed),
        ("round trip", passed),
    }
    assert len(verdicts) == 2


# -- real runs -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=list(_backends.BACKENDS))
def installed_backend(request: pytest.FixtureRequest) -> BackendName:
    """Every event loop, by the name that the command line gives it."""
    name: BackendName = request.param
    if name not in _backends.installed():
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture
def _children_import_this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))


@pytest.fixture
def _no_process_is_left() -> Generator[None]:
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) - before == set()


real_processes = pytest.mark.usefixtures("_children_import_this_checkout", "_no_process_is_left")


@real_processes
def test_a_run_gives_sane_numbers(installed_backend: BackendName) -> None:
    """A short run measures each combination in each round, and the percentiles come in order."""
    shown: list[int] = []
    settings = Settings(seconds=0.01, rounds=2, backends=[installed_backend])
    cells = [Cell(64, 1), Cell(64, 100), Cell(4096, 100), Cell(64, 1, "together")]
    report = run_bench(settings, lambda done, _what, _backend: shown.append(done), cells=cells)
    combinations = {(row.subject, Cell(row.size, row.callers, row.placement)) for row in report.rows}
    assert combinations == {(subject, cell) for subject in SUBJECTS for cell in cells}
    assert shown == list(range(len(report.samples)))
    assert len(report.samples) == 2 * len(combinations)
    for row in report.rows:
        assert row.per_second > 0
        assert (row.round_trip is not None) == (row.callers == 1)
        if row.round_trip is not None:
            assert 0 < row.round_trip.p50 <= row.round_trip.p99 <= row.round_trip.p999
        assert (row.throughput_share is None) == (row.subject == "floor")
    assert report.verdicts == []
    assert {"alpc-async", "anyio", "msgspec"} <= report.machine.packages.keys()
    text = as_text(report)
    assert f"{installed_backend}, 64 B each way" in text
    assert text.endswith("targets: not judged, the run was too short for that")


@real_processes
def test_the_command_writes_everything_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--json`` writes each round of each combination, in a form that decodes strictly to the report."""
    file = tmp_path / "bench.json"
    assert bench_command(backend=["asyncio", "asyncio"], seconds=0.005, rounds=1, json=file) == 0
    report = msgspec.json.decode(file.read_bytes(), type=Report, strict=True)
    assert report.settings == Settings(seconds=0.005, rounds=1, backends=["asyncio"])
    assert [(sample.size, sample.callers) for sample in report.samples[:: len(SUBJECTS)]] == [
        *((size, callers) for size in (64, 4096) for callers in (1, 10, 100, 1000)),
        *((size, 1) for size in (64, 4096)),
    ]
    assert len(report.samples) == len(SUBJECTS) * len(CELLS)
    captured = capsys.readouterr()
    assert captured.out.startswith(as_text(report))
    assert "measuring asyncio" in captured.err


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 1), (float("nan"), 1), (0.1, 0)])
def test_the_command_refuses_senseless_settings(
    capsys: pytest.CaptureFixture[str], seconds: float, rounds: int
) -> None:
    """Settings that measure nothing are refused before anything starts."""
    assert bench_command(backend=["asyncio"], seconds=seconds, rounds=rounds) == 2
    assert "--seconds must be positive" in capsys.readouterr().err


@real_processes
@pytest.mark.parametrize("role", ["client", "server"])
def test_a_child_that_dies_is_named(runtime_directory: Path, role: str) -> None:
    """When a process of the benchmark is killed the run ends with an error that says so, and takes the others along."""
    with Children("asyncio", str(runtime_directory), "apart") as children:
        children.measure("port", Cell(64, 10), 0.01)
        victims = [process for process in psutil.Process().children() if process.cmdline()[3:4] == [role]]
        assert len(victims) == 1
        victims[0].kill()
        with pytest.raises(ChildFailed) as caught:
            children.measure("port", Cell(64, 10), 5.0)
    assert caught.value.child == "client on asyncio"
    assert caught.value.exit_status == (-signal.SIGKILL if role == "client" else 1)


@real_processes
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_interrupting_the_command_leaves_no_process(temporary: Path, number: signal.Signals, status: int) -> None:
    """However the command is ended in the middle of a run, its processes end too, and only a kill leaves files."""
    arguments = "backend=['asyncio'], seconds=20.0"
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(arguments=arguments)],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    children: list[psutil.Process] = []
    try:
        process = psutil.Process(command.pid)
        while len(children) < 2:
            assert command.poll() is None
            children = process.children()
        command.send_signal(number)
        assert command.wait(timeout=20) == status
        gone, alive = psutil.wait_procs(children, timeout=30)
        assert len(gone) == 2
        assert not alive
    finally:
        command.kill()
        command.wait()
    assert bool(list(temporary.iterdir())) == (number == signal.SIGKILL)
