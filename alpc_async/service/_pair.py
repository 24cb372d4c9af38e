"""A service and its client over two ports that are connected already.

Belongs here: `serve_connection`. Never here: names, links.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ._client_end import ClientEnd
from ._interface import Interface
from ._serve import collect_roots
from ._session import Services

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..port import CommunicationPort
    from ._interceptor import Interceptor

__all__ = ["serve_connection"]

InterfaceT = TypeVar("InterfaceT", bound=Interface)


def serve_connection(
    port: CommunicationPort,
    *servers: object,
    interface: type[Interface] | None = None,
    interceptors: Sequence[Interceptor] = (),
) -> ClientEnd:
    """Serve objects on one connection, such as one half of a port pair.

    Args:
        port: the connection; owned from now on.
        servers: instances of classes that implement interfaces.
        interface: what the one given object implements, when its class is not derived from an interface.
        interceptors: what stands around each handler, the outermost first.

    Returns:
        This side's end of the connection; close it with ``aclose()``. It can call the other side as well, with
        ``bind()``, when that serves something too.

    Raises:
        InvalidInterface: an object does not implement what it should.
    """
    roots = collect_roots(servers, interface, None)
    limits = port.limits
    services = Services(
        roots, max_objects=limits.max_objects, max_depth=limits.max_call_depth, interceptors=interceptors
    )
    return ClientEnd(port, services=services)
