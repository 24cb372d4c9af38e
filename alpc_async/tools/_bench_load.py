"""The load of the benchmark: callers that ask again as soon as they have their answer.

Belongs here: the loops that are timed, the same for every subject. Never here: what is measured with them, processes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Literal

import anyio
import msgspec

from ._floor import Answer, Work
from ._histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Cell", "Measured", "Placement", "RoundTrip", "measure"]

Placement = Literal["apart", "together"]
"""Where client and server run: on a processor each, or both on the same one."""

WARM_UP: Final = 0.1
"""Share of the measured time that passes before it begins, so that all callers are under way."""


class Cell(msgspec.Struct, frozen=True):
    """One combination that is measured.

    Attributes:
        size: payload of the work and of its answer, in bytes each.
        callers: requests in flight at the same time.
        placement: where client and server run.
    """

    size: int
    callers: int
    placement: Placement = "apart"


class RoundTrip(msgspec.Struct, frozen=True):
    """How long single requests took, in microseconds.

    Attributes:
        p50: half of them took no longer.
        p99: nor did 99 % of them take longer than this.
        p999: nor 99.9 %.
    """

    p50: float
    p99: float
    p999: float


class Measured(msgspec.Struct, frozen=True):
    """What one measurement of a cell gave.

    Attributes:
        requests: requests that were answered in the measured time.
        seconds: the measured time.
        round_trip: how long each took, with one caller; ``None`` with several, where a request waits for others.
    """

    requests: int
    seconds: float
    round_trip: RoundTrip | None


async def measure(call: Callable[[Work], Awaitable[Answer]], cell: Cell, seconds: float) -> Measured:
    """Keep a number of callers busy, and count what they get done.

    Cancelling stops the callers; nothing is measured.

    Args:
        call: makes one request.
        cell: how large and how many.
        seconds: how long to measure.

    Returns:
        The result, for at least one request.

    Raises:
        ValueError: an answer was not the one to its request.
    """
    payload = bytes(range(256)) * (cell.size // 256 + 1)
    if cell.callers == 1:
        return await _measure_one(call, payload[: cell.size], seconds)
    return await _measure_many(call, payload[: cell.size], cell.callers, seconds)


def _check(answer: Answer, work: Work) -> None:
    if answer.number != work.number or answer.payload != work.payload:
        raise ValueError(f"request {work.number} got the answer {answer.number}, or another payload than it sent")


async def _measure_one(call: Callable[[Work], Awaitable[Answer]], payload: bytes, seconds: float) -> Measured:
    clock = time.perf_counter_ns
    durations: list[int] = []
    work = Work(0, payload)
    _check(await call(work), work)
    start = clock()
    begin = start + int(seconds * WARM_UP * 1e9)
    end = begin + int(seconds * 1e9)
    now = start
    while now < end or not durations:
        work = Work(len(durations), payload)
        before = clock()
        answer = await call(work)
        now = clock()
        if answer.number != work.number:
            _check(answer, work)
        if before >= begin:
            durations.append(now - before)
        else:
            start = now
    histogram = Histogram()
    for duration in durations:
        histogram.record(duration / 1000)
    round_trip = RoundTrip(*(round(histogram.percentile(percent), 3) for percent in (50, 99, 99.9)))
    return Measured(len(durations), (now - start) / 1e9, round_trip)


class _Progress:
    """What the callers share."""

    __slots__ = ("answered", "running")

    def __init__(self) -> None:
        self.running = True
        self.answered = 0


async def _keep_calling(
    call: Callable[[Work], Awaitable[Answer]], payload: bytes, number: int, progress: _Progress
) -> None:
    work = Work(number, payload)
    _check(await call(work), work)
    while progress.running:
        number += 1
        answer = await call(Work(number, payload))
        if answer.number != number:
            _check(answer, Work(number, payload))
        progress.answered += 1


async def _measure_many(
    call: Callable[[Work], Awaitable[Answer]], payload: bytes, callers: int, seconds: float
) -> Measured:
    progress = _Progress()
    requests, elapsed = 0, 0.0
    async with anyio.create_task_group() as group:
        for caller in range(callers):
            # Numbers of different callers never meet, so an answer that went to the wrong one is seen.
            group.start_soon(_keep_calling, call, payload, caller << 40, progress)
        await _sleep_until_answered(progress, seconds * WARM_UP)
        begin, before = time.perf_counter(), progress.answered
        await _sleep_until_answered(progress, seconds)
        elapsed = time.perf_counter() - begin
        requests = progress.answered - before
        progress.running = False
    return Measured(requests, elapsed, None)


async def _sleep_until_answered(progress: _Progress, seconds: float) -> None:
    before = progress.answered
    await anyio.sleep(seconds)
    while progress.answered == before:  # noqa: ASYNC110  # an event for each request would be measured as well
        await anyio.sleep(seconds * WARM_UP)
