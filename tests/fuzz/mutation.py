"""Inputs by seeded mutation, for machines without a coverage-guided fuzzer.

Belongs here: making inputs and keeping the ones that did something new. Never here: what is checked (`targets`).
"""

from __future__ import annotations

import random
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import TypeAlias

    TraceFunction: TypeAlias = "Callable[[FrameType, str, object], TraceFunction]"

__all__ = ["Finding", "fuzz"]

LONGEST = 4096
FRESH = 64
"""Executions between two inputs whose path is traced, which costs some ten times as much as an execution."""


class Finding(NamedTuple):
    """An input that broke the invariant."""

    data: bytes
    error: Exception


def fuzz(
    check: Callable[[bytes], None], seeds: Sequence[bytes], *, seed: int, seconds: float, executions: int = 0
) -> tuple[int, Finding | None]:
    """Run a check over mutated inputs until it fails, or time or executions run out.

    Args:
        check: raises when an input breaks the invariant.
        seeds: inputs to begin with.
        seed: decides everything that is left to chance.
        seconds: how long.
        executions: how many at most; 0 for any number.

    Returns:
        How many inputs were run, and the one that failed, if there was one.
    """
    chance = random.Random(seed)
    corpus = list(seeds) or [b""]
    seen: set[tuple[str, int, int]] = set()
    end = time.monotonic() + seconds
    count = 0
    for data in corpus:
        _trace(check, data, seen)
    while time.monotonic() < end and (not executions or count < executions):
        data = mutate(chance, corpus)
        count += 1
        try:
            if count % FRESH:
                check(data)
            elif _trace(check, data, seen):
                corpus.append(data)
        except Exception as error:
            return count, Finding(data, error)
    return count, None


def mutate(chance: random.Random, corpus: Sequence[bytes]) -> bytes:
    """Return an input that is some changes away from one or two of the corpus."""
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.randint(1, 6)):
        position = chance.randrange(len(data) + 1)
        match chance.randrange(7):
            case 0:
                data[position:position] = chance.randbytes(chance.randint(1, 8))
            case 1:
                del data[position : position + chance.randint(1, 8)]
            case 2:
                data[position : position + 1] = bytes([chance.choice((0, 1, 2, 24, 64, 127, 128, 255))])
            case 3:
                data[position:position] = chance.choice(corpus)
            case 4:
                data += chance.choice(corpus)
            case 5:
                data[position : position + 1] = chance.randbytes(1)
            case _:
                data[position:position] = data[position : position + chance.randint(1, 48)]
    return bytes(data[:LONGEST])


def _trace(check: Callable[[bytes], None], data: bytes, seen: set[tuple[str, int, int]]) -> bool:
    """Run a check; return whether it took a step from one line to another that no input took before."""
    before = len(seen)
    last = 0

    def step(frame: FrameType, event: str, _argument: object) -> TraceFunction:
        nonlocal last
        if event == "line":
            seen.add((frame.f_code.co_name, last, frame.f_lineno))
            last = frame.f_lineno
        return step

    previous = sys.gettrace()
    sys.settrace(step)
    try:
        check(data)
    finally:
        sys.settrace(previous)
    return len(seen) > before
