"""What a proxy knows, and finding it out.

Belongs here: `ProxyState`, `state_of`. Never here: proxy classes, calls (`_proxy`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..contract_errors import TypeMismatch
from ..errors import PortClosed
from ..port import DEFAULT, starter
from ._call import CallOptions, current, header, outgoing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from ._contract import Contract, Method
    from ._interface import Interface
    from ._reconnect import Reconnector
    from ._session import Session

__all__ = ["ProxyState", "state_of"]


class ProxyState:
    """What a proxy knows.

    Attributes:
        session: the connection.
        id: number of the object at the other side.
        contract: of the interface.
        options: what every call gets.
        timeout: time for an answer, in seconds; ``None`` for no end.
        simple: whether nothing but the timeout has to be looked at in a call from outside of any handler; not when the
            proxy was closed.
        close: closes what `connect` opened; ``None`` when closing the proxy releases one object only.
        start: sends a request of bare data on the connection.
        original: the proxy that this one is a copy of, kept alive.
        reconnector: keeps the connection, when the client connects again by itself.
        closed: whether `Interface.aclose` was called.
    """

    __slots__ = (
        "close",
        "closed",
        "contract",
        "id",
        "options",
        "original",
        "reconnector",
        "session",
        "simple",
        "start",
        "timeout",
    )

    def __init__(self, session: Session, id: int, contract: Contract, options: CallOptions, original: Any) -> None:
        self.session = session
        self.id = id
        self.contract = contract
        self.options = options
        default = session.port.limits.request_timeout
        self.timeout: float | None = default if options.timeout is DEFAULT else options.timeout
        self.simple = options.plain and not session.interceptors
        self.close: Callable[[], Awaitable[None]] | None = None
        self.original = original
        self.start = starter(session.port)
        self.closed = False
        self.reconnector: Reconnector | None = None

    def move(self, session: Session, id: int, proxy: Any) -> None:
        """Speak through another connection from now on.

        Args:
            session: the connection.
            id: number of the object there.
            proxy: keeps that object from being released.
        """
        self.session = session
        self.id = id
        self.start = starter(session.port)
        self.original = proxy

    def follow(self, other: ProxyState) -> None:
        """Speak through the same connection as the state of another proxy."""
        self.move(other.session, other.id, self.original)

    def frame(self, method: Method, body: bytes) -> tuple[bytes, float | None]:
        """Return the payload of a call that is made now, and its timeout.

        Raises:
            PortClosed: the proxy was closed.
        """
        if self.closed:
            raise PortClosed(port=f"this proxy of {self.contract.name}")
        context, timeout = outgoing(current.get(), self.options, self.timeout, self.session.loop.time())
        return header(self.id, method.number, context) + body, timeout


def state_of(proxy: Interface) -> ProxyState:
    """Return what a proxy knows.

    Raises:
        TypeMismatch: the object is no proxy.
    """
    state = getattr(proxy, "__alpc_state__", None)
    if not isinstance(state, ProxyState):
        raise TypeMismatch(where="proxy", detail=f"{type(proxy).__name__} is not what connect() or a call gave")
    return state
