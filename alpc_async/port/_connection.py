"""The port that clients connect to, and the one place where their messages are received.

Belongs here: `ConnectionPort`: admitting clients, and what holds for all of them. Never here: one connection
(`_channel`), how names work (link).

A client passes gates, each cheaper than what it protects: the kernel's file permissions; how often its user knocks;
the security policy on what the kernel says about it, before a byte of it is read; the number of connections, of all and
of its user; and the handshake, which is bounded in bytes and time.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final, Literal

import anyio

from ..errors import PortClosed
from ..link import Listener, PinningLink, SocketLink, turn_away
from ..security import AuditTrail, Gate, kernel_features, peer_identity, peer_user
from ..wire import Endpoint, FrameType, Greeted, Role, Status, pack
from ._arrived import Arrived
from ._communication import CommunicationPort, wait_until
from ._counters import ConnectionPortStatistics
from ._message import MessageType
from ._metered import make_channel
from ._pace import PACED_RECEIVE
from ._queue import PacketQueue
from ._reaching import features_of
from ._receive import ReceivePoint
from ._source import Source
from ._users import Users, restricted

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from ..errors import AlpcError
    from ..limits import PortLimits
    from ..link import InheritedName, Loop, NameLease, StreamSocket
    from ..security import AuditRecord, Identity, Policy, SecurityQos
    from ._channel import Channel
    from ._sent import SentRequest

__all__ = ["ConnectionPort"]

SECTION_COST: Final = 16 * 1024
"""Bytes of a shared section that count as a message: finding out that 256 MiB have no holes took 33 ms."""

_TOO_MUCH: Final = pack(FrameType.REFUSE, 0, Status.USER_LIMIT)


class ConnectionPort(ReceivePoint):
    """A named port that clients connect to. Made by `listen`.

    Receive the messages of all clients here; each knows the `CommunicationPort` of its client. Use it as
    ``async with``, or call `aclose`; from any task, in any order with other ports.
    """

    def __init__(
        self,
        lease: NameLease | InheritedName,
        sock: StreamSocket,
        loop: Loop,
        *,
        name: str,
        security: Policy,
        limits: PortLimits,
        accept: Literal["auto", "manual"],
        audit: Callable[[AuditRecord], None] | None,
        qos: SecurityQos,
    ) -> None:
        self._lease = lease
        self._loop = loop
        self._label = f"port {name!r}"
        self._queue = self._target = PacketQueue(loop)
        self._name = name
        self._security = security
        self._limits = limits
        self._trail = AuditTrail(self._label, audit, loop.time)
        self._users = Users(limits, loop, self._repace)
        self._user_of: dict[Channel, int | None] = {}
        self._qos = qos
        self._pins = qos.tracking == "dynamic" and kernel_features().pins_senders
        self._manual = accept == "manual"
        self._channels: set[Channel] = set()
        self._closed = False
        self._left: list[Source] = []
        self._draining = False
        self._key: object = None
        self._accepted_before = 0
        self._refused = 0
        self._past = [0, 0, 0, 0, 0, 0, 0]
        self._listener: Listener | None = Listener(loop, sock, self._connected, turn=lease.turn)
        self._pauses = 0

    # -- facts -------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name that clients connect to."""
        return self._name

    @property
    def limits(self) -> PortLimits:
        """What this port offers; each connection has its own agreed limits."""
        return self._limits

    @property
    def connections(self) -> tuple[CommunicationPort, ...]:
        """The ports of the clients that are connected now."""
        return tuple(channel.port for channel in self._channels if channel.opened)

    def statistics(self) -> ConnectionPortStatistics:
        """Return what this port has done so far."""
        totals = list(self._past)
        for channel in self._channels:
            _add(totals, channel)
        listener = self._listener.statistics() if self._listener is not None else None
        return ConnectionPortStatistics(
            connections=len(self._channels),
            accepted=self._accepted_before + sum(channel.opened for channel in self._channels),
            refused=self._refused,
            refusals=self._trail.refusals,
            violations=totals[6],
            accept_pauses=self._pauses if listener is None else listener.paused,
            receives=totals[0],
            messages_received=totals[1],
            largest_batch=totals[2],
            sends=totals[3],
            bytes_received=totals[4],
            bytes_sent=totals[5],
            queued=sum(len(source.packets) for source in self._sources()),
        )

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"<ConnectionPort {self._name!r}, {len(self._channels)} connections{state}>"

    # -- admitting clients ---------------------------------------------------------------------------------------------

    def _connected(self, sock: StreamSocket) -> None:
        uid = peer_user(sock)
        setting = self._users.refusal(uid, self._loop.time())
        if setting:
            self._refused += 1
            who = f"uid {uid}" if uid is not None else "users who cannot be identified"
            limit = getattr(self._limits, setting, None)
            if limit is not None:
                self._trail.note_user(
                    uid, "connect", rule=f"PortLimits.{setting}", reason=f"{who}: {setting} is {limit}"
                )
            else:
                reason = f"{who}: three quarters of the descriptors that this process may open ({setting}) are taken"
                self._trail.note_user(uid, "connect", rule=setting, reason=reason)
            turn_away(sock, _TOO_MUCH)
            return
        peer = peer_identity(sock)
        gate = Gate(self._security, peer, self._trail)
        denied = gate.admit(peer) is not None
        key = self._users.key(peer)
        promised = None if denied or len(self._channels) >= self._limits.max_connections else self._users.open(key)
        channel = self._channel(sock, peer, gate, restricted(promised or self._limits, gate.rights))
        if promised is not None:
            channel.on_end = lambda channel: self._ended(channel, key, promised)
            users, label = self._users, channel.label
            self._user_of[channel] = key
            channel.section_account = lambda sections, size: self._count_section(channel, key, sections, size)
            channel.lent_account = lambda size: users.lend(key, size, label)
            channel.handle_tally = users.handles(key)
            self._set_pace(channel, key)
            channel.watch_peer()
            channel.await_greeting(lambda event: self._greeted(channel, event))
        elif denied:
            channel.refuse(Status.ACCESS_DENIED, b"")
        elif len(self._channels) > self._limits.max_connections:
            self._note_limit(gate, "max_connections", "as many connections as it may")
            channel.refuse(Status.TOO_MANY_CONNECTIONS, b"")
        else:
            setting = self._users.exhausted(key)
            self._note_limit(gate, setting, f"nothing left to promise to another connection of {peer}")
            channel.refuse(Status.USER_LIMIT, b"")

    def _count_section(self, channel: Channel, key: int | None, sections: int, size: int) -> None:
        if sections > 0:
            channel.keep_pace(size // SECTION_COST)
        self._users.share(key, sections, size, channel.label)

    def _set_pace(self, channel: Channel, key: int | None) -> None:
        pace = self._users.pace(key)
        if pace is channel.pace:
            return
        channel.set_pace(pace)
        if isinstance(channel.link, SocketLink):
            channel.link.receive_at_most(PACED_RECEIVE if pace is not None else 0)

    def _repace(self) -> None:
        for channel, key in self._user_of.items():
            self._set_pace(channel, key)

    def _note_limit(self, gate: Gate, setting: str, reason: str) -> None:
        limit = getattr(self._limits, setting)
        gate.note("connect", rule=f"PortLimits.{setting}", reason=f"the port has {reason}: {limit}")

    def _channel(self, sock: StreamSocket, peer: Identity, gate: Gate, limits: PortLimits) -> Channel:
        label, features = f"port {self._name!r}, client {peer}", features_of(limits)
        endpoint: Endpoint[SentRequest] = Endpoint(Role.SERVER, limits, label=label, features=features)
        water = limits.high_water, limits.low_water
        link = (
            PinningLink(sock, self._loop, high_water=water[0], low_water=water[1])
            if self._pins
            else SocketLink(sock, self._loop, high_water=water[0], low_water=water[1], senders=True)
        )
        channel = make_channel(endpoint, link, self._loop, peer, Source(self._target, self._key))
        CommunicationPort(channel, receiver=self._label)
        # A connection on which we wait for answers ourselves is never stopped: the answers come through it too.
        channel.source.throttle = lambda paused: link.pause(paused and not endpoint.outflow.pending)
        channel.source.in_flight = lambda: endpoint.limits.max_pool_usage - endpoint.inflow.free_bytes
        channel.gate = gate
        channel.follows_senders = self._qos.tracking == "dynamic"
        channel.on_end = self._ended
        channel.set_screens(draining=self._draining, listens_only=gate.listens_only)
        self._channels.add(channel)
        self._show_connections()
        link.start(channel)
        return channel

    def _greeted(self, channel: Channel, event: Greeted) -> None:
        allowed = channel.note_qos(event.level, event.dynamic)
        if self._draining:
            channel.refuse(Status.DRAINING, b"")
        elif event.level < self._qos.level:
            reason = f"the client lets us {allowed.level.name.lower()}, and {self._qos.level.name.lower()} is needed"
            channel.complain("connect", "listen(qos=...)", reason)
            channel.refuse(Status.QOS_TOO_LOW, b"")
        elif self._manual:
            channel.source.put([Arrived(MessageType.CONNECTION_REQUEST, 0, event.data, channel=channel)])
        else:
            channel.accept(b"", None, complete=True)

    def _sources(self) -> list[Source]:
        # Those of clients that have left count as long as something of theirs was not received.
        self._left = [source for source in self._left if source.packets]
        return [*(channel.source for channel in self._channels), *self._left]

    def _ended(self, channel: Channel, user: int | None = None, promised: PortLimits | None = None) -> None:
        self._channels.discard(channel)
        self._show_connections()
        if promised is not None:
            del self._user_of[channel]
            self._users.close(user, promised)
        if channel.opened:
            self._accepted_before += 1
        else:
            # A connection request that nobody has taken is void.
            channel.source.clear()
        self._refused += channel.refused
        self._left = [*self._sources(), channel.source][len(self._channels) :]
        _add(self._past, channel)

    def _show_connections(self) -> None:
        if self._lease.turn is not None:
            self._lease.turn.show(len(self._channels))

    # -- receiving ---------------------------------------------------------------------------------------------------

    def _redirect(self, queue: PacketQueue, key: object, receiver: str) -> None:
        self._loop.check(self._label)
        self._target = queue
        self._key = key
        self._receiver = receiver
        for source in self._sources():
            source.move(queue, key)
        self._queue.wake_all()

    # -- ending --------------------------------------------------------------------------------------------------------

    def _receive_error(self) -> AlpcError | None:
        return PortClosed(port=self._label) if self._closed else None

    def stop_listening(self) -> None:
        """Take no more clients and give the name up; those that are connected stay. Calling again does nothing.

        A port that was opened for one client stops listening once it has it: afterwards nobody else can connect.

        Raises:
            ForkedPort: called from another process, thread or event loop.
        """
        self._loop.check(self._label)
        if self._listener is not None:
            self._pauses = self._listener.statistics().paused
            self._lease.release()
            self._listener.stop()
            self._listener = None

    async def drain(self, timeout: float | None = None) -> None:
        """Stop listening, and wait until nothing is under way on any connection.

        New requests are turned away with ``Status.DRAINING`` from now on; what was received before is to be answered
        as usual. Cancelling stops the wait, and the port stays as it is. Close it afterwards.

        Args:
            timeout: how long to wait, in seconds; ``None`` for no end.

        Raises:
            DeadlineExceeded: something was still under way.
            PortClosed: the port was closed on this side.
        """
        if self._closed:
            raise PortClosed(port=self._label)
        self._loop.check(self._label)
        self.stop_listening()
        self._draining = True
        for channel in self._channels:
            channel.set_screens(draining=True)
        await wait_until(self._is_idle, f"draining {self._label}", timeout)

    def _is_idle(self) -> bool:
        return all(channel.idle for channel in self._channels) and not any(s.packets for s in self._sources())

    async def aclose(self) -> None:
        """Close the port and all of its connections, and give the name up.

        What is queued leaves first, for at most ``limits.close_timeout`` seconds. Always completes: when cancelled it
        closes at once and drops what is queued. May be repeated; does not raise because clients are gone.
        """
        if not self._closed:
            self._loop.check(self._label)
        self._closed = True
        try:
            if self._listener is not None:
                self.stop_listening()
            channels = list(self._channels)
            async with anyio.create_task_group() as tasks:
                for channel in channels:
                    tasks.start_soon(channel.port.aclose)
        finally:
            for channel in list(self._channels):
                channel.finish("the server closed the port", closed=True, quiet=True)
                channel.close()
            for source in self._left:
                source.clear()
            self._queue.close()

    def _close_now(self) -> None:
        self._closed = True
        self.stop_listening()
        self._queue.close()

    def __del__(self) -> None:
        # Reached only when the loop that watched the socket is gone too.
        if not self._closed and not self._loop.forked:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            if self._listener is not None:
                self._lease.release()
                self._listener.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _add(totals: list[int], channel: Channel) -> None:
    link = channel.link.statistics()
    counters = channel.counters
    totals[0] += link.receives
    totals[1] += counters.events
    totals[2] = max(totals[2], counters.largest)
    totals[3] += link.sends
    totals[4] += link.bytes_received
    totals[5] += link.bytes_sent
    totals[6] += counters.violations
