"""``alpc serve``: several processes behind a name, their ends, their replacement, and service managers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import psutil  # type: ignore[import-untyped]  # it comes without annotations
import pytest

import alpc_async as alpc
from alpc_async.tools._serve import serve_command
from alpc_async.tools._serve_child import resolve
from alpc_async.tools._systemd import notify
from tests.port.support import WAIT, until
from tests.tools.manager import activate, listening
from tests.tools.served import NAME, Patient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

ROOT = Path(__file__).parents[2]
COMMAND = "import sys; from alpc_async.tools._serve import serve_command; sys.exit(serve_command({arguments}))"


def start(arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start the command."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("environment", {})}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(arguments=arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
        **options,
    )


async def line_of(process: subprocess.Popen[str]) -> str:
    """Return the next line that it writes, waiting for it a while."""
    assert process.stderr is not None
    with anyio.fail_after(WAIT):
        return await anyio.to_thread.run_sync(process.stderr.readline)


async def ended(process: subprocess.Popen[str]) -> int:
    """Wait for its end, and return the exit status."""
    await until(lambda: process.poll() is not None, "the end of the command")
    return process.wait()


@asynccontextmanager
async def served(
    processes: int = 2, *, grace: float = 5.0, linger: float = 0.3, target: str = "tests.tools.served:pids"
) -> AsyncGenerator[subprocess.Popen[str]]:
    """Run the command until the block ends, and see that it leaves nothing behind."""
    arguments = f"{target!r}, name=[{NAME!r}], processes={processes}, grace={grace}, linger={linger}"
    process = start(arguments)
    try:
        assert "ready" in await line_of(process)
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0
    finally:
        for child in psutil.Process(process.pid).children() if process.poll() is None else []:
            child.kill()
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


async def ask(port: alpc.CommunicationPort, data: bytes = b"0") -> int:
    """Return the id of the process at the other end."""
    return int((await port.request(data, timeout=WAIT)).data)


async def test_connections_spread_over_the_processes(runtime_directory: Path) -> None:
    """Each process gets its share of the connections, and clients see the supervisor as their server."""
    async with served(2) as process:
        pids: list[int] = []
        ports = [await alpc.connect(NAME) for _ in range(24)]
        try:
            for port in ports:
                assert port.peer.pid == process.pid
                pids.append(await ask(port))
        finally:
            for port in ports:
                await port.aclose()
        counts = sorted(pids.count(pid) for pid in set(pids))
        assert len(counts) == 2
        # How evenly depends on how soon the machine lets each of them run, but a difference grows no further.
        assert counts[0] >= 8
        assert process.pid not in pids
    assert os.listdir(runtime_directory) == []


async def test_a_process_that_dies_is_started_again() -> None:
    """The others go on meanwhile, and soon there are as many as before."""
    async with served(2) as process:
        async with alpc.connect(NAME) as port:
            victim = await ask(port)
            with pytest.raises(alpc.Disconnected):
                await port.request(b"die", timeout=WAIT)
        assert f"process {victim} ended with status 7" in await line_of(process)
        async with alpc.connect(NAME) as port:
            assert await ask(port) != victim
        await until(lambda: len(psutil.Process(process.pid).children()) == 2)


class Caller:
    """Asks again and again, and connects anew when it is told that its process is draining."""

    def __init__(self) -> None:
        self.answered = 0
        self.reconnected = 0
        self.pids: set[int] = set()
        self.stop = False

    async def run(self) -> None:
        """Keep asking. A refused connection and a lost call are errors."""
        while not self.stop:
            async with alpc.connect(NAME) as port:
                await self._use(port)

    async def _use(self, port: alpc.CommunicationPort) -> None:
        while not self.stop:
            try:
                self.pids.add(await ask(port, b"2"))
            except alpc.RemoteFault as error:
                if error.status != alpc.Status.DRAINING:
                    raise
                self.reconnected += 1
                return
            self.answered += 1


async def test_a_rolling_restart_refuses_nobody_and_loses_nothing() -> None:
    """Under load, SIGHUP replaces every process while each call is answered or turned away unworked."""
    async with served(2, linger=2.0) as process:
        callers = [Caller() for _ in range(8)]
        before = {child.pid for child in psutil.Process(process.pid).children()}
        async with anyio.create_task_group() as tasks:
            for caller in callers:
                tasks.start_soon(caller.run)
            await until(lambda: all(caller.answered > 5 for caller in callers))
            process.send_signal(signal.SIGHUP)
            await until(lambda: not before & {child.pid for child in psutil.Process(process.pid).children()})
            answered = [caller.answered for caller in callers]
            await until(lambda: all(now.answered > then for now, then in zip(callers, answered, strict=True)))
            for caller in callers:
                caller.stop = True
        assert sum(caller.reconnected for caller in callers) >= len(callers)
        assert set[int]().union(*(caller.pids for caller in callers)) - before


async def test_a_stop_waits_for_calls_that_were_accepted() -> None:
    """SIGTERM lets a call that is being worked on finish, and turns new ones away."""
    async with served(1) as process, alpc.connect(NAME) as port:
        (child,) = psutil.Process(process.pid).children()
        slow = port.start_request(b"1500", timeout=WAIT)
        await ask(port)
        process.send_signal(signal.SIGTERM)
        assert int((await slow).data) == child.pid


async def turned_away(patient: Patient) -> object:
    """Call until the service takes no calls any more, and return how it says so."""
    with anyio.fail_after(WAIT):
        while True:
            try:
                await patient.wait(0)
            except alpc.RemoteFault as fault:
                return fault.status


async def test_a_stop_waits_for_typed_calls() -> None:
    """SIGTERM lets a call of a typed service finish, and turns new ones away."""
    async with served(1, target="tests.tools.served:typed") as process, alpc.connect(NAME, Patient) as patient:
        (child,) = psutil.Process(process.pid).children()
        answers: list[int] = []

        async def call(milliseconds: int) -> None:
            answers.append(await patient.wait(milliseconds))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, 1500)
            # It leaves during the first of these, and so has arrived when the second one is answered.
            await patient.wait(0)
            await patient.wait(0)
            process.send_signal(signal.SIGTERM)
            assert await turned_away(patient) is alpc.Status.DRAINING
            assert not answers
        assert answers == [child.pid]


def test_a_name_that_nobody_opens_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    """A service that opens its ports under other names does not become ready while clients would wait in vain."""
    assert serve_command("tests.tools.served:pids", name=["acme.other"]) == 1
    errors = capfd.readouterr().err
    assert f"tests.tools.served:pids opened {NAME}, but nobody accepts clients of acme.other" in errors
    assert "ready" not in errors


async def test_processes_end_with_a_supervisor_that_is_killed() -> None:
    """SIGKILL of the supervisor lets its processes drain and end."""
    process = start(f"'tests.tools.served:pids', name=[{NAME!r}], processes=2, linger=0.1")
    try:
        await line_of(process)
        children = psutil.Process(process.pid).children()
        assert len(children) == 2
        process.kill()
        await until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.mark.parametrize("target", ["tests.tools.served:broken", "tests.tools.served:no_manager", "no.such:thing"])
async def test_a_service_that_never_works_ends_the_command(target: str) -> None:
    """What cannot be started is an error, not something to try for ever."""
    process = start(f"{target!r}, name=[{NAME!r}], processes=2")
    assert await ended(process) == 1
    assert process.stderr is not None
    with process.stderr as stderr:
        assert "ended with status" in stderr.read()


def test_arguments_that_make_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name or a process there is nothing to serve, and a name that is taken is said."""
    assert serve_command("a:b") == 2
    assert serve_command("a:b", name=[NAME], processes=0) == 2
    assert serve_command("a", name=[NAME]) == 2
    assert serve_command("a:b", name=["not a name"]) == 1
    assert "not a name" in capsys.readouterr().err
    for target in ("nothing", ":x", "x:"):
        with pytest.raises(ValueError, match="module:factory"):
            resolve(target)
    with pytest.raises(ValueError, match="there is no module 'nowhere'"):
        resolve("nowhere.at_all:x")
    with pytest.raises(ValueError, match=r"'tests\.tools\.served' has no function 'nothing'"):
        resolve("tests.tools.served:nothing")


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("tests.service.contracts:CounterServer", "makes an object to be served"),
        ("tests.tools.served:os.getpid", "must return an async context manager, not int"),
    ],
)
def test_what_makes_no_service_is_told_in_a_line(target: str, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A target that gives something else than a service ends the command with one line about it, and no traceback."""
    assert serve_command(target, name=[NAME]) == 1
    errors = capfd.readouterr().err
    assert text in errors
    assert "Traceback" not in errors


ALONE = """
import anyio
from tests.tools.served import pids

async def main():
    async with pids():
        await anyio.sleep_forever()

anyio.run(main)
"""


async def test_a_socket_of_a_service_manager_is_used(runtime_directory: Path) -> None:
    """listen() takes the socket of its name, clients see the process that serves, and the file stays."""
    with listening(runtime_directory / NAME) as sock:
        process = activate(["-c", ALONE], sock, NAME)
        try:
            # Whoever connects before the process is there sees the service manager.
            async with alpc.connect(NAME, timeout=WAIT) as port:
                assert await ask(port) == process.pid
            async with alpc.connect(NAME, timeout=WAIT) as port:
                assert port.peer.pid == process.pid
                assert await ask(port) == process.pid
        finally:
            process.terminate()
            await ended(process)
            assert process.stderr is not None
            process.stderr.close()
    assert (runtime_directory / NAME).exists()


async def test_a_service_manager_hears_of_readiness(runtime_directory: Path, tmp_path: Path) -> None:
    """The command takes the passed socket, says when it is ready, when it reloads, and when it stops."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, listening(runtime_directory / NAME) as sock:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)

        async def hear() -> str:
            with anyio.fail_after(WAIT):
                await anyio.wait_readable(manager)
            return manager.recv(4096).decode()

        arguments = COMMAND.format(arguments="'tests.tools.served:pids', linger=0.1")
        process = activate(["-c", arguments], sock, NAME, NOTIFY_SOCKET=str(tmp_path / "notify"))
        try:
            assert "READY=1" in await hear()
            async with alpc.connect(NAME) as port:
                await ask(port)
            process.send_signal(signal.SIGHUP)
            reloading = await hear()
            assert "RELOADING=1" in reloading
            assert "MONOTONIC_USEC=" in reloading
            assert "READY=1" in await hear()
            process.send_signal(signal.SIGTERM)
            assert "STOPPING=1" in await hear()
            assert await ended(process) == 0
        finally:
            process.kill()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()


def test_without_a_service_manager_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telling nobody, or somebody who is gone, does no harm."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "@alpc-nobody-is-there")
    assert not notify("READY=1")
