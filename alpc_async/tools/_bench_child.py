"""The processes of the benchmark, as seen from inside: ``python -m alpc_async.tools._bench_child ROLE SUBJECT …``.

Belongs here: what a server and a client process do between their start and the end of their standard input. Never
here: starting and ending them.

A server writes one line when it listens, and serves until its input ends. A client writes one line when it is
connected, then measures once for every line that it reads, and writes a line of result for each. So both end by
themselves when the process that started them is gone, however that ended.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final, cast

import anyio
import msgspec

from . import _backends
from ._bench_load import Cell, Measured, measure
from ._bench_subjects import open_client, open_server

if TYPE_CHECKING:
    from ._backends import BackendName
    from ._bench_subjects import SubjectName

__all__ = ["MODULE", "READY", "Order"]

MODULE: Final = "alpc_async.tools._bench_child"
"""What to start."""

READY: Final = b"ready\n"
"""First line of every process."""

_READ_SIZE: Final = 64 * 1024


class Order(msgspec.Struct, frozen=True):
    """One line to a client.

    Attributes:
        cell: what to measure.
        seconds: how long.
    """

    cell: Cell
    seconds: float


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


async def _read_line() -> bytes:
    """Read one line that was written in one piece; empty at the end."""
    # A read in a thread would leave that thread behind in the measured process.
    await anyio.wait_readable(sys.stdin.fileno())
    return os.read(sys.stdin.fileno(), _READ_SIZE)


async def serve(subject: SubjectName, backend: BackendName, place: str) -> None:
    """Be a server until the standard input ends. Cancelling ends it as well.

    Args:
        subject: what to serve.
        backend: the event loop that is running.
        place: where, as in `open_server`.
    """
    async with open_server(subject, backend, place):
        _write(READY)
        while await _read_line():
            pass


async def request(subject: SubjectName, backend: BackendName, place: str) -> None:
    """Be a client until the standard input ends. Cancelling ends it as well.

    Args:
        subject: what to measure.
        backend: the event loop that is running.
        place: where the server is.
    """
    async with open_client(subject, backend, place) as call:
        _write(READY)
        while line := await _read_line():
            order = msgspec.json.decode(line, type=Order)
            measured: Measured = await measure(call, order.cell, order.seconds)
            _write(msgspec.json.encode(measured) + b"\n")


def main(role: str, subject: str, backend: str, place: str) -> None:
    """Run one process of the benchmark.

    Args:
        role: ``"server"`` or ``"client"``.
        subject: one of the names of `SUBJECTS`.
        backend: one of the names of `BACKENDS`.
        place: where the server is.
    """
    function = serve if role == "server" else request
    _backends.run(backend, function, cast("SubjectName", subject), cast("BackendName", backend), place)


if __name__ == "__main__":
    main(*sys.argv[1:])
