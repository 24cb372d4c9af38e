"""The processes of the benchmark, as seen from inside: ``python -m alpc_async.tools._bench_child ROLE BACKEND …``.

Belongs here: what a server and a client process do between their start and the end of their standard input. Never
here: starting and ending them.

One process serves all subjects and one asks them all, so that the subjects run in the same memory and on the same
processors, and differ in nothing but themselves.

A server writes one line when it listens, and serves until its input ends. A client writes one line when it is
connected, then measures once for every line that it reads, and writes a line of result for each. So both end by
themselves when the process that started them is gone, however that ended.
"""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, cast

import anyio
import msgspec

from . import _backends
from ._bench_load import Cell, Measured, measure
from ._bench_subjects import SUBJECTS, SubjectName, open_client, open_server

if TYPE_CHECKING:
    from ._backends import BackendName

__all__ = ["MODULE", "READY", "Order"]

MODULE: Final = "alpc_async.tools._bench_child"
"""What to start."""

READY: Final = b"ready\n"
"""First line of every process."""

_READ_SIZE: Final = 64 * 1024


class Order(msgspec.Struct, frozen=True):
    """One line to a client.

    Attributes:
        subject: whom to ask.
        cell: what to measure.
        seconds: how long.
    """

    subject: SubjectName
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


async def serve(backend: BackendName, places: str) -> None:
    """Be a server of every subject until the standard input ends. Cancelling ends it as well.

    Args:
        backend: the event loop that is running.
        places: where: with the name of each subject behind it, as in `open_server`.
    """
    async with AsyncExitStack() as stack:
        for subject in SUBJECTS:
            await stack.enter_async_context(open_server(subject, backend, places + subject))
        _write(READY)
        while await _read_line():
            pass


async def request(backend: BackendName, places: str) -> None:
    """Be a client of every subject until the standard input ends. Cancelling ends it as well.

    Args:
        backend: the event loop that is running.
        places: where the servers are.
    """
    async with AsyncExitStack() as stack:
        calls = {
            subject: await stack.enter_async_context(open_client(subject, backend, places + subject))
            for subject in SUBJECTS
        }
        _write(READY)
        while line := await _read_line():
            order = msgspec.json.decode(line, type=Order)
            measured: Measured = await measure(calls[order.subject], order.cell, order.seconds)
            _write(msgspec.json.encode(measured) + b"\n")


def main(role: str, backend: str, places: str, processor: str) -> None:
    """Run one process of the benchmark.

    Args:
        role: ``"server"`` or ``"client"``.
        backend: one of the names of `BACKENDS`.
        places: where the servers are.
        processor: number of the processor to run on.
    """
    os.sched_setaffinity(0, {int(processor)})
    function = serve if role == "server" else request
    _backends.run(backend, function, cast("BackendName", backend), places)


if __name__ == "__main__":
    main(*sys.argv[1:])
