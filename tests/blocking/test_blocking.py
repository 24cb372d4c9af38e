"""The blocking client, against a service in a process of its own.

Belongs here: calls, streams, objects, errors and endings of a client without an event loop. Never here: services.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, assert_type

import pytest

import alpc_async as alpc
import alpc_async.blocking
from alpc_async.blocking import BlockingClient, BlockingStream
from tests.service.contracts import NAME, Counter, CounterServer, Entry, Files, NoSuchEntry, numbers
from tests.service.vault import Vault

if TYPE_CHECKING:
    import subprocess


def test_a_service_is_called_without_an_event_loop(server: subprocess.Popen[str]) -> None:
    """Calls, streams, one-way calls, objects and faults work and are typed like the methods."""
    with alpc_async.blocking.connect(NAME, Files) as files:
        assert_type(files, BlockingClient[Files])
        assert assert_type(files.call(Files.size, b"abc"), int) == 3
        assert files.size(b"abcd") == 4
        assert assert_type(files.call(Files.echo, Entry("x", 1)), Entry) == Entry("x", 1)
        files.note("hi")
        stream = assert_type(files.call(Files.walk, 1000), BlockingStream[Entry])
        assert [entry.size for entry in stream] == list(range(1000))
        with files.call(Files.walk, 1_000_000) as endless:
            assert next(endless).size == 0
        with pytest.raises(NoSuchEntry):
            files.call(Files.fail, "declared")
        with files.open(5) as counter:
            assert counter.call(Counter.add, 1) == 6
        with pytest.raises(alpc.TypeMismatch):
            files.size("x")
        with pytest.raises(AttributeError, match="has no method 'nothing'"):
            _ = files.nothing
        with pytest.raises(alpc.DeadlineExceeded):
            files.with_options(timeout=0.05).sleep(60)
        with pytest.raises(alpc.TypeMismatch):
            files.use(CounterServer(), "x")


def test_the_end_of_a_server_is_noticed(server: subprocess.Popen[str]) -> None:
    """A client that waits for a server which is killed gets an error at once, and can be closed."""
    client = alpc_async.blocking.connect(NAME, Files).open()
    threading.Timer(0.1, server.kill).start()
    began = time.monotonic()
    with pytest.raises(alpc.Disconnected):
        client.sleep(60)
    assert time.monotonic() - began < 20
    client.close()
    client.close()
    with pytest.raises(alpc.PortClosed):
        client.size(b"")


def test_what_cannot_be_connected_is_told(server: subprocess.Popen[str]) -> None:
    """Unknown names and interfaces raise what the asynchronous client raises, and an opening is used once."""
    with pytest.raises(alpc.NameNotFound):
        alpc_async.blocking.connect("acme.nobody", Files).open()
    with pytest.raises(alpc.UnknownInterface):
        alpc_async.blocking.connect(NAME, Counter).open()
    with pytest.raises(alpc.InvalidInterface):
        alpc_async.blocking.connect(NAME, int)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]  # so
    opening = alpc_async.blocking.connect(NAME, Files)
    with pytest.raises(AttributeError, match="not open yet and has no 'size'"):
        _ = opening.size  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]  # so
    with opening as files:
        with pytest.raises(RuntimeError, match="opened already"):
            opening.open()
        with pytest.raises(alpc.TypeMismatch, match=r"the method is given as Files\.name, not 'size'"):
            files.call("size", b"")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]  # so


def test_views_are_given_and_taken(server: subprocess.Popen[str]) -> None:
    """Shared memory is allocated by the client, filled, given to the server, and what the server gives is read."""
    with alpc_async.blocking.connect(NAME, Vault) as vault:
        with vault.allocate(1000) as view:
            view.data[:] = b"\1" * 1000
            assert vault.call(Vault.total, view) == 1000
            view.data[:] = b"\2" * 1000
            assert vault.total(view) == 2000
        assert view.released
        with vault.call(Vault.fill, 5) as filled:
            assert bytes(filled.data) == bytes(range(5))
        with pytest.raises(ValueError, match="at least one byte"):
            vault.allocate(0)
        with pytest.raises(ValueError, match="mode must be"):
            vault.allocate(1, mode="wrong")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # so


def test_shared_memory_is_waited_for(server: subprocess.Popen[str]) -> None:
    """Allocating more than the quota blocks until its timeout, and works when something was given back."""
    size = 128 * 1024
    limits = alpc.PortLimits(max_view_size=size, max_section_size=size, max_total_section_size=size)
    with alpc_async.blocking.connect(NAME, Vault, limits=limits) as vault:
        began = time.monotonic()
        with vault.allocate(size), pytest.raises(alpc.DeadlineExceeded, match="shared memory"):
            vault.allocate(size, timeout=0.05)
        assert time.monotonic() - began < limits.request_timeout / 2
        with vault.allocate(size) as view:
            assert vault.total(view) == 0


def test_a_client_that_blocks_is_not_called_back(server: subprocess.Popen[str]) -> None:
    """Objects and streams among the arguments are refused at once, and the client goes on."""
    with alpc_async.blocking.connect(NAME, Files) as files:
        began = time.monotonic()
        refusal = r"a blocking client gives no objects and no streams.*alpc\.connect"
        with pytest.raises(alpc.TypeMismatch, match=refusal):
            files.call(Files.use, CounterServer(), 1)
        with pytest.raises(alpc.TypeMismatch, match=refusal):
            files.call(Files.total, numbers(3))
        assert time.monotonic() - began < 20
        assert files.size(b"abc") == 3


def test_another_thread_is_turned_away(server: subprocess.Popen[str]) -> None:
    """A client belongs to the thread that made it."""
    errors: list[Exception] = []
    with alpc_async.blocking.connect(NAME, Files) as files:

        def use() -> None:
            try:
                files.size(b"")
            except alpc.ForkedPort as error:
                errors.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert len(errors) == 1
        assert files.size(b"x") == 1


def test_a_silent_server_is_given_up() -> None:
    """Connecting to somebody who does not answer ends at the timeout."""
    import socket

    path = Path(os.environ["ALPC_RUNTIME_DIR"]) / "acme.silent"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(alpc.DeadlineExceeded, match="connecting to port"):
            alpc_async.blocking.connect("acme.silent", Files, timeout=0.05).open()
    path.unlink()
