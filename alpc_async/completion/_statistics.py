"""What worker pools count, and what they report when they end.

Belongs here: frozen values. Never here: counting.
"""

from __future__ import annotations

import msgspec

__all__ = ["WorkerPoolReport", "WorkerPoolStatistics"]


class WorkerPoolStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker pool has done so far.

    Attributes:
        size: workers.
        limit: workers that there may be now: what the sizing says, or the maximum of the pool.
        running: workers that are inside a handler.
        idle: workers that wait for a packet.
        queued: packets that wait at the completion port.
        oldest: how long the oldest of them has waited, in seconds.
        handled: handlers that returned.
        failed: handlers that raised an exception, or whose process died.
        cancelled: handlers that were cancelled because their message was, or because its deadline came.
        shed: messages that were not started because their deadline had passed.
        overdue: handlers that went on for longer than the grace time after they were cancelled.
        started: workers started, replacements included.
        stopped: workers that were ended because there were more than needed.
        restarted: processes of workers that were started again after they had died.
        largest_size: most workers at the same time.
        batch_sizes: how often a worker took 1 packet, 2 to 3, 4 to 7, and so on in a row, before it found nothing more
            to do, let the event loop turn, or ended; the last entry counts batches of 128, which is the most.
    """

    size: int
    limit: int
    running: int
    idle: int
    queued: int
    oldest: float
    handled: int
    failed: int
    cancelled: int
    shed: int
    overdue: int
    started: int
    stopped: int
    restarted: int
    largest_size: int
    batch_sizes: tuple[int, ...]


class WorkerPoolReport(msgspec.Struct, frozen=True):
    """How a worker pool ended.

    Attributes:
        finished: handlers that ended within the grace time.
        cut: what the handlers that did not end were working on, as text: the messages, or the posted packets.
    """

    finished: int
    cut: tuple[str, ...]
