"""Processes that do with a socket what they are told, step by step, and that are killed in between.

Belongs here: what several modules about faults need. Never here: tests.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import anyio.to_thread

import alpc_async as alpc
from alpc_async.wire import Endpoint, Role, Ticket
from tests.port.support import WAIT

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

# It imports nothing that takes time, and knows nothing of the protocol: the bytes come from the test.
_SCRIPT = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
for line in sys.stdin:
    word, _, rest = line.strip().partition(" ")
    if word == "connect":
        sock.connect(rest)
    elif word == "listen":
        listener, sock = sock, None
        listener.bind(rest)
        listener.listen()
    elif word == "accept":
        sock, _ = listener.accept()
    elif word == "send":
        sock.sendall(bytes.fromhex(rest))
    elif word == "receive":
        data = b""
        while len(data) < int(rest):
            data += sock.recv(65536)
    elif word == "fork":
        if not os.fork():
            # The descendant keeps the socket until the test closes the pipe.
            sys.stdin.read()
            os._exit(0)
    elif word == "close":
        sock.close()
    print("done", flush=True)
"""


class Puppet:
    """A process with one socket."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin: IO[str] = process.stdin
        self._stdout: IO[str] = process.stdout

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    async def do(self, command: str) -> None:
        """Have one step done, and wait until it is."""
        self._stdin.write(command + "\n")
        self._stdin.flush()
        with anyio.fail_after(WAIT):
            answer = await anyio.to_thread.run_sync(self._stdout.readline, abandon_on_cancel=True)
        assert answer == "done\n", command

    async def connect(self, path: Path) -> None:
        """Connect to a socket."""
        await self.do(f"connect {path}")

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        await self.do(f"send {data.hex()}")

    def kill(self) -> None:
        """Kill the process, as the kernel does when memory runs out."""
        self._process.kill()


@contextmanager
def puppet() -> Generator[Puppet]:
    """Run a process, and end it and its descendants with the block."""
    command = [sys.executable, "-I", "-S", "-c", _SCRIPT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Puppet(process)
        finally:
            process.kill()


def client_frames(*messages: bytes) -> list[bytes]:
    """Return what a client sends: its greeting, and one request for each message."""
    endpoint: Endpoint[Ticket] = Endpoint(Role.CLIENT, alpc.PortLimits())
    endpoint.hello(b"")
    frames = [endpoint.data_to_send(1 << 30)]
    endpoint.open_pair(alpc.PortLimits())
    for message in messages:
        endpoint.request(Ticket(), message, 0.0, None)
        frames.append(endpoint.data_to_send(1 << 30))
    return frames


def server_frames(reply: bytes) -> tuple[bytes, bytes]:
    """Return what a server sends: its welcome, and the reply to the first request."""
    hello, request = client_frames(b"question")
    endpoint: Endpoint[Ticket] = Endpoint(Role.SERVER, alpc.PortLimits())
    endpoint.receive_data(hello)
    endpoint.accept(b"")
    welcome = endpoint.data_to_send(1 << 30)
    endpoint.receive_data(request)
    endpoint.reply(1, reply)
    return welcome, endpoint.data_to_send(1 << 30)
