"""Real processes of other users at the other end of a socket, and sockets that answer from a table.

Belongs here: what several test modules of this folder need. Never here: tests.
"""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

NOBODY = 65_534
STRANGER = 54_321
# Seconds until a process that should have acted counts as failed.
WAIT = 20.0

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
all_mapped = pytest.mark.skipif(
    sum(int(row.split()[2]) for row in Path("/proc/self/uid_map").read_text().splitlines()) != 2**32 - 1,
    reason="uid 65534 is only known to be nobody where the user namespace maps every user",
)

# The user is changed by the child itself: the interpreter may live where only root can execute it.
_BECOME = """
import os, socket, sys
path, uid, groups = sys.argv[1], int(sys.argv[2]), [int(group) for group in sys.stdin.readline().split()]
os.setgroups(groups); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
sock = socket.socket(socket.AF_UNIX)
"""
_CLIENT = f"{_BECOME}\nsock.connect(path); sys.stdin.read()"
_SERVER = f"{_BECOME}\nsock.bind(path); os.chmod(path, 0o666); sock.listen(); print('up', flush=True); sys.stdin.read()"


class ScriptedSocket(socket.socket):
    """A socket for which some options answer from a table: bytes, or the number of an error."""

    answers: dict[int, bytes | int]

    def getsockopt(self, level: int, option: int, length: int = 0) -> Any:
        """Answer from the table, or else from the kernel."""
        answer = self.answers.get(option)
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        return super().getsockopt(level, option, length) if answer is None else answer


@contextmanager
def scripted(answers: dict[int, bytes | int]) -> Generator[ScriptedSocket]:
    """Give a connected socket that answers from the table."""
    ours, theirs = socket.socketpair()
    with theirs, ScriptedSocket(fileno=ours.detach()) as sock:
        sock.answers = answers
        yield sock


@contextmanager
def _child(script: str, path: str, uid: int, groups: tuple[int, ...] = ()) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-I", "-S", "-c", script, path, str(uid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(" ".join(map(str, groups)) + "\n")
            process.stdin.flush()
            yield process
        finally:
            process.kill()


@contextmanager
def client_of(path: str, uid: int, groups: tuple[int, ...] = ()) -> Generator[tuple[socket.socket, int]]:
    """Accept a connection from a real process of another user; give the socket and the pid of that process."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        os.chmod(path, 0o666)  # noqa: S103  # the other user must be able to connect
        listener.listen()
        listener.settimeout(WAIT)
        with _child(_CLIENT, path, uid, groups) as process:
            sock, _ = listener.accept()
            with sock:
                yield sock, process.pid


@contextmanager
def server_of(path: str, uid: int) -> Generator[int]:
    """Run a real process of another user that listens on the path; give its pid."""
    with _child(_SERVER, path, uid) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process.pid


def open_descriptors() -> set[str]:
    """Return the numbers of all open descriptors."""
    gc.collect()
    return set(os.listdir("/proc/self/fd"))
