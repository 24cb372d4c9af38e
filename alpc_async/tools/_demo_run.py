"""One run of the demo from beginning to end, in the parent.

Belongs here: the order of things, and what ends a run early. Never here: arguments, output and exit statuses.

However a run ends, by itself, by a signal, or because a child died, everything is taken down in the same order: the
control port, which tells the children to end; the children; the directory of their names.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

import anyio
import msgspec

from .. import AlpcError, listen
from ._demo_conductor import Conductor, Totals
from ._demo_files import FoundFiles, find_files
from ._demo_messages import CONTROL, CONTROL_LIMITS, ServerReport
from ._demo_processes import Children, private_directory
from ._demo_ways import TransferName  # msgspec reads annotations at run time
from ._histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from .. import ConnectionPort

__all__ = ["DemoFailed", "DemoInterrupted", "Outcome", "Plan", "run_demo"]

STARTUP_TIMEOUT: Final = 30.0
"""Seconds in which all processes must have begun."""


class DemoFailed(Exception):
    """The run could not be finished; the text says why."""


class DemoInterrupted(Exception):
    """The run was ended by a signal.

    Attributes:
        signal_number: which one.
    """

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        super().__init__(f"ended by {signal.Signals(signal_number).name}")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do.

    Attributes:
        paths: files and directories; none for the standard library of the running Python.
        clients: how many client processes.
        backend: the event loop of every process.
        transfer: how the content of files travels.
        server_module: what the server process runs.
        client_module: what each client process runs.
    """

    paths: list[bytes] = []
    clients: int = 2
    backend: str = "asyncio"
    transfer: TransferName = "auto"
    server_module: str = "alpc_async.tools._demo_server"
    client_module: str = "alpc_async.tools._demo_client"


class Outcome(msgspec.Struct):
    """What came of it.

    Attributes:
        found: the files, and everything that was unreadable.
        totals: the sums of all clients.
        server: what the server did.
        histogram: the latencies of all requests.
        elapsed: how long checking took, in seconds; starting and ending processes is not part of it.
    """

    found: FoundFiles
    totals: Totals
    server: ServerReport
    histogram: Histogram
    elapsed: float


class _Run:
    """The state of one run: what ended it early, if anything did."""

    def __init__(self, plan: Plan, progress: Callable[[Totals], None]) -> None:
        self.plan = plan
        self.progress = progress
        self.signal_number: int | None = None
        self.reason = "a process lost its connection to this one before everything was done"
        self.outcome: Outcome | None = None


async def run_demo(plan: Plan, progress: Callable[[Totals], None]) -> Outcome:
    """Have a server check all files for some clients, each in a process of its own.

    Cancelling ends all processes and removes their directory before it is over. Must run in the main thread, because
    signals arrive there.

    Args:
        plan: what to do.
        progress: called with the sums so far whenever they change.

    Returns:
        The results.

    Raises:
        DemoInterrupted: SIGINT, SIGTERM or SIGHUP came; everything has ended.
        DemoFailed: a process died or did not begin; everything has ended.
    """
    run = _Run(plan, progress)
    with anyio.open_signal_receiver(*_ending_signals()) as signals:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_end_on_signal, run, signals, tasks.cancel_scope)
            await _prepare_and_run(run)
            tasks.cancel_scope.cancel()
    if run.signal_number is not None:
        raise DemoInterrupted(run.signal_number)
    if run.outcome is None:
        raise DemoFailed(run.reason)
    return run.outcome


def _ending_signals() -> list[signal.Signals]:
    ending = [signal.SIGINT, signal.SIGTERM]
    # ``nohup`` lets a command outlive its terminal in this way.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        ending.append(signal.SIGHUP)
    return ending


async def _end_on_signal(run: _Run, signals: AsyncIterator[signal.Signals], scope: anyio.CancelScope) -> None:
    async for number in signals:
        run.signal_number = number
        scope.cancel()
        return


async def _prepare_and_run(run: _Run) -> None:
    found = await find_files(run.plan.paths)
    with private_directory() as directory:
        async with listen(CONTROL, limits=CONTROL_LIMITS) as control:
            await _run_processes(run, found, control, directory)


async def _run_processes(run: _Run, found: FoundFiles, control: ConnectionPort, directory: Path) -> None:
    conductor = Conductor(found, run.plan.clients, run.progress, run.plan.transfer)
    children = Children(directory, run.plan.backend)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(conductor.conduct, control)
            await _start_all(run.plan, children)
            tasks.start_soon(_watch_children, children, tasks.cancel_scope)
            tasks.start_soon(_watch_beginning, run, conductor, tasks.cancel_scope)
            await conductor.done.wait()
            run.outcome = await _collect(run, found, conductor)
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await control.aclose()
            await children.stop()
        culprit = children.culprit()
    if run.outcome is None and culprit is not None:
        run.reason = culprit.describe_end()


async def _start_all(plan: Plan, children: Children) -> None:
    await children.start("server", plan.server_module)
    for number in range(1, plan.clients + 1):
        await children.start(f"client {number}", plan.client_module)


async def _watch_children(children: Children, scope: anyio.CancelScope) -> None:
    await children.wait_for_failure()
    scope.cancel()


async def _collect(run: _Run, found: FoundFiles, conductor: Conductor) -> Outcome | None:
    try:
        server = await conductor.ask_server()
    except AlpcError as error:
        run.reason = f"the server does not tell its statistics: {error}"
        return None
    return Outcome(found, conductor.totals, server, conductor.histogram, conductor.elapsed)


async def _watch_beginning(run: _Run, conductor: Conductor, scope: anyio.CancelScope) -> None:
    with anyio.move_on_after(STARTUP_TIMEOUT):
        await conductor.ready.wait()
        return
    run.reason = f"not all processes had begun after {STARTUP_TIMEOUT:g} s"
    scope.cancel()
