"""``alpc bench service``: typed calls beside the floor, streams beside calls, the blocking client beside the async one.

Belongs here: the command, its processes, its targets. Never here: the load (`_bench_load`), the floor.

Server and client are processes of their own, pinned to two processors where there are two. Floor and service, and the
asynchronous and the blocking client, are measured in turns by the same processes, and of the ratios of all rounds the
median counts.
"""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator  # noqa: TC003  # contracts are read at run time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final, Literal, cast

import anyio
import msgspec

from .. import blocking
from ..service import Interface, connect, serve
from . import _backends
from ._backends import BackendName  # noqa: TC001  # the command line library reads the annotations of commands
from ._bench_load import Cell, measure
from ._bench_subjects import FLOOR, open_client, open_server
from ._floor import Answer, Work

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Bench", "Result", "service_command"]

MODULE: Final = "alpc_async.tools._bench_service"
NAME: Final = "service"
SIZE: Final = 64
CALLERS: Final = 100
ROUND: Final = 0.08
"""Seconds of one measurement: short enough that what disturbs the machine disturbs both of a pair."""

LEAST_CALLS: Final = 0.55
"""Target: least share of the floor's calls per second at 100 callers."""
MOST_ROUND_TRIP: Final = 1.3
"""Target: largest multiple of the floor's serial round trip."""
LEAST_ITEMS: Final = 5.0
"""Target: least items of a stream per second, in unary calls per second at 100 callers."""
MANY_ITEMS: Final = 1_000_000
"""Items of the stream whose memory is measured."""
MOST_GROWTH: Final = 32.0
"""Target: MiB by which client and server may grow meanwhile; the items of such a stream take more than 80."""


class Bench(Interface, uuid="6b0f2f4c-02a2-4a2f-9c42-7d1f3f0c5e90", version=(1, 0)):
    """The work that the floor does, as a service."""

    async def work(self, work: Work) -> Answer:
        """Answer."""
        raise NotImplementedError

    def items(self, count: int, size: int) -> AsyncIterator[Answer]:
        """Give so many answers."""
        raise NotImplementedError

    async def peak(self) -> float:
        """Return the most memory that the server has used, in MiB."""
        raise NotImplementedError


class BenchServer(Bench):
    """Does the work."""

    async def work(self, work: Work) -> Answer:
        return Answer(work.number, work.payload)

    async def items(self, count: int, size: int) -> AsyncIterator[Answer]:
        payload = bytes(size)
        for number in range(count):
            yield Answer(number, payload)

    async def peak(self) -> float:
        return _peak()


class Result(msgspec.Struct, frozen=True):
    """What one event loop gave.

    Attributes:
        calls: unary calls per second at 100 callers.
        calls_share: of the floor's.
        round_trip: median serial round trip, in microseconds.
        round_trip_ratio: to the floor's.
        items: items of a stream per second.
        items_ratio: to the calls.
        growth: by how much client and server grew during a million items, in MiB.
        peak: the most memory that client and server have used, together, in MiB.
        blocking: median serial round trip of the blocking client, in microseconds.
        blocking_ratio: to that of the asynchronous client, in the same process.
    """

    calls: float
    calls_share: float
    round_trip: float
    round_trip_ratio: float
    items: float
    items_ratio: float
    growth: float
    peak: float
    blocking: float
    blocking_ratio: float


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# -- the processes -----------------------------------------------------------------------------------------------------


def _pin(role: str) -> None:
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[0] if role == "server" else processors[-1]})


async def _serve(backend: BackendName, place: str) -> None:
    async with open_server(FLOOR, backend, place), serve(NAME, BenchServer()):
        print("ready", flush=True)
        await anyio.wait_readable(sys.stdin.fileno())


async def _measure(backend: BackendName, place: str, rounds: int, many: int) -> None:
    async with open_client(FLOOR, backend, place) as floor, connect(NAME, Bench) as service:
        calls, share = await _pairs(floor, service.work, Cell(SIZE, CALLERS), rounds)
        times, ratio = await _pairs(floor, service.work, Cell(SIZE, 1), rounds)
        blocked, blocked_ratio = await _blocking_pairs(service.work, rounds)
        items = await _items_per_second(service, rounds)
        before = _peak() + await service.peak()
        last = -1
        async for item in service.items(many, SIZE):
            last = item.number
        if last != many - 1:
            raise ValueError(f"the stream ended with item {last}")
        peak = _peak() + await service.peak()
    result = Result(calls, share, times, ratio, items, items / calls, peak - before, peak, blocked, blocked_ratio)
    print(msgspec.json.encode(result).decode(), flush=True)


async def _pairs(
    floor: Callable[[Work], Awaitable[Answer]], service: Callable[[Work], Awaitable[Answer]], cell: Cell, rounds: int
) -> tuple[float, float]:
    """Return the median of the service, and of its ratios to the floor: calls per second, or round trips."""
    found: list[tuple[float, float]] = []
    for number in range(rounds):
        pair: dict[bool, float] = {}
        for of_floor in (True, False) if number % 2 else (False, True):
            measured = await measure(floor if of_floor else service, cell, ROUND)
            trip = measured.round_trip
            pair[of_floor] = trip.p50 if trip is not None else measured.requests / measured.seconds
        found.append((pair[False], pair[False] / pair[True]))
    return median(value for value, _ in found), median(ratio for _, ratio in found)


async def _items_per_second(service: Bench, rounds: int) -> float:
    found: list[float] = []
    for _ in range(rounds):
        count = 0
        began = time.perf_counter()
        async for _item in service.items(20_000, SIZE):
            count += 1
        found.append(count / (time.perf_counter() - began))
    return median(found)


async def _blocking_pairs(work: Callable[[Work], Awaitable[Answer]], rounds: int) -> tuple[float, float]:
    """Return the median serial round trip of the blocking client, and of its ratios to that of the asynchronous one.

    Both take turns in this process, so neither has another processor, or another moment, than the other.
    """
    found: list[tuple[float, float]] = []
    with blocking.connect(NAME, Bench) as service:
        for number in range(rounds):
            pair: dict[bool, float] = {}
            for blocks in (True, False) if number % 2 else (False, True):
                if blocks:
                    pair[True] = _measure_blocking(service)
                else:
                    trip = (await measure(work, Cell(SIZE, 1), ROUND)).round_trip
                    pair[False] = trip.p50 if trip is not None else math.nan
            found.append((pair[True], pair[True] / pair[False]))
    return median(value for value, _ in found), median(ratio for _, ratio in found)


def _measure_blocking(service: blocking.BlockingClient[Bench]) -> float:
    """Return the median serial round trip of one round, in microseconds."""
    payload = bytes(SIZE)
    durations: list[int] = []
    clock = time.perf_counter_ns
    call = service.work
    end = clock() + int(ROUND * 1e9)
    while clock() < end:
        work = Work(len(durations), payload)
        before = clock()
        answer = call(work)
        durations.append(clock() - before)
        if answer.number != work.number:
            raise ValueError(f"request {work.number} got the answer {answer.number}")
    return median(durations) / 1000


def main(role: str, backend: str, place: str, rounds: str, many: str) -> None:
    """Be one process of the benchmark.

    Args:
        role: ``"server"`` or ``"client"``.
        backend: the event loop.
        place: path of the floor's socket.
        rounds: how often everything is measured.
        many: items of the stream whose memory is measured.
    """
    _pin(role)
    name = cast("BackendName", backend)
    if role == "server":
        _backends.run(backend, _serve, name, place)
    else:
        _backends.run(backend, _measure, name, place, int(rounds), int(many))


# -- the command -------------------------------------------------------------------------------------------------------


def _start(role: str, backend: str, directory: str, rounds: int, many: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", MODULE, role, backend, str(Path(directory) / "floor"), str(rounds), str(many)]
    environment = {**os.environ, "ALPC_RUNTIME_DIR": directory}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def _output(process: subprocess.Popen[str], patience: float) -> str:
    output, _ = process.communicate(timeout=patience)
    if process.returncode:
        raise RuntimeError(f"a process of the benchmark ended with status {process.returncode}")
    return output


def run_service_bench(backend: BackendName, rounds: int, many: int = MANY_ITEMS) -> Result:
    """Measure one event loop.

    Args:
        backend: the event loop.
        rounds: how often each pair is measured.
        many: items of the stream whose memory is measured.

    Raises:
        RuntimeError: a process of the benchmark failed.
    """
    with tempfile.TemporaryDirectory(prefix="alpc-bench-") as directory:
        server = _start("server", backend, directory, rounds, many)
        try:
            if server.stdout is None or server.stdout.readline() != "ready\n":
                raise RuntimeError("the server of the benchmark did not start")
            client = _start("client", backend, directory, rounds, many)
            return msgspec.json.decode(_output(client, 300.0), type=Result)
        finally:
            server.kill()
            server.communicate()


Direction = Literal[">=", "<="]


def _verdicts(result: Result) -> list[tuple[str, float, Direction, float]]:
    return [
        ("typed calls/s at 100 callers / floor", result.calls_share, ">=", LEAST_CALLS),
        ("serial round trip / floor", result.round_trip_ratio, "<=", MOST_ROUND_TRIP),
        ("stream items/s / typed calls/s", result.items_ratio, ">=", LEAST_ITEMS),
        (f"MiB of growth in {MANY_ITEMS:,} items", result.growth, "<=", MOST_GROWTH),
        ("blocking / async serial round trip", result.blocking_ratio, "<=", 1.0),
    ]


def service_command(*, backend: list[BackendName] | None = None, rounds: int = 15, json: Path | None = None) -> int:
    """Measure typed calls beside the floor, streams, and the blocking client. A missed target is no failure.

    Args:
        backend: event loop to measure; may be repeated. By default every one that is installed.
        rounds: how often each pair is measured, for 80 ms each.
        json: file to write everything measured to.

    Returns:
        Exit status: 0, or 1 when the benchmark could not be carried through.
    """
    results: dict[str, Result] = {}
    print(f"load average before: {os.getloadavg()[0]:.2f} over one minute, {os.cpu_count()} processors")
    try:
        for name in dict.fromkeys(backend or _backends.installed()):
            result = results[name] = run_service_bench(name, rounds)
            print(
                f"{name}: {result.calls:,.0f} typed calls/s at {CALLERS} callers, {result.items:,.0f} stream items/s, "
                f"serial round trip {result.round_trip:.1f} µs, blocking {result.blocking:.1f} µs, "
                f"peak memory of client and server {result.peak:.1f} MiB"
            )
            for what, value, direction, limit in _verdicts(result):
                passed = value >= limit if direction == ">=" else value <= limit
                print(f"  {'pass' if passed else 'FAIL'}  {what:<38}{value:>8.2f}, wanted {direction} {limit:g}")
    except (RuntimeError, subprocess.TimeoutExpired, _backends.BackendMissing) as error:
        print(f"alpc bench service: {error}", file=sys.stderr)
        return 1
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    return 0


if __name__ == "__main__":
    main(*sys.argv[1:])
