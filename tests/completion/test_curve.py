"""What the sizing knows of a load: where its throughput bends, and which of two sizes does more."""

from __future__ import annotations

import math

import pytest

from alpc_async.completion._curve import Curve, compare
from alpc_async.completion._law import THREADS, Rate, Tick


def rate(
    size: int, per_second: float, *, seconds: float = 2.0, computing: float = 0.0, processors: float = 4.0
) -> Rate:
    """Return a measurement without noise."""
    measured = Rate(size)
    for number in range(round(seconds / 0.1)):
        finished = int((number + 1) * per_second * 0.1) - int(number * per_second * 0.1)
        measured.add(0.1, Tick(0.0, size, 10, float(size), finished, computing, processors))
    return measured


def curve(*rates: Rate) -> Curve:
    """Return what is known after some measurements."""
    known = Curve(THREADS)
    for number, measured in enumerate(rates):
        known.note(measured, float(number))
    return known


@pytest.mark.parametrize("places", [3, 10, 40])
def test_the_bend_is_found_from_sizes_on_both_sides(places: int) -> None:
    """It is where time in a handler times throughput says, though no size near it was tried."""
    known = curve(*(rate(size, 20.0 * min(size, places)) for size in (1, 2, 64, 128)))
    assert known.bends
    assert known.knee == pytest.approx(places, rel=0.05)


def test_there_is_no_bend_without_a_sign_of_one() -> None:
    """As long as every worker helps as much as the first, there is none; nor does a little luck make one."""
    assert curve(*(rate(size, 20.0 * size) for size in (1, 4, 8, 16))).knee == math.inf
    assert curve(rate(4, 80.0), rate(8, 140.0, seconds=0.2)).knee == math.inf
    assert curve(rate(4, 80.0), rate(8, 80.0)).bends


def test_a_contradiction_makes_it_forget() -> None:
    """When the same size does something else than before, what was measured at other sizes counts no more."""
    known = curve(*(rate(size, 20.0 * min(size, 10)) for size in (2, 4, 16, 32)))
    assert known.bends
    known.note(rate(32, 500.0), 5.0)
    assert not known.bends


def test_nothing_finished_is_no_sign() -> None:
    """Sizes at which nothing was finished yet can be remembered."""
    assert curve(rate(1, 0.0), rate(2, 0.0)).knee == math.inf


def test_all_processors_in_use_are_seen_at_one_size() -> None:
    """Nothing has to be tried: the clocks tell how many are in use."""
    known = curve()
    assert not known.is_full(rate(16, 100.0, computing=3.0))
    assert known.is_full(rate(24, 100.0, computing=3.9))
    assert known.reach(rate(16, 100.0, computing=2.0)) == round(1.05 * 32)
    assert not known.is_full(rate(16, 100.0, computing=3.0, processors=math.inf))


def test_a_size_that_left_processors_unused_is_not_tried_again_at_once() -> None:
    """Fewer workers are worth a trial only well above such a size; after some time it is believed less."""
    known = curve(rate(7, 70.0, computing=3.5))
    assert known.too_few == 7
    assert not known.is_overfull(rate(8, 80.0, computing=4.0))
    assert known.is_overfull(rate(9, 80.0, computing=4.0))
    known.forget_slowly(THREADS.longest_hold[1] / 2)
    assert known.too_few == 7
    known.forget_slowly(THREADS.longest_hold[1] + 1)
    assert known.too_few == 5


def test_a_lock_is_so_many_processors() -> None:
    """Where clearly more workers use no more of the processors, handlers can get no more of them."""
    known = curve(rate(1, 100.0, computing=1.0))
    assert known.ceiling == math.inf
    known.note(rate(4, 100.0, computing=1.0), 1.0)
    assert known.ceiling == pytest.approx(1.0)
    assert known.is_full(rate(2, 100.0, computing=1.0))
    assert not known.is_full(rate(1, 50.0, computing=0.5))
    assert known.reach(rate(1, 50.0, computing=0.5)) == 2


def test_there_is_no_lock_where_more_is_finished_or_one_worker_is_all_the_difference() -> None:
    """Messages that need no processor to be finished say nothing about one, nor do sizes that are nearly the same."""
    assert curve(rate(4, 80.0, computing=0.1), rate(16, 320.0, computing=0.1)).ceiling == math.inf
    assert curve(rate(30, 300.0, computing=2.0), rate(31, 310.0, computing=2.05)).ceiling == math.inf


def test_a_lock_is_believed_until_something_speaks_against_it() -> None:
    """That is more computing than it would allow, another load at a size that it does not bound, or a minute."""
    locked = rate(1, 100.0, computing=1.0), rate(4, 100.0, computing=1.0)
    known = curve(*locked)
    known.note(rate(4, 100.0, computing=1.2), 2.0)
    assert known.ceiling == math.inf
    known = curve(*locked)
    known.forget(4)
    assert known.ceiling == pytest.approx(1.0)
    known.forget(1)
    assert known.ceiling == math.inf
    known = curve(*locked)
    known.note(rate(1, 100.0, computing=1.0), THREADS.believed)
    assert known.ceiling < math.inf
    known.note(rate(1, 100.0, computing=1.0), THREADS.believed + 2.0)
    assert known.ceiling == math.inf


def test_a_load_that_computes_otherwise_differs_clearly() -> None:
    """Processors that come free, or are all taken, tell so, but not within what one moment differs from another."""
    known = curve()
    full, free = rate(8, 100.0, computing=4.0), rate(8, 100.0, computing=0.5, seconds=0.3)
    assert known.differ(full, free)
    assert known.differ(free, full)
    assert not known.differ(full, rate(8, 100.0, computing=3.0, seconds=0.3))
    uneven = Rate(8)
    for computing in (4.0, 1.0, 1.0):
        uneven.add(0.1, Tick(0.0, 8, 10, 8.0, 10, computing, 4.0))
    assert not known.differ(full, uneven)


def test_the_more_exact_of_two_measures_counts() -> None:
    """Few messages that compute are compared by what they compute, many that wait by their number."""
    gain, error = compare(rate(1, 5.0, computing=1.0), rate(2, 5.0, computing=2.0))
    assert gain == pytest.approx(math.log(2))
    assert error < 0.05
    gain, error = compare(rate(4, 1000.0), rate(8, 1500.0))
    assert gain == pytest.approx(math.log(1.5), abs=0.01)
    assert error < 0.05
