"""Proxies: instances of an interface whose methods call the other side.

Belongs here: making proxy classes and proxies, their options. Never here: how a connection comes about (`_connect`),
the way of a call (`_calling`), what a proxy knows (`_proxy_state`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from ..contract_errors import InvalidInterface
from ..port import DEFAULT, check_way
from ._call import CallOptions
from ._calling import FACTORIES
from ._interface import Interface, contract_of
from ._proxy_state import ProxyState, state_of

if TYPE_CHECKING:
    from ..port import CommunicationPort, Default, Way
    from ._session import Session

__all__ = ["ProxyState", "check_is_interface", "make_proxy", "port_of", "state_of", "with_options"]

InterfaceT = TypeVar("InterfaceT", bound=Interface)


def make_proxy(session: Session, interface: type[InterfaceT], number: int) -> InterfaceT:
    """Return a proxy for an object of the other side.

    Args:
        session: the connection.
        interface: what the object implements.
        number: the number of the object.
    """
    proxy = object.__new__(_proxy_class(interface))
    vars(proxy)["__alpc_state__"] = ProxyState(session, number, contract_of(interface), CallOptions(), None)
    return proxy


def with_options(
    proxy: InterfaceT,
    *,
    timeout: float | Default | None = DEFAULT,
    priority: int = 0,
    trace: str = "",
    transfer: Way | Default = DEFAULT,
) -> InterfaceT:
    """Return a copy of a proxy whose calls have other options. It speaks through the same connection.

    ::

        quick = alpc.with_options(digest, timeout=0.5)
        await quick.sha256(b"...")

    Args:
        proxy: the proxy; it stays as it is.
        timeout: time for the answer, for a stream the time for the next item, in seconds; ``None`` for no end.
        priority: a hint for the server, larger is more urgent; calls made by the handler inherit it.
        trace: a W3C trace parent; calls made by the handler inherit it.
        transfer: how arguments and results travel: ``"auto"`` as their length says, ``"inline"`` through the
            connection, up to ``limits.max_message_length`` bytes, or ``"view"`` through shared memory, whatever their
            length. It counts for the items of a stream of results as well, and not for calls made by the handler.

    Raises:
        TypeMismatch: the object is no proxy.
        ValueError: ``transfer`` is none of the three.
    """
    if transfer is not DEFAULT:
        check_way(transfer)
    state = state_of(proxy)
    old = state.options
    options = CallOptions(
        timeout=old.timeout if timeout is DEFAULT else timeout,
        priority=priority or old.priority,
        trace=trace or old.trace,
        transfer=old.transfer if transfer is DEFAULT else transfer,
    )
    copy = object.__new__(type(proxy))
    copied = ProxyState(state.session, state.id, state.contract, options, proxy)
    copied.reconnector = state.reconnector
    vars(copy)["__alpc_state__"] = copied
    return copy


def port_of(proxy: Interface) -> CommunicationPort:
    """Return the connection that a proxy speaks through now: to allocate a `View` for a call, to look at its peer.

    ::

        with await alpc.port_of(digest).allocate(size) as view:
            view.data[:] = content
            await digest.sha256(view)

    Args:
        proxy: the proxy; the connection stays its own, so do not close it.

    Raises:
        TypeMismatch: the object is no proxy.
    """
    state = state_of(proxy)
    return (state if state.reconnector is None else state.reconnector.current()).session.port


async def _aclose(self: Any) -> None:
    state: ProxyState = self.__alpc_state__
    closed, state.closed, state.simple = state.closed, True, False
    if state.close is not None:
        await state.close()
        return
    if not closed and state.original is None:
        state.session.release_import(state.id)
    await state.session.loop.checkpoint()


def _repr(self: Any) -> str:
    state: ProxyState = self.__alpc_state__
    return f"<{state.contract.name} proxy, object {state.id} of {state.session.port!r}{', closed' * state.closed}>"


def _proxy_class(interface: type[InterfaceT]) -> type[InterfaceT]:
    if vars(interface).get("__alpc_proxy__") is None:
        contract = contract_of(interface)
        body: dict[str, Any] = {"aclose": _aclose, "__repr__": _repr, "__module__": interface.__module__}
        for method in contract.methods.values():
            original = getattr(interface, method.name)
            body[method.name] = functools.wraps(original)(FACTORIES[method.kind](method))
        interface.__alpc_proxy__ = type(f"{interface.__name__}Proxy", (interface,), body)
    found: type[InterfaceT] = interface.__alpc_proxy__
    return found


def check_is_interface(interface: Any) -> None:
    """Raise unless a class can be connected to.

    Raises:
        InvalidInterface: it is no interface.
    """
    if not isinstance(interface, type):
        raise InvalidInterface(interface=repr(interface), reason="an interface is a class")
    contract_of(interface)
