"""``alpc serve``: a service in several processes behind its names.

Belongs here: the command: options, names and sockets. Never here: processes (`_supervisor`), what each does
(`_serve_child`).
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from ..errors import AlpcError
from ..limits import PortLimits
from ..link import NameLease, manager_sockets
from . import _backends
from ._backends import BackendName  # noqa: TC001  # the command line library reads the annotations of commands
from ._supervisor import Plan, Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["serve_command"]

MODE_OWN: Final = 0o600
MODE_SHARED: Final = 0o666


def _open_sockets(stack: ExitStack, names: Iterable[str], *, shared: bool, backlog: int) -> dict[str, int]:
    """Return listening sockets by name: those that a service manager passed, and new ones for other names."""
    passed = manager_sockets()
    sockets: dict[str, int] = {}
    for name in names or passed:
        if name in passed:
            sockets[name] = passed[name]
            continue
        lease = stack.enter_context(NameLease.acquire(name, shared=shared))
        sock = stack.enter_context(lease.bind(MODE_SHARED if shared else MODE_OWN, backlog))
        sockets[name] = sock.fileno()
    return sockets


def serve_command(
    target: str,
    *,
    name: list[str] | None = None,
    processes: int = 1,
    backend: BackendName = "asyncio",
    shared: bool = False,
    grace: float = 10.0,
    linger: float = 2.0,
) -> int:
    """Run a service in several processes behind its names.

    The factory is a function without arguments that returns an async context manager; inside, it opens its ports with
    alpc.listen or alpc.serve under the given names, and yields them. SIGTERM drains and ends; SIGHUP replaces the
    processes one by one without refusing a connection; a process that dies is started again. Sockets and readiness of
    systemd are used where they are there.

    Args:
        target: the factory, as module:factory.
        name: name of a port; may be repeated. By default those that a service manager passed.
        processes: how many processes.
        backend: event loop of each.
        shared: let other users reach the names; whether they may connect is the policy's decision.
        grace: time for requests that were received to be answered when a process ends, in seconds.
        linger: time for clients to leave after that, in seconds.

    Returns:
        Exit status: 0, 1 when the service could not be started, 2 when the arguments make no sense.
    """
    if processes < 1 or grace < 0 or linger < 0 or target.count(":") != 1:
        print("alpc serve: give module:factory, at least one process, and times that are not negative", file=sys.stderr)
        return 2
    plan = Plan(target=target, backend=backend, processes=processes, grace=grace, linger=linger)
    try:
        _backends.require(backend)
        with ExitStack() as stack:
            sockets = _open_sockets(stack, name or (), shared=shared, backlog=PortLimits().backlog)
            if not sockets:
                print("alpc serve: name a port with --name, or let a service manager pass one", file=sys.stderr)
                return 2
            return Supervisor(plan, sockets).run()
    except (AlpcError, _backends.BackendMissing, OSError) as error:
        print(f"alpc serve: {error}", file=sys.stderr)
        return 1
