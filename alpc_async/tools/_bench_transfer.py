"""``alpc bench transfer``: each way of moving a message, by size, beside a plain socket and a pipe.

Belongs here: the command, and the order in which things are measured. Never here: the ways, arithmetic, drawing.

The senders live in the process of the command, one receiver for all ways of a port and one for the plain ones in
processes of their own. Within a round every way moves the same bytes, one after the other.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003  # the command line library reads the annotations of commands
from statistics import median
from typing import TYPE_CHECKING, Final

import msgspec
from anyio.lowlevel import checkpoint

from . import _backends
from ._backends import BackendName  # noqa: TC001  # likewise
from ._bench_process import PATIENCE, Child, ChildFailed, processors
from ._bench_report import machine
from ._bench_transfer_data import PLAIN, WAYS, Way
from ._bench_transfer_plain import MODULE as PLAIN_MODULE
from ._bench_transfer_plain import PlainEnds
from ._bench_transfer_port import INLINE_LIMIT, MODULE, Senders
from ._bench_transfer_report import Sample, Settings, TransferReport, as_text, judge, panels, summarize
from ._svg import line_chart

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

__all__ = ["measure_all", "transfer_command"]

KIB: Final = 1024
MIB: Final = 1024 * KIB
SIZES: Final = tuple(number * KIB for number in (4, 8, 16, 32, 64, 256, 1024, 4096, 16384, 65536, 262144))
QUICK_SIZES: Final = (4 * KIB, 64 * KIB, MIB, 64 * MIB)

NAME: Final = "bench.transfer"
"""Port of the receiver."""

LEAST_TRANSFERS: Final = 3
"""Transfers of one sample, however long they take; the first one is not counted."""

CLOSE_SIZE: Final = 4 * KIB
"""Bytes at which the way that is taken by itself is compared with the one that it takes."""

TURNS: Final = 10
"""Pairs of short samples in each round where two ways are compared that hardly differ."""

HELD_SIZE: Final = MIB
"""Bytes of the view that is sent again and again, to compare its round trips with empty ones."""


class _Turns:
    """Times transfers until the time of a sample is over."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._begin = time.perf_counter()
        self._durations: list[float] = []

    def add(self, duration: float) -> None:
        """Note how long one took, in seconds."""
        self._durations.append(duration)

    def __iter__(self) -> Iterator[int]:
        while len(self._durations) <= LEAST_TRANSFERS or time.perf_counter() - self._begin < self._seconds:
            yield len(self._durations)

    @property
    def microseconds(self) -> float:
        """Median of all but the first."""
        return median(self._durations[1:]) * 1e6


class _Bench:
    """The measured process: senders of all ways, and what they found."""

    def __init__(self, settings: Settings, plain: PlainEnds, senders: Senders, show: Callable[[str, float], None]):
        self._settings = settings
        self._plain = plain
        self._senders = senders
        self._show = show
        self.samples: list[Sample] = []

    async def run(self, name: str) -> None:
        """Measure everything. Cancelling stops after a transfer."""
        settings = self._settings
        async with self._senders.connected(name):
            for number, size in enumerate(settings.sizes):
                for turn in range(settings.rounds):
                    self._show(
                        f"{size:,} bytes, round {turn + 1}", (number + turn / settings.rounds) / len(settings.sizes)
                    )
                    # Every other round goes backwards, so that no way always follows the same one.
                    for way in WAYS if turn % 2 == 0 else reversed(WAYS):
                        if way != "inline" or size <= INLINE_LIMIT:
                            self.samples.append(
                                Sample(way, size, turn, await self._sample(way, size, settings.seconds))
                            )
            for turn in range(settings.rounds * TURNS):
                self._show("round trips", 1.0)
                await self._compare(turn)

    async def _compare(self, turn: int) -> None:
        """Take a short sample of each of two pairs. Each of a pair comes first as often as second."""
        seconds = self._settings.seconds / TURNS
        for first in (turn % 2, 1 - turn % 2):
            way: Way = "auto" if first else "inline"
            found = await self._sample(way, CLOSE_SIZE, seconds)
            self.samples.append(Sample(f"{way} in turns", CLOSE_SIZE, turn, found))
        for first in (turn % 2, 1 - turn % 2):
            if first:
                self.samples.append(Sample("held", HELD_SIZE, turn, await self._held(seconds)))
            else:
                self.samples.append(Sample("empty", 0, turn, await self._empty(seconds)))

    async def _sample(self, way: Way, size: int, seconds: float) -> float:
        turns = _Turns(seconds)
        payloads = self._senders.payloads(size)
        for turn in turns:
            data, expected = payloads.take(turn)
            begin = time.perf_counter()
            if way in PLAIN:
                found = self._plain.by_socket(data) if way == "socket" else self._plain.by_pipe(data)
            else:
                found = await self._senders.send(way, size, turn)
            turns.add(time.perf_counter() - begin)
            if found != expected:
                raise ValueError(f"{size} bytes by the way {way!r} arrived with stamp {found!r}, not {expected!r}")
            if way in PLAIN:
                await checkpoint()
        return turns.microseconds

    async def _empty(self, seconds: float) -> float:
        turns = _Turns(seconds)
        for _ in turns:
            begin = time.perf_counter()
            await self._senders.empty()
            turns.add(time.perf_counter() - begin)
        return turns.microseconds

    async def _held(self, seconds: float) -> float:
        turns = _Turns(seconds)
        async with self._senders.held(HELD_SIZE) as request:
            for _ in turns:
                begin = time.perf_counter()
                await request()
                turns.add(time.perf_counter() - begin)
        return turns.microseconds


def measure_all(settings: Settings, show: Callable[[str, float], None]) -> TransferReport:
    """Measure every way at every size.

    Args:
        settings: how.
        show: called with what comes next and the share that is done.

    Raises:
        ChildFailed: a receiver ended or got stuck.
        BackendMissing: the event loop is not installed.
    """
    where = machine()
    _backends.require(settings.backend)
    with _private_directory() as directory, PlainEnds() as plain, _receivers(settings.backend, directory, plain):
        bench = _Bench(settings, plain, Senders(directory), show)
        _backends.run(settings.backend, bench.run, NAME)
    rows = summarize(bench.samples)
    return TransferReport(where, settings, rows, judge(rows), bench.samples)


@contextmanager
def _private_directory() -> Generator[str]:
    directory = tempfile.mkdtemp(prefix="alpc-bench-")
    before = os.environ.get("ALPC_RUNTIME_DIR")
    os.environ["ALPC_RUNTIME_DIR"] = directory
    try:
        yield directory
    finally:
        if before is None:
            del os.environ["ALPC_RUNTIME_DIR"]
        else:
            os.environ["ALPC_RUNTIME_DIR"] = before
        shutil.rmtree(directory)


@contextmanager
def _receivers(backend: str, directory: str, plain: PlainEnds) -> Generator[None]:
    """Have both receivers run, on one processor, and this process on another one if there is any."""
    theirs, ours = processors("apart")
    before = os.sched_getaffinity(0)
    descriptors = [str(number) for number in plain.descriptors]
    children: list[Child] = []
    try:
        arguments = [PLAIN_MODULE, str(theirs), *descriptors]
        children.append(Child("plain receiver", arguments, directory, plain.descriptors))
        children.append(Child("receiver", [MODULE, str(theirs), backend, NAME], directory))
        for child in children:
            child.hear(PATIENCE)
        plain.hand_over()
        os.sched_setaffinity(0, {ours})
        yield
    finally:
        os.sched_setaffinity(0, before)
        # The plain receiver ends when its senders do.
        plain.close()
        for child in children:
            child.end()


def _show(what: str, done: float) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{100 * done:3.0f} %  {what}", end="", file=sys.stderr, flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def transfer_command(
    *,
    backend: BackendName = "asyncio",
    seconds: float = 0.1,
    rounds: int = 5,
    plot: Path | None = None,
    json: Path | None = None,
    quick: bool = False,
) -> int:
    """Measure each way of moving a message from 4 KiB to 256 MiB, beside a plain socket and a pipe.

    The default run takes about two minutes and up to 2 GiB of memory. A missed target is reported and is no failure.

    Args:
        backend: event loop of sender and receiver.
        seconds: measured time of each sample, in seconds; at least three transfers are made.
        rounds: how often each sample is taken.
        plot: file to draw the result to, as SVG.
        json: file to write everything measured to.
        quick: fewer sizes and rounds: a look in about 15 seconds, not a measurement.

    Returns:
        Exit status: 0, or 1 when the benchmark could not be carried through.
    """
    if not seconds > 0 or rounds < 1:
        print("alpc bench transfer: --seconds must be positive and --rounds at least 1", file=sys.stderr)
        return 2
    sizes = list(QUICK_SIZES if quick else SIZES)
    settings = Settings(backend=backend, seconds=seconds, rounds=min(rounds, 2) if quick else rounds, sizes=sizes)
    try:
        report = measure_all(settings, _show)
    except (ChildFailed, _backends.BackendMissing, ValueError) as error:
        _clear()
        print(f"alpc bench transfer: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        _clear()
        return 128 + signal.SIGINT
    _clear()
    print(as_text(report))
    if plot is not None:
        plot.write_text(line_chart(panels(report)))
        print(f"drawn: {plot}")
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
        print(f"everything measured: {json}")
    return 0
