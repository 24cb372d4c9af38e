"""``alpc bench``: round trips and throughput beside the floor.

Belongs here: the command, its options, and the order in which things are measured. Never here: the load, the subjects,
the processes, the arithmetic.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003  # the command line library reads the annotations of commands
from typing import TYPE_CHECKING, Final

import msgspec

from . import _backends
from ._backends import BackendName  # noqa: TC001  # likewise
from ._bench_load import Cell, Placement
from ._bench_process import ChildFailed, Children
from ._bench_report import Report, Sample, Settings, judge, machine, summarize
from ._bench_subjects import SUBJECTS
from ._bench_text import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from types import FrameType

__all__ = ["bench_command", "run_bench"]

SIZES: Final = (64, 4096)
"""Payloads, in bytes: a small record, and a page."""

CALLERS: Final = (1, 10, 100, 1000)
"""Requests in flight at the same time."""

DEFAULT: Final = Settings(seconds=0.08, rounds=25, backends=[])
QUICK: Final = Settings(seconds=0.03, rounds=3, backends=[])

CELLS: Final = (
    *(Cell(size, callers) for size in SIZES for callers in CALLERS),
    *(Cell(size, 1, "together") for size in SIZES),
)
"""Everything that is measured of each subject.

With one caller, where a request costs little more than waking the other side, that depends on whether the other side
has a processor of its own; with many, being together only adds the work of both sides.
"""


class _Progress:
    """A line on standard error: rewritten on a terminal, one for each event loop elsewhere.

    Args:
        total: samples that will be taken.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._terminal = sys.stderr.isatty()
        self._last = ""

    def show(self, done: int, sample: str, backend: str) -> None:
        """Say what is being measured.

        Args:
            done: samples taken so far.
            sample: the one that comes next.
            backend: its event loop.
        """
        percent = f"{100 * done // self._total:3} %"
        if self._terminal:
            print(f"\r\x1b[K{percent}  {sample}", end="", file=sys.stderr, flush=True)
        elif backend != self._last:
            self._last = backend
            print(f"{percent}  measuring {backend}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away."""
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def _private_directory() -> Generator[str]:
    path = tempfile.mkdtemp(prefix="alpc-bench-")
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def _terminated_in_order() -> Generator[None]:
    """Have SIGTERM unwind like Ctrl-C, so that the children are ended and the files removed."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def run_bench(settings: Settings, show: Callable[[int, str, str], None], *, cells: Sequence[Cell] = CELLS) -> Report:
    """Measure everything.

    Args:
        settings: how long, how often, on which event loops.
        show: called before each sample with the number of samples taken, what comes next, and its event loop.
        cells: what to measure of each subject.

    Returns:
        The report.

    Raises:
        ChildFailed: a process of the benchmark ended or got stuck.
    """
    where = machine()
    samples: list[Sample] = []
    with _private_directory() as directory:
        for backend in settings.backends:
            placements: list[Placement] = list(dict.fromkeys(cell.placement for cell in cells))
            for placement in placements:
                here = [cell for cell in cells if cell.placement == placement]
                with Children(_backends.require(backend).name, directory, placement) as children:
                    samples += _measure(children, settings, backend, here, len(samples), show)
    rows = summarize(samples)
    return Report(where, settings, rows, judge(rows) if settings.long_enough else [], samples)


def _measure(
    children: Children,
    settings: Settings,
    backend: str,
    cells: Sequence[Cell],
    before: int,
    show: Callable[[int, str, str], None],
) -> list[Sample]:
    samples: list[Sample] = []
    for cell in cells:
        for number in range(settings.rounds):
            # Every other round goes backwards, so that no subject always follows the same one.
            for subject in SUBJECTS if number % 2 == 0 else reversed(SUBJECTS):
                what = f"{backend}, {cell.size} B, {cell.callers} callers, {subject}, round {number + 1}"
                show(before + len(samples), what, backend)
                measured = children.measure(subject, cell, settings.seconds)
                samples.append(Sample(backend, subject, cell.size, cell.callers, number, measured, cell.placement))
    return samples


def bench_command(
    *,
    backend: list[BackendName] | None = None,
    seconds: float | None = None,
    rounds: int | None = None,
    json: Path | None = None,
    quick: bool = False,
) -> int:
    """Measure round trips and requests per second beside a bare socket loop.

    The default run takes about three minutes on three event loops. A missed target is reported and is no failure.

    Args:
        backend: event loop to measure; may be repeated. By default every one that is installed.
        seconds: measured time of each sample, in seconds.
        rounds: how often each sample is taken.
        json: file to write everything measured to.
        quick: few and short rounds: a look in about 20 seconds, not a measurement, and without verdicts.

    Returns:
        Exit status: 0, or 1 when the benchmark could not be carried through.
    """
    base = QUICK if quick else DEFAULT
    settings = Settings(
        seconds=base.seconds if seconds is None else seconds,
        rounds=base.rounds if rounds is None else rounds,
        backends=list(dict.fromkeys(backend or _backends.installed())),
    )
    if not settings.seconds > 0 or settings.rounds < 1:
        print("alpc bench: --seconds must be positive and --rounds at least 1", file=sys.stderr)
        return 2
    progress = _Progress(len(settings.backends) * len(CELLS) * len(SUBJECTS) * settings.rounds)
    try:
        with _terminated_in_order():
            report = run_bench(settings, progress.show)
    except (ChildFailed, _backends.BackendMissing) as error:
        progress.clear()
        print(f"alpc bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress.clear()
        return 128 + signal.SIGINT
    progress.clear()
    print(as_text(report))
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
        print(f"everything measured: {os.fspath(json)}")
    return 0
