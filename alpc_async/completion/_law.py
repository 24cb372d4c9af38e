"""What the sizing of a pool goes by: the numbers of a kind of worker, what happened in a while, and rates with errors.

Belongs here: `Law`, `Tick` and `Rate`. Never here: decisions (`_sizing`).
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

__all__ = ["PROCESSES", "THREADS", "Law", "Rate", "Tick"]


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """What a kind of worker costs, as numbers.

    Attributes:
        interval: time between two ticks, in seconds.
        worth: least growth of throughput for a growth of size, both as logarithms.
        search: factor of size in a search.
        trial: factor of size in a trial; a trial changes the size by at least one.
        sure: standard errors of the difference at which a test decides early, in a search and in a trial.
        doubt: standard errors by which a test that is not clear has to be better for more workers, or may be worse for
            fewer.
        enough: finished messages at which a test decides in any case, in a search and in a trial.
        longest: time after which it does, in seconds, in a search and in a trial.
        shortest: least time of a test, in seconds.
        hold: time at a size before a larger one and a smaller one is tried, in seconds; each doubles when its trial
            fails. A larger size costs little to try, a smaller one costs throughput.
        longest_hold: what they double up to.
        change: relative change of throughput at the held size that counts as another load.
        guard: largest multiple of the shortest mean time in a handler, of those measured under the same load.
        patience: time without waiting messages before the size sinks, in seconds; it halves every second after that.
        memory: time for which a good size is remembered while nothing waits, in seconds.
        believed: time for which what was measured at a size counts, if it is not measured again, in seconds.
        full: share of the processors in use that counts as all of them.
        overfull: share from which fewer workers may use as many.
        sudden: share of the processors that comes free, or is taken, when the load is clearly another one.
        spare: factor by which a size may be above the bend, or above one that was too small, before a smaller one is
            tried.
        stuck: time without a finished message, while messages wait, after which the size grows all the same.
    """

    interval: float = 0.05
    worth: float = 0.15
    search: float = 2.0
    trial: float = 1.25
    sure: tuple[float, float] = (2.0, 4.0)
    doubt: tuple[float, float] = (1.5, 0.25)
    enough: tuple[int, int] = (50, 800)
    longest: tuple[float, float] = (1.0, 4.0)
    shortest: float = 0.15
    hold: tuple[float, float] = (1.0, 4.0)
    longest_hold: tuple[float, float] = (6.0, 20.0)
    change: float = 0.2
    guard: float = 4.0
    patience: float = 2.0
    memory: float = 30.0
    believed: float = 60.0
    stuck: float = 1.0
    full: float = 0.96
    overfull: float = 0.985
    sudden: float = 0.4
    spare: float = 1.2


THREADS: Final = Law()
"""Threads start in a fraction of a millisecond and are cheap to keep."""

PROCESSES: Final = Law(
    interval=0.25, hold=(4.0, 8.0), longest_hold=(15.0, 30.0), patience=5.0, longest=(3.0, 8.0), shortest=0.5, stuck=5.0
)
"""A process takes tens of milliseconds and megabytes: fewer trials, and a longer memory of what is there."""


class Tick(msgspec.Struct, frozen=True):
    """What happened since the last tick.

    Attributes:
        time: now, in seconds on any clock.
        workers: workers that are there now.
        queued: messages that wait now.
        busy: workers inside a handler, on average since the last tick.
        finished: handlers that ended since the last tick.
        computing: processors that the handlers used, on average since the last tick; 0 where that is not known.
        processors: processors that they could have used; infinity where that is not known.
    """

    time: float
    workers: int
    queued: int
    busy: float
    finished: int
    computing: float = 0.0
    processors: float = math.inf


class Rate:
    """Messages per second at one size, with the error of that number."""

    __slots__ = ("busy", "computing", "computing_squares", "count", "room", "seconds", "size", "squares", "ticks")

    def __init__(self, size: int) -> None:
        self.size = size
        self.seconds = 0.0
        self.count = 0.0
        self.busy = 0.0
        self.computing = 0.0
        self.computing_squares = 0.0
        self.room = 0.0
        self.squares = 0.0
        self.ticks = 0

    def add(self, seconds: float, tick: Tick) -> None:
        """Count one tick."""
        self.seconds += seconds
        self.count += tick.finished
        self.busy += tick.busy * seconds
        self.computing += tick.computing * seconds
        self.room += tick.processors * seconds
        self.computing_squares += tick.computing * tick.computing * seconds
        self.squares += tick.finished * tick.finished / seconds
        self.ticks += 1

    def merge(self, other: Rate) -> None:
        """Count the ticks of another rate at the same size as well."""
        self.seconds += other.seconds
        self.count += other.count
        self.busy += other.busy
        self.computing += other.computing
        self.room += other.room
        self.computing_squares += other.computing_squares
        self.squares += other.squares
        self.ticks += other.ticks

    @property
    def per_second(self) -> float:
        """The rate; a tiny one instead of zero."""
        return max(self.count, 0.5) / self.seconds

    @property
    def time_in_handler(self) -> float:
        """Mean time in a handler, in seconds, by Little's law."""
        return self.busy / max(self.count, 0.5)

    @property
    def used(self) -> float:
        """Processors that were used, on average; a little instead of none."""
        return max(self.computing / max(self.seconds, 1e-9), 1e-9)

    @property
    def processors(self) -> float:
        """Processors that could have been used, on average."""
        return self.room / self.seconds if self.seconds else math.inf

    @property
    def used_variance(self) -> float:
        """Variance of the logarithm of the processors that were used."""
        mean = self.used
        if mean < 0.01 or self.ticks < 2:
            return 1.0
        # Neighbouring ticks are alike.
        return 2 * self.used_spread / (mean * mean * self.ticks) + 1e-4

    @property
    def used_spread(self) -> float:
        """Variance of the processors that were used in one tick."""
        return max(0.0, self.computing_squares / self.seconds - (self.computing / self.seconds) ** 2)

    @property
    def share(self) -> float:
        """Share of the time in handlers that was computed."""
        return self.computing / max(self.busy, 1e-9)

    @property
    def variance(self) -> float:
        """Variance of the logarithm of the rate."""
        count = max(self.count, 0.5)
        spread = 1.0
        if self.ticks >= 4:
            # Variance over mean of what a tick brings: 1 for independent messages, more in bursts, less when steady.
            scatter = (self.squares - self.count * self.per_second) * self.seconds / (self.ticks - 1)
            spread = min(max(scatter / count, 0.25), 10.0)
        # Workers that began together end together: up to one message of each may fall on either side of the end.
        rounds = count / self.size
        return spread / count + 0.15 / (rounds * rounds)

    def fade(self, seconds: float) -> None:
        """Let old measurements weigh no more than so many seconds."""
        if self.seconds > seconds:
            share = seconds / self.seconds
            self.seconds *= share
            self.count *= share
            self.busy *= share
            self.computing *= share
            self.room *= share
            self.computing_squares *= share
            self.squares *= share
            self.ticks = max(4, round(self.ticks * share))
