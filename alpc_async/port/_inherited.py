"""A connection to a child process, over a socket that it inherits.

Belongs here: both ends of it. Never here: the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..link import SocketLink, current_loop, inherit_socket, socket_pair
from ..security import own_identity
from ..wire import Role
from ._open import pair_end

if TYPE_CHECKING:
    from ..limits import PortLimits
    from ..link import StreamSocket
    from ._communication import CommunicationPort

__all__ = ["inheritable_pair", "inherited_port"]


def inheritable_pair(limits: PortLimits) -> tuple[CommunicationPort, StreamSocket]:
    """Return a port, and the socket of its other end for a child process, which has to use the same limits.

    Args:
        limits: quotas of both ends.

    Returns:
        Both are the caller's to close; the socket as soon as the child has it.

    Raises:
        OSError: no descriptors are left.
    """
    left, right = socket_pair()
    return _port(left, limits, Role.CLIENT), right


def inherited_port(fd: int, limits: PortLimits) -> CommunicationPort:
    """Return the port of the other end, in the child process.

    Args:
        fd: the inherited descriptor.
        limits: quotas, as in the parent.

    Raises:
        OSError: the descriptor is no socket.
    """
    return _port(inherit_socket(fd), limits, Role.SERVER)


def _port(sock: StreamSocket, limits: PortLimits, role: Role) -> CommunicationPort:
    loop = current_loop()
    link = SocketLink(sock, loop, high_water=limits.high_water, low_water=limits.low_water)
    return pair_end(link, loop, limits, role, own_identity())
