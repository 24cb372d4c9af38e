"""What a service tells about itself.

Belongs here: the frozen value. Never here: counting.
"""

from __future__ import annotations

import msgspec

__all__ = ["ServiceStatistics"]


class ServiceStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a service has done so far, and what it holds now.

    Attributes:
        connections: clients that have made a call and are connected.
        handled: messages that were handled.
        failed: handlers that raised what their method does not declare.
        running: handlers that run now.
        workers: tasks that run handlers or wait for work.
        objects: objects that clients hold, each counted once.
        references: objects and streams that clients hold, counted for each time they crossed.
    """

    connections: int
    handled: int
    failed: int
    running: int
    workers: int
    objects: int
    references: int
