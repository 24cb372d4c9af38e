"""Connecting by name: where it looks, what it reports, and how it waits for a full backlog."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import anyio
import pytest

from alpc_async.errors import AccessDenied, InvalidName, NameNotFound, UnsafeDirectory
from alpc_async.link import current_loop
from alpc_async.link._dial import dial
from alpc_async.link._names import NameLease

if TYPE_CHECKING:
    from pathlib import Path

    from alpc_async.link import Loop

NAME = "acme.printer"


def set_mode(path: Path, mode: int) -> None:
    """Set the permissions of a file."""
    path.chmod(mode)


def occupy_backlog(path: Path) -> list[socket.socket]:
    """Connect to a socket until its backlog is full."""
    clients: list[socket.socket] = []
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        code = client.connect_ex(str(path))
        if code:
            assert code == errno.EAGAIN
            client.close()
            return clients
        clients.append(client)


async def test_a_client_reaches_the_listener(runtime_directory: Path) -> None:
    """The socket is connected to the listener, non-blocking and not inherited, and the directory is told."""
    with NameLease.acquire(NAME) as lease, lease.bind(0o600, 1) as listening:
        sock, directory = await dial(current_loop(), NAME)
        with sock, listening.accept()[0] as accepted:
            accepted.send(b"hello")
            assert sock.recv(5) == b"hello"
            assert not sock.getblocking()
            assert not sock.get_inheritable()
            assert directory == str(runtime_directory)


async def test_nobody_there(runtime_directory: Path) -> None:
    """A name that nobody ever took is reported with the directories that were searched."""
    with pytest.raises(NameNotFound) as caught:
        await dial(current_loop(), NAME)
    assert (caught.value.name, caught.value.directories) == (NAME, (str(runtime_directory),))


async def test_a_missing_directory_holds_no_names(runtime_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for a name makes no directory."""
    missing = runtime_directory / "missing"
    monkeypatch.setenv("ALPC_RUNTIME_DIR", str(missing))
    with pytest.raises(NameNotFound):
        await dial(current_loop(), NAME)
    assert os.listdir(runtime_directory) == []


@pytest.mark.parametrize("kind", ["stale", "file", "datagram", "loop"])
async def test_a_file_without_a_listener_is_nobody(kind: str, runtime_directory: Path) -> None:
    """A stale socket and anything that is not a listening stream socket count as nobody."""
    place = runtime_directory / NAME
    with ExitStack() as stack:
        if kind == "file":
            place.write_text("")
        elif kind == "loop":
            place.symlink_to(place)
        else:
            sock = stack.enter_context(
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM)
            )
            sock.bind(str(place))
        with pytest.raises(NameNotFound):
            await dial(current_loop(), NAME)


async def test_the_own_directory_comes_before_the_system_directory(
    runtime_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port of the system is found when the own directory has no listener, and only then."""
    monkeypatch.delenv("ALPC_RUNTIME_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime_directory))
    own, system = runtime_directory / "alpc", runtime_directory / "system"
    monkeypatch.setattr("alpc_async.link._directory.SYSTEM_DIRECTORY", str(system))
    with NameLease.acquire(NAME, directory=str(system)) as far, far.bind(0o666, 8):
        sock, directory = await dial(current_loop(), NAME)
        sock.close()
        assert directory == str(system)
        with NameLease.acquire(NAME) as near, near.bind(0o600, 8):
            sock, directory = await dial(current_loop(), NAME)
            sock.close()
            assert directory == str(own)
    with pytest.raises(NameNotFound) as caught:
        await dial(current_loop(), NAME)
    assert caught.value.directories == (str(own), str(system))


@pytest.mark.parametrize("guard", ["socket", "directory"])
async def test_a_mode_that_keeps_the_user_out(guard: str, runtime_directory: Path) -> None:
    """A socket or a directory that the current user may not use is denied, not reported as missing."""
    set_mode(runtime_directory, 0o711)
    with NameLease.acquire(NAME) as lease, lease.bind(0o600 if guard == "socket" else 0o666, 1), ExitStack() as stack:
        if os.geteuid() == 0:
            set_mode(runtime_directory, 0o711 if guard == "socket" else 0o700)
            stack.callback(os.seteuid, 0)
            os.seteuid(65534)
        else:
            stack.callback(set_mode, runtime_directory, 0o700)
            set_mode(runtime_directory / NAME if guard == "socket" else runtime_directory, 0)
        with pytest.raises(AccessDenied) as caught:
            await dial(current_loop(), NAME)
    assert caught.value.what == f"connect to port {NAME!r}"
    assert caught.value.reason == f"Permission denied in {runtime_directory}"


async def test_an_unsafe_directory_is_not_searched(runtime_directory: Path) -> None:
    """A client trusts no directory that others can write."""
    with NameLease.acquire(NAME) as lease, lease.bind(0o600, 1):
        set_mode(runtime_directory, 0o777)
        with pytest.raises(UnsafeDirectory):
            await dial(current_loop(), NAME)


async def test_the_grammar_is_checked() -> None:
    """A name cannot leave the directory."""
    with pytest.raises(InvalidName):
        await dial(current_loop(), "../etc")


async def test_other_errors_come_through(runtime_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of the system is raised as it is, with the path, and the socket is closed."""

    def out_of_buffers(_sock: socket.socket, _address: object) -> int:
        return errno.ENOBUFS

    monkeypatch.setattr(socket.socket, "connect_ex", out_of_buffers)
    with pytest.raises(OSError, match=os.strerror(errno.ENOBUFS)) as caught:
        await dial(current_loop(), NAME)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOBUFS, str(runtime_directory / NAME))


async def test_a_full_backlog_is_waited_for(runtime_directory: Path) -> None:
    """A client waits while the server is behind, and gets its connection as soon as there is room."""
    connected: list[socket.socket] = []

    async def client() -> None:
        connected.append((await dial(current_loop(), NAME))[0])

    with ExitStack() as stack, NameLease.acquire(NAME) as lease, lease.bind(0o600, 0) as listening:
        waiting = occupy_backlog(runtime_directory / NAME)
        for sock in waiting:
            stack.enter_context(sock)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client)
            await anyio.wait_all_tasks_blocked()
            assert waiting
            assert connected == []
            for _ in waiting:
                listening.accept()[0].close()
        stack.enter_context(connected[0])
        listening.accept()[0].close()


async def test_the_wait_grows_up_to_a_limit(runtime_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts at a full backlog come less and less often, at first every millisecond, later every 50."""
    pauses: list[float] = []

    async def note(_loop: Loop, pause: float) -> None:
        pauses.append(pause)
        if len(pauses) == 8:
            for _ in waiting:
                listening.accept()[0].close()

    monkeypatch.setattr("alpc_async.link._dial._pause", note)
    with ExitStack() as stack, NameLease.acquire(NAME) as lease, lease.bind(0o600, 0) as listening:
        waiting = occupy_backlog(runtime_directory / NAME)
        for sock in waiting:
            stack.enter_context(sock)
        (await dial(current_loop(), NAME))[0].close()
    assert pauses == [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05]


async def test_waiting_can_be_cancelled(runtime_directory: Path) -> None:
    """A caller that gives up waiting for a full backlog leaves nothing open."""
    with ExitStack() as stack, NameLease.acquire(NAME) as lease, lease.bind(0o600, 0):
        for sock in occupy_backlog(runtime_directory / NAME):
            stack.enter_context(sock)
        before = os.listdir("/proc/self/fd")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(dial, current_loop(), NAME)
            await anyio.wait_all_tasks_blocked()
            assert len(os.listdir("/proc/self/fd")) == len(before) + 2
            tasks.cancel_scope.cancel()
        assert os.listdir("/proc/self/fd") == before


async def test_a_cancelled_caller_does_not_connect(runtime_directory: Path) -> None:
    """Dialing notices a cancellation before it opens anything."""
    with NameLease.acquire(NAME) as lease, lease.bind(0o600, 1) as listening:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await dial(current_loop(), NAME)
        assert scope.cancelled_caught
        with pytest.raises(BlockingIOError):
            listening.accept()
