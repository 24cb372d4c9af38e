"""The sizing law: what it does with ticks made by hand, without any clock."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from alpc_async.completion import PROCESSES, THREADS, Law, Sizer, Tick

if TYPE_CHECKING:
    from collections.abc import Callable


class Bench:
    """Drives a sizer with a throughput, and processors in use of four, that depend on the size alone, without noise."""

    def __init__(
        self,
        rate: Callable[[int], float],
        *,
        used: Callable[[int], float] = lambda _size: 0.0,
        maximum: int = 64,
        minimum: int = 1,
        law: Law = THREADS,
    ) -> None:
        self.sizer = Sizer(minimum, maximum, law)
        self.rate = rate
        self.used = used
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
            busy, used = (float(size), self.used(size)) if queued else (0.0, 0.0)
            self.sizer.advance(Tick(self.time, size, queued, busy, finished, used, 4.0))
            self.sizes.append(self.sizer.size)


def limited(places: int, each: float = 100.0) -> Callable[[int], float]:
    """Return the throughput of workers that do so much each, up to so many workers."""
    return lambda size: each * min(size, places)


def all_four(size: int) -> float:
    """Return the processors that so many workers use that do nothing but compute."""
    return float(min(size, 4))


def always_four(_size: int) -> float:
    """Return the processors in use while at least four handlers compute for very long."""
    return 4.0


def hardly_any(_size: int) -> float:
    """Return the processors that workers use that nearly always wait."""
    return 0.1


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


def test_processors_that_are_all_in_use_need_no_trial() -> None:
    """Where handlers compute, the size stops at the processors, and holds without looking for more."""
    bench = Bench(limited(4, 20.0), used=all_four)
    bench.run(60)
    assert max(bench.sizes) == 4
    assert set(bench.sizes[10:]) == {4}


def test_handlers_that_wait_in_part_get_as_many_workers_as_keep_the_processors_busy() -> None:
    """The size ends where the processors are all in use, and leaves it for short trials only."""
    bench = Bench(lambda size: 1000.0 * min(size / 40, 1.0), used=lambda size: 4 * min(size / 40, 1.0))
    bench.run(60)
    settled = bench.sizes[100:]
    assert min(settled) >= 32
    assert max(settled) <= 44
    assert sum(size >= 38 for size in settled) > 0.9 * len(settled)


def test_a_lock_around_what_handlers_compute_is_found_out() -> None:
    """Where only one can compute at a time, one worker is enough, and no second one is tried for a minute."""
    bench = Bench(limited(1), used=lambda _size: 1.0)
    bench.run(60)
    assert set(bench.sizes[20:]) == {1}


def test_a_lock_that_is_there_no_more_is_noticed() -> None:
    """At once while there are more workers than it lets compute, and within about a minute while there are not."""
    bench = Bench(limited(10, 10.0), used=limited(10, 0.1))
    bench.run(20)
    assert 9 <= bench.sizer.size <= 12
    bench.rate, bench.used = limited(30, 12.0), limited(30, 0.12)
    bench.run(10)
    assert bench.sizer.size >= 27
    bench = Bench(limited(1), used=lambda _size: 1.0)
    bench.run(20)
    bench.rate, bench.used = limited(4), all_four
    bench.run(70)
    assert bench.sizer.size == 4


def test_one_place_is_not_tried_twice_a_minute() -> None:
    """Where the throughput at one worker is known to be all there is, a second one is tried once a minute at most."""
    bench = Bench(limited(1))
    bench.run(60)
    assert set(bench.sizes[40:]) == {1}


def test_fewer_workers_that_finish_fewer_messages_are_not_taken() -> None:
    """Also where they keep all processors in use: one message that takes very long does that alone."""
    bench = Bench(limited(16), used=hardly_any)
    bench.run(20)
    assert bench.sizer.size >= 14
    bench.used = always_four
    bench.run(20)
    assert min(bench.sizes[-150:]) >= 12


def test_a_load_that_computes_no_more_is_another_one() -> None:
    """Processors that come free while messages wait, or are suddenly all in use, start a new search within a second."""
    bench = Bench(limited(4, 20.0), used=all_four)
    bench.run(30)
    bench.rate, bench.used = limited(40, 20.0), hardly_any
    bench.run(2)
    assert bench.sizer.size >= 32
    bench.run(20)
    bench.rate, bench.used = limited(4, 200.0), all_four
    bench.run(3)
    assert bench.sizer.size == 4


def test_long_handlers_that_compute_are_not_stuck() -> None:
    """Where nothing is finished for seconds but all processors are in use, no more workers come."""
    bench = Bench(lambda _size: 0.0, used=all_four)
    bench.run(30)
    assert max(bench.sizes) == 4


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
