"""``alpc mapper``: the endpoint mapper as a program.

Belongs here: its configuration. Never here: what a mapper does (service).

The configuration is a TOML file with a table for each interface whose server is started on demand::

    ["4f7e2a0c-9d0b-4a53-8f5e-6a1f0c7c1d11"]
    command = ["/usr/bin/python3", "-m", "acme.digest"]
    timeout = 5.0

    ["0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c01"]
    name = "acme.files"

The second one has its socket in a unit of systemd, so that connecting to the name starts it.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path  # noqa: TC003  # the command line library reads the annotations of commands

import anyio
import msgspec

from ..errors import AlpcError
from ..service import MAPPER_NAME, Activation, EndpointMapperServer, serve
from ._systemd import notify

__all__ = ["mapper_command"]

USAGE = 2
UNREACHABLE = 3


async def _cancel_at_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()


def mapper_command(*, activations: Path | None = None, name: str = MAPPER_NAME) -> int:
    """Run the endpoint mapper of this user until it is interrupted or stopped.

    A socket that systemd passes under the name of the port is used, and systemd is told when the mapper is ready.

    Args:
        activations: a TOML file that says how servers are started on demand.
        name: the port name.

    Returns:
        Exit status: 0, 2 when the file cannot be read, or 3 when the name cannot be had.
    """
    known: dict[str, Activation] = {}
    if activations is not None:
        try:
            known = msgspec.toml.decode(activations.read_bytes(), type=dict[str, Activation])
        except (OSError, msgspec.MsgspecError) as error:
            print(f"alpc mapper: {activations}: {error}", file=sys.stderr)
            return USAGE

    async def run() -> None:
        async with serve(name, EndpointMapperServer(known)) as port:
            notify("READY=1", f"STATUS=knows how to start {len(known)} services")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_at_signal, tasks.cancel_scope)
                await port.wait_stopped()
                tasks.cancel_scope.cancel()
            notify("STOPPING=1")

    try:
        anyio.run(run)
    except AlpcError as error:
        print(f"alpc mapper: {error}", file=sys.stderr)
        return UNREACHABLE
    return 0
