"""``alpc mapper``: sockets of a service manager, its own and those of the services that it knows.

Belongs here: the command with a scripted service manager. Never here: what a mapper does (`tests/service/test_mapper`).
"""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

import anyio
import pytest

import alpc_async as alpc
from alpc_async.tools._mapper import mapper_command
from tests.port.support import WAIT, until
from tests.service.contracts import NAME, Files
from tests.tools.manager import activate, listening

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

FILES = "0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c01"
MAPPER = """
import pathlib, sys
from alpc_async.tools._mapper import mapper_command
sys.exit(mapper_command(activations=pathlib.Path(sys.argv[1])))
"""

SERVER = f"""
import anyio
import alpc_async as alpc
from tests.service.contracts import FilesServer

async def main():
    async with alpc.serve({NAME!r}, FilesServer()) as port:
        await port.wait_stopped()

anyio.run(main)
"""


async def ended(process: subprocess.Popen[str]) -> int:
    """Wait for its end, and return the exit status."""
    await until(lambda: process.poll() is not None, "the end of a process")
    return process.wait()


async def test_connecting_starts_a_service_whose_socket_systemd_holds(runtime_directory: Path, tmp_path: Path) -> None:
    """The mapper takes its socket and says when it is ready; who asks for an interface starts its server."""
    activations = tmp_path / "activations.toml"
    activations.write_text(f'["{FILES}"]\nname = "{NAME}"\n')
    started: list[subprocess.Popen[str]] = []
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        listening(runtime_directory / alpc.MAPPER_NAME) as mapper_socket,
        listening(runtime_directory / NAME) as files_socket,
    ):
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)

        async def hear() -> str:
            with anyio.fail_after(WAIT):
                await anyio.wait_readable(manager)
            return manager.recv(4096).decode()

        async def start_when_wanted() -> None:
            await anyio.wait_readable(files_socket)
            started.append(activate(["-c", SERVER], files_socket, NAME))

        place = str(tmp_path / "notify")
        arguments = ["-c", MAPPER, str(activations)]
        process = activate(arguments, mapper_socket, alpc.MAPPER_NAME, NOTIFY_SOCKET=place)
        try:
            assert await hear() == "READY=1\nSTATUS=knows how to start 1 services"
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(start_when_wanted)
                for size in (3, 4):
                    async with alpc.connect(interface=Files, timeout=WAIT) as files:
                        assert await files.size(b"x" * size) == size
            assert len(started) == 1
            process.send_signal(signal.SIGTERM)
            assert await hear() == "STOPPING=1"
            assert await ended(process) == 0
        finally:
            for child in (process, *started):
                child.kill()
                child.wait()
                assert child.stderr is not None
                child.stderr.close()
    assert (runtime_directory / alpc.MAPPER_NAME).exists()


@pytest.mark.parametrize("text", ["timeout = 5.0", 'name = "a.b"\ncommand = ["x"]'])
def test_an_activation_is_one_or_the_other(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table without a command and a name, or with both, is refused before anything is opened."""
    activations = tmp_path / "activations.toml"
    activations.write_text(f'["{FILES}"]\n{text}\n')
    assert mapper_command(activations=activations) == 2
    assert "a command, or the name of a port" in capsys.readouterr().err
