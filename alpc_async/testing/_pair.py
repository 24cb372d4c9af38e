"""Connected ports without a socket.

Belongs here: `memory_port_pair`. Never here: links.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..limits import PortLimits
from ..link import current_loop
from ..port import open_pair
from ._faulty import FaultyLink
from ._memory import CAPACITY, LinkPair, memory_link_pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..port import PortPair
    from ..security import Identity
    from ._plan import Fault

__all__ = ["memory_port_pair"]


def memory_port_pair(
    *,
    limits: PortLimits | None = None,
    left: Sequence[Fault] = (),
    right: Sequence[Fault] = (),
    capacity: int = CAPACITY,
    identity: Identity | None = None,
) -> PortPair:
    """Make two communication ports that are connected in memory, on request with faults between them.

    Must be called where an event loop runs.

    Args:
        limits: quotas of both; by default those of `alpc_async.PortLimits`.
        left: what goes wrong with the bytes that the left port receives.
        right: what goes wrong with the bytes that the right port receives.
        capacity: bytes that each direction holds before its sender has to wait.
        identity: whom the right port sees at the other end; by default this process.

    Returns:
        Both ports, used like those of `alpc_async.port_pair`. Each has to be closed; leaving its block closes both.

    Raises:
        RuntimeError: no event loop runs here.
    """
    loop = current_loop()
    limits = PortLimits() if limits is None else limits
    ends = memory_link_pair(loop, high_water=limits.high_water, low_water=limits.low_water, capacity=capacity)
    ends = LinkPair(FaultyLink(ends.left, left, loop), FaultyLink(ends.right, right, loop))
    return open_pair(*ends, loop, limits, identity=identity)
