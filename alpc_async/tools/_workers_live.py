"""``alpc bench workers``: pools of tasks, threads and processes, measured in this process.

Belongs here: the loads on pools, and what is compared with what. Never here: several servers (`_workers_served`), the
report (`_workers`).

Every pool is reached through a pair of ports, with callers that ask again as soon as they have their answer. What is
compared is measured in turns, and of the ratios of all rounds the median counts.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec

from ..completion import CompletionPort, WorkerPool
from ..port import MessageType, port_pair
from ._histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from ..port import CommunicationPort, Message

__all__ = ["Target", "burn", "fairness", "processes", "tasks_inline", "tasks_sleeping", "threads_blocking"]

BURN: Final = "alpc_async.tools._workers_live:burn"

SLEEP: Final = 0.001
BLOCK: Final = 0.01
POLITE: Final = 0.005
"""Seconds: what the handlers of the tasks, of the threads and of the fairness test wait."""


class Target(msgspec.Struct, frozen=True):
    """One target and what was measured.

    Attributes:
        name: what was measured.
        value: the ratio, time or count.
        limit: what was wanted.
        at_least: whether the value has to reach the limit, rather than stay below it.
        detail: the numbers behind it, in words.
    """

    name: str
    value: float
    limit: float
    at_least: bool
    detail: str

    @property
    def passed(self) -> bool:
        """Whether it was met."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


class _Load:
    """Callers that ask again at once."""

    def __init__(self, port: CommunicationPort, data: bytes = b"") -> None:
        self._port = port
        self._data = data
        self.answered = 0
        self.stop = False

    async def call(self) -> None:
        """Keep asking until the load ends."""
        while not self.stop:
            await self._port.request(self._data, timeout=None)
            self.answered += 1

    async def rate(self, seconds: float) -> float:
        """Return answers per second, over so many seconds from now."""
        before, began = self.answered, time.perf_counter()
        await anyio.sleep(seconds)
        return (self.answered - before) / (time.perf_counter() - began)


@asynccontextmanager
async def _loaded(port: CommunicationPort, callers: int, data: bytes = b"") -> AsyncGenerator[_Load]:
    load = _Load(port, data)
    async with anyio.create_task_group() as group:
        for _ in range(callers):
            group.start_soon(load.call)
        yield load
        load.stop = True


@asynccontextmanager
async def _pool(handler: Any, **options: Any) -> AsyncGenerator[tuple[CommunicationPort, WorkerPool]]:
    async with port_pair() as (left, right), CompletionPort() as completion_port:
        completion_port.associate(right)
        async with WorkerPool(completion_port, handler, **options) as pool:
            yield left, pool


async def _pool_rate(handler: Any, callers: int, seconds: float, data: bytes = b"", **options: Any) -> float:
    async with _pool(handler, **options) as (port, pool):
        # A process takes a while to start; what is measured is a pool that is there.
        while pool.statistics().idle < options.get("minimum", 1):  # noqa: ASYNC110  # nobody announces it
            await anyio.sleep(0.01)
        async with _loaded(port, callers, data) as load:
            await anyio.sleep(seconds / 4)
            return await load.rate(seconds)


async def _echo(message: Message) -> None:
    message.reply(message.data)


async def _echo_later(message: Message) -> None:
    await anyio.sleep(SLEEP)
    message.reply(message.data)


def _block(message: Any) -> None:
    time.sleep(BLOCK)
    message.reply(b"")


def burn(message: Any) -> None:
    """Compute for as many steps as the payload says; some milliseconds."""
    value = 0
    for number in range(int(message.data)):
        value = (value * 31 + number) % 1_000_003
    message.reply(b"%d" % value)


async def _inline_rate(callers: int, seconds: float) -> float:
    rate = 0.0
    async with port_pair() as (left, right), anyio.create_task_group() as group:

        async def serve() -> None:
            async for batch in right:
                for message in batch:
                    if message.type is MessageType.REQUEST:
                        await _echo(message)

        group.start_soon(serve)
        async with _loaded(left, callers) as load:
            await anyio.sleep(seconds / 4)
            rate = await load.rate(seconds)
        group.cancel_scope.cancel()
    return rate


async def tasks_inline(rounds: int, seconds: float) -> list[Target]:
    """Compare a pool whose handler never waits with the same handler called in the receive loop."""
    ratios: list[float] = []
    rates: list[float] = []
    for number in range(2 * rounds):
        if number % 2:
            inline = await _inline_rate(100, seconds)
            pool = await _pool_rate(_echo, 100, seconds)
        else:
            pool = await _pool_rate(_echo, 100, seconds)
            inline = await _inline_rate(100, seconds)
        ratios.append(pool / inline)
        rates.append(pool)
    detail = f"{median(rates):,.0f} requests/s in the pool"
    return [Target("tasks that never wait / the handler inline", median(ratios), 0.9, True, detail)]


async def _best_of(sizes: Sequence[int], fixed: Callable[[int], Awaitable[float]]) -> int:
    """Return the fixed size that does the most in two sweeps, up and down."""
    rates = dict.fromkeys(sizes, 0.0)
    for size in (*sizes, *reversed(sizes)):
        rates[size] += await fixed(size)
    return max(rates, key=lambda size: rates[size])


async def _share(own: Callable[[], Awaitable[float]], fixed: Callable[[int], Awaitable[float]], size: int) -> float:
    """Compare a pool with a fixed size, which is measured anew on both sides of it: a sweep finds the luckiest one."""
    before = await fixed(size)
    rate = await own()
    return 2 * rate / (before + await fixed(size))


async def tasks_sleeping(rounds: int, seconds: float) -> list[Target]:
    """Compare a pool of tasks that wait with the best fixed size."""

    async def fixed(size: int) -> float:
        return await _pool_rate(_echo_later, 256, seconds, minimum=size, maximum=size)

    async def own() -> float:
        return await _pool_rate(_echo_later, 256, seconds, maximum=256)

    best = await _best_of((16, 32, 64, 128, 256), fixed)
    ratios = [await _share(own, fixed, best) for _ in range(rounds)]
    detail = f"best fixed size {best}"
    return [Target("tasks that wait 1 ms / best fixed size", median(ratios), 0.9, True, detail)]


async def threads_blocking(rounds: int, seconds: float) -> list[Target]:
    """Compare a pool of threads from two seconds after the start of a load with the best fixed size; then stop it."""
    silences: list[float] = []
    limit = 0

    async def fixed(size: int) -> float:
        return await _pool_rate(_block, 100, seconds, kind="thread", minimum=size, maximum=size)

    async def own() -> float:
        nonlocal limit
        async with _pool(_block, kind="thread", maximum=64) as (port, pool):
            async with _loaded(port, 100) as load:
                await anyio.sleep(2)
                rate = await load.rate(max(1.0, seconds))
                limit = pool.statistics().limit
            began = time.perf_counter()
            with anyio.move_on_after(20):
                while pool.statistics().size > 1:  # noqa: ASYNC110  # nobody announces it
                    await anyio.sleep(0.05)
            silences.append(time.perf_counter() - began)
        return rate

    best = await _best_of((8, 16, 32, 64), fixed)
    ratios = [await _share(own, fixed, best) for _ in range(rounds)]
    detail = f"best fixed size {best}, the pool had {limit}"
    return [
        Target("threads that block 10 ms, from 2 s on / best fixed size", median(ratios), 0.9, True, detail),
        Target("seconds of silence until the minimum of threads", max(silences), 10.0, False, ""),
    ]


async def processes(rounds: int, seconds: float) -> list[Target]:
    """Compare two processes that compute with one."""
    work = b"100000"
    ratios: list[float] = []
    rates = [0.0, 0.0]
    for _ in range(rounds):
        rates = [
            await _pool_rate(BURN, 8, seconds, work, kind="process", minimum=count, maximum=count) for count in (1, 2)
        ]
        ratios.append(rates[1] / rates[0])
    return [Target("two processes that compute / one", median(ratios), 1.7, True, f"{rates[0]:.0f} requests/s in one")]


async def _patient(message: Message) -> None:
    await anyio.sleep(POLITE)
    message.reply(b"")


async def _polite_p99(seconds: float, *, flood: int) -> float:
    histogram = Histogram()
    async with CompletionPort() as completion_port, WorkerPool(completion_port, _patient, maximum=16):
        pairs = [port_pair() for _ in range(11)]
        try:
            for pair in pairs:
                completion_port.associate(pair.right)
            stop = anyio.current_time() + seconds

            async def ask(port: CommunicationPort, delay: float) -> None:
                await anyio.sleep(delay)
                while not (histogram.count and anyio.current_time() >= stop):
                    began = time.perf_counter()
                    await port.request(b"", timeout=None)
                    histogram.record((time.perf_counter() - began) * 1e6)
                    await anyio.sleep(0.02)

            async with _loaded(pairs[0].left, flood), anyio.create_task_group() as group:
                for number, pair in enumerate(pairs[1:]):
                    group.start_soon(ask, pair.left, 0.1 + number * 0.002)
        finally:
            for pair in pairs:
                await pair.left.aclose()
                await pair.right.aclose()
    return histogram.percentile(99)


async def fairness(rounds: int, seconds: float) -> list[Target]:
    """Compare what ten polite clients see with and without one that floods."""
    ratios: list[float] = []
    quiet = loaded = 0.0
    for _ in range(rounds):
        quiet = await _polite_p99(2 * seconds, flood=0)
        loaded = await _polite_p99(2 * seconds, flood=1000)
        ratios.append(loaded / quiet)
    detail = f"{quiet / 1000:.1f} ms alone, {loaded / 1000:.1f} ms beside 1000 requests in flight"
    return [Target("p99 of ten polite clients beside one that floods / alone", median(ratios), 2.0, False, detail)]


SCENARIOS: Final[tuple[Callable[[int, float], Any], ...]] = (
    tasks_inline,
    tasks_sleeping,
    threads_blocking,
    processes,
    fairness,
)
"""Everything that is measured in one process."""
