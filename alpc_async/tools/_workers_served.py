"""``alpc bench workers``: a service in several processes, and its replacement under load.

Belongs here: servers and clients in processes of their own. Never here: pools in one process (`_workers_live`), the
report (`_workers`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from statistics import median
from typing import TYPE_CHECKING, Final

import anyio

from ..completion import CompletionPort, WorkerPool
from ..errors import AlpcError, RemoteFault
from ..port import connect, listen
from ..wire import Status
from ._workers_live import Target, burn

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from ..port import CommunicationPort, ConnectionPort, Message

__all__ = ["replacing", "scaling", "service"]

NAME: Final = "bench.served"
TARGET: Final = "alpc_async.tools._workers_served:service"

WORK: Final = b"5000"
"""Steps that each request computes: a fraction of a millisecond, so that the servers are what is busy."""

CLIENTS: Final = 16


async def _handle(message: Message) -> None:
    burn(message)


@asynccontextmanager
async def service() -> AsyncGenerator[ConnectionPort]:
    """Run the service that is measured, in each process of ``alpc serve``."""
    async with (
        CompletionPort() as completion_port,
        listen(NAME, completion_port=completion_port) as port,
        WorkerPool(completion_port, _handle, maximum=16),
    ):
        yield port


@contextmanager
def _served(processes: int, directory: str) -> Generator[subprocess.Popen[bytes]]:
    code = (
        "import sys; from alpc_async.tools._serve import serve_command; "
        f"sys.exit(serve_command({TARGET!r}, name=[{NAME!r}], processes={processes}, linger=2.0))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        env={**os.environ, "ALPC_RUNTIME_DIR": directory},
        process_group=0,
    )
    try:
        stderr = process.stderr
        if stderr is None or b"ready" not in stderr.readline():
            raise RuntimeError("the service did not start")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stderr is not None:
            process.stderr.close()


class _Clients:
    """Clients that ask again at once, each over a connection of its own, and connect anew when they are told to."""

    def __init__(self) -> None:
        self.answered = 0
        self.refused = 0
        self.lost = 0
        self.moved = 0
        self.stop = False

    async def run(self) -> None:
        """Be one client."""
        while not self.stop:
            try:
                async with connect(NAME) as port:
                    await self._use(port)
            except AlpcError:
                self.refused += 1

    async def _use(self, port: CommunicationPort) -> None:
        while not self.stop:
            try:
                await port.request(WORK)
                self.answered += 1
            except RemoteFault as fault:
                self.moved += fault.status == Status.DRAINING
                self.lost += fault.status != Status.DRAINING
                return
            except AlpcError:
                self.lost += 1
                return


async def _rate(seconds: float) -> float:
    clients = _Clients()
    rate = 0.0
    async with anyio.create_task_group() as group:
        for _ in range(CLIENTS):
            group.start_soon(clients.run)
        await anyio.sleep(0.5)
        before, began = clients.answered, time.perf_counter()
        await anyio.sleep(seconds)
        rate = (clients.answered - before) / (time.perf_counter() - began)
        clients.stop = True
    return rate


async def scaling(rounds: int, seconds: float, directory: str) -> list[Target]:
    """Compare two processes behind a name with one."""
    ratios: list[float] = []
    rates = [0.0, 0.0]
    for _ in range(rounds):
        for index in range(2):
            with _served(index + 1, directory):
                rates[index] = await _rate(2 * seconds)
        ratios.append(rates[1] / rates[0])
    detail = f"{rates[0]:,.0f} requests/s with one"
    return [Target("--processes 2 / --processes 1", median(ratios), 1.6, True, detail)]


async def replacing(directory: str) -> list[Target]:
    """Replace both processes under load, twice, and count what became of every call."""
    clients = _Clients()
    with _served(2, directory) as process:
        async with anyio.create_task_group() as group:
            for _ in range(CLIENTS):
                group.start_soon(clients.run)
            for _ in range(2):
                await anyio.sleep(0.5)
                moved = clients.moved
                process.send_signal(signal.SIGHUP)
                with anyio.move_on_after(20):
                    while clients.moved < moved + CLIENTS // 2:  # noqa: ASYNC110  # nobody announces it
                        await anyio.sleep(0.05)
                await anyio.sleep(2.5)
            clients.stop = True
    detail = f"{clients.answered:,} answered, {clients.moved} told to connect again"
    return [
        Target("connections refused while SIGHUP replaces the processes", clients.refused, 0, False, detail),
        Target("calls lost while SIGHUP replaces the processes", clients.lost, 0, False, ""),
    ]
