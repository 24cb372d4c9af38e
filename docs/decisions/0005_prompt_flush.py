"""Measures serial round trips with and without the prompt flush, in alternating rounds.

Run it as ``python docs/decisions/0005_prompt_flush.py [asyncio|uvloop|trio]``. The server runs in a process of its own.
In the rounds without, a link on either side never sends before the turn of its loop ends. Both processes share one
processor: waking another one that has halted costs more, and varies more, than what is measured here.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

import alpc_async as alpc
from alpc_async.link import SocketLink

ROUNDS = 9
REQUESTS = 3000


class Never:
    """Stands in for `SocketLink.prompt` and cannot be set."""

    def __get__(self, link: object, kind: type | None = None) -> bool:
        return False

    def __set__(self, link: object, value: bool) -> None:
        pass


async def serve(name: str) -> None:
    """Answer every request with its own data until standard input ends."""
    async with anyio.create_task_group() as tasks, alpc.listen(name) as port:
        tasks.start_soon(echo, port)
        sys.stdout.write("up\n")
        sys.stdout.flush()
        await anyio.to_thread.run_sync(sys.stdin.read)


async def echo(port: alpc.ConnectionPort) -> None:
    """Answer the requests of all clients."""
    async for batch in port:
        for message in batch:
            if message.type is alpc.MessageType.REQUEST:
                message.reply(message.data)


async def measure(name: str) -> float:
    """Return the median round trip in microseconds."""
    async with alpc.connect(name) as port:
        times: list[float] = []
        for _ in range(REQUESTS):
            began = time.perf_counter()
            await port.request(b"x" * 64)
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def run(loop: str, function: Any, name: str) -> Any:
    """Run an async function on one of the three event loops."""
    if loop == "trio":
        return anyio.run(function, name, backend="trio")
    return anyio.run(function, name, backend_options={"use_uvloop": loop == "uvloop"})


def one_round(loop: str, *, prompt: bool) -> float:
    """Start a server and a client, and return the client's median round trip in microseconds."""
    mode = "prompt" if prompt else "late"
    command = [sys.executable, __file__, loop, mode]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "server"], stdin=pipe, stdout=pipe) as server:  # noqa: S603  # this very script
        if server.stdout is None or server.stdout.readline() != b"up\n":
            raise RuntimeError("the server did not start")
        answer = subprocess.run([*command, "client"], stdout=pipe, check=True)  # noqa: S603  # this very script
        server.communicate()
    return float(answer.stdout)


def child(loop: str, mode: str, role: str) -> None:
    """Be the server or the client of one round."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if mode == "late":
        SocketLink.prompt = Never()  # type: ignore[assignment]  # the point of this script
    if role == "server":
        run(loop, serve, "demo.prompt")
    else:
        sys.stdout.write(str(run(loop, measure, "demo.prompt")))


def main(loop: str) -> None:
    """Print both medians and their ratio."""
    with tempfile.TemporaryDirectory(prefix="alpc-") as directory:
        Path(directory).chmod(0o700)
        os.environ["ALPC_RUNTIME_DIR"] = directory
        pairs = [(one_round(loop, prompt=True), one_round(loop, prompt=False)) for _ in range(ROUNDS)]
    prompt, late = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(first / second for first, second in pairs)
    sys.stdout.write(f"{loop:8} prompt {prompt:6.1f} µs   late {late:6.1f} µs   median ratio {ratio:.2f}\n")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        child(*sys.argv[1:])
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else "asyncio")
