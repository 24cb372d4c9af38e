"""The directories of port names: which one, and whether it is safe."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alpc_async.errors import UnsafeDirectory
from alpc_async.link import current_loop, dial
from alpc_async.link._directory import NameDirectory, runtime_directory, search_directories
from alpc_async.link._names import NameLease

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset both variables that name a directory."""
    monkeypatch.delenv("ALPC_RUNTIME_DIR")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


def mode_of(path: Path) -> int:
    """Return the permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_the_own_variable_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ALPC_RUNTIME_DIR is the only directory, for ports and for clients."""
    monkeypatch.setenv("ALPC_RUNTIME_DIR", "/some/where")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_directory() == "/some/where"
    assert search_directories() == ("/some/where",)


def test_a_relative_directory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative ALPC_RUNTIME_DIR would mean another directory in each process."""
    monkeypatch.setenv("ALPC_RUNTIME_DIR", "some/where")
    with pytest.raises(UnsafeDirectory) as caught:
        runtime_directory()
    assert (caught.value.path, caught.value.reason) == ("some/where", "it is not an absolute path")


@pytest.mark.usefixtures("plain_environment")
def test_the_session_directory_comes_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A session directory of the current user holds the ports; clients look into the system's directory as well."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_directory() == str(tmp_path / "alpc")
    assert search_directories() == (str(tmp_path / "alpc"), "/run/alpc")


@pytest.mark.usefixtures("plain_environment")
@pytest.mark.parametrize("session", ["", "run/user", "/nonexistent/run"])
def test_without_a_session_the_uid_decides(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a usable session directory root uses the system's directory, everybody else one per uid."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", session)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert runtime_directory() == "/run/alpc"
    assert search_directories() == ("/run/alpc",)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert runtime_directory() == "/tmp/alpc-4711"
    assert search_directories() == ("/tmp/alpc-4711", "/run/alpc")


@pytest.mark.usefixtures("plain_environment")
def test_the_session_directory_of_somebody_else_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A session directory that belongs to another user, as after su, is left alone."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert runtime_directory() == "/tmp/alpc-4711"


@pytest.mark.parametrize("umask", [0o000, 0o077])
@pytest.mark.parametrize(("shared", "mode"), [(False, 0o700), (True, 0o711)])
def test_a_missing_directory_is_made(shared: bool, mode: int, umask: int, tmp_path: Path) -> None:
    """A missing directory is made with its parents, closed to others or searchable by them, whatever the umask is."""
    path = tmp_path / "a" / "b"
    before = os.umask(umask)
    try:
        NameDirectory.open(f"{path}/", create=True, shared=shared).close()
    finally:
        os.umask(before)
    assert mode_of(path) == mode
    assert not mode_of(path.parent) & 0o022


def test_the_system_directory_is_open_to_everybody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The system's directory can be read by all users when it is made."""
    path = tmp_path / "alpc"
    monkeypatch.setattr("alpc_async.link._directory.SYSTEM_DIRECTORY", str(path))
    NameDirectory.open(str(path), create=True).close()
    assert mode_of(path) == 0o755


def test_an_existing_directory_keeps_its_mode(tmp_path: Path) -> None:
    """Asking for a shared directory does not open one that exists."""
    path = tmp_path / "alpc"
    path.mkdir(0o700)
    NameDirectory.open(str(path), create=True, shared=True).close()
    assert mode_of(path) == 0o700


def test_a_missing_directory_is_not_made_unasked(tmp_path: Path) -> None:
    """A client makes no directory."""
    with pytest.raises(FileNotFoundError):
        NameDirectory.open(str(tmp_path / "alpc"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o770, 0o777, 0o1777])
def test_a_directory_that_others_can_write_is_refused(mode: int, tmp_path: Path) -> None:
    """Write permission for group or others is unsafe, the sticky bit or not."""
    path = tmp_path / "alpc"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(UnsafeDirectory) as caught:
        NameDirectory.open(str(path), create=True)
    assert (caught.value.path, caught.value.reason) == (str(path), f"its mode {mode:04o} lets others write")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    """A directory that belongs neither to the current user nor to root is unsafe."""
    path = tmp_path / "alpc"
    path.mkdir()
    os.chown(path, 65534, -1)
    with pytest.raises(UnsafeDirectory) as caught:
        NameDirectory.open(str(path), create=True)
    assert caught.value.reason == "it belongs to uid 65534, neither the current user nor root"


@pytest.mark.parametrize("slash", ["", "/", "//"])
@pytest.mark.parametrize("kind", ["link", "dangling", "file"])
def test_what_is_not_a_directory_is_refused(kind: str, slash: str, tmp_path: Path) -> None:
    """A symbolic link, even to a safe directory, and a plain file are unsafe."""
    path = tmp_path / "alpc"
    if kind == "file":
        path.write_text("")
    else:
        target = tmp_path / "target"
        path.symlink_to(target)
        if kind == "link":
            target.mkdir(0o700)
    with pytest.raises(UnsafeDirectory) as caught:
        NameDirectory.open(f"{path}{slash}", create=True)
    assert caught.value.reason == "it is a symbolic link or not a directory"


def test_a_directory_that_cannot_be_made_is_refused() -> None:
    """Failing to make the directory tells the reason and how to choose another."""
    with pytest.raises(UnsafeDirectory, match="set ALPC_RUNTIME_DIR") as caught:
        NameDirectory.open("/proc/self/alpc", create=True)
    assert caught.value.reason.startswith("it cannot be made (")


def test_a_directory_that_cannot_be_opened_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A directory below one that the user may not search is unsafe, because nothing is known about it."""

    def refuse(*_args: object, **_options: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(UnsafeDirectory) as caught:
            NameDirectory.open(str(tmp_path))
    assert caught.value.reason == "it cannot be opened (Permission denied)"


def test_the_descriptor_survives_a_rename(tmp_path: Path) -> None:
    """An open directory stays the checked one when another is put in its place."""
    path = tmp_path / "alpc"
    with NameDirectory.open(str(path), create=True) as directory:
        path.rename(tmp_path / "moved")
        path.mkdir()
        (tmp_path / "moved" / "entry").write_text("")
        status = directory.status("entry")
        assert status is not None
        assert status.st_ino == (tmp_path / "moved" / "entry").stat().st_ino
        assert directory.status("other") is None
    assert directory.fileno() == -1


@pytest.fixture
def squatted(plain_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of a user without a session, made by somebody else before; that user runs the test."""
    uid = 900_000_000 + os.getpid()
    path = Path(f"/tmp/alpc-{uid}")
    path.mkdir()
    os.chown(path, 12_345, 12_345)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    yield path
    # It is empty: nobody has put anything there.
    path.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
async def test_squatting_below_tmp(squatted: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever makes /tmp/alpc-<uid> first keeps that user from listening, but not from finding the system's ports."""
    monkeypatch.setattr("alpc_async.link._directory.SYSTEM_DIRECTORY", str(tmp_path))
    with pytest.raises(UnsafeDirectory) as caught:
        NameLease.acquire("acme.printer")
    assert (caught.value.path, "belongs to uid 12345" in caught.value.reason) == (str(squatted), True)
    with pytest.raises(UnsafeDirectory):
        await dial(current_loop(), "acme.printer")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "acme.printer"))
        listener.listen()
        found, where = await dial(current_loop(), "acme.printer")
        found.close()
    assert where == str(tmp_path)
