"""Opening ports: by name as a server, by name as a client, or as a pair.

Belongs here: `listen`, `connect`, `port_pair`. Never here: what ports do once they are open.

`listen` and `connect` return an `Opening`, to be entered or awaited, so that a port one holds is always open.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, NoReturn, Protocol, TypeVar

import anyio

from ..errors import (
    AccessDenied,
    ConnectionRefused,
    DeadlineExceeded,
    Disconnected,
    ServerIdentityMismatch,
)
from ..limits import PortLimits
from ..link import InheritedName, NameLease, SocketLink, current_loop, dial, inherited_name, socket_pair
from ..security import SAME_USER_OR_ROOT, SecurityQos, own_identity, peer_identity, socket_access
from ..wire import Endpoint, PeerClosed, Refused, Role, Status, Violated, Welcomed
from ._communication import CommunicationPort
from ._connection import ConnectionPort
from ._message import as_bytes
from ._metered import make_channel
from ._queue import PacketQueue
from ._reaching import features_of
from ._receive import close_now
from ._source import Source

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping
    from types import TracebackType

    from typing_extensions import Buffer

    from ..link import Link, Loop, StreamSocket
    from ..security import AuditRecord, Identity, Policy
    from ..wire import Event
    from ._channel import Channel
    from ._sent import SentRequest

__all__ = [
    "Opening",
    "PortPair",
    "check_arguments",
    "connect",
    "listen",
    "open_connection",
    "open_pair",
    "pair_end",
    "port_pair",
]


class Closable(Protocol):
    """What can be opened: anything with `aclose`."""

    async def aclose(self) -> None: ...


PortT = TypeVar("PortT", bound=Closable)


class Opening(Generic[PortT]):
    """A port that is about to be opened: ``async with opening as port:`` or ``port = await opening``.

    Entering opens the port and leaving closes it; awaiting opens it and leaves the closing to the caller. Usable once.

    Args:
        open: opens the port.
        what: the call that made it, for messages.
    """

    __slots__ = ("_open", "_port", "_used", "_what")

    def __init__(self, open: Callable[[], Awaitable[PortT]], what: str) -> None:
        self._open = open
        self._what = what
        self._used = False
        self._port: PortT | None = None

    def __await__(self) -> Generator[Any, Any, PortT]:
        return self._opened().__await__()

    if not TYPE_CHECKING:  # a type checker must not believe that every name is there

        def __getattr__(self, name: str) -> NoReturn:
            what = self._what if name != "_what" else "the port"
            raise AttributeError(
                f"{what} is not open yet and has no {name!r}; write 'async with {what} as port:' or "
                f"'port = await {what}'"
            )

    def __enter__(self) -> NoReturn:
        raise TypeError(f"{self._what} is opened with 'async with', not with 'with'")

    def __exit__(self, *_error: object) -> None: ...

    if not TYPE_CHECKING:  # a type checker must not believe that it can be iterated over

        def __aiter__(self) -> NoReturn:
            raise TypeError(f"{self._what} is not open yet; write 'async with {self._what} as port:' around the loop")

    def __del__(self) -> None:
        if not getattr(self, "_used", True):
            warnings.warn(f"{self._what} was never entered or awaited", RuntimeWarning, stacklevel=2, source=self)

    async def _opened(self) -> PortT:
        if self._used:
            raise RuntimeError(f"{self._what} was opened already; call it again for another one")
        self._used = True
        return await self._open()

    async def __aenter__(self) -> PortT:
        self._port = await self._opened()
        return self._port

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._port is not None:
            await self._port.aclose()


class Association(Protocol):
    """What messages of a port can be sent to: a completion port."""

    def associate(self, port: ConnectionPort | CommunicationPort, key: object = None) -> None: ...


def check_arguments(name: object, policy_argument: str, policy: object, limits: object) -> None:
    """Check what a port is to be opened with, when it is called for: the mistake is there, and nothing is open yet.

    Args:
        name: the port name.
        policy_argument: ``"security"``, which has a default, or ``"server"``.
        policy: its value.
        limits: the quotas.

    Raises:
        TypeError: one of them is of another type.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a port is a str, not {type(name).__name__}")
    if limits is not None and not isinstance(limits, PortLimits):
        raise TypeError(f"limits must be alpc.PortLimits(...), not {type(limits).__name__}")
    if policy_argument == "security" and policy is None:
        return
    if not callable(getattr(policy, "judge", None)):
        raise TypeError(
            f"{policy_argument} must be a policy such as alpc.SAME_USER_OR_ROOT, alpc.ANYONE or alpc.require(...), "
            f"not {type(policy).__name__}"
        )


def listen(
    name: str,
    *,
    security: Policy | None = None,
    limits: PortLimits | None = None,
    completion_port: Association | None = None,
    key: object = None,
    accept: Literal["auto", "manual"] = "auto",
    audit: Callable[[AuditRecord], None] | None = None,
    qos: SecurityQos | None = None,
) -> Opening[ConnectionPort]:
    """Open a named port that clients connect to.

    ::

        async with alpc.listen("demo.echo") as port:
            async for batch in port:
                for message in batch:
                    if message.type is alpc.MessageType.REQUEST:
                        message.reply(message.data)

    Args:
        name: letters, digits, dots, dashes and underscores, at most 80 bytes.
        security: who may connect; by default the same user and root.
        limits: quotas; by default those of `PortLimits`.
        completion_port: where the messages go instead of to the port itself.
        key: completion key for it.
        accept: ``"auto"`` lets in whom ``security`` admits; ``"manual"`` asks with a message of type
            ``CONNECTION_REQUEST`` for each client.
        audit: called with a record of each refusal, in the loop's thread, so it must not block; a flood of one user is
            cut to a few and a count. The same records go to the logger ``alpc_async.audit`` in any case.
        qos: the least level that clients must allow, by default ``anonymous``; and whether messages may come from
            others than whoever connected (``tracking="dynamic"``), by default not.

    Returns:
        The port, to be entered or awaited. Cancelling that leaves nothing behind.

    Raises:
        ValueError: ``accept`` is neither ``"auto"`` nor ``"manual"``.
        TypeError: the name, the policy or the limits are of another type.
        PortClosed: when opened: the completion port was closed.
        InvalidName: when opened: the text is not a port name.
        NameCollision: when opened: a live port has the name.
        UnsafeDirectory: when opened: others could tamper with the directory of names.
        AccessDenied: when opened: the directory cannot be written.
    """
    if accept not in ("auto", "manual"):
        raise ValueError(f"accept must be 'auto' or 'manual', not {accept!r}")
    check_arguments(name, "security", security, limits)
    policy = security if security is not None else SAME_USER_OR_ROOT
    port_limits = limits if limits is not None else PortLimits()
    needed = qos if qos is not None else SecurityQos("anonymous")

    async def open_port() -> ConnectionPort:
        loop = current_loop()
        await loop.checkpoint()
        access = socket_access(policy)
        inherited = inherited_name(name, port_limits.backlog)
        lease: NameLease | InheritedName
        if inherited is not None:
            lease, sock = inherited
        else:
            lease = NameLease.acquire(name, shared=policy.admits_others)
            try:
                sock = lease.bind(
                    access.mode, port_limits.backlog, gid=access.gid, users=access.users, groups=access.groups
                )
            except BaseException:
                lease.release()
                raise
        port = ConnectionPort(
            lease, sock, loop, name=name, security=policy, limits=port_limits, accept=accept, audit=audit,
            qos=needed,
        )  # fmt: skip
        try:
            if completion_port is not None:
                completion_port.associate(port, key)
        except BaseException:
            close_now(port)
            raise
        return port

    return Opening(open_port, f"alpc.listen({name!r})")


def connect(
    name: str,
    *,
    server: Policy = SAME_USER_OR_ROOT,
    data: Buffer = b"",
    limits: PortLimits | None = None,
    qos: SecurityQos | None = None,
    timeout: float | None = 5.0,
) -> Opening[CommunicationPort]:
    """Connect to a named port.

    ::

        async with alpc.connect("demo.echo") as port:
            reply = await port.request(b"hello")

    Args:
        name: the port name.
        server: who the server must be, checked before a byte is sent; by default the same user or root.
        data: connect data for the server, at most ``limits.max_connect_data`` bytes.
        limits: quotas; by default those of `PortLimits`. The smaller ones of both sides count.
        qos: what the server may do with our identity; by default know it (``identify``) and nothing more.
        timeout: time for the whole of it, in seconds; ``None`` for no end.

    Returns:
        The port, to be entered or awaited. Cancelling that leaves nothing behind.

    Raises:
        TypeError: the name, the policy, the limits or the data are of another type.
        InvalidName: when opened: the text is not a port name.
        NameNotFound: when opened: nobody listens under the name.
        AccessDenied: when opened: the kernel or the server's policy does not admit us.
        ServerIdentityMismatch: when opened: the listener is not who ``server`` requires; nothing was sent to it.
        ConnectionRefused: when opened: the server declined.
        DeadlineExceeded: when opened: the server did not answer in time.
        Disconnected: when opened: the server went away meanwhile.
        MessageTooLong: when opened: the connect data is too long.
        ProtocolViolation: when opened: what listens there does not speak the protocol.
    """
    check_arguments(name, "server", server, limits)
    payload = as_bytes(data)
    port_limits = limits if limits is not None else PortLimits()
    allowed = qos if qos is not None else SecurityQos()

    async def open_port() -> CommunicationPort:
        with anyio.move_on_after(timeout):
            return await open_connection(current_loop(), name, server, port_limits, payload, allowed)
        raise DeadlineExceeded(what=f"connecting to port {name!r}", timeout=timeout or 0.0, setting="timeout=")

    return Opening(open_port, f"alpc.connect({name!r})")


async def open_connection(
    loop: Loop, name: str, server: Policy, limits: PortLimits, data: bytes, qos: SecurityQos
) -> CommunicationPort:
    """Connect to a named port, on any loop and without an end; arguments and errors like `connect`."""
    sock, _ = await dial(loop, name)
    channel = _client_channel(sock, loop, name, server, limits)
    channel.endpoint.level, channel.endpoint.dynamic = qos.level, qos.tracking == "dynamic"
    try:
        await _greet(channel, name, data)
    except BaseException:
        channel.finish("connecting failed", closed=True, quiet=True)
        raise
    return channel.port


def _client_channel(sock: StreamSocket, loop: Loop, name: str, server: Policy, limits: PortLimits) -> Channel:
    peer: Identity | None = None
    try:
        peer = peer_identity(sock)
        if server.judge(peer) is not None:
            raise ServerIdentityMismatch(name=name, identity=peer, required=server)
    except BaseException:
        sock.close()
        if peer is not None:
            peer.close()
        raise
    label, features = f"connection to port {name!r}", features_of(limits)
    endpoint: Endpoint[SentRequest] = Endpoint(Role.CLIENT, limits, label=label, features=features)
    link = SocketLink(sock, loop, high_water=limits.high_water, low_water=limits.low_water)
    if limits.max_view_size or limits.max_handles:
        # The server may share something with its very first bytes, and this side has judged it already.
        link.allow_handles()
    channel = _channel(endpoint, link, loop, peer)
    channel.offer_memory()
    CommunicationPort(channel, name=name)
    return channel


def _channel(endpoint: Endpoint[SentRequest], link: Link, loop: Loop, peer: Identity) -> Channel:
    queue = PacketQueue(loop)
    channel = make_channel(endpoint, link, loop, peer, Source(queue, None))
    channel.on_end = lambda _: queue.end()
    return channel


async def _greet(channel: Channel, name: str, data: bytes) -> None:
    waiter = channel.loop.create_waiter()
    answers: list[Event[SentRequest]] = []

    def answered(event: Event[SentRequest]) -> None:
        channel.on_greeting = None
        answers.append(event)
        channel.opened = isinstance(event, Welcomed)
        if channel.opened:
            channel.settle_limits()
        if not waiter.done():
            waiter.set_result(None)

    channel.on_greeting = answered
    channel.link.start(channel)
    channel.endpoint.hello(data)
    channel.link.flush()
    await waiter
    answer = answers[0]
    if isinstance(answer, Welcomed):
        channel.connect_data = answer.data
        channel.note_qos(answer.level, answer.dynamic)
    elif isinstance(answer, Violated):
        raise answer.error
    elif isinstance(answer, Refused):
        raise _refusal(name, answer)
    elif isinstance(answer, PeerClosed) and answer.status == Status.WRONG_VERSION:
        raise ConnectionRefused(name=name, status=answer.status, reason=answer.reason)
    else:
        reason = answer.reason if isinstance(answer, PeerClosed) else "the server went away"
        raise Disconnected(port=f"connection to port {name!r}", reason=reason)


_REFUSALS: Final[Mapping[int, str]] = {
    Status.TOO_MANY_CONNECTIONS: "it has as many connections as it may (PortLimits.max_connections)",
    Status.USER_LIMIT: "our user has as many connections as one user may, or opens them too fast "
    "(PortLimits.max_user_connections, max_user_handshakes)",
    Status.DRAINING: "it is shutting down",
}


def _refusal(name: str, answer: Refused) -> AccessDenied | ConnectionRefused:
    if answer.status == Status.QOS_TOO_LOW:
        reason = "it needs to do more with our identity than qos= allows; pass connect(qos=...) with a higher level"
        return AccessDenied(what=f"connect to port {name!r}", reason=reason)
    if answer.status == Status.ACCESS_DENIED:
        return AccessDenied(what=f"connect to port {name!r}", reason="the server's security policy does not admit us")
    reason = _REFUSALS.get(answer.status, f"status {answer.status}")
    return ConnectionRefused(name=name, status=answer.status, reason=reason, data=answer.data)


class PortPair(NamedTuple):
    """Two connected ports: unpack it, await it, or use it as ``async with port_pair() as (left, right):``."""

    left: CommunicationPort
    right: CommunicationPort

    def __await__(self) -> Generator[Any, Any, PortPair]:
        return self._opened().__await__()

    async def _opened(self) -> PortPair:
        await anyio.lowlevel.checkpoint()
        return self

    async def __aenter__(self) -> PortPair:
        await anyio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.left.aclose()
        finally:
            await self.right.aclose()


def port_pair(*, limits: PortLimits | None = None) -> PortPair:
    """Make two communication ports that are connected to each other, without a name.

    Must be called where an event loop runs.

    Args:
        limits: quotas of both; by default those of `PortLimits`.

    Returns:
        Both ports. Each has to be closed; leaving ``async with port_pair()`` closes both.

    Raises:
        OSError: no descriptors are left.
    """
    pair_limits = limits if limits is not None else PortLimits()
    loop = current_loop()
    high, low = pair_limits.high_water, pair_limits.low_water
    left, right = (SocketLink(sock, loop, high_water=high, low_water=low) for sock in socket_pair())
    return open_pair(left, right, loop, pair_limits)


def open_pair(left: Link, right: Link, loop: Loop, limits: PortLimits, *, identity: Identity | None = None) -> PortPair:
    """Make two connected ports over two connected links, which they own from now on.

    Args:
        left: one end.
        right: the other end.
        loop: the running loop.
        limits: quotas of both.
        identity: whom the right port sees at the other end; by default this process, as the left port does.
    """
    return PortPair(
        pair_end(left, loop, limits, Role.CLIENT, own_identity()),
        pair_end(right, loop, limits, Role.SERVER, identity if identity is not None else own_identity()),
    )


def pair_end(link: Link, loop: Loop, limits: PortLimits, role: Role, peer: Identity) -> CommunicationPort:
    """Return one end of a pair, over a link that it owns from now on."""
    label, features = f"{role.value} end of a port pair", features_of(limits)
    endpoint: Endpoint[SentRequest] = Endpoint(role, limits, label=label, features=features)
    endpoint.open_pair(limits)
    channel = _channel(endpoint, link, loop, peer)
    channel.opened = True
    channel.settle_limits()
    port = CommunicationPort(channel)
    link.start(channel)
    return port
