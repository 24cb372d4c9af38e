"""Objects that implement an interface: checking them, and adapting those of other classes.

Belongs here: `implement`, `check_implements`. Never here: contracts themselves, calls.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from ..contract_errors import InvalidInterface
from ._interface import Interface, contract_of, contracts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._contract import Contract, Method

__all__ = ["check_implements", "implement", "implemented_contracts"]

InterfaceT = TypeVar("InterfaceT", bound=Interface)


def implemented_contracts(target: object) -> list[Contract]:
    """Return the contracts that an object implements, checked.

    Raises:
        InvalidInterface: it is a class, implements no interface, or one of them not wholly.
    """
    if isinstance(target, type):
        raise InvalidInterface(interface=target.__name__, reason="it is a class; give an object of it")
    kind = type(target) if isinstance(target, Interface) else Interface
    contracts = contracts_of(kind)
    if not contracts:
        raise InvalidInterface(
            interface=type(target).__name__,
            reason="it implements no interface; derive it from one, or use alpc.implement(Interface, object)",
        )
    if vars(kind).get("__alpc_checked__") is None:
        declarations = {base for base in kind.__mro__ if vars(base).get("__alpc_declared__") is not None}
        for contract in contracts:
            check_implements(target, contract, declarations)
        kind.__alpc_checked__ = True
    return contracts


def check_implements(target: object, contract: Contract, declarations: set[type]) -> None:
    """Check that an object has every method of a contract.

    Args:
        target: the object.
        contract: the contract.
        declarations: the interface classes, whose own functions implement nothing.

    Raises:
        InvalidInterface: a method is missing, or cannot be called as the contract says.
    """
    declared = {vars(base).get(method.name) for base in declarations for method in contract.methods.values()}
    for method in contract.methods.values():
        function = getattr(target, method.name, None)
        plain = getattr(function, "__func__", function)
        if not callable(function) or plain in declared:
            raise _refusal(target, method, "it is not implemented")
        _check_kind(target, method, function)
        _check_signature(target, method, function)


def _refusal(target: object, method: Method, reason: str) -> InvalidInterface:
    return InvalidInterface(interface=type(target).__name__, method=method.name, reason=f"{reason} ({method.label})")


def _check_kind(target: object, method: Method, function: Callable[..., Any]) -> None:
    if not inspect.isroutine(function):
        # What only behaves like a function shows its kind when it is called.
        return
    if method.kind == "stream":
        if inspect.iscoroutinefunction(function):
            raise _refusal(target, method, "it has to give an async iterator: write async def with yield, or def")
    elif not inspect.iscoroutinefunction(function):
        raise _refusal(target, method, "it has to be async def")


def _check_signature(target: object, method: Method, function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    names = list(method.signature.parameters)
    positional = [name for name in names if name not in method.keywords]
    try:
        signature.bind(*positional, **dict.fromkeys(method.keywords))
    except TypeError as error:
        raise _refusal(target, method, f"it cannot be called with the parameters {', '.join(names)}: {error}") from None


def implement(interface: type[InterfaceT], target: object) -> InterfaceT:
    """Let an object of any class that has the methods of an interface be served, passed and returned as one.

    Args:
        interface: the interface.
        target: the object; its ``rundown`` is called if it has one.

    Returns:
        An instance of the interface that hands every call to the object.

    Raises:
        InvalidInterface: a method is missing, or cannot be called as the contract says.
    """
    contract = contract_of(interface)
    check_implements(target, contract, set())
    if vars(interface).get("__alpc_adapter__") is None:
        interface.__alpc_adapter__ = type(f"{interface.__name__}Adapter", (interface,), {})
        interface.__alpc_adapter__.__alpc_checked__ = True
    adapter: InterfaceT = object.__new__(interface.__alpc_adapter__)
    names = [method.name for method in contract.methods.values()]
    if callable(getattr(target, "rundown", None)):
        names.append("rundown")
    vars(adapter).update({name: getattr(target, name) for name in names})
    return adapter
