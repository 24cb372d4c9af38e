"""Connecting to a service: a port with a typed proxy on it.

Belongs here: `connect`, `bind`. Never here: finding a name without being told (`_mapper`), the client's end of a
connection (`_client_end`), calls (`_calling`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, overload

from ..port import CommunicationPort, Opening, as_bytes, check_arguments
from ..port import connect as connect_port
from ..security import SAME_USER_OR_ROOT
from ._client_end import ClientEnd, bind_session
from ._interface import Interface
from ._proxy import check_is_interface, state_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from typing_extensions import Buffer

    from ..limits import PortLimits
    from ..security import Policy, SecurityQos
    from ._interceptor import Interceptor
    from ._reconnect import Reconnect

__all__ = ["bind", "connect", "open_client"]

InterfaceT = TypeVar("InterfaceT", bound=Interface)


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


class PortOptions(TypedDict, total=False):
    """What `connect` takes beside the name of a port; see there."""

    server: Policy
    data: Buffer
    limits: PortLimits | None
    qos: SecurityQos | None
    timeout: float | None


class ServiceOptions(PortOptions, total=False):
    """What `connect` takes beside the name of a service and its interface; see there."""

    interceptors: Sequence[Interceptor]
    reconnect: Reconnect | None


@overload
def connect(name: str, interface: None = None, **options: Unpack[PortOptions]) -> Opening[CommunicationPort]: ...


@overload
def connect(name: str, interface: type[InterfaceT], **options: Unpack[ServiceOptions]) -> Opening[InterfaceT]: ...


@overload
def connect(
    name: str | None = None, *, interface: type[InterfaceT], **options: Unpack[ServiceOptions]
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
        check_arguments(name, "server", server, limits)
        as_bytes(data)
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
