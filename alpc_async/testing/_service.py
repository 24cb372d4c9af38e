"""A service and its client in memory.

Belongs here: `service_pair`. Never here: ports and links.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ..port import Opening
from ..service import Interface, check_is_interface, open_client, serve_connection
from ._pair import memory_port_pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..limits import PortLimits
    from ..security import Identity
    from ..service import Interceptor
    from ._plan import Fault

__all__ = ["service_pair"]

InterfaceT = TypeVar("InterfaceT", bound=Interface)


def service_pair(
    interface: type[InterfaceT],
    server: object,
    *,
    identity: Identity | None = None,
    limits: PortLimits | None = None,
    client_faults: Sequence[Fault] = (),
    server_faults: Sequence[Fault] = (),
    interceptors: Sequence[Interceptor] = (),
) -> Opening[InterfaceT]:
    """Connect a client to a server object, in memory, without a name: a service under test.

    ::

        async with service_pair(Digest, DigestServer()) as digest:
            assert await digest.sha256(b"") == hashlib.sha256().digest()

    Time is that of the event loop, so with a mocked clock of trio no test has to wait.

    Args:
        interface: what the client sees.
        server: an instance of a class that implements it, or any object with its methods.
        identity: who the server believes is calling, such as ``Identity(uid=1000, gid=1000)``; by default this process.
        limits: quotas of both sides; by default those of `alpc_async.PortLimits`.
        client_faults: what goes wrong with the bytes that the client receives.
        server_faults: what goes wrong with the bytes that the server receives.
        interceptors: what stands around each handler, the outermost first.

    Returns:
        The proxy, to be entered or awaited; closing it closes both sides. Cancelling that leaves nothing behind.

    Raises:
        InvalidInterface: the class is no interface; when opened: the object does not implement it.
    """
    check_is_interface(interface)

    async def open_pair() -> InterfaceT:
        pair = memory_port_pair(limits=limits, left=client_faults, right=server_faults, identity=identity)
        adapted = None if isinstance(server, interface) else interface
        try:
            serving = serve_connection(pair.right, server, interface=adapted, interceptors=interceptors)
        except BaseException:
            await pair.left.aclose()
            await pair.right.aclose()
            raise
        return await open_client(pair.left, interface, companion=serving.aclose)

    return Opening(open_pair, "service_pair(...)")
