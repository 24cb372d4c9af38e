"""Faults as data: what shall go wrong on a link, and where in the stream of bytes.

Belongs here: the kinds of fault and the making of random plans. Never here: carrying them out (`_faulty`).

A plan is a sequence of faults. Every place in it is a number of bytes or frames counted from the start of the link, so
one plan does the same thing in every run, on every event loop, however the bytes arrive.
"""

from __future__ import annotations

import random
from typing import TypeAlias

import msgspec

__all__ = ["Corrupt", "Delay", "Disconnect", "Drop", "DropFrame", "Fault", "Silence", "Split", "random_plan"]


class Split(msgspec.Struct, frozen=True):
    """Whatever arrives is handed over in pieces.

    Attributes:
        size: bytes of a piece; the last one of what arrived together may be shorter.
    """

    size: int


class Delay(msgspec.Struct, frozen=True):
    """Every piece is handed over later; the order stays.

    Attributes:
        turns: turns of the event loop that a piece waits at the head of the line.
    """

    turns: int


class Drop(msgspec.Struct, frozen=True):
    """Some bytes never arrive.

    Attributes:
        offset: bytes before the first lost one.
        length: how many are lost.
    """

    offset: int
    length: int = 1


class DropFrame(msgspec.Struct, frozen=True):
    """One frame never arrives. With this fault in the plan only whole frames are handed on to the other faults.

    Attributes:
        index: frames before the lost one.
    """

    index: int


class Corrupt(msgspec.Struct, frozen=True):
    """One byte arrives changed.

    Attributes:
        offset: bytes before it.
        mask: the bits of it that are turned over.
    """

    offset: int
    mask: int = 0xFF


class Silence(msgspec.Struct, frozen=True):
    """Nothing arrives any more, and the link stays up: a truncated stream of a peer that hangs.

    Attributes:
        offset: bytes that still arrive.
    """

    offset: int


class Disconnect(msgspec.Struct, frozen=True):
    """The link ends.

    Attributes:
        offset: bytes that still arrive.
        code: ``errno`` of what broke it; 0 when the other side seems to have closed in order.
    """

    offset: int
    code: int = 0


Fault: TypeAlias = Split | Delay | Drop | DropFrame | Corrupt | Silence | Disconnect


def random_plan(seed: int, *, length: int, faults: int = 3) -> tuple[Fault, ...]:
    """Make a plan by chance; the same arguments always give the same plan.

    Args:
        seed: decides everything.
        length: bytes of the stream within which the faults lie.
        faults: how many there are.

    Returns:
        The plan.
    """
    chance = random.Random(seed)  # noqa: S311  # faults have to be repeatable, not secret
    plan: list[Fault] = []
    for _ in range(faults):
        offset = chance.randrange(length)
        choices: tuple[Fault, ...] = (
            Split(chance.randint(1, 64)),
            Delay(chance.randint(1, 4)),
            Drop(offset, chance.randint(1, 32)),
            DropFrame(chance.randrange(1 + length // 24)),
            Corrupt(offset, chance.randint(1, 255)),
            Silence(offset),
            Disconnect(offset),
        )
        plan.append(chance.choice(choices))
    return tuple(plan)
