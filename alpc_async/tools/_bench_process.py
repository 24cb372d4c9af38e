"""The processes of the benchmark, as seen from the command: one server and one client, each on its processor.

Belongs here: starting them, giving orders, and ending them whatever happens. Never here: what they do inside.

Each child stands in a process group of its own, so that Ctrl-C reaches the command alone, which then ends them in
order. They end by themselves when their standard input does, so nothing is left even if the command is killed.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import msgspec

from ._bench_child import MODULE, READY, Order
from ._bench_load import Cell, Measured, Placement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from ._backends import BackendName
    from ._bench_subjects import SubjectName

__all__ = ["PATIENCE", "Child", "ChildFailed", "Children", "processors"]

PATIENCE: Final = 30.0
"""Seconds that a child may need beyond the measured time before it counts as stuck."""

FAREWELL: Final = 3.0
"""Seconds that a child gets to end by itself, and again after it was told to terminate."""


class ChildFailed(RuntimeError):
    """A process of the benchmark ended, or did not answer.

    Attributes:
        child: which one.
        exit_status: how it ended; ``None`` when it was still running.
    """

    def __init__(self, *, child: str, exit_status: int | None) -> None:
        self.child = child
        self.exit_status = exit_status
        what = "did not answer in time" if exit_status is None else f"ended with exit status {exit_status}"
        super().__init__(f"the benchmark's {child} {what}")


class Child:
    """One process, which is spoken to in lines.

    Args:
        label: what errors call it.
        arguments: a module and its arguments.
        directory: where its ports are.
        descriptors: what it inherits, under the same numbers.
    """

    def __init__(self, label: str, arguments: Sequence[str], directory: str, descriptors: Sequence[int] = ()) -> None:
        self.label = label
        self._rest = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "ALPC_RUNTIME_DIR": directory},
            process_group=0,
            pass_fds=descriptors,
        )

    def tell(self, line: bytes) -> None:
        """Write one line."""
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101  # it was asked for as a pipe
        try:
            stdin.write(line)
            stdin.flush()
        except BrokenPipeError:
            raise ChildFailed(child=self.label, exit_status=self._process.wait(FAREWELL)) from None

    def hear(self, timeout: float) -> bytes:
        """Read one line.

        Args:
            timeout: how long to wait for it, in seconds.
        """
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101  # it was asked for as a pipe
        deadline = time.monotonic() + timeout
        while b"\n" not in self._rest:
            readable, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise ChildFailed(child=self.label, exit_status=None)
            data = os.read(stdout.fileno(), 64 * 1024)
            if not data:
                raise ChildFailed(child=self.label, exit_status=self._process.wait(FAREWELL))
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line + b"\n"

    def dismiss(self) -> None:
        """Let the process end by itself: close its input."""
        stdin = self._process.stdin
        if stdin is not None:
            try:
                stdin.close()
            except BrokenPipeError:
                return

    def end(self) -> None:
        """See to it that the process is gone, and give its pipes back."""
        self.dismiss()
        for insist in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(FAREWELL)
                break
            except subprocess.TimeoutExpired:
                insist()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()


def processors(placement: Placement) -> tuple[int, int]:
    """Return the processors of the server and of the client; the same one if there is no other.

    Args:
        placement: where they are to run.
    """
    usable = sorted(os.sched_getaffinity(0))
    return usable[0] if placement == "apart" else usable[-1], usable[-1]


class Children:
    """A server and a client on one event loop, for the time of a ``with`` block.

    Args:
        backend: the event loop of both.
        directory: private directory for sockets and names.
        placement: where they run.

    Raises:
        ChildFailed: when entered: one of them did not start.
    """

    def __init__(self, backend: BackendName, directory: str, placement: Placement) -> None:
        self._backend: BackendName = backend
        self._directory = directory
        self._places = os.path.join(directory, f"bench.{backend}.{placement}.")
        self._processors = processors(placement)
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        try:
            for role, processor in zip(("server", "client"), self._processors, strict=True):
                arguments = [MODULE, role, self._backend, self._places, str(processor)]
                child = Child(f"{role} on {self._backend}", arguments, self._directory)
                self._children.append(child)
                if child.hear(PATIENCE) != READY:
                    raise ChildFailed(child=child.label, exit_status=None)
        except BaseException:
            self._end(at_once=True)
            raise
        return self

    def measure(self, subject: SubjectName, cell: Cell, seconds: float) -> Measured:
        """Measure one cell.

        Args:
            subject: what to measure.
            cell: how large and how many.
            seconds: how long.

        Returns:
            What the client found.

        Raises:
            ChildFailed: one of the processes is gone or stuck.
        """
        client = self._children[-1]
        client.tell(msgspec.json.encode(Order(subject, cell, seconds)) + b"\n")
        return msgspec.json.decode(client.hear(2 * seconds + PATIENCE), type=Measured)

    def _end(self, *, at_once: bool) -> None:
        # The client first: the server has nobody to wait for then.
        for child in reversed(self._children):
            child.dismiss()
            if at_once:
                child.kill()
            child.end()
        self._children.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(at_once=kind is not None)
