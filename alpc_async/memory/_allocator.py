"""Which ranges of a numbered space are free: two-level segregated fit with immediate coalescing.

Belongs here: numbers. Never here: memory, sections, bytes; a granule is whatever the caller makes of it.

Free ranges are kept in bins by size, eight or more bins for each power of two, and a bit for each bin that holds any.
An allocation takes the first bin whose ranges are all large enough, which one shift and one bit operation find, and
gives the rest back. A free joins its neighbours, which two dictionaries by first and last granule find. Both take the
same time however many ranges there are.
"""

from __future__ import annotations

from typing import Final

__all__ = ["GRANULE", "FreeRanges"]

GRANULE: Final = 64
"""Bytes of one granule: a cache line, so that two blocks never share one."""

_FINE_BITS: Final = 5
_FINE: Final = 1 << _FINE_BITS


def _bin(size: int) -> int:
    """Return the bin that holds ranges of this size: sizes below 64 have bins of their own, others share with 3 %."""
    if size < 2 * _FINE:
        return size
    shift = size.bit_length() - 1 - _FINE_BITS
    return (shift << _FINE_BITS) + (size >> shift)


class FreeRanges:
    """Free ranges of a space. Ranges that were added do not join unless they touch."""

    __slots__ = ("_bins", "_by_end", "_by_start", "_filled", "free")

    def __init__(self) -> None:
        self._bins: dict[int, dict[int, int]] = {}
        self._by_start: dict[int, int] = {}
        self._by_end: dict[int, int] = {}
        self._filled = 0
        self.free = 0

    def take(self, size: int) -> int:
        """Take a range out.

        Args:
            size: its size in granules, at least 1.

        Returns:
            Where it begins, or -1 when no free range is large enough.
        """
        # The smallest size whose bin holds no range that is too small.
        if size < 2 * _FINE:
            wanted = size
        else:
            shift = size.bit_length() - 1 - _FINE_BITS
            wanted = ((shift << _FINE_BITS) + (size >> shift)) + (size & ((1 << shift) - 1) != 0)
        candidates = self._filled >> wanted
        if candidates:
            number = wanted + (candidates & -candidates).bit_length() - 1
            ranges = self._bins[number]
            start, found = ranges.popitem()
            if not ranges:
                self._filled ^= 1 << number
        else:
            start, found = self._search(size)
            if start < 0:
                return -1
        del self._by_start[start]
        self.free -= size
        if found == size:
            del self._by_end[start + size]
        else:
            rest, left = start + size, found - size
            self._by_start[rest] = left
            self._by_end[rest + left] = rest
            self._put(rest, left)
        return start

    def give(self, start: int, size: int) -> None:
        """Put a range back, or a new one in.

        Args:
            start: its first granule.
            size: its size in granules.
        """
        self.free += size
        by_start, by_end = self._by_start, self._by_end
        end = start + size
        right = by_start.pop(end, 0)
        if right:
            self._drop(end, right)
            size += right
            end += right
        left = by_end.pop(start, -1)
        if left >= 0:
            length = by_start[left]
            self._drop(left, length)
            size += length
            start = left
        by_start[start] = size
        by_end[end] = start
        self._put(start, size)

    def has(self, start: int, size: int) -> bool:
        """Return whether a certain range is free as a whole and touches no other free range.

        Args:
            start: its first granule.
            size: its size in granules.
        """
        return self._by_start.get(start) == size

    def withdraw(self, start: int, size: int) -> None:
        """Take a certain range out, of which `has` is true.

        Args:
            start: its first granule.
            size: its size in granules.
        """
        self._drop(start, size)
        del self._by_start[start], self._by_end[start + size]
        self.free -= size

    def _search(self, size: int) -> tuple[int, int]:
        # Ranges of the bin below may just fit. Only looked through when nothing else is left.
        for start, found in self._bins.get(_bin(size), {}).items():
            if found >= size:
                self._drop(start, found)
                return start, found
        return -1, 0

    def _put(self, start: int, size: int) -> None:
        number = _bin(size)
        ranges = self._bins.get(number)
        if ranges is None:
            ranges = self._bins[number] = {}
        ranges[start] = size
        self._filled |= 1 << number

    def _drop(self, start: int, size: int) -> None:
        number = _bin(size)
        ranges = self._bins[number]
        del ranges[start]
        if not ranges:
            self._filled ^= 1 << number
