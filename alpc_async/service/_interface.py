"""The classes that users write: interfaces, and the decorators of their methods.

Belongs here: `Interface`, `oneway`, `idempotent`, `method`, `raises`, finding the contract of a class. Never here: how
contracts are worked out (`_contract`), proxies, servers.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..contract_errors import InvalidInterface
from ._contract import Contract, build_contract, marks_of
from ._fault import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import ClassVar, Self


__all__ = ["Interface", "contract_of", "contracts_of", "idempotent", "is_interface", "method", "oneway", "raises"]

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MAX_VERSION: Final = 0xFFFF
_NO_NAMES: Final[Mapping[str, Any]] = {}


class _Declared:
    """An interface that is declared and maybe not yet worked out."""

    def __init__(self, cls: type, uuid: str, version: tuple[int, int], names: Mapping[str, Any]) -> None:
        self._cls = cls
        self._uuid = uuid
        self._version = version
        self._names = names
        self._contract: Contract | None = None

    def contract(self) -> Contract:
        if self._contract is None:
            cls = self._cls
            inherited = next((contract_of(base) for base in cls.__mro__[1:] if _declared_by(base)), None)
            self._contract = build_contract(
                cls,
                uuid=self._uuid,
                version=self._version,
                inherited=inherited,
                reserved=RESERVED,
                is_interface=is_interface,
                names=self._names,
            )
            self._names = _NO_NAMES
        return self._contract


class Interface:
    """Base class of service interfaces, of the objects that implement them, and of their proxies.

    ::

        class Digest(alpc.Interface, uuid="4f7e2a0c-9d0b-4a53-8f5e-6a1f0c7c1d11", version=(1, 0)):
            async def sha256(self, data: alpc.Buffer) -> bytes: ...

    A subclass with ``uuid`` is an interface: its annotations are the contract. It is checked when the class is made, or
    at first use when an annotation names what does not exist by then. A subclass of an interface without ``uuid``
    implements it. An instance in an argument or a result crosses as a reference: the other side gets a proxy.

    Class arguments:
        uuid: identity of the interface, ``8-4-4-4-12`` hexadecimal digits; make one with ``python3 -m uuid``.
        version: major and minor. A client works with a server of the same major and at least the same minor version.

    Raises:
        InvalidInterface: the class cannot be a contract; the text names the method and the parameter.
    """

    __alpc_declared__: ClassVar[_Declared | None] = None
    # Worked out once, and kept with the class so that they live as long: the classes of its proxies and adapters, and
    # whether it was found to implement its contracts.
    __alpc_proxy__: ClassVar[Any] = None
    __alpc_adapter__: ClassVar[Any] = None
    __alpc_checked__: ClassVar[bool] = False

    def __init_subclass__(cls, *, uuid: str = "", version: tuple[int, int] = (1, 0)) -> None:
        super().__init_subclass__()
        cls.__alpc_declared__ = None
        if not uuid:
            return
        if not _UUID.fullmatch(uuid.lower()):
            raise InvalidInterface(interface=cls.__name__, reason=f"{uuid!r} is not a uuid such as uuid.uuid4() makes")
        if not _is_version(version):
            raise InvalidInterface(interface=cls.__name__, reason=f"the version {version!r} is not (major, minor)")
        # The scope of the class statement: annotations may name what is local to a function.
        scope = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # the interpreter's documented way
        names = {} if scope.f_locals is scope.f_globals else dict(scope.f_locals)
        cls.__alpc_declared__ = _Declared(cls, uuid.lower(), version, names)
        try:
            cls.__alpc_declared__.contract()
        except NameError:
            # A name that comes later in the module; `contract_of` asks again.
            pass

    async def rundown(self) -> None:
        """Clean up: nobody holds a reference to this object any more. Override it; by default nothing happens.

        Called once for each object that crossed in an answer or an argument, when the last reference to it was
        released or its holder has died. Not called for the objects that were given to `serve`. Cancelled when the
        service is closed and this does not end in time.
        """

    async def aclose(self) -> None:
        """On a proxy: release the object, or close the connection when `connect` gave the proxy.

        Always completes, also when cancelled; may be repeated; does not raise because the other side is gone. On an
        object that is no proxy nothing happens, unless its class overrides this.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _is_version(version: Any) -> bool:
    try:
        major, minor = version
    except (TypeError, ValueError):
        return False
    return all(type(part) is int and 0 <= part <= MAX_VERSION for part in (major, minor))


RESERVED: Final = frozenset(name for name in vars(Interface) if not name.startswith("_"))

FunctionT = TypeVar("FunctionT", bound="Callable[..., Any]")


def _declared_by(cls: type) -> _Declared | None:
    declared = vars(cls).get("__alpc_declared__")
    return declared if isinstance(declared, _Declared) else None


def is_interface(cls: Any) -> bool:
    """Return whether something is a class that declares an interface."""
    return isinstance(cls, type) and _declared_by(cls) is not None


def contracts_of(cls: type) -> list[Contract]:
    """Return the contracts of a class and of everything it inherits from, its own first."""
    return [contract_of(base) for base in cls.__mro__ if _declared_by(base)]


def contract_of(cls: type) -> Contract:
    """Return the contract of an interface class.

    Args:
        cls: a subclass of `Interface` that has a uuid.

    Raises:
        InvalidInterface: it is no interface, or an annotation names what does not exist.
    """
    declared = _declared_by(cls)
    if declared is None:
        raise InvalidInterface(
            interface=cls.__name__, reason="it is not an interface: that is a subclass of alpc.Interface with a uuid"
        )
    try:
        return declared.contract()
    except NameError as error:
        raise InvalidInterface(
            interface=cls.__name__,
            reason=f"an annotation cannot be resolved: {error}; import it at run time, not under TYPE_CHECKING",
        ) from None


def oneway(function: FunctionT) -> FunctionT:
    """Declare that a method has no answer: the call returns when the message is queued.

    Args:
        function: an ``async def`` of an interface that returns ``None``.
    """
    marks_of(function).oneway = True
    return function


def idempotent(function: FunctionT) -> FunctionT:
    """Declare that calling a method twice does the same as calling it once, so that a lost call may be repeated.

    Args:
        function: a method of an interface.
    """
    marks_of(function).idempotent = True
    return function


def method(number: int) -> Callable[[FunctionT], FunctionT]:
    """Give a method its number on the wire.

    Without it a method has the number after the one before it, beginning with 1. Numbers must stay what they are as
    long as old clients or servers are about, so give one when you reorder or remove methods.

    Args:
        number: from 1 to 65535.
    """

    def mark(function: FunctionT) -> FunctionT:
        marks_of(function).number = number
        return function

    return mark


def raises(*faults: type[Fault]) -> Callable[[FunctionT], FunctionT]:
    """Declare the exceptions that cross from the handler to the caller, with their fields.

    Args:
        faults: subclasses of `Fault`.

    Raises:
        TypeError: one of them is something else.
    """
    given: tuple[Any, ...] = faults
    for fault in given:
        kind = fault if isinstance(fault, type) else type(None)
        if not issubclass(kind, Fault):
            name = getattr(fault, "__name__", repr(fault))
            raise TypeError(f"@alpc.raises takes subclasses of alpc.Fault, and {name} is none")

    def mark(function: FunctionT) -> FunctionT:
        marks_of(function).faults = faults
        return function

    return mark
