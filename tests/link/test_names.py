"""Port names: their grammar, and leases with everything that can lie in their way."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from alpc_async.errors import AccessDenied, InvalidName, NameCollision, PortClosed, UnsafeDirectory
from alpc_async.link._directory import NameDirectory
from alpc_async.link._names import MAX_NAME_LENGTH, NameLease, check_name
from tests.link.names import NAME, connect, make_file

if TYPE_CHECKING:
    from pathlib import Path

OTHER_UID = 65534


@pytest.mark.parametrize(
    "name",
    ["a", "A", "0", "_", "acme.printer", "a-b_c.D9", "a..b", "x.locked", "lock", "a" * MAX_NAME_LENGTH],
)
def test_names_within_the_grammar_are_taken(name: str, runtime_directory: Path) -> None:
    """A name of up to 80 letters, digits, dots, dashes and underscores names a port that can be reached."""
    check_name(name)
    with NameLease.acquire(name) as lease, lease.bind(0o600, 1), connect(runtime_directory, name):
        assert runtime_directory.joinpath(name).is_socket()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "it is empty"),
        ("a" * 81, "it has 81 bytes, more than 80"),
        (".hidden", "it begins with '.'"),
        ("..", "it begins with '.'"),
        ("-option", "it begins with '-'"),
        ("a/b", "it contains '/'"),
        ("../a", "it contains '/'"),
        ("a\0", "it contains '\\x00'"),
        ("a\n", "it contains '\\n'"),
        ("a b", "it contains ' '"),
        ("\u00fc", "it contains '\u00fc'"),
        ("\u0664", "it contains '\u0664'"),
        ("a.lock", "it ends in '.lock', which marks lock files"),
    ],
)
def test_names_outside_the_grammar_are_refused(name: str, reason: str, runtime_directory: Path) -> None:
    """A name that breaks a rule raises InvalidName, which tells the rule, and leaves no file."""
    with pytest.raises(InvalidName) as caught:
        NameLease.acquire(name)
    assert (caught.value.name, caught.value.reason) == (name, reason)
    assert list(runtime_directory.iterdir()) == []


def test_release_leaves_nothing_and_can_be_repeated(runtime_directory: Path) -> None:
    """Releasing removes the socket and the lock file; doing it again does nothing; the name is free."""
    lease = NameLease.acquire(NAME)
    with lease.bind(0o600, 1):
        assert sorted(os.listdir(runtime_directory)) == [NAME, f"{NAME}.lock"]
        lease.release()
        lease.release()
        assert list(runtime_directory.iterdir()) == []
    NameLease.acquire(NAME).release()
    with pytest.raises(PortClosed):
        lease.bind(0o600, 1)


def test_release_spares_what_is_not_its_own(runtime_directory: Path) -> None:
    """Files that somebody put in the place of the socket and the lock file are left alone."""
    lease = NameLease.acquire(NAME)
    with lease.bind(0o600, 1):
        for entry in (NAME, f"{NAME}.lock"):
            (runtime_directory / entry).unlink()
            (runtime_directory / entry).write_text("mine")
        lease.release()
    assert sorted(os.listdir(runtime_directory)) == [NAME, f"{NAME}.lock"]


def test_release_gives_the_name_up_when_files_cannot_be_removed(
    runtime_directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A failing removal is logged, and what stays behind blocks nobody."""

    def refuse(path: str, *, dir_fd: int) -> None:
        raise PermissionError(1, "no")

    lease = NameLease.acquire(NAME)
    with lease.bind(0o600, 1), monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        lease.release()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert (runtime_directory / NAME).exists()
    NameLease.acquire(NAME).release()


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_the_socket_has_the_mode_asked_for(mode: int, runtime_directory: Path) -> None:
    """The socket has exactly the mode asked for whatever the umask is, and is non-blocking and not inherited."""
    umask = os.umask(0o177 if mode == 0o666 else 0)
    try:
        with NameLease.acquire(NAME) as lease, lease.bind(mode, 1) as sock:
            assert stat.S_IMODE((runtime_directory / NAME).stat().st_mode) == mode
            assert stat.S_IMODE((runtime_directory / f"{NAME}.lock").stat().st_mode) == 0o600
            assert not sock.getblocking()
            assert not sock.get_inheritable()
    finally:
        os.umask(umask)


def test_a_failing_bind_leaves_nothing(runtime_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When any step of publishing fails, the temporary socket is gone and the lease can still be used."""

    def fail(*_args: object, **_options: object) -> None:
        raise OSError(28, "no space")

    with NameLease.acquire(NAME) as lease:
        for step in ("chmod", "rename", "stat"):
            with monkeypatch.context() as patch:
                patch.setattr(os, step, fail)
                with pytest.raises(OSError, match="no space"):
                    lease.bind(0o600, 1)
            assert os.listdir(runtime_directory) == [f"{NAME}.lock"]
        with lease.bind(0o600, 1), connect(runtime_directory):
            pass


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_a_foreign_file_in_the_place_is_kept(kind: str, runtime_directory: Path) -> None:
    """Whatever is not a socket is never replaced: the name collides, and no temporary file stays."""
    place = runtime_directory / NAME
    make_file(place, kind)
    with NameLease.acquire(NAME) as lease:
        with pytest.raises(NameCollision):
            lease.bind(0o600, 1)
        assert sorted(os.listdir(runtime_directory)) == [NAME, f"{NAME}.lock"]
    assert os.listdir(runtime_directory) == [NAME]


@pytest.mark.parametrize("kind", ["directory", "link", "fifo", "socket"])
def test_a_foreign_file_in_the_place_of_the_lock_is_kept(kind: str, runtime_directory: Path) -> None:
    """Whatever is not a plain file is not taken for a lock."""
    place = runtime_directory / f"{NAME}.lock"
    make_file(place, kind)
    with pytest.raises(NameCollision):
        NameLease.acquire(NAME)
    assert os.path.lexists(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_a_socket_of_another_user_is_not_replaced(runtime_directory: Path, tmp_path: Path) -> None:
    """A stale socket is replaced by its owner and by root, by nobody else."""
    make_file(runtime_directory / NAME, "socket")
    os.chown(runtime_directory, OTHER_UID, -1)
    with ExitStack() as stack:
        stack.callback(os.seteuid, 0)
        os.seteuid(OTHER_UID)
        lease = stack.enter_context(NameLease.acquire(NAME))
        with pytest.raises(NameCollision):
            lease.bind(0o600, 1)
    make_file(tmp_path / NAME, "socket")
    os.chown(tmp_path / NAME, OTHER_UID, -1)
    with NameLease.acquire(NAME, directory=str(tmp_path)) as lease, lease.bind(0o600, 1):
        assert (tmp_path / NAME).stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own a directory that this process then may not write")
def test_a_directory_that_cannot_be_written_denies_access(runtime_directory: Path) -> None:
    """Who may not make files in a trusted directory is told so, and not that the name is taken."""
    runtime_directory.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(os.seteuid, 0)
        os.seteuid(OTHER_UID)
        with pytest.raises(AccessDenied) as caught:
            NameLease.acquire(NAME)
    assert caught.value.what == f"listen on port {NAME!r}"
    assert caught.value.reason == f"Permission denied in {runtime_directory}"


def test_an_unsafe_directory_is_not_used(runtime_directory: Path) -> None:
    """No lease is given in a directory that others can write."""
    runtime_directory.chmod(0o770)
    with pytest.raises(UnsafeDirectory):
        NameLease.acquire(NAME)


def test_a_long_directory_does_not_matter(runtime_directory: Path) -> None:
    """Names as long as allowed work in a directory whose path is longer than a socket address."""
    place = runtime_directory.joinpath(*["d" * 60] * 3)
    name = "n" * MAX_NAME_LENGTH
    with NameLease.acquire(name, directory=str(place)) as lease, lease.bind(0o600, 1):
        assert stat.S_ISSOCK((place / name).stat().st_mode)
        with NameDirectory.open(str(place)) as opened, socket.socket(socket.AF_UNIX) as client:
            client.connect(opened.address(name))


def test_the_longest_address_fits() -> None:
    """The longest name fits a socket address also behind the longest descriptor number."""
    longest = f"/proc/self/fd/{2**31 - 1}/{'n' * MAX_NAME_LENGTH}"
    assert len(longest) <= 107


def test_a_lock_file_removed_meanwhile_is_made_again(runtime_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file that left the directory between opening and locking is no lease; the next attempt is."""
    lock_file = runtime_directory / f"{NAME}.lock"
    attempts: list[int] = []
    flock = fcntl.flock

    def lose_the_first(fd: int, operation: int) -> None:
        if not attempts:
            lock_file.unlink()
        attempts.append(operation)
        flock(fd, operation)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", lose_the_first)
        lease = NameLease.acquire(NAME)
    assert len(attempts) == 2
    with pytest.raises(NameCollision):
        NameLease.acquire(NAME)
    lease.release()
