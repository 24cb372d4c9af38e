"""Connecting to a service: a port with a typed proxy on it.

Belongs here: `connect`, `bind`, the client's end of a connection. Never here: finding a name without being told
(`_mapper`), calls (`_proxy`).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec

from ..completion import CompletionPort, core_of
from ..contract_errors import TypeMismatch, UnknownInterface
from ..errors import AccessDenied, RemoteFault
from ..link import current_loop
from ..port import CommunicationPort, MessageType, Opening, PacketQueue
from ..port import connect as connect_port
from ..security import SAME_USER_OR_ROOT
from ..wire import Status
from ._dispatcher import Dispatcher
from ._fingerprint import contract_fingerprint
from ._handler import handle
from ._interface import Interface, contract_of
from ._layout import BIND, CONNECTION, Bind, Bound, encode, pack_call
from ._proxy import check_is_interface, make_proxy, state_of
from ._session import Services, Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from typing_extensions import Buffer

    from ..limits import PortLimits
    from ..link import Loop
    from ..port import Arrived, Message
    from ..security import Policy, SecurityQos
    from ._contract import Contract
    from ._dispatcher import Worker
    from ._interceptor import Interceptor
    from ._reconnect import Reconnect
    from ._schema import InterfaceSchema

__all__ = ["ClientEnd", "bind", "connect", "open_client"]

InterfaceT = TypeVar("InterfaceT", bound=Interface)

_logger = logging.getLogger("alpc_async.service")
_decode_bound = msgspec.msgpack.Decoder(Bound).decode

MAX_CALLBACKS = 256
"""Calls of the server that a client handles at the same time."""


class ClientEnd:
    """The client's end of a connection: handles what the server sends, and knows the objects of both sides.

    Args:
        port: the connection; owned from now on.
        interceptors: what stands around each call, the outermost first.
        services: what the client itself serves, if it does.
    """

    def __init__(
        self, port: CommunicationPort, interceptors: Sequence[Interceptor] = (), services: Services | None = None
    ) -> None:
        loop = current_loop()
        self._port = port
        self._completion_port = CompletionPort()
        self._completion_port.associate(port)
        if services is None:
            limits = port.limits
            services = Services({}, max_objects=limits.max_objects, max_depth=limits.max_call_depth)
        self._dispatcher = Dispatcher(loop, core_of(self._completion_port).queue, self._route, maximum=MAX_CALLBACKS)
        self.session = Session(port, loop, services, self._dispatcher, interceptors)
        self._dispatcher.start()

    def _route(self, message: Arrived, worker: Worker) -> Coroutine[Any, Any, None]:
        if message.type is MessageType.REQUEST or message.type is MessageType.DATAGRAM:
            return handle(self.session, message, worker)
        return self._notice(message)

    async def _notice(self, message: Message) -> None:
        if message.type is MessageType.LOST_REPLY:
            self.session.reply_lost(message.id)
        elif message.type is not MessageType.CANCELED:
            await self.session.end()

    @property
    def connected(self) -> bool:
        """Whether the connection is still there, as far as is known."""
        return self._port.connected

    async def aclose(self) -> None:
        """Close the connection, and run down what the server held. Completes also when cancelled; may be repeated."""
        self._dispatcher.cancel()
        try:
            await self._port.aclose()
        finally:
            self._completion_port.close()
            # What the server held is run down in the background: closing must not wait for the user's own code.
            if not self.session.over:
                self._dispatcher.spawn(self.session.end, "alpc_async client end")

    async def bind(self, interface: type[InterfaceT], timeout: float | None = None) -> InterfaceT:
        """Return a proxy for another interface that the server serves on this connection.

        Raises like `bind`. Cancelling leaves the connection as it is.

        Args:
            interface: the interface.
            timeout: time for the answer, in seconds; by default that of requests.
        """
        return await bind_session(self.session, interface, timeout)

    async def bind_number(self, schema: InterfaceSchema) -> int:
        """Return the number of the object that serves an interface of which only the description is known.

        Raises like `bind`. Cancelling leaves the connection as it is.

        Args:
            schema: the description.
        """
        return (await _ask(self.session, schema.name, schema.uuid, schema.version)).object


async def bind_session(session: Session, interface: type[InterfaceT], timeout: float | None = None) -> InterfaceT:
    """Ask the other side of a connection for the object that serves an interface; raises like `bind`."""
    contract = contract_of(interface)
    bound = await _ask(session, contract.name, contract.uuid, contract.version, timeout)
    _compare(session, contract, bound)
    proxy = make_proxy(session, interface, bound.object)
    session.imports.add(bound.object, proxy)
    return proxy


def _compare(session: Session, contract: Contract, bound: Bound) -> None:
    """Tell in the log when both sides have the same version of a contract and not the same contract."""
    if bound.minor != contract.version[1] or not bound.fingerprint:
        return
    ours = contract_fingerprint(contract)
    if ours and ours != bound.fingerprint:
        _logger.warning(
            "%s: both sides have version %d.%d of %s, and their contracts differ (here %s, there %.16s): one of them "
            "was changed without a new version; raise it there, and look with 'alpc schema check'",
            session.port,
            *contract.version,
            contract.name,
            ours,
            bound.fingerprint,
        )


async def _ask(session: Session, name: str, uuid: str, version: tuple[int, int], timeout: float | None = None) -> Bound:
    most = session.port.limits.request_timeout
    data = pack_call(CONNECTION, BIND, 0) + encode(Bind(uuid, *version))

    def drop(answer: Message) -> None:
        session.release_number(_decode_bound(answer.data).object)

    try:
        answer = await session.request(data, most if timeout is None else min(most, timeout), drop)
        return _decode_bound(answer.data)
    except RemoteFault as fault:
        if fault.status == Status.UNKNOWN_INTERFACE:
            raise UnknownInterface(interface=name, uuid=uuid, version=version, offered=fault.reason) from None
        if fault.status == Status.ACCESS_DENIED:
            raise AccessDenied(what=f"use {name}", reason=fault.reason) from None
        raise
    except msgspec.MsgspecError as error:
        raise TypeMismatch(
            where=f"binding {name}, answer of the other side", detail=f"{error}; is that a typed service?"
        ) from None


class _NoDispatcher(Dispatcher):
    """Handles nothing, and runs what would run in the background in the foreground."""

    def spawn(self, function: Callable[[], Any], name: str) -> None:
        self._loop.spawn(function, name=name, context=self._context)


def lone_session(port: CommunicationPort, loop: Loop) -> Session:
    """Return a session that can call and cannot be called, for loops on which no tasks run.

    Args:
        port: the connection.
        loop: its loop.
    """
    services = Services({}, max_objects=1, max_depth=0)
    queue = PacketQueue(loop)
    dispatcher = _NoDispatcher(loop, queue, lambda _message, _worker: _nothing(), maximum=1)
    return Session(port, loop, services, dispatcher)


async def _nothing() -> None:
    return None


async def bind(proxy: Interface, interface: type[InterfaceT]) -> InterfaceT:
    """Use another interface of the same server on the same connection.

    Cancelling leaves the connection as it is.

    Args:
        proxy: any proxy of the connection.
        interface: the interface.

    Returns:
        A proxy for it; closing it does not close the connection.

    Raises:
        UnknownInterface: the server does not serve it, or not in a version that fits.
        AccessDenied: the server does not let us use it.
        RemoteFault: the server is shutting down, or does not speak the protocol of services.
        Disconnected: the connection is over.
        TypeMismatch: the object is no proxy.
    """
    return await bind_session(state_of(proxy).session, interface)


async def open_client(
    port: CommunicationPort,
    interface: type[InterfaceT],
    interceptors: Sequence[Interceptor] = (),
    *,
    timeout: float | None = None,
    companion: Callable[[], Awaitable[None]] | None = None,
) -> InterfaceT:
    """Make a proxy over a port, which belongs to the proxy from now on; it is closed when this fails.

    Args:
        port: the connection.
        interface: what the other side has to serve.
        interceptors: what stands around each call, the outermost first.
        timeout: time for the other side to say that it serves the interface, in seconds; by default that of requests.
        companion: closes what has to be closed after the connection, and when this fails.
    """
    end = ClientEnd(port, interceptors)

    async def close() -> None:
        try:
            await end.aclose()
        finally:
            if companion is not None:
                await companion()

    try:
        proxy = await end.bind(interface, timeout)
    except BaseException:
        await close()
        raise
    state_of(proxy).close = close
    return proxy


@overload
def connect(
    name: str,
    interface: None = None,
    *,
    server: Policy = ...,
    data: Buffer = ...,
    limits: PortLimits | None = ...,
    qos: SecurityQos | None = ...,
    timeout: float | None = ...,
) -> Opening[CommunicationPort]: ...


@overload
def connect(
    name: str | None = None,
    *,
    interface: type[InterfaceT],
    server: Policy = ...,
    data: Buffer = ...,
    limits: PortLimits | None = ...,
    qos: SecurityQos | None = ...,
    timeout: float | None = ...,
    interceptors: Sequence[Interceptor] = ...,
    reconnect: Reconnect | None = ...,
) -> Opening[InterfaceT]: ...


@overload
def connect(
    name: str,
    interface: type[InterfaceT],
    *,
    server: Policy = ...,
    data: Buffer = ...,
    limits: PortLimits | None = ...,
    qos: SecurityQos | None = ...,
    timeout: float | None = ...,
    interceptors: Sequence[Interceptor] = ...,
    reconnect: Reconnect | None = ...,
) -> Opening[InterfaceT]: ...


def connect(
    name: str | None = None,
    interface: type[Any] | None = None,
    *,
    server: Policy = SAME_USER_OR_ROOT,
    data: Buffer = b"",
    limits: PortLimits | None = None,
    qos: SecurityQos | None = None,
    timeout: float | None = 5.0,
    interceptors: Sequence[Interceptor] = (),
    reconnect: Reconnect | None = None,
) -> Opening[Any]:
    """Connect to a named port, and with an interface to the service that it offers.

    ::

        async with alpc.connect("demo.echo") as port:
            reply = await port.request(b"hello")

        async with alpc.connect("demo.digest", Digest) as digest:
            await digest.sha256(b"hello")

    Args:
        name: the port name. Without it the endpoint mapper is asked who serves the interface.
        interface: what the server has to serve; the result is then a proxy that is an instance of it.
        server: who the server must be, checked before a byte is sent; by default the same user or root.
        data: connect data for the server, at most ``limits.max_connect_data`` bytes.
        limits: quotas; by default those of `PortLimits`. The smaller ones of both sides count.
        qos: what the server may do with our identity; by default know it (``identify``) and nothing more.
        timeout: time for connecting, and with an interface as much again for the server to say that it serves it, in
            seconds; ``None`` for no end. Calls have ``limits.request_timeout``.
        interceptors: what stands around each call of the proxy, the outermost first.
        reconnect: connect again by itself when the server has gone away; by default the proxy ends with its server.

    Returns:
        The port or the proxy, to be entered or awaited. Cancelling that leaves nothing behind.

    Raises:
        TypeError: the name, the policy, the limits or the data are of another type.
        InvalidInterface: the class is no interface.
        InvalidName: when opened: the text is not a port name.
        NameNotFound: when opened: nobody listens under the name.
        AccessDenied: when opened: the kernel or the server's policy does not admit us.
        ServerIdentityMismatch: when opened: the listener is not who ``server`` requires; nothing was sent to it.
        ConnectionRefused: when opened: the server declined.
        UnknownInterface: when opened: the server does not serve the interface, or not in a version that fits.
        DeadlineExceeded: when opened: the server did not answer in time.
        Disconnected: when opened: the server went away meanwhile.
        MessageTooLong: when opened: the connect data is too long.
        ProtocolViolation: when opened: what listens there does not speak the protocol.
    """
    if interface is None:
        if name is None:
            raise TypeError("connect() needs the name of a port, an interface, or both")
        return connect_port(name, server=server, data=data, limits=limits, qos=qos, timeout=timeout)
    check_is_interface(interface)
    what = f"alpc.connect({name!r}, {interface.__name__})"

    def to(found: str) -> Opening[CommunicationPort]:
        return connect_port(found, server=server, data=data, limits=limits, qos=qos, timeout=timeout)

    async def open_port() -> CommunicationPort:
        if name is not None:
            return await to(name)
        from ._mapper import connect_found

        return await connect_found(interface, server, to)

    if name is not None:
        # Wrong arguments are told now, not when the connection is opened.
        to(name)
    if reconnect is not None:
        from ._reconnect import open_reconnecting

        return Opening(partial(open_reconnecting, reconnect, open_port, interface, interceptors), what)
    return Opening(partial(_open, open_port, interface, interceptors, timeout), what)


async def _open(
    open_port: Callable[[], Awaitable[CommunicationPort]],
    interface: type[InterfaceT],
    interceptors: Sequence[Interceptor],
    timeout: float | None,
) -> InterfaceT:
    return await open_client(await open_port(), interface, interceptors, timeout=timeout)
