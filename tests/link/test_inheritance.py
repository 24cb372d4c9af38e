"""Sockets that a process was started with, and the table by which processes share them."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from alpc_async.link import AcceptTurn, accept_table, clear_turn, inheritance, inherited_name, manager_sockets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def passed(runtime_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A listening socket that looks as if a service manager had passed it."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(runtime_directory / "acme"))
        sock.listen()
        monkeypatch.setattr("alpc_async.link._inheritance.FIRST_MANAGER_FD", sock.fileno())
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_FDNAMES", "acme")
        yield sock


def test_a_passed_socket_is_found_by_its_name(passed: socket.socket) -> None:
    """The socket stays open for others: what is handed out is a copy, which no other program gets."""
    assert manager_sockets() == {"acme": passed.fileno()}
    assert inherited_name("other", 5) is None
    found = inherited_name("acme", 5)
    assert found is not None
    lease, sock = found
    with sock:
        assert sock.getblocking() is False
        assert sock.get_inheritable() is False
        assert (lease.name, lease.turn) == ("acme", None)
        lease.release()
    assert passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


@pytest.mark.parametrize(
    ("variable", "value"), [("LISTEN_PID", "1"), ("LISTEN_PID", "x"), ("LISTEN_FDS", "many"), ("LISTEN_FDNAMES", "")]
)
def test_sockets_of_others_are_left_alone(
    passed: socket.socket, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """Variables that are meant for another process, or make no sense, lead to no socket."""
    monkeypatch.setenv(variable, value)
    assert manager_sockets() == {}


def test_what_does_not_listen_is_no_listener(monkeypatch: pytest.MonkeyPatch, passed: socket.socket) -> None:
    """A descriptor that is closed, no socket, or a socket of another sort is not taken."""
    reader, writer = os.pipe()
    with socket.socket(socket.AF_UNIX) as plain, socket.socket(socket.AF_INET) as other:
        for fd in (reader, plain.fileno(), other.fileno(), 10_000):
            monkeypatch.setattr("alpc_async.link._inheritance.FIRST_MANAGER_FD", fd)
            assert manager_sockets() == {}
    os.close(reader)
    os.close(writer)


def test_a_supervisor_names_its_children_only(monkeypatch: pytest.MonkeyPatch, passed: socket.socket) -> None:
    """The variables count in a child of the process that set them, nowhere else."""
    monkeypatch.delenv("LISTEN_PID")
    with accept_table(2) as table:
        for variable, value in inheritance({"acme": passed.fileno()}, table, 1, 2).items():
            monkeypatch.setenv(variable, value)
        assert inherited_name("acme", 5) is None
        monkeypatch.setattr(os, "getppid", os.getpid)
        found = inherited_name("acme", 5)
        assert found is not None
        lease, sock = found
        sock.close()
        assert lease.turn is not None
        assert lease.turn.pause() == 0
        lease.release()
        lease.release()


def test_who_has_more_connections_waits() -> None:
    """The process with the fewest takes the next connection at once; places that are empty do not count."""
    with accept_table(3) as table:
        first, second = AcceptTurn(table.fileno(), 0, 3), AcceptTurn(table.fileno(), 1, 3)
        first.show(2)
        assert first.pause() == 0
        second.show(1)
        assert first.pause() > 0
        assert second.pause() == 0
        clear_turn(table, 1)
        assert first.pause() == 0
        second.close()
        second.show(9)
        first.close()


def test_who_has_many_more_waits_longer() -> None:
    """The wait grows with the difference, up to a bound, so that a process that hangs holds nobody up for long."""
    with accept_table(2) as table:
        first, second = AcceptTurn(table.fileno(), 0, 2), AcceptTurn(table.fileno(), 1, 2)
        second.show(0)
        pauses: list[float] = []
        for more in (0, 1, 5, 10, 1000):
            first.show(more)
            pauses.append(first.pause())
        assert pauses[0] == 0
        assert pauses[2] == pytest.approx(5 * pauses[1])
        assert pauses[2] < pauses[3] == pauses[4] < 0.1
        first.close()
        second.close()
