"""One end of a connection, as a user sees it.

Belongs here: `CommunicationPort`. Never here: frames, sockets, or how a connection comes about.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

import anyio

from ..errors import DeadlineExceeded, PortClosed
from ._counters import PortStatistics
from ._requesting import RequestingPort
from ._streams import PortByteStream, PortObjectStream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from ..errors import AlpcError
    from ..limits import PortLimits
    from ..security import Identity, Policy, SecurityQos
    from ._channel import Channel
    from ._passing import PortHandle
    from ._queue import PacketQueue

__all__ = ["CommunicationPort", "PortAttribute"]


DRAIN_INTERVAL: Final = 0.005
"""Seconds between two looks of `drain`; it is rare, and looking keeps the path of every message free of bookkeeping."""


class PortAttribute(anyio.TypedAttributeSet):
    """Facts about a port for `CommunicationPort.extra`."""

    peer: Identity = anyio.typed_attribute()
    """Who is at the other end."""
    name: str = anyio.typed_attribute()
    """The name that the port was connected by; absent for port pairs."""
    limits: PortLimits = anyio.typed_attribute()
    """The agreed limits."""


class CommunicationPort(RequestingPort, anyio.TypedAttributeProvider):
    """One end of a connection: send requests and datagrams, receive what the other side sends.

    Made by `connect`, `port_pair`, or for a server by accepting a client. On a server the messages of all clients are
    received from the connection port, and this port serves to address one client.

    Use it as ``async with port:``, or call `aclose`; from any task, in any order with other ports.

    Attributes:
        context: a cookie of this side, which messages that come through this port show as their context.
    """

    def __init__(self, channel: Channel, *, name: str = "", receiver: str = "") -> None:
        self._channel = channel
        self._loop = channel.loop
        self._label = channel.label
        self._queue = channel.source.queue
        self._name = name
        self._owns_queue = not receiver
        self._receiver = receiver
        self.context: Any = None
        channel.port = self

    # -- facts -------------------------------------------------------------------------------------------------------

    @property
    def peer(self) -> Identity:
        """Who is at the other end, as the kernel said when the connection was made.

        A client that allows no more than ``anonymous`` is shown as nobody who can be identified.
        """
        return self._channel.shown

    @property
    def peer_qos(self) -> SecurityQos:
        """What the other side lets us do with its identity."""
        return self._channel.peer_qos

    @property
    def limits(self) -> PortLimits:
        """The agreed limits."""
        return self._channel.endpoint.limits

    @property
    def connect_data(self) -> bytes:
        """What the other side gave when the connection was made; untrusted.

        On a client the server's reply data, on a server the client's connect data.
        """
        return self._channel.connect_data

    @property
    def connected(self) -> bool:
        """Whether the connection is still there, as far as is known."""
        return self._channel.ending is None

    def is_connected_to(self, policy: Policy) -> bool:
        """Return whether the connection is there and the process at its other end is one that a policy allows.

        Args:
            policy: who it should be, such as ``alpc.require(uid=0)``; asked about what the kernel said when the
                connection was made.
        """
        return self.connected and policy.judge(self.peer) is None

    @property
    def weight(self) -> int:
        """How many turns the messages of this connection have for one of the others where they wait together."""
        return self._channel.source.weight

    @weight.setter
    def weight(self, weight: int) -> None:
        if weight < 1:
            raise ValueError(f"a weight is at least 1, not {weight}")
        self._channel.source.weight = weight

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The facts that `extra` gives."""
        attributes: dict[Any, Callable[[], Any]] = {
            PortAttribute.peer: lambda: self.peer,
            PortAttribute.limits: lambda: self.limits,
        }
        if self._name:
            attributes[PortAttribute.name] = lambda: self._name
        return attributes

    def statistics(self) -> PortStatistics:
        """Return what this connection has done so far."""
        channel = self._channel
        link = channel.link.statistics()
        counters = channel.counters
        return PortStatistics(
            receives=link.receives,
            messages_received=counters.events,
            largest_batch=counters.largest,
            sends=link.sends,
            bytes_received=link.bytes_received,
            bytes_sent=link.bytes_sent,
            unsent=channel.link.unsent() if channel.ending is None else 0,
            pending=len(channel.endpoint.outflow.pending),
            owed=len(channel.endpoint.inflow.owed),
            queued=len(channel.source.packets),
            waits=counters.waits,
            cancelled=counters.cancelled,
            expired=counters.expired,
            dropped_replies=counters.dropped_replies,
            dropped_notices=counters.dropped_notices,
            lent=channel.lent,
            shared=channel.shared,
            sender_changes=counters.sender_changes,
        )

    def __repr__(self) -> str:
        return f"<CommunicationPort {self._label}{'' if self.connected else ', over'}>"

    # -- accepting ---------------------------------------------------------------------------------------------------

    def complete(self) -> None:
        """Release a client that was accepted with ``accept(complete=False)``.

        Does nothing the second time, and when the client has gone away meanwhile.

        Raises:
            PortClosed: the port was closed on this side.
            ForkedPort: called from another process, thread or event loop.
        """
        self._channel.complete()

    # -- receiving ---------------------------------------------------------------------------------------------------

    def _redirect(self, queue: PacketQueue, key: object, receiver: str) -> None:
        self._loop.check(self._label)
        self._channel.source.move(queue, key)
        self._receiver = receiver
        self._queue.wake_all()

    # -- as a stream -------------------------------------------------------------------------------------------------

    def object_stream(self) -> PortObjectStream:
        """Return this port as anyio's stream of byte strings, which owns it from now on.

        Each object is a datagram; whatever else arrives is dropped. Use the stream or the port, not both.
        """
        return PortObjectStream(self)

    def byte_stream(self) -> PortByteStream:
        """Return this port as anyio's stream of bytes, which owns it from now on. Use one of the two, not both."""
        return PortByteStream(self)

    def check_open(self) -> None:
        """Raise when the port was closed on this side.

        Raises:
            PortClosed: it was.
        """
        if isinstance(error := self._channel.ending, PortClosed):
            raise error

    # -- ending ------------------------------------------------------------------------------------------------------

    def _receive_error(self) -> AlpcError | None:
        channel = self._channel
        return None if channel.ending is None or channel.reporting else channel.ending_error()

    async def drain(self, timeout: float | None = None) -> None:
        """Wait until nothing is under way: no request of either side is open, nothing received waits, all is sent.

        New requests of the other side are turned away with ``Status.DRAINING`` from now on. Cancelling stops the wait.

        Args:
            timeout: how long to wait, in seconds; ``None`` for no end.

        Raises:
            DeadlineExceeded: something was still under way.
            Disconnected: the connection is over.
            PortClosed: the port was closed on this side.
            ForkedPort: called from another process, thread or event loop.
        """
        self._channel.check_usable()
        self._channel.set_screens(draining=True)
        await wait_until(self._is_idle, f"draining {self._label}", timeout)

    def _is_idle(self) -> bool:
        return self._channel.idle

    def _is_unused(self) -> bool:
        return self._channel.idle and (self._channel.ending is not None or not self._channel.lent)

    async def hand_over(self, timeout: float | None = None) -> PortHandle:
        """Give the connection up without a word to the other side, so that another process can go on with it.

        Pass the handle with ``handles=``; the receiver goes on with ``message.take_port()``. Waits until no request is
        open, nothing received waits, everything is sent, and the other side holds no memory of ours. A connection on
        which the other side shares memory, as it does when it sends long data, cannot be passed on. The
        process at the other end sees no change; a server that is the other end ends the connection with the first
        message of the new owner, unless it was opened with ``qos=alpc.SecurityQos(tracking="dynamic")``.

        Cancelling stops the wait and leaves the port as it was.

        Args:
            timeout: how long to wait, in seconds; ``None`` for no end.

        Returns:
            The connection, to be passed or closed. This port is closed.

        Raises:
            ValueError: a view that was allocated here is still held, the other side shares memory, or there is no
                socket.
            DeadlineExceeded: something was still under way.
            Disconnected: the connection is over.
            PortClosed: the port was closed on this side.
            ForkedPort: called from another process, thread or event loop.
        """
        from ._passing import hand_over

        self._channel.check_usable()
        await wait_until(self._is_unused, f"waiting to pass on {self._label}", timeout)
        handle = hand_over(self._channel, self._name)
        self._channel.finish("it was passed on to another process", closed=True, quiet=True)
        self._channel.close()
        if self._owns_queue:
            self._queue.close()
        return handle

    async def disconnect(self, flush: bool = True) -> None:
        """End the connection and keep the port: what was received can still be received.

        Always ends the connection, also when cancelled; may be repeated; does not raise because the peer is gone.

        Args:
            flush: let what is queued leave first, for at most ``limits.close_timeout`` seconds; ``False`` drops it.
        """
        await self._end(flush, closed=False)

    async def aclose(self) -> None:
        """Close the port. What is queued leaves first, for at most ``limits.close_timeout`` seconds.

        Requests that wait for a reply end with `PortClosed`; the other side is told. Always completes: when cancelled
        it closes at once and drops what is queued. May be repeated; does not raise because the peer is gone.
        """
        await self._end(True, closed=True)

    def _close_now(self) -> None:
        self._channel.finish("closed at once", closed=True, quiet=True)
        self._channel.close()
        if self._owns_queue:
            self._queue.close()

    async def _end(self, flush: bool, *, closed: bool) -> None:
        if self._channel.ending is None:
            self._loop.check(self._label)
        try:
            if self._channel.ending is None:
                await self._channel.say_goodbye(flush)
            else:
                await self._loop.checkpoint()
        finally:
            self._channel.finish("disconnected by this side", closed=closed, quiet=True)
            if closed:
                self._channel.close()
                if self._owns_queue:
                    self._queue.close()
            elif self._owns_queue:
                self._queue.end()

    def __del__(self) -> None:
        # Reached only when the loop that watched the connection is gone too.
        if self._channel.ending is None and not self._loop.forked:
            if self._owns_queue:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self._channel.link.close()
            self._channel.peer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


async def wait_until(condition: Callable[[], bool], what: str, timeout: float | None) -> None:
    """Look at a condition until it holds.

    Raises:
        DeadlineExceeded: it did not hold in time.
    """
    with anyio.move_on_after(timeout):
        while not condition():  # noqa: ASYNC110  # no event: see DRAIN_INTERVAL
            await anyio.sleep(DRAIN_INTERVAL)
        return
    raise DeadlineExceeded(what=what, timeout=timeout or 0.0, setting="timeout=")
