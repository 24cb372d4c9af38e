"""How a process of the demo begins and ends.

Belongs here: what the server and the clients have in common. Never here: their work.

The connection to the parent is the lifeline of a child: when it ends, for whatever reason, the child ends itself.
"""

from __future__ import annotations

import enum
import signal
import sys
from typing import TYPE_CHECKING

from .. import Disconnected, NameNotFound, connect
from ._backends import run
from ._demo_messages import CONTROL, CONTROL_LIMITS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import NoReturn

    from .. import CommunicationPort

__all__ = ["ChildStatus", "run_child"]


class ChildStatus(enum.IntEnum):
    """With what a child exits; anything else is a crash."""

    DONE = 0
    """Everything that was asked for is done."""
    PARENT_GONE = 3
    """Nobody is left to report to, which is also how a run is ended early."""


def run_child(work: Callable[[CommunicationPort], Awaitable[ChildStatus]]) -> NoReturn:
    """Connect to the parent, do the work, and exit.

    The first argument of the process is the name of its event loop.

    Args:
        work: an async function that gets the port to the parent and returns the exit status.
    """
    # Ctrl-C is for the parent, which then ends everybody in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(run(sys.argv[1], _live, work))


async def _live(work: Callable[[CommunicationPort], Awaitable[ChildStatus]]) -> ChildStatus:
    try:
        control = await connect(CONTROL, limits=CONTROL_LIMITS)
    except (Disconnected, NameNotFound):
        return ChildStatus.PARENT_GONE
    status = ChildStatus.PARENT_GONE
    async with control:
        try:
            status = await work(control)
        except* Disconnected:
            if control.connected:
                raise
    return status
