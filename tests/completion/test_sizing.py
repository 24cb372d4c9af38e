"""The sizing law: what it does with ticks made by hand, without any clock."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from alpc_async.completion import PROCESSES, THREADS, Law, Sizer, Tick

if TYPE_CHECKING:
    from collections.abc import Callable


class Bench:
    """Drives a sizer with a throughput that depends on the size alone, without noise."""

    def __init__(
        self, rate: Callable[[int], float], *, maximum: int = 64, minimum: int = 1, law: Law = THREADS
    ) -> None:
        self.sizer = Sizer(minimum, maximum, law)
        self.rate = rate
        self.time = 0.0
        self.sizes: list[int] = []
        self._owed = 0.0

    def run(self, seconds: float, *, queued: int = 100) -> None:
        """Let time pass, with so many messages waiting; none means that nothing happens at all."""
        for _ in range(round(seconds / 0.1)):
            self.time += 0.1
            size = self.sizer.size
            finished = 0
            if queued:
                self._owed += 0.1 * self.rate(size)
                finished = int(self._owed)
                self._owed -= finished
            self.sizer.advance(Tick(self.time, size, queued, float(size) if queued else 0.0, finished))
            self.sizes.append(self.sizer.size)


def limited(places: int, each: float = 100.0) -> Callable[[int], float]:
    """Return the throughput of workers that do so much each, up to so many workers."""
    return lambda size: each * min(size, places)


@pytest.mark.parametrize("places", [1, 3, 10, 40])
def test_the_size_finds_the_knee(places: int) -> None:
    """The size grows while more workers bring more, and stays near where they do not."""
    bench = Bench(limited(places))
    bench.run(60)
    settled = bench.sizes[200:]
    assert min(settled) >= 0.7 * places - 1
    assert max(settled) <= max(1.5 * places, places + 1)


def test_twenty_workers_are_there_within_two_seconds() -> None:
    """A load that every worker helps with gets them quickly."""
    bench = Bench(limited(64))
    bench.run(2)
    assert bench.sizer.size >= 20


def test_a_size_that_was_found_does_not_swing() -> None:
    """After settling, the size leaves its place for trials only, and seldom."""
    bench = Bench(limited(8))
    bench.run(100)
    settled = bench.sizes[400:]
    usual = max(set(settled), key=settled.count)
    assert settled.count(usual) > 0.6 * len(settled)
    assert sum(left != right for left, right in itertools.pairwise(settled)) <= 40


def test_silence_brings_the_size_back_to_the_minimum() -> None:
    """Within ten seconds without a message nothing but the minimum is left."""
    bench = Bench(limited(64), minimum=2)
    bench.run(10)
    assert bench.sizer.size > 40
    bench.run(10, queued=0)
    assert bench.sizer.size == 2


def test_a_good_size_is_remembered_for_the_next_burst() -> None:
    """After a short silence the size is back at once; after a long one it is searched for again."""
    bench = Bench(limited(64))
    bench.run(10)
    bench.run(5, queued=0)
    assert bench.sizer.size < 32
    bench.run(0.2)
    assert bench.sizer.size > 40
    bench.run(60, queued=0)
    bench.run(0.2)
    assert bench.sizer.size <= 4


def test_another_load_makes_it_forget() -> None:
    """When the throughput at the held size changes, old measurements count no more."""
    bench = Bench(limited(4))
    bench.run(30)
    assert bench.sizer.size <= 6
    bench.rate = limited(32, 20.0)
    bench.run(30)
    assert bench.sizer.size >= 20
    bench.rate = limited(4, 300.0)
    bench.run(30)
    assert bench.sizer.size <= 8


def test_handlers_that_wait_for_each_other_get_more_workers() -> None:
    """While messages wait and nothing ends, the size grows all the same."""
    bench = Bench(lambda _size: 0.0, maximum=10)
    bench.run(30)
    assert bench.sizer.size == 10


def test_the_time_in_a_handler_is_guarded() -> None:
    """Workers that bring a little more throughput for much longer handlers are not taken."""
    law = Law(worth=0.1, guard=2.0)
    bench = Bench(lambda size: 100.0 * size**0.3, law=law)
    bench.run(60)
    assert max(bench.sizes[200:]) <= 16


@pytest.mark.parametrize("law", [THREADS, PROCESSES])
def test_bounds_are_kept(law: Law) -> None:
    """The size is never outside its bounds, whatever happens."""
    bench = Bench(limited(100), minimum=3, maximum=7, law=law)
    bench.run(20)
    bench.run(20, queued=0)
    bench.run(20)
    assert set(bench.sizes) <= set(range(3, 8))


def test_the_same_ticks_give_the_same_sizes() -> None:
    """Nothing but the ticks counts: no clock, no chance."""
    first, second = Bench(limited(9)), Bench(limited(9))
    first.run(40)
    second.run(40)
    assert first.sizes == second.sizes
