"""The event loops that a command can run on, by the names that users give them.

Belongs here: names, what each needs, and starting one. Never here: code for one particular event loop (link).
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import anyio
import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVarTuple, Unpack

    ArgumentTs = TypeVarTuple("ArgumentTs")

__all__ = ["BACKENDS", "Backend", "BackendMissing", "BackendName", "installed", "require", "run"]

ResultT = TypeVar("ResultT")

BackendName = Literal["asyncio", "uvloop", "trio"]


class Backend(msgspec.Struct, frozen=True):
    """One event loop.

    Attributes:
        name: what users call it.
        module: the module that must be there.
        backend: what `anyio.run` calls it.
        options: the options that `anyio.run` wants for it.
    """

    name: BackendName
    module: str
    backend: str
    options: dict[str, Any]


BACKENDS: Final[dict[BackendName, Backend]] = {
    "asyncio": Backend("asyncio", "asyncio", "asyncio", {"use_uvloop": False}),
    "uvloop": Backend("uvloop", "uvloop", "asyncio", {"use_uvloop": True}),
    "trio": Backend("trio", "trio", "trio", {}),
}
"""Every event loop by name, the one that is always there first."""


class BackendMissing(ImportError):
    """An event loop was asked for that is not installed.

    Attributes:
        backend: its name, which is also the name of the extra that brings it.
    """

    def __init__(self, *, backend: str) -> None:
        self.backend = backend
        super().__init__(
            f"{backend} is not installed; it comes with the extra of that name: pip install 'alpc-async[{backend}]'"
        )


def installed() -> tuple[BackendName, ...]:
    """Return the names of the event loops that can be used here."""
    return tuple(name for name, backend in BACKENDS.items() if importlib.util.find_spec(backend.module) is not None)


def require(name: str) -> Backend:
    """Return the event loop of this name.

    Args:
        name: one of the keys of `BACKENDS`.

    Raises:
        BackendMissing: it is not installed.
        ValueError: there is no such name.
    """
    for backend in BACKENDS.values():
        if backend.name == name:
            if importlib.util.find_spec(backend.module) is None:
                raise BackendMissing(backend=name)
            return backend
    raise ValueError(f"the event loop must be one of {', '.join(BACKENDS)}, not {name!r}")


def run(name: str, function: Callable[[Unpack[ArgumentTs]], Awaitable[ResultT]], *args: *ArgumentTs) -> ResultT:
    """Run an async function to its end on the event loop of this name.

    Args:
        name: one of the keys of `BACKENDS`.
        function: the async function.
        args: its arguments.

    Returns:
        What the function returned.

    Raises:
        BackendMissing: the event loop is not installed.
        ValueError: there is no such name.
    """
    backend = require(name)
    return anyio.run(function, *args, backend=backend.backend, backend_options=backend.options)
