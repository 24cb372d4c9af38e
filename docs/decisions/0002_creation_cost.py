"""Measures what it costs to create one record in five ways, and what the records add to a collection pass.

Run it as ``python docs/decisions/0002_creation_cost.py``. Each figure is the best of 15 runs, because whatever else the
machine does can only add to it.
"""

from __future__ import annotations

import gc
import sys
import timeit
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 15
CREATIONS = 100_000
KEPT = 200_000


class Slotted:
    """What one would write by hand."""

    __slots__ = ("data", "id", "timeout_ms")

    def __init__(self, id: int, data: bytes, timeout_ms: int) -> None:
        self.id = id
        self.data = data
        self.timeout_ms = timeout_ms


@dataclass(slots=True)
class Dataclass:
    """The same, written by the standard library."""

    id: int
    data: bytes
    timeout_ms: int


class Named(NamedTuple):
    """A tuple with names."""

    id: int
    data: bytes
    timeout_ms: int


class Struct(msgspec.Struct):
    """A struct that the garbage collector looks at when it holds objects that can form cycles."""

    id: int
    data: bytes
    timeout_ms: int


class Untracked(msgspec.Struct, frozen=True, gc=False):
    """A frozen struct that the garbage collector never looks at."""

    id: int
    data: bytes
    timeout_ms: int


def creation(make: Callable[[int, bytes, int], object]) -> float:
    """Return nanoseconds per creation, the loop's own cost taken off."""
    names = {"make": make, "data": b"x" * 64}
    full = min(timeit.repeat("make(7, data, 1000)", globals=names, number=CREATIONS, repeat=RUNS))
    empty = min(timeit.repeat("data", globals=names, number=CREATIONS, repeat=RUNS))
    return (full - empty) / CREATIONS * 1e9


def collection(make: Callable[[int, bytes, int], object]) -> float:
    """Return nanoseconds that each living record adds to a full garbage collection."""
    kept: list[object] = []
    gc.collect()
    empty = min(timeit.repeat(gc.collect, number=1, repeat=RUNS))
    kept.extend(make(number, b"x", 0) for number in range(KEPT))
    gc.collect()
    full = min(timeit.repeat(gc.collect, number=1, repeat=RUNS))
    return max(0.0, full - empty) / len(kept) * 1e9


def main() -> None:
    """Print one row for each way."""
    sys.stdout.write(f"CPython {sys.version.split()[0]}, msgspec {msgspec.__version__}\n")
    sys.stdout.write(f"{'':24}{'ns per creation':>18}{'ns per collection':>20}\n")
    for make in (Slotted, Dataclass, Named, Struct, Untracked):
        sys.stdout.write(f"{make.__name__:24}{creation(make):18.0f}{collection(make):20.1f}\n")


if __name__ == "__main__":
    main()
