"""A service manager of the systemd kind, as far as tests need one: sockets that it holds, programs that it starts.

Belongs here: what the tests of several commands share. Never here: tests.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Becomes the process that a service manager would start: its socket has number 3.
ACTIVATED = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def listening(path: Path) -> socket.socket:
    """Return a socket such as a service manager passes."""
    sock = socket.socket(socket.AF_UNIX)
    # PassCredentials= in its unit: who connects before the process is there has to be identified as well.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    sock.bind(str(path))
    sock.listen()
    return sock


def activate(arguments: list[str], sock: socket.socket, name: str, **environment: str) -> subprocess.Popen[str]:
    """Start a program as a service manager does, with the socket of a port."""

    def number_three() -> None:
        os.dup2(sock.fileno(), 3, inheritable=True)

    return subprocess.Popen(  # nothing but a system call
        [sys.executable, "-c", ACTIVATED, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=(3,) if sock.fileno() == 3 else (),
        close_fds=False,
        preexec_fn=number_three,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LISTEN_FDS": "1", "LISTEN_FDNAMES": name, **environment},
    )
