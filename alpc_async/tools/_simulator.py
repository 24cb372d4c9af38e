"""A machine with a virtual clock for judging the sizing of worker pools.

Belongs here: processors, waiting, callers, workers, and one run over a load. Never here: the loads and the verdicts
(`_simulate`), the sizing itself (completion).

Callers ask again as soon as they have their answer. A handler waits, then computes. Handlers that compute share the
processors evenly; each one beyond the number of processors costs all of them a little. So a run is a closed network of
queues, computed from event to event: it takes no real time and gives the same result each time.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from typing import TYPE_CHECKING, Literal

import msgspec

from ..completion import Tick

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Moment", "Phase", "Run", "simulate"]


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which the load stays the same.

    Attributes:
        seconds: how long it lasts.
        callers: requests that wait or are handled at any moment; 0 for silence.
        computing: mean processor time of a handler, in seconds.
        waiting: mean time that a handler waits for something else, in seconds.
        spread: how both are spread: not at all, evenly within half of the mean, as of independent customers, or with a
            heavy tail.
        processors: processors of the machine.
        switching: share of all processors that one handler beyond their number costs.
        together: handlers that can compute at the same time, which the sizing is not told; 1 is Python's lock, 0 is for
            as many as there are processors.
        places: how many handlers can wait at the same time, as with the connections of a database; 0 for any number.
    """

    seconds: float
    callers: int
    computing: float = 0.0
    waiting: float = 0.0
    spread: Literal["fixed", "even", "exponential", "heavy"] = "exponential"
    processors: int = 4
    together: int = 0
    switching: float = 0.003
    places: int = 0

    @property
    def capacity(self) -> int:
        """Handlers that can compute at the same time."""
        return self.together or self.processors


class Moment(msgspec.Struct, frozen=True):
    """One tick of a run.

    Attributes:
        time: in seconds from the start.
        phase: index of the phase.
        size: what the sizing said.
        finished: requests that were answered since the last tick.
        queued: requests that waited.
    """

    time: float
    phase: int
    size: int
    finished: int
    queued: int


class Run(msgspec.Struct, frozen=True):
    """A whole run.

    Attributes:
        moments: every tick.
        finished: requests answered in each phase.
    """

    moments: list[Moment]
    finished: list[int]


_HEAVY: float = 1.6
"""Exponent of the heavy tail (Pareto): the mean exists, the variance does not."""


class _Machine:
    """The network of queues."""

    def __init__(self, phases: Sequence[Phase], decide: Callable[[Tick], int], size: int, interval: float, seed: int):
        self._phases = phases
        self._decide = decide
        self._interval = interval
        self._random = random.Random(seed)  # noqa: S311  # a simulation has to be repeatable
        self._now = 0.0
        self._size = size
        self._queue = 0
        self._callers = 0
        self._busy = 0
        self._busy_seconds = 0.0
        self._computed = 0.0
        self._waits: list[tuple[float, float]] = []
        self._line: deque[float] = deque()
        self._work_done: float = 0.0
        self._computing: list[float] = []
        self._finished = 0
        self._phase = phases[0]
        self._quantities = [0] * len(phases)

    def run(self) -> Run:
        moments: list[Moment] = []
        start = 0.0
        counted = 0
        next_tick = self._interval
        for index, phase in enumerate(self._phases):
            self._phase = phase
            before = self._finished
            self._set_callers(phase.callers)
            end = start + phase.seconds
            while next_tick <= end + 1e-9:
                self._advance_to(next_tick)
                moments.append(self._tick(index, counted))
                counted = self._finished
                next_tick += self._interval
            self._advance_to(end)
            start = end
            self._quantities[index] = self._finished - before
        return Run(moments, self._quantities)

    def _tick(self, index: int, counted: int) -> Moment:
        finished = self._finished - counted
        busy, computed = self._busy_seconds / self._interval, self._computed / self._interval
        tick = Tick(self._now, self._size, self._queue, busy, finished, computed, self._phase.processors)
        self._busy_seconds = self._computed = 0.0
        self._size = self._decide(tick)
        self._start()
        return Moment(round(self._now, 6), index, self._size, finished, self._queue)

    def _set_callers(self, callers: int) -> None:
        # Callers that leave are those that wait; the others leave with their answer.
        self._queue = max(0, callers - self._busy)
        self._callers = callers
        self._start()

    def _draw(self, mean: float) -> float:
        if not mean:
            return 0.0
        if self._phase.spread == "fixed":
            return mean
        if self._phase.spread == "even":
            return self._random.uniform(0.5 * mean, 1.5 * mean)
        if self._phase.spread == "exponential":
            return self._random.expovariate(1 / mean)
        return mean * (_HEAVY - 1) / _HEAVY * self._random.paretovariate(_HEAVY)

    def _start(self) -> None:
        while self._queue and self._busy < self._size:
            self._queue -= 1
            self._busy += 1
            waiting, computing = self._draw(self._phase.waiting), self._draw(self._phase.computing)
            if not waiting:
                self._compute(computing)
            elif self._phase.places and len(self._waits) >= self._phase.places:
                self._line.append(computing)
            else:
                heapq.heappush(self._waits, (self._now + waiting, computing))

    def _compute(self, computing: float) -> None:
        if computing:
            heapq.heappush(self._computing, self._work_done + computing)
        else:
            self._finish()

    def _finish(self) -> None:
        self._busy -= 1
        self._finished += 1
        if self._busy + self._queue < self._callers:
            self._queue += 1
        self._start()

    def _speed(self) -> float:
        """Share of a processor that each computing handler has."""
        count, processors = len(self._computing), self._phase.capacity
        if count <= processors:
            return 1.0
        return processors / count / (1 + self._phase.switching * (count - processors))

    def _advance_to(self, end: float) -> None:
        while True:
            speed = self._speed()
            computed = self._now + (self._computing[0] - self._work_done) / speed if self._computing else math.inf
            waited = self._waits[0][0] if self._waits else math.inf
            event = min(computed, waited, end)
            self._work_done += (event - self._now) * speed
            self._busy_seconds += (event - self._now) * self._busy
            # What handlers beyond the number of processors cost is time of the processors as well.
            self._computed += (event - self._now) * min(len(self._computing), self._phase.capacity)
            self._now = event
            if event >= end:
                return
            if computed <= waited:
                heapq.heappop(self._computing)
                self._finish()
            else:
                computing = heapq.heappop(self._waits)[1]
                if self._line:
                    heapq.heappush(self._waits, (self._now + self._draw(self._phase.waiting), self._line.popleft()))
                self._compute(computing)


def simulate(
    phases: Sequence[Phase], decide: Callable[[Tick], int], *, size: int, interval: float, seed: int = 1
) -> Run:
    """Let a machine work through phases of load.

    Args:
        phases: the load.
        decide: called with each tick; returns the size from then on.
        size: workers at the start.
        interval: time between two ticks, in seconds.
        seed: for the spread of the times.

    Returns:
        What happened.
    """
    return _Machine(phases, decide, size, interval, seed).run()
