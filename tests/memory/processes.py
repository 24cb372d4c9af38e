"""Real processes that are sent a section, or that offer their memory.

Belongs here: what several test modules of this folder need. Never here: tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT = Path(__file__).parent.parent.parent
STRANGER = 54_321

# A process that keeps a cookie and some memory, tells where, and does what it is told by single letters.
OWNER = """
import ctypes, os, sys
from alpc_async.memory import Cookie, address_of
cookie, memory = Cookie(), bytearray(b"0123456789" * 1000)
pin = address_of(memory)
uid = int(sys.argv[1])
if uid:
    os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
print(cookie.address, cookie.value.hex(), pin.address, pin.length, flush=True)
for line in sys.stdin:
    match line.strip():
        case "show":
            print(bytes(memory[:20]).decode(), flush=True)
        case "exec":
            program = "import sys; print('another', flush=True); sys.stdin.read()"
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", program])
"""


class Owner:
    """A process that offers its memory."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid
        address, value, data, length = self.hear().split()
        self.cookie_address, self.cookie_value = int(address), bytes.fromhex(value)
        self.address, self.length = int(data), int(length)

    def say(self, line: str) -> None:
        """Tell the process to do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """Return the next line that the process prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the process ended"
        return line.rstrip("\n")


@contextmanager
def owner(uid: int = 0) -> Generator[Owner]:
    """Run a process that offers its memory, as this user or another one."""
    command = [sys.executable, "-c", OWNER, str(uid)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield Owner(process)
        finally:
            process.kill()


def in_another_process(script: str, descriptor: int) -> str:
    """Run a script with a descriptor, whose number is its argument, and return what it prints."""
    command = [sys.executable, "-I", "-S", "-c", script, str(descriptor)]
    done = subprocess.run(command, pass_fds=[descriptor], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout
