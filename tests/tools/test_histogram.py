"""The histogram: close to the truth at any magnitude, the same however it was put together and sent."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpc_async.tools._histogram import Histogram

DURATIONS = st.lists(st.floats(min_value=0, max_value=4e9), min_size=1, max_size=200)


def filled(durations: list[float]) -> Histogram:
    """Return a histogram of these durations."""
    histogram = Histogram()
    for duration in durations:
        histogram.record(duration)
    return histogram


def nearest_rank(durations: list[float], percent: float) -> float:
    """Return the percentile by its definition."""
    return sorted(durations)[max(1, math.ceil(len(durations) * percent / 100)) - 1]


@given(DURATIONS, st.floats(min_value=0, max_value=100))
def test_a_percentile_is_off_by_less_than_one_part_in_128(durations: list[float], percent: float) -> None:
    """A percentile differs from the exact one by less than 0.8 % and the resolution of a nanosecond."""
    exact = nearest_rank(durations, percent)
    assert filled(durations).percentile(percent) == pytest.approx(exact, rel=1 / 128, abs=0.001)


@given(DURATIONS)
def test_the_extremes_and_the_mean_are_exact(durations: list[float]) -> None:
    """The shortest, the longest and the mean duration are exact to the nanosecond."""
    histogram = filled(durations)
    assert histogram.count == len(durations)
    assert histogram.minimum == pytest.approx(min(durations), abs=0.001)
    assert histogram.maximum == pytest.approx(max(durations), abs=0.001)
    assert histogram.percentile(100) == histogram.maximum
    assert histogram.mean == pytest.approx(sum(durations) / len(durations), abs=0.001)


@given(DURATIONS, DURATIONS)
def test_merging_is_the_same_as_recording_everything_in_one(left: list[float], right: list[float]) -> None:
    """Two merged histograms are the histogram of both lists, and the second one stays as it was."""
    merged, other = filled(left), filled(right)
    merged.merge(other)
    assert merged.to_bytes() == filled(left + right).to_bytes()
    assert other.to_bytes() == filled(right).to_bytes()


@given(DURATIONS)
def test_a_histogram_survives_its_encoding(durations: list[float]) -> None:
    """What was encoded and decoded answers like the original."""
    histogram = filled(durations)
    copy = Histogram.from_bytes(histogram.to_bytes())
    assert copy.count == histogram.count
    assert copy.mean == histogram.mean
    for percent in (0, 50, 99, 99.9, 100):
        assert copy.percentile(percent) == histogram.percentile(percent)


def test_percentiles_never_decrease() -> None:
    """A higher percentile is never a shorter duration."""
    random.seed(7)
    histogram = filled([random.lognormvariate(5, 2) for _ in range(5000)])
    values = [histogram.percentile(percent / 10) for percent in range(1001)]
    assert values == sorted(values)
    assert values[0] < values[500] < values[1000]


def test_an_empty_histogram_has_no_percentiles() -> None:
    """Nothing recorded is an error, not a zero; an empty histogram can be sent and merged all the same."""
    empty = Histogram.from_bytes(Histogram().to_bytes())
    with pytest.raises(ValueError, match="empty"):
        empty.percentile(50)
    for name in ("mean", "minimum", "maximum"):
        with pytest.raises(ValueError, match="empty"):
            getattr(empty, name)
    other = filled([3.0])
    other.merge(empty)
    assert (other.count, other.minimum, other.maximum) == (1, 3.0, 3.0)


def test_durations_out_of_range_count_as_the_nearest_in_range() -> None:
    """A clock that went backwards counts as zero, and a day counts as the longest duration there is a bucket for."""
    histogram = filled([-1.0, 86_400e6])
    assert histogram.minimum == 0
    assert histogram.maximum == (2**42 - 1) / 1000


@pytest.mark.parametrize("percent", [-0.1, 100.1, math.nan])
def test_a_percentile_beyond_the_range_is_refused(percent: float) -> None:
    """A share below 0, above 100 or not a number is an error."""
    with pytest.raises(ValueError, match="percent"):
        filled([1.0]).percentile(percent)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        msgspec.msgpack.encode([1, 2, 3]),
        msgspec.msgpack.encode([-1, 2, 3, {}]),
        msgspec.msgpack.encode([1, 2**42, 3, {}]),
        msgspec.msgpack.encode([1, 2, -3, {}]),
        msgspec.msgpack.encode([1, 2, 3, {-1: 1}]),
        msgspec.msgpack.encode([1, 2, 3, {100_000: 1}]),
        msgspec.msgpack.encode([1, 2, 3, {1: 0}]),
        msgspec.msgpack.encode([1, 2, 3, {1: 1}, 5]),
    ],
    ids=["nothing", "garbage", "short", "negative", "huge", "total", "bucket-low", "bucket-high", "zero", "long"],
)
def test_bytes_that_are_no_histogram_are_refused(data: bytes) -> None:
    """Decoding anything but an encoded histogram is a ValueError."""
    with pytest.raises(ValueError):
        Histogram.from_bytes(data)
