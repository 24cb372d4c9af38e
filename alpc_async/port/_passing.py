"""Passing a live connection to another process.

Belongs here: giving a port up as a handle, and going on with one that came with a message. Never here: what the state
of a connection is (wire), how handles travel (`_transfers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..handles import Handle
from ..link import SocketLink, adopt_socket, current_loop
from ..memory_errors import UnsuitableHandle
from ..security import ANYONE, AuditTrail, Gate, peer_identity
from ..wire import Endpoint, PassedState, Role, pass_state, resume
from ._communication import CommunicationPort
from ._metered import make_channel
from ._queue import PacketQueue
from ._source import Source

if TYPE_CHECKING:
    from ..limits import PortLimits
    from ._channel import Channel
    from ._sent import SentRequest

__all__ = ["PortHandle", "go_on", "hand_over"]


class PortHandle(Handle):
    """A connection that was given up by `CommunicationPort.hand_over`, to be passed with ``handles=``.

    Closing it closes the connection.

    Attributes:
        state: what its next owner has to know.
    """

    __slots__ = ("state",)

    def __init__(self, fd: int, state: bytes) -> None:
        super().__init__(fd)
        self.state = state

    def moved(self) -> PortHandle:
        """Return a handle that owns the connection instead of this one."""
        return PortHandle(self.detach(), self.state)


def hand_over(channel: Channel, name: str) -> PortHandle:
    """Give a connection up.

    Raises:
        ValueError: something is under way, or there is no socket to be passed.
    """
    channel.check_usable()
    link = channel.link
    if not isinstance(link, SocketLink):
        raise ValueError(f"{channel.label} has no socket, so it cannot be passed on")
    channel.keep_no_sections()
    link.flush()
    if link.unsent() or channel.source.packets:
        raise ValueError(f"{channel.label} cannot be passed on: messages wait to be sent or received")
    qos = channel.peer_qos
    state = pass_state(channel.endpoint, level=int(qos.level), dynamic=qos.tracking == "dynamic", name=name)
    return PortHandle(link.hand_over().detach(), state.encode())


def go_on(handle: Handle, state: bytes, limits: PortLimits) -> CommunicationPort:
    """Go on with a connection that another process gave up.

    Args:
        handle: its socket; consumed, whether that works or not.
        state: what came with it; untrusted.
        limits: the local ones of this process.

    Raises:
        UnsuitableHandle: this is no connection that can be gone on with.
        OSError: the kernel does not say who is at the other end.
    """
    loop = current_loop()
    sock = adopt_socket(handle)
    try:
        passed = PassedState.decode(state)
        label = f"passed connection to port {passed.name!r}" if passed.name else "passed connection"
        endpoint: Endpoint[SentRequest] = Endpoint(passed.role, limits, label=label)
        resume(endpoint, passed, limits)
        peer = peer_identity(sock)
    except (ValueError, TypeError) as error:
        sock.close()
        raise UnsuitableHandle(kind="SOCKET", reason=str(error)) from None
    except BaseException:
        sock.close()
        raise
    server = passed.role is Role.SERVER
    link = SocketLink(sock, loop, high_water=limits.high_water, low_water=limits.low_water, senders=server)
    queue = PacketQueue(loop)
    channel = make_channel(endpoint, link, loop, peer, Source(queue, None))
    channel.on_end = lambda _: queue.end()
    channel.opened = True
    channel.note_qos(passed.level, passed.dynamic)
    if server:
        channel.gate = Gate(ANYONE, peer, AuditTrail(label, None, loop.time))
    channel.settle_limits()
    port = CommunicationPort(channel, name=passed.name)
    link.start(channel)
    channel.watch_peer()
    return port
