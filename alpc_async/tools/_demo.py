"""The command ``alpc demo``: real files, real processes, and a table of what they achieved.

Belongs here: arguments, output and exit statuses. Never here: what happens in between (`_demo_run`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path  # noqa: TC003  # cyclopts reads the annotations of commands at run time
from typing import Annotated, Final

import cyclopts
import msgspec
from rich.console import Console

from ._backends import BackendMissing, BackendName, require, run
from ._demo_files import printable
from ._demo_progress import ProgressView
from ._demo_report import DemoReport, make_report, make_table
from ._demo_run import DemoFailed, DemoInterrupted, Plan, run_demo
from ._demo_ways import TransferName  # noqa: TC001  # cyclopts reads the annotations of commands at run time

__all__ = ["carry_out", "demo_command"]

STATUS_MATCHED: Final = 0
STATUS_FAILED: Final = 1
STATUS_USAGE: Final = 2
STATUS_SIGNAL: Final = 128
"""A command that a signal ended exits with this and the signal's number."""

MOST_CLIENTS: Final = 64


def demo_command(
    *path: Path,
    clients: Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=1, lte=MOST_CLIENTS))] = 2,
    backend: BackendName = "asyncio",
    transfer: TransferName = "auto",
    json: Path | None = None,
) -> int:
    """Have a server compute the SHA-256 of every file from its content, sent in messages, and check each digest.

    The server and every client are processes of their own. The exit status is 0 only if there was a file and every
    digest matched; files that cannot be read are listed and do not count as failures. Ctrl-C ends everything.

    Args:
        path: files and directories; by default the standard library of the running Python.
        clients: how many client processes, 1 to 64.
        backend: the event loop of every process.
        transfer: how the content of files travels: in messages, in shared memory, read from the memory of the client,
            or by handing over the open file. By default each file in the first of these that fits its size.
        json: write every figure to this file as well.
    """
    missing = [name for name in path if not os.path.lexists(name)]
    if missing:
        return _complain(f"there is no {printable(os.fsencode(missing[0]))}", STATUS_USAGE)
    if json is not None and not json.absolute().parent.is_dir():
        return _complain(f"there is no directory to write {printable(os.fsencode(json))} in", STATUS_USAGE)
    try:
        require(backend)
    except BackendMissing as error:
        return _complain(str(error), STATUS_USAGE)
    paths = [os.fsencode(name) for name in path]
    return carry_out(Plan(paths=paths, clients=clients, backend=backend, transfer=transfer), json)


def carry_out(plan: Plan, json: Path | None = None) -> int:
    """Run the demo, print what came of it, and return the exit status.

    Args:
        plan: what to do.
        json: write every figure to this file as well.
    """
    try:
        with ProgressView(Console(stderr=True)) as progress:
            outcome = run(plan.backend, run_demo, plan, progress)
    except DemoInterrupted as interruption:
        return _complain(f"{interruption}; nothing is left behind", STATUS_SIGNAL + interruption.signal_number)
    except DemoFailed as failure:
        return _complain(str(failure), STATUS_FAILED)
    return _show(make_report(plan, outcome), json)


def _show(report: DemoReport, json: Path | None) -> int:
    Console().print(make_table(report))
    for file in report.unreadable:
        print(f"unreadable: {file.path}: {file.reason}", file=sys.stderr)
    for path in report.mismatched:
        print(f"DIGEST DIFFERS: {path}", file=sys.stderr)
    if json is not None:
        try:
            json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        except OSError as error:
            return _complain(f"the figures cannot be written: {error}", STATUS_FAILED)
    if not report.files:
        return _complain("there was no file to check, so nothing was shown to work", STATUS_FAILED)
    return STATUS_MATCHED if report.matched else STATUS_FAILED


def _complain(text: str, status: int) -> int:
    print(f"alpc demo: {text}", file=sys.stderr)
    return status
