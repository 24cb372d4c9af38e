"""Child processes: starting one with an inherited socket, seeing it end, and being one.

Belongs here: `ChildProcess`, `die_with_parent`, `inherit_socket`. Never here: what parent and child say to each other.

A child is started from the thread of the event loop on purpose: the kernel ends it when *that thread* of its parent
ends, and threads of a pool may end long before the process does. Its end is seen through a pidfd, so no handler for
SIGCHLD is needed and nobody else can take the exit status away.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from ..handles import Handle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._loop import Loop, Waiter

__all__ = ["ChildProcess", "die_with_parent", "inherit_socket", "usable_processors"]

PATH_VARIABLE: Final = "ALPC_CHILD_PATH"
"""Environment variable that tells a child where its parent imports from."""

PARENT_VARIABLE: Final = "ALPC_CHILD_PARENT"
"""Environment variable that tells a child who its parent is."""

PR_SET_PDEATHSIG: Final = 1
"""linux/prctl.h"""


class ChildProcess:
    """A Python program that runs as a child of this process. It gets no input and no signals of our terminal.

    Args:
        loop: the running loop.
        module: the program, as for ``python -m``.
        arguments: its arguments.
        inherited: descriptors that it gets under the same numbers.

    Attributes:
        pid: its process id, which is its own until it was waited for.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, loop: Loop, module: str, arguments: Sequence[str], inherited: Sequence[int]) -> None:
        self._loop = loop
        self._waiters: list[Waiter] = []
        # `-c` and scripts put directories of their own first; the child has to find what the parent finds.
        environment = {**os.environ, PATH_VARIABLE: json.dumps(sys.path), PARENT_VARIABLE: str(os.getpid())}
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=tuple(inherited),
            process_group=0,
            env=environment,
        )
        self.pid = self._process.pid
        try:
            self._pidfd = Handle(os.pidfd_open(self.pid))
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        loop.add_reader(self._pidfd.fileno(), self._ended)

    @property
    def exit_status(self) -> int | None:
        """How it ended: the exit status, or minus the number of a signal; ``None`` while it runs."""
        return self._process.returncode

    def _ended(self) -> None:
        if self._pidfd.closed:
            return
        self._loop.remove_reader(self._pidfd.fileno())
        self._pidfd.close()
        self._process.wait()
        while self._waiters:
            waiter = self._waiters.pop()
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> int:
        """Wait until it has ended, and return how. Cancelling stops the wait."""
        while self._process.returncode is None:
            waiter = self._loop.create_waiter()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        return self._process.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended.

        Args:
            number: the signal.
        """
        if self._process.returncode is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once and wait for that, which takes the kernel a moment. Killing again does nothing."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        self._ended()


def die_with_parent() -> None:
    """Have the kernel end this process as soon as its parent has ended, also when that was killed.

    When the parent has ended already this process ends now. Also finds what the parent finds, when importing.
    """
    for path in json.loads(os.environ.get(PATH_VARIABLE, "[]")):
        if path not in sys.path:
            sys.path.append(path)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ.get(PARENT_VARIABLE, "0")):
        sys.exit(0)


def inherit_socket(fd: int) -> socket.socket:
    """Take over a socket that this process was started with: non-blocking and close-on-exec from now on.

    Args:
        fd: its descriptor, which belongs to the returned socket.

    Raises:
        OSError: it is no socket.
    """
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    sock.set_inheritable(False)
    return sock


def usable_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))
