"""The processes of the demo, seen from the parent: starting them, noticing that one died, and ending all.

Belongs here: processes and the directory that they share. Never here: what they say to one another.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from ._demo_child import ChildStatus

if TYPE_CHECKING:
    from collections.abc import Generator

    from anyio.abc import Process

__all__ = ["Child", "Children", "private_directory"]

GRACE: Final = 3.0
"""Seconds that a child has to end after the control port was closed, and again after it was told to terminate."""

LOG_TAIL: Final = 4096
"""Bytes of what a failed child wrote that are shown."""

_VARIABLE: Final = "ALPC_RUNTIME_DIR"


@contextmanager
def private_directory() -> Generator[Path]:
    """Make a directory for the names of ports that this process and its children alone use; remove it at the end."""
    before = os.environ.get(_VARIABLE)
    directory = tempfile.mkdtemp(prefix="alpc-demo-")
    os.environ[_VARIABLE] = directory
    try:
        yield Path(directory)
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before
        shutil.rmtree(directory)


class Child:
    """One process.

    Attributes:
        name: what to call it.
        process: the process.
        log: the file that it writes its errors to.
        ended_by_us: it did not end in time, so it was sent a signal.
    """

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log
        self.ended_by_us = False

    def describe_end(self) -> str:
        """Return a sentence on how the process ended, with the end of what it wrote."""
        code = self.process.returncode or 0
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        with self.log.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_TAIL))
            written = log.read().decode("utf-8", "backslashreplace").strip()
        return f"the {self.name} ended unexpectedly ({how})" + (f"; it wrote:\n{written}" if written else "")


class Children:
    """All processes that the parent has started. End them with `stop`, whatever happened.

    Args:
        directory: where their logs are written.
        backend: the event loop that they run on.
    """

    def __init__(self, directory: Path, backend: str) -> None:
        self._directory = directory
        self._backend = backend
        self._children: list[Child] = []

    async def start(self, name: str, module: str) -> None:
        """Start a process. Cancelling takes effect after it has been started, so that `stop` finds it.

        Args:
            name: what to call it.
            module: the module that it runs.

        Raises:
            OSError: the system does not let us.
        """
        log = self._directory / f"{name.replace(' ', '-')}.log"
        # The same module path as ours, and nothing from the current directory: a child finds what the parent found.
        command = [sys.executable, "-P", "-m", module, self._backend]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        with anyio.CancelScope(shield=True), log.open("wb") as output:
            process = await _open(command, output.fileno(), environment)
            self._children.append(Child(name, process, log))

    async def wait_for_failure(self) -> None:
        """Wait until any of the processes that were started ends with an error. Cancelling stops the wait only."""
        async with anyio.create_task_group() as tasks:

            async def watch(process: Process) -> None:
                if await process.wait() != ChildStatus.DONE:
                    tasks.cancel_scope.cancel()

            tasks.start_soon(anyio.sleep_forever)
            for child in self._children:
                tasks.start_soon(watch, child.process)

    async def stop(self) -> None:
        """Wait until all have ended; end those that do not by themselves. Not to be cancelled.

        To be called when the control port is closed, which is what tells them to end.
        """
        await self._wait_for_all()
        for end in (signal.SIGTERM, signal.SIGKILL):
            for child in self._running():
                child.ended_by_us = True
                child.process.send_signal(end)
            await self._wait_for_all()
        for child in self._children:
            await child.process.aclose()

    def _running(self) -> list[Child]:
        return [child for child in self._children if child.process.returncode is None]

    async def _wait_for_all(self) -> None:
        with anyio.move_on_after(GRACE):
            for child in self._running():
                await child.process.wait()

    def culprit(self) -> Child | None:
        """Return the child whose end was the reason for that of all, after `stop`; ``None`` if none failed.

        Of several it is the one that was started first: clients fail when they lose their server.
        """
        for child in self._children:
            if not child.ended_by_us and child.process.returncode not in (ChildStatus.DONE, ChildStatus.PARENT_GONE):
                return child
        return None


async def _open(command: list[str], output: int, environment: dict[str, str]) -> Process:
    return await anyio.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        # Ctrl-C on a terminal reaches its whole process group; it shall reach the parent only.
        start_new_session=True,
    )
