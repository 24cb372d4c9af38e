"""What the tests of names share: files in the way, strangers who connect, and processes that do as they are told.

Belongs here: helpers of more than one test module about names. Never here: tests.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT = Path(__file__).parents[2]
NAME = "acme.printer"


class Helper:
    """A process that is told lines and answers with lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.stdin: IO[str] = process.stdin
        self.stdout: IO[str] = process.stdout

    def say(self, line: str) -> None:
        """Send a line."""
        self.stdin.write(line + "\n")
        self.stdin.flush()

    def hear(self) -> str:
        """Wait for a line; empty when the process ended."""
        return self.stdout.readline().strip()


@contextmanager
def helper(script: str) -> Generator[Helper]:
    """Run a script in a Python process of its own, and end it with the block."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            yield Helper(process)
        finally:
            process.kill()


def connect(directory: Path, name: str = NAME) -> socket.socket:
    """Connect as a stranger would who knows nothing but the path."""
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(str(directory / name))
    except BaseException:
        client.close()
        raise
    return client


def listener_pid(directory: Path, name: str = NAME) -> int:
    """Return the process that made the socket of the name listen, as the kernel tells it."""
    with connect(directory, name) as client:
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])


def make_file(path: Path, kind: str) -> None:
    """Put a file of some kind at a path."""
    match kind:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to(__file__)
        case "fifo":
            os.mkfifo(path)
        case _:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(str(path))
