"""A histogram of latencies that is cheap to record into, small to send and exact to merge.

Belongs here: counting durations and telling percentiles. Never here: clocks, or where the durations come from.

Buckets are log-linear: each power of two of nanoseconds is divided into 128 equal parts, so a percentile is off by less
than 0.8 % of its value at any magnitude, and two histograms always have the same buckets.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

__all__ = ["Histogram"]

PART_BITS: Final = 7
"""Each power of two is divided into ``2 ** PART_BITS`` buckets."""

LARGEST: Final = 2**42 - 1
"""Longest duration that has a bucket of its own, in nanoseconds (73 minutes); longer ones count as this."""


class _Encoded(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """How a histogram travels: times in nanoseconds, and the counts of the buckets that are not empty."""

    smallest: int
    largest: int
    total: int
    counts: dict[int, int]


def _bucket(nanoseconds: int) -> int:
    shift = max(0, nanoseconds.bit_length() - PART_BITS - 1)
    return (shift << PART_BITS) + (nanoseconds >> shift)


def _middle(bucket: int) -> float:
    shift = max(0, (bucket >> PART_BITS) - 1)
    low = (bucket - (shift << PART_BITS)) << shift
    return low + ((1 << shift) - 1) / 2


_BUCKETS: Final = _bucket(LARGEST) + 1


class Histogram:
    """Counts durations; tells percentiles.

    All durations that go in or come out are in microseconds, with a resolution of a nanosecond.
    """

    __slots__ = ("_counts", "_largest", "_smallest", "_total", "count")

    def __init__(self) -> None:
        self.count = 0
        self._total = 0
        self._smallest = LARGEST
        self._largest = 0
        self._counts = [0] * _BUCKETS

    def record(self, microseconds: float) -> None:
        """Count one duration.

        Args:
            microseconds: the duration; a negative one counts as zero, one beyond 73 minutes as that.
        """
        nanoseconds = min(max(0, round(microseconds * 1000)), LARGEST)
        self.count += 1
        self._total += nanoseconds
        if nanoseconds < self._smallest:
            self._smallest = nanoseconds
        if nanoseconds > self._largest:
            self._largest = nanoseconds
        self._counts[_bucket(nanoseconds)] += 1

    def merge(self, other: Histogram) -> None:
        """Add everything that another histogram counted; it stays as it is."""
        self.count += other.count
        self._total += other._total
        self._smallest = min(self._smallest, other._smallest)
        self._largest = max(self._largest, other._largest)
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]

    def percentile(self, percent: float) -> float:
        """Return the duration that this share of all durations does not exceed, in microseconds.

        Args:
            percent: the share, from 0 (the shortest duration) to 100 (the longest).

        Raises:
            ValueError: nothing was counted, or the share is out of range.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"percent must be from 0 to 100, not {percent!r}")
        self._check_not_empty()
        rank = max(1, math.ceil(self.count * percent / 100))
        if rank == self.count:
            return self.maximum
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                return min(max(_middle(bucket), self._smallest), self._largest) / 1000
        raise AssertionError("the counts of the buckets do not add up to the count of all")

    @property
    def minimum(self) -> float:
        """The shortest duration, in microseconds. Raises ValueError when nothing was counted."""
        self._check_not_empty()
        return self._smallest / 1000

    @property
    def maximum(self) -> float:
        """The longest duration, in microseconds. Raises ValueError when nothing was counted."""
        self._check_not_empty()
        return self._largest / 1000

    @property
    def mean(self) -> float:
        """The mean duration, in microseconds. Raises ValueError when nothing was counted."""
        self._check_not_empty()
        return self._total / self.count / 1000

    def _check_not_empty(self) -> None:
        if not self.count:
            raise ValueError("the histogram is empty: nothing was recorded")

    def to_bytes(self) -> bytes:
        """Return everything in a form that can be sent."""
        counts = {bucket: count for bucket, count in enumerate(self._counts) if count}
        return msgspec.msgpack.encode(_Encoded(self._smallest, self._largest, self._total, counts))

    @classmethod
    def from_bytes(cls, data: bytes) -> Histogram:
        """Return the histogram that was encoded with `to_bytes`.

        Args:
            data: the encoded histogram.

        Raises:
            ValueError: it is not one, or its numbers contradict each other.
        """
        encoded = msgspec.msgpack.decode(data, type=_Encoded)
        if not 0 <= encoded.smallest <= LARGEST or not 0 <= encoded.largest <= LARGEST or encoded.total < 0:
            raise ValueError("a duration of the encoded histogram is out of range")
        histogram = cls()
        histogram._smallest, histogram._largest, histogram._total = encoded.smallest, encoded.largest, encoded.total
        for bucket, count in encoded.counts.items():
            if not 0 <= bucket < _BUCKETS or count < 1:
                raise ValueError(f"the encoded histogram has {count} entries in bucket {bucket}")
            histogram._counts[bucket] = count
            histogram.count += count
        return histogram
