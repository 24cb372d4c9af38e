"""The loads of the simulator.

Belongs here: phases with names, and which of them the law of the sizing was tuned on. Never here: the machine
(`_simulator`), the verdict (`_simulate`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ._simulator import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["LOADS", "TUNED", "UNTUNED"]


def _bursts(on: float, off: float, count: int, phase: Phase) -> list[Phase]:
    pair = [
        msgspec.structs.replace(phase, seconds=on),
        msgspec.structs.replace(phase, seconds=off, callers=0),
    ]
    return pair * count


_CPU: Final = Phase(seconds=60, callers=100, computing=0.02)
_IO: Final = Phase(seconds=60, callers=64, waiting=0.05)

TUNED: Final[Mapping[str, Sequence[Phase]]] = {
    "computing": [_CPU],
    "computing, 2 processors": [msgspec.structs.replace(_CPU, processors=2)],
    "waiting": [_IO],
    "waiting, 24 places": [msgspec.structs.replace(_IO, callers=100, places=24)],
    "mixed": [Phase(seconds=60, callers=100, computing=0.005, waiting=0.02)],
    "mostly waiting": [Phase(seconds=60, callers=120, computing=0.004, waiting=0.04)],
    "even times": [Phase(seconds=60, callers=100, computing=0.01, waiting=0.03, spread="even")],
    "bursts of 3 s": _bursts(3, 3, 10, Phase(seconds=3, callers=60, waiting=0.03)),
    "short bursts": _bursts(0.5, 1.0, 40, Phase(seconds=1, callers=40, waiting=0.02, computing=0.001)),
    "changing": [
        msgspec.structs.replace(_CPU, seconds=40),
        msgspec.structs.replace(_IO, seconds=40),
        msgspec.structs.replace(_CPU, seconds=40),
        Phase(seconds=40, callers=100, computing=0.005, waiting=0.02),
    ],
    "heavy tail, waiting": [msgspec.structs.replace(_IO, spread="heavy")],
    "heavy tail, computing": [msgspec.structs.replace(_CPU, spread="heavy")],
}
"""The loads on which the law was tuned. "even times" took the place of "fixed times", where the law did badly."""

UNTUNED: Final[Mapping[str, Sequence[Phase]]] = {
    "fixed times": [Phase(seconds=60, callers=100, computing=0.01, waiting=0.03, spread="fixed")],
    "computing, 8 processors": [msgspec.structs.replace(_CPU, processors=8)],
    "computing, 3 processors": [Phase(seconds=60, callers=50, computing=0.005, processors=3)],
    "waiting, 10 places": [Phase(seconds=60, callers=60, waiting=0.03, places=10)],
    "half and half": [Phase(seconds=60, callers=80, computing=0.01, waiting=0.01)],
    "alternating": [
        Phase(seconds=30, callers=100, computing=0.004, waiting=0.04),
        Phase(seconds=30, callers=100, computing=0.01),
        Phase(seconds=30, callers=48, waiting=0.02),
    ],
    "heavy tail, mixed": [Phase(seconds=60, callers=100, computing=0.005, waiting=0.02, spread="heavy")],
}
"""Loads that no number of the law was chosen by. Who tunes the law on one of them moves it up, and adds another."""

LOADS: Final[Mapping[str, Sequence[Phase]]] = {**TUNED, **UNTUNED}
"""Every load by name."""
