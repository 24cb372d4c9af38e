"""Serving objects under a port name.

Belongs here: `serve`, `ServicePort`. Never here: what stands behind a service port (`_service`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..completion import CompletionPort
from ..contract_errors import InvalidInterface
from ..limits import PortLimits
from ..port import Opening, check_arguments, listen
from ..security import SAME_USER_OR_ROOT
from ._implement import implement, implemented_contracts
from ._interface import Interface, contract_of, is_interface
from ._management import add_management
from ._objects import Root
from ._service import Service
from ._session import Services

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType
    from typing import Self

    from ..port import CommunicationPort, ConnectionPort
    from ..security import AuditRecord, Policy, SecurityQos
    from ._interceptor import Interceptor
    from ._statistics import ServiceStatistics

__all__ = ["ServicePort", "listening_port", "serve", "served_by"]

MAX_HANDLERS = 1024
"""Default of the handlers that a service runs at the same time; each takes a task and what the handler itself holds."""


class ServicePort:
    """A port at which objects are served. Made by `serve`.

    Use it as ``async with``, or call `aclose`; from any task, in any order with others.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    @property
    def name(self) -> str:
        """The name that clients connect to."""
        return self._service.port.name

    @property
    def connections(self) -> tuple[CommunicationPort, ...]:
        """The ports of the clients that are connected now."""
        return self._service.port.connections

    def statistics(self) -> ServiceStatistics:
        """Return what the service has done so far, and what it holds now."""
        return self._service.statistics()

    async def wait_stopped(self) -> None:
        """Wait until somebody who may do so has asked the service to stop. Cancelling stops the wait.

        ::

            async with alpc.serve("demo.digest", DigestServer()) as port:
                await port.wait_stopped()
        """
        await self._service.stopped.wait()

    async def drain(self, timeout: float | None = None) -> None:
        """Stop listening, take no new calls, and wait until those that run have ended; close the port afterwards.

        New calls fail with ``Status.DRAINING``. Cancelling stops the wait, and the service stays as it is.

        Args:
            timeout: how long to wait, in seconds; ``None`` for no end.

        Raises:
            DeadlineExceeded: a call was still running; `statistics` says how many.
            PortClosed: the port was closed on this side.
        """
        await self._service.drain(timeout)

    async def aclose(self) -> None:
        """Stop serving: cancel the handlers, run down every object that clients hold, close all connections.

        Always completes; when cancelled it does not wait for handlers and rundowns, which end in the background. May be
        repeated; does not raise because clients are gone.
        """
        await self._service.aclose()

    def __repr__(self) -> str:
        return repr(self._service)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def listening_port(port: ServicePort) -> ConnectionPort:
    """Return where the clients of a service arrive.

    Args:
        port: the service.
    """
    return port._service.port  # pyright: ignore[reportPrivateUsage]  # the way in for the layers


def served_by(port: ServicePort) -> list[Root]:
    """Return what a port serves, apart from the interfaces that every port has.

    Args:
        port: the port.
    """
    return port._service.served()  # pyright: ignore[reportPrivateUsage]  # the way in for the layer


def serve(
    name: str,
    *servers: object,
    interface: type[Interface] | None = None,
    security: Policy | None = None,
    limits: PortLimits | None = None,
    interceptors: Sequence[Interceptor] = (),
    authorize: Mapping[Any, Policy] | None = None,
    maximum: int = MAX_HANDLERS,
    left: Callable[[CommunicationPort], Awaitable[object]] | None = None,
    audit: Callable[[AuditRecord], None] | None = None,
    qos: SecurityQos | None = None,
    management: bool = True,
) -> Opening[ServicePort]:
    """Serve objects under a name.

    ::

        class DigestServer(Digest):
            async def sha256(self, data):
                return hashlib.sha256(data).digest()

        async with alpc.serve("demo.digest", DigestServer()) as port:
            await anyio.sleep_forever()

    Args:
        name: letters, digits, dots, dashes and underscores, at most 80 bytes.
        servers: instances of classes that implement interfaces; each interface once.
        interface: what the one given object implements, when its class is not derived from an interface.
        security: who may connect; by default the same user and root.
        limits: quotas; by default those of `PortLimits`.
        interceptors: what stands around each handler, the outermost first.
        authorize: who may use an interface, or call a single method, by class or function: for example
            ``{Admin: alpc.require(uid=0), Digest.sha256: alpc.ANYONE}``. What is not named is open to whoever may
            connect.
        maximum: most handlers in flight at the same time; further calls wait.
        left: called with the port of a client that is gone, after everything it held was run down.
        audit: called with a record of each refusal, as for `listen`.
        qos: the least level that clients must allow, and whether senders may change, as for `listen`.
        management: serve `Introspection` and `Management` as well, for those who have the rights INTROSPECT and
            CONTROL; without a `SecurityDescriptor` for the same user and root.

    Returns:
        The port, to be entered or awaited. Cancelling that leaves nothing behind.

    Raises:
        InvalidInterface: an object does not implement what it should, or two serve the same interface.
        ValueError: nothing is served, ``maximum`` is not positive, or ``authorize`` names what is not served.
        TypeError: the name, a policy or the limits are of another type.
        InvalidName: when opened: the text is not a port name.
        NameCollision: when opened: a live port has the name.
        UnsafeDirectory: when opened: others could tamper with the directory of names.
        AccessDenied: when opened: the directory cannot be written.
    """
    if maximum < 1:
        raise ValueError(f"maximum must be at least 1, not {maximum}")
    port_limits = limits if limits is not None else PortLimits()
    roots = collect_roots(servers, interface, authorize)
    if management:
        add_management(roots, security if security is not None else SAME_USER_OR_ROOT)
    services = Services(
        roots,
        max_objects=port_limits.max_objects,
        max_depth=port_limits.max_call_depth,
        interceptors=interceptors,
    )
    check_arguments(name, "security", security, limits)

    async def open_port() -> ServicePort:
        completion_port = CompletionPort()
        port = await listen(
            name, security=security, limits=port_limits, completion_port=completion_port, audit=audit, qos=qos
        )
        return ServicePort(Service(port, completion_port, services, maximum=maximum, left=left))

    return Opening(open_port, f"alpc.serve({name!r}, ...)")


def collect_roots(
    servers: Sequence[object], interface: type[Interface] | None, authorize: Mapping[Any, Policy] | None
) -> dict[str, Root]:
    """Return what is served, by uuid; raises like `serve`."""
    if interface is not None:
        if len(servers) != 1:
            raise ValueError("interface= says what one object implements; wrap several with alpc.implement() each")
        servers = [implement(interface, servers[0])]
    if not servers:
        raise ValueError("there is nothing to serve; give an object that implements an interface")
    roots: dict[str, Root] = {}
    for server in servers:
        for contract in implemented_contracts(server):
            if contract.uuid in roots:
                raise InvalidInterface(interface=contract.name, reason="two objects of this port implement it")
            roots[contract.uuid] = Root(server, contract)
    if authorize is not None and not isinstance(authorize, Mapping):
        raise TypeError(f"authorize= takes policies by interface or method, not {type(authorize).__name__}")
    for key, policy in (authorize or {}).items():
        _authorize(roots, key, policy)
    return roots


def _authorize(roots: dict[str, Root], key: Any, policy: Policy) -> None:
    if not callable(getattr(policy, "judge", None)):
        raise TypeError(f"authorize= takes policies such as alpc.require(...), not {type(policy).__name__}")
    if is_interface(key):
        root = roots.get(contract_of(key).uuid)
        if root is not None:
            root.policy = policy
            return
    name = getattr(key, "__qualname__", "")
    found = False
    for root in roots.values():
        for method in root.contract.methods.values():
            if name == method.label or name.endswith(f".{method.label}"):
                root.policies[method.number] = policy
                found = True
    if not found:
        raise ValueError(f"authorize= names {name or key!r}, which is not served here")
