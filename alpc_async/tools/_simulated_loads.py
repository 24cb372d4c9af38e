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
    "computing, 3 processors": [Phase(seconds=60, callers=50, computing=0.005, processors=3)],
    "computing, 8 processors": [msgspec.structs.replace(_CPU, processors=8)],
    "waiting": [_IO],
    "waiting, 10 places": [Phase(seconds=60, callers=60, waiting=0.03, places=10)],
    "waiting, 24 places": [msgspec.structs.replace(_IO, callers=100, places=24)],
    "waiting 1 s": [Phase(seconds=120, callers=60, waiting=1.0)],
    "mixed": [Phase(seconds=60, callers=100, computing=0.005, waiting=0.02)],
    "mostly waiting": [Phase(seconds=60, callers=120, computing=0.004, waiting=0.04)],
    "half and half": [Phase(seconds=60, callers=80, computing=0.01, waiting=0.01)],
    "long handlers": [Phase(seconds=120, callers=40, computing=0.3, waiting=0.7)],
    "even times": [Phase(seconds=60, callers=100, computing=0.01, waiting=0.03, spread="even")],
    "fixed times": [Phase(seconds=60, callers=100, computing=0.01, waiting=0.03, spread="fixed")],
    "bursts of 3 s": _bursts(3, 3, 10, Phase(seconds=3, callers=60, waiting=0.03)),
    "short bursts": _bursts(0.5, 1.0, 40, Phase(seconds=1, callers=40, waiting=0.02, computing=0.001)),
    "changing": [
        msgspec.structs.replace(_CPU, seconds=40),
        msgspec.structs.replace(_IO, seconds=40),
        msgspec.structs.replace(_CPU, seconds=40),
        Phase(seconds=40, callers=100, computing=0.005, waiting=0.02),
    ],
    "alternating": [
        Phase(seconds=30, callers=100, computing=0.004, waiting=0.04),
        Phase(seconds=30, callers=100, computing=0.01),
        Phase(seconds=30, callers=48, waiting=0.02),
    ],
    "more and fewer callers": [
        Phase(seconds=20, callers=callers, waiting=0.05 + callers * 1e-5) for callers in (10, 80, 30, 120)
    ],
    "every 5 s another": [
        Phase(seconds=5, callers=80, computing=0.01),
        Phase(seconds=5, callers=80, waiting=0.03),
    ]
    * 6,
    "heavy tail, waiting": [msgspec.structs.replace(_IO, spread="heavy")],
    "heavy tail, computing": [msgspec.structs.replace(_CPU, spread="heavy")],
    "heavy tail, mixed": [Phase(seconds=60, callers=100, computing=0.005, waiting=0.02, spread="heavy")],
    "one processor": [Phase(seconds=60, callers=50, computing=0.01, processors=1)],
    "computing, 16 processors": [Phase(seconds=60, callers=200, computing=0.01, processors=16)],
    "computing under a lock": [Phase(seconds=60, callers=60, computing=0.01, together=1)],
    "mixed under a lock": [Phase(seconds=60, callers=60, computing=0.004, waiting=0.016, together=1)],
    "waiting, and a lock": [Phase(seconds=60, callers=100, computing=0.001, waiting=0.03, together=1)],
    "places, and computing": [Phase(seconds=60, callers=100, computing=0.002, waiting=0.02, places=12)],
    "even times, 3 places": [Phase(seconds=60, callers=50, waiting=0.05, places=3, spread="even")],
    "fixed times, 20 places": [Phase(seconds=60, callers=50, waiting=0.05, places=20, spread="fixed")],
    "heavy tail, 40 places": [Phase(seconds=60, callers=120, waiting=0.05, places=40, spread="heavy")],
    "three callers": [Phase(seconds=60, callers=3, waiting=0.05)],
    "places that slow down": [
        Phase(seconds=30, callers=100, waiting=waiting, places=16) for waiting in (0.02, 0.08, 0.02)
    ],
    "bursts, computing": _bursts(2, 2, 10, Phase(seconds=2, callers=40, computing=0.01)),
    "heavy tail under a lock": [
        Phase(seconds=60, callers=60, computing=0.002, waiting=0.01, together=1, spread="heavy")
    ],
    "half and half under a lock": [Phase(seconds=60, callers=60, computing=0.005, waiting=0.005, together=1)],
    "computing, two of four": [Phase(seconds=60, callers=60, computing=0.01, together=2)],
    "lock, then waiting": [
        Phase(seconds=30, callers=60, computing=0.01, together=1),
        Phase(seconds=30, callers=60, waiting=0.02),
    ]
    * 2,
    "even times, one place": [Phase(seconds=60, callers=50, waiting=0.05, places=1, spread="even")],
}
"""The loads whose outcomes were looked at while the law was made."""

UNTUNED: Final[Mapping[str, Sequence[Phase]]] = {
    "half waiting, 6 processors": [
        Phase(seconds=60, callers=70, computing=0.012, waiting=0.006, processors=6, spread="even")
    ],
    "mixed, 16 processors": [Phase(seconds=60, callers=120, computing=0.003, waiting=0.012, processors=16)],
    "even times, 50 places": [Phase(seconds=60, callers=120, waiting=0.02, places=50, spread="even")],
    "places, then processors": [
        Phase(seconds=30, callers=60, waiting=0.03, places=12),
        Phase(seconds=30, callers=60, computing=0.008),
    ]
    * 2,
    "bursts, mixed": _bursts(4, 4, 8, Phase(seconds=4, callers=60, computing=0.003, waiting=0.02)),
    "computing, three of eight": [Phase(seconds=60, callers=60, computing=0.008, processors=8, together=3)],
    "even times under a lock": [
        Phase(seconds=60, callers=80, computing=0.003, waiting=0.03, together=1, spread="even")
    ],
    "waiting, then under a lock": [
        Phase(seconds=40, callers=60, waiting=0.025),
        Phase(seconds=40, callers=60, computing=0.006, waiting=0.012, together=1),
    ],
}
"""Loads that were first run when the law was done. Who tunes it on one of them moves it up, and adds another."""

LOADS: Final[Mapping[str, Sequence[Phase]]] = {**TUNED, **UNTUNED}
"""Every load by name."""
