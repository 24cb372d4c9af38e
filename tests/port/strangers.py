"""Whole programs of other users: clients and servers that use the package as somebody else.

Belongs here: starting them, and the two marks for tests that need root. Never here: tests.

The user is changed by the program itself, after it has imported what it needs: the interpreter and the package may live
where only root can read them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["ALICE", "BOB", "NOBODY", "WAIT", "as_root", "finish", "program", "run_as"]

NOBODY = 65_534
ALICE = 54_321
BOB = 54_322
WAIT = 30.0
"""Seconds until a program that should have ended counts as failed."""

REPOSITORY = Path(__file__).resolve().parents[2]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")

_PRELUDE = """
import json, os, select, signal, socket, sys, time
import anyio, anyio.lowlevel
import anyio._backends._asyncio
import asyncio
import alpc_async as alpc
import array, encodings.idna, grp, hashlib, pwd, resource, stringprep, uuid
def become(uid, groups=()):
    os.setgroups(list(groups)); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
def say(value):
    print(json.dumps(value), flush=True)
def hear():
    return sys.stdin.readline().strip()
arguments = json.loads(sys.argv[1])
become(arguments.pop("become"), arguments.pop("groups"))
"""


@contextmanager
def program(uid: int, body: str, *, groups: tuple[int, ...] = (), **arguments: Any) -> Generator[subprocess.Popen[str]]:
    """Run a program as another user, with pipes to talk to it.

    Args:
        uid: the user, and its group.
        body: the code; ``say(value)`` prints JSON, ``hear()`` reads a line, ``arguments`` holds the rest.
        groups: supplementary groups.
        **arguments: what the code gets.
    """
    given = json.dumps({"become": uid, "groups": groups, **arguments})
    command = [sys.executable, "-c", _PRELUDE + body, given]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[str], words: str = "", *, wait: float = WAIT) -> list[Any]:
    """Let a program run to its end; return what it said."""
    output, complaint = process.communicate(words, timeout=wait)
    assert process.returncode == 0, complaint
    return [json.loads(line) for line in output.splitlines()]


def run_as(uid: int, body: str, *, groups: tuple[int, ...] = (), **arguments: Any) -> list[Any]:
    """Run a program as another user to its end; return what it said."""
    with program(uid, body, groups=groups, **arguments) as process:
        return finish(process)
