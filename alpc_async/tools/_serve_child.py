"""A process of ``alpc serve``, as seen from inside: ``python -m alpc_async.tools._serve_child TARGET BACKEND …``.

Belongs here: opening the service, saying that it is ready, and ending it without losing a call. Never here: starting
processes, sockets and signals of the supervisor (`_serve`).

The order of an end: accept nothing more; let clients that were accepted finish their handshake; answer what was
received and turn new requests away with ``Status.DRAINING``; wait for clients to leave, a little; close.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from ..errors import DeadlineExceeded
from ..link import supervisor_sockets
from ..port import ConnectionPort
from ..service import Interface, ServicePort, listening_port
from . import _backends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["MODULE", "READY", "NoFactory", "resolve"]

MODULE: Final = "alpc_async.tools._serve_child"
"""What to start."""

READY: Final = b"ready"
"""What the process writes when it serves."""

INTERVAL: Final = 0.01
"""Seconds between two looks at what a draining port still has."""


class NoFactory(ValueError):
    """The target of the command line is no factory."""


def resolve(target: str) -> Callable[[], AbstractAsyncContextManager[object]]:
    """Return the factory of a service.

    Args:
        target: its name, as ``"module:function"``.

    Raises:
        NoFactory: the text has another form, or there is nothing of that name that can be called.
        ImportError: the module cannot be imported.
    """
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise NoFactory(f"a service is named as 'module:factory', not {target!r}")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if f"{module}.".startswith(f"{error.name}."):
            raise NoFactory(f"there is no module {error.name!r}, looking for {target}") from None
        raise
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise NoFactory(f"module {module!r} has no function {name!r}")
    return cast("Callable[[], AbstractAsyncContextManager[object]]", found)


def _ports(served: object) -> list[ConnectionPort | ServicePort]:
    items = cast("Iterable[object]", served) if isinstance(served, tuple | list) else (served,)
    return [item for item in items if isinstance(item, ConnectionPort | ServicePort)]


def _check_names(target: str, ports: list[ConnectionPort | ServicePort]) -> None:
    """See that somebody accepts under every name; a factory that yields no ports cannot be asked.

    Raises:
        NoFactory: a name was passed that none of the ports has.
    """
    opened = [port.name for port in ports]
    for name in supervisor_sockets():
        if opened and name not in opened:
            raise NoFactory(
                f"{target} opened {', '.join(opened)}, but nobody accepts clients of {name}; open every name that is "
                "given with --name, and yield all ports together as a tuple"
            )


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    with anyio.move_on_after(seconds):
        while not condition():  # noqa: ASYNC110  # nobody announces it
            await anyio.sleep(INTERVAL)


async def _retire(port: ConnectionPort | ServicePort, grace: float, linger: float) -> None:
    listening = port if isinstance(port, ConnectionPort) else listening_port(port)
    listening.stop_listening()
    # Whoever was accepted is not refused: it becomes a connection first, and then hears that we are draining.
    await _until(
        lambda: listening.statistics().connections == len(listening.connections), listening.limits.handshake_timeout
    )
    try:
        await port.drain(grace)
    except DeadlineExceeded as error:
        print(f"alpc serve: {error}", file=sys.stderr)
    # A request that is on its way while we close would be lost; clients that were told to go do so now.
    await _until(lambda: not port.connections, linger)


async def _wait_for_the_end(control: int) -> None:
    """Wait for SIGTERM or SIGINT, or for the end of the supervisor."""

    async def watch(scope: anyio.CancelScope) -> None:
        await anyio.wait_readable(control)
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, tasks.cancel_scope)
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                break
        tasks.cancel_scope.cancel()


def _service(target: str) -> AbstractAsyncContextManager[object]:
    service = resolve(target)()
    if not isinstance(service, AbstractAsyncContextManager):
        raise NoFactory(f"{target} must return an async context manager, not {type(service).__name__}")
    if isinstance(service, Interface):
        raise NoFactory(
            f"{target} makes an object to be served; write a function that returns alpc.serve(name, object)"
        )
    return service


async def _serve(target: str, control: int, grace: float, linger: float) -> None:
    try:
        service = _service(target)
    except NoFactory as error:
        sys.exit(f"alpc serve: {error}")
    async with service as served:
        ports = _ports(served)
        try:
            _check_names(target, ports)
        except NoFactory as error:
            sys.exit(f"alpc serve: {error}")
        os.write(control, READY)
        await _wait_for_the_end(control)
        async with anyio.create_task_group() as tasks:
            for port in ports:
                tasks.start_soon(_retire, port, grace, linger)


def main(target: str, backend: str, control: str, grace: str, linger: str) -> None:
    """Run one process of a service.

    Args:
        target: the factory.
        backend: the event loop.
        control: descriptor of the line to the supervisor.
        grace: time for received requests, in seconds.
        linger: time for clients to leave, in seconds.
    """
    sys.path.insert(0, "")
    fd = int(control)
    os.set_inheritable(fd, False)
    os.set_blocking(fd, False)
    # The handler of the signals is set later; until then an end is an end.
    _backends.run(backend, _serve, target, fd, float(grace), float(linger))


if __name__ == "__main__":
    main(*sys.argv[1:])
