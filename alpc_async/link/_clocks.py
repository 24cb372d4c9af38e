"""Clocks that count the processor time of others: of one thread of this process, of another process.

Belongs here: reading them. Never here: what is made of the numbers (completion).
"""

from __future__ import annotations

import time
from typing import Final

__all__ = ["processor_time_of_process", "processor_time_of_thread"]

_PROCESS: Final = 2
_THREAD: Final = 6
"""linux/posix-timers.h: a clock is the inverted id, three bits further up, and these bits for its kind."""


def processor_time_of_thread(thread: int) -> float | None:
    """Return how long a thread of this process has computed so far, in seconds.

    Args:
        thread: its native id.

    Returns:
        The time; ``None`` when the thread has ended, or the kernel does not tell.
    """
    return _read((~thread << 3) | _THREAD)


def processor_time_of_process(process: int) -> float | None:
    """Return how long all threads of a process have computed so far, in seconds.

    Args:
        process: its id.

    Returns:
        The time; ``None`` when the process has ended, or the kernel does not tell.
    """
    return _read((~process << 3) | _PROCESS)


def _read(clock: int) -> float | None:
    try:
        return time.clock_gettime(clock)
    except OSError:
        return None
