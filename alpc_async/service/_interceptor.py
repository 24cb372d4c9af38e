"""What stands around calls: the one small protocol of interceptors, for both sides.

Belongs here: the protocol, running a chain. Never here: interceptors for a purpose (`_interceptors`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["Intercepted", "Interceptor", "as_chain", "run_chain"]


class Intercepted(Protocol):
    """What an interceptor is told about a call, on both sides. On the serving side it is a `Call`, which knows more."""

    @property
    def interface(self) -> str:
        """Name of the interface."""
        ...

    @property
    def method(self) -> str:
        """Name of the method."""
        ...

    @property
    def kind(self) -> str:
        """``"unary"``, ``"stream"`` or ``"oneway"``."""
        ...

    @property
    def idempotent(self) -> bool:
        """Whether the method is declared so."""
        ...

    @property
    def arguments(self) -> Any:
        """The arguments, as a record."""
        ...


class Interceptor(Protocol):
    """Stands around every call: an async function of the call and of what comes next.

    ``await proceed()`` goes on and gives the result: of a unary call its value, of a stream the async iterator, of a
    one-way call ``None``. An interceptor returns that or something of the same type, may raise instead of going on, and
    may go on several times. The first interceptor of a list is the outermost.
    """

    async def __call__(self, call: Any, proceed: Callable[[], Awaitable[Any]], /) -> Any:
        """Handle one call. Cancelling goes on to what is inside."""
        ...


def as_chain(interceptors: Any) -> tuple[Interceptor, ...]:
    """Return what was given as ``interceptors=``.

    Raises:
        TypeError: it is no list of functions.
    """
    try:
        chain: tuple[Any, ...] = tuple(interceptors)
    except TypeError:
        chain = (None,)
    if not all(callable(interceptor) for interceptor in chain):
        raise TypeError(f"interceptors= takes a list of async functions of a call and proceed, not {interceptors!r}")
    return chain


async def run_chain(
    interceptors: Sequence[Interceptor], call: Intercepted, innermost: Callable[[], Awaitable[Any]]
) -> Any:
    """Run a call through a list of interceptors.

    Args:
        interceptors: the outermost first.
        call: what they are told.
        innermost: the call itself.
    """

    async def step(position: int) -> Any:
        if position == len(interceptors):
            return await innermost()
        return await interceptors[position](call, lambda: step(position + 1))

    return await step(0)
