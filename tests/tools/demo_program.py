"""What tests of the demo as a program share.

Belongs here: starting it, and looking at what it leaves. Never here: what it prints.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "PATIENCE",
    "ROOT",
    "arguments",
    "assert_nothing_left",
    "child",
    "environment",
    "processes_of",
    "run",
    "wait_for",
]

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 30.0


def arguments(backend: str, *more: str | Path) -> list[str]:
    """Return the command."""
    return [sys.executable, "-m", "alpc_async", "demo", "--backend", backend, *map(str, more)]


def environment(temporary: Path) -> dict[str, str]:
    """Return the variables for the program."""
    return {**os.environ, "TMPDIR": str(temporary), "COLUMNS": "200"}


def run(
    temporary: Path, backend: str, *more: str | Path, prefix: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [*(prefix or []), *arguments(backend, *more)],
        cwd=ROOT,
        env=environment(temporary),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
    )


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Look at a condition until it holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)


def processes_of(temporary: Path) -> dict[int, str]:
    """Return all processes of a run, the parent included, with their command lines."""
    found: dict[int, str] = {}
    marker = f"TMPDIR={temporary}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if marker in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has ended, or belongs to somebody else
                continue
    return found


def assert_nothing_left(temporary: Path) -> None:
    """Fail if a process, a directory, a socket or a lock of the run is there."""
    assert processes_of(temporary) == {}
    assert list(temporary.rglob("*")) == []


def child(temporary: Path, role: str) -> int:
    """Return the process of the server or of a client; wait until it is there."""
    wait_for(lambda: any(f"_demo_{role}" in command for command in processes_of(temporary).values()), role)
    return next(number for number, command in processes_of(temporary).items() if f"_demo_{role}" in command)
