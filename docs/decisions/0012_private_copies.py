"""Measures what a private copy of shared memory costs, as bytes and in huge pages, by size.

Run it as ``python docs/decisions/0012_private_copies.py``. Each figure is the median of interleaved rounds, in which
the copy is made and dropped, because the pages have to be given back as well.
"""

from __future__ import annotations

import ctypes
import mmap
import statistics
import sys
import time
from typing import TYPE_CHECKING

from alpc_async.memory import copy_out

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 15
MIB = 1024 * 1024
SIZES = [MIB // 4, MIB // 2, MIB, 2 * MIB, 4 * MIB, 8 * MIB, 16 * MIB, 32 * MIB, 64 * MIB, 256 * MIB]


def as_bytes(source: memoryview) -> None:
    """Copy into ordinary bytes, where those of the last round were."""
    bytes(source)


def as_new_bytes(source: memoryview) -> None:
    """Copy into ordinary bytes, after the C library has given all free memory back."""
    bytes(source)


def in_small_pages(source: memoryview) -> None:
    """Copy into a private mapping."""
    copy = mmap.mmap(-1, source.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    copy[:] = source
    copy.close()


def in_huge_pages(source: memoryview) -> None:
    """Copy into a private mapping that asks for huge pages."""
    copy = mmap.mmap(-1, source.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    copy.madvise(mmap.MADV_HUGEPAGE)
    copy[:] = source
    copy.close()


def as_huge_bytes(source: memoryview) -> None:
    """Copy into bytes that lie in huge pages, as the framework does it."""
    copy_out(source)


def spent(copy: Callable[[memoryview], None], source: memoryview) -> float:
    """Return the milliseconds of one copy."""
    if copy is as_new_bytes:
        ctypes.CDLL(None).malloc_trim(0)
    begin = time.perf_counter()
    copy(source)
    return (time.perf_counter() - begin) * 1e3


def main() -> None:
    """Print one row for each size."""
    ways = (as_bytes, as_new_bytes, in_small_pages, in_huge_pages, as_huge_bytes)
    sys.stdout.write(f"CPython {sys.version.split()[0]}, ms\n{'MiB':>8}" + "".join(f"{w.__name__:>16}" for w in ways))
    sys.stdout.write("\n")
    for size in SIZES:
        shared = mmap.mmap(-1, size)
        shared[:] = b"x" * size
        source = memoryview(shared)
        rounds = [[spent(way, source) for way in ways] for _ in range(ROUNDS)]
        medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
        sys.stdout.write(f"{size / MIB:8.2f}" + "".join(f"{median:16.3f}" for median in medians) + "\n")
        source.release()
        shared.close()


if __name__ == "__main__":
    main()
