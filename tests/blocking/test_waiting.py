"""How the blocking client waits: in receiving itself, and what else happens meanwhile.

Belongs here: timeouts, signals, a server that stands still, the loop that drives coroutines. Never here: calls
(`test_blocking`).
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

import alpc_async as alpc
import alpc_async.blocking
from alpc_async.link import BlockingLoop
from tests.service.contracts import NAME, Entry, Files

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator


@pytest.fixture
def files(server: subprocess.Popen[str]) -> Iterator[alpc_async.blocking.BlockingClient[Files]]:
    """A client of the server."""
    with alpc_async.blocking.connect(NAME, Files) as client:
        yield client


@pytest.mark.parametrize("timeout", [0.05, 0.6])
def test_a_deadline_is_kept(files: alpc_async.blocking.BlockingClient[Files], timeout: float) -> None:
    """A call ends at its deadline, whether that is near or receiving has given up in between."""
    began = time.monotonic()
    with pytest.raises(alpc.DeadlineExceeded):
        files.with_options(timeout=timeout).sleep(60)
    assert timeout - 0.01 <= time.monotonic() - began < 20
    assert files.size(b"abc") == 3


def test_an_answer_that_takes_its_time_is_waited_for(files: alpc_async.blocking.BlockingClient[Files]) -> None:
    """An answer that comes after receiving has given up several times is received."""
    assert files.sleep(0.7) is None
    assert files.size(b"abc") == 3


def test_a_signal_ends_the_wait(files: alpc_async.blocking.BlockingClient[Files]) -> None:
    """An exception of a signal handler ends the call that blocks, and the client goes on."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            files.sleep(60)
        assert time.monotonic() - began < 20
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert files.size(b"abc") == 3


def _note_for_ever(files: alpc_async.blocking.BlockingClient[Files]) -> None:
    while True:
        files.note("x" * 60_000)


def test_a_server_that_stands_still_is_waited_for(
    files: alpc_async.blocking.BlockingClient[Files], server: subprocess.Popen[str]
) -> None:
    """Sending to a server that reads nothing blocks no longer than the deadline, and goes on when it reads again."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        quick = files.with_options(timeout=0.2)
        began = time.monotonic()
        with pytest.raises(alpc.DeadlineExceeded):
            _note_for_ever(quick)
        assert time.monotonic() - began < 20
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert files.size(b"abc") == 3


@pytest.mark.parametrize("size", [10, 60_000, 5_000_000])
def test_values_of_any_length_cross(files: alpc_async.blocking.BlockingClient[Files], size: int) -> None:
    """Arguments and results cross whole, through the connection or through shared memory."""
    entry = Entry("x" * size, size)
    assert files.call(Files.echo, entry) == entry
    assert files.with_options(transfer="view").call(Files.echo, entry) == entry


def test_what_needs_an_event_loop_is_told() -> None:
    """A coroutine that awaits something of another library is refused instead of waiting for ever."""

    class Foreign:
        def __await__(self) -> Iterator[str]:
            yield "something"

    async def wait() -> None:
        await Foreign()  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]  # what a library may give

    loop = BlockingLoop()
    with pytest.raises(RuntimeError, match="awaits 'something', which needs an event loop"):
        loop.run(wait())


def test_what_is_due_runs_before_anything_blocks() -> None:
    """A waiter that is set by a callback or a timer ends its wait, without anything to receive."""
    loop = BlockingLoop()

    async def wait(waiter: Any) -> str:
        await waiter
        return "done"

    soon, later = loop.create_waiter(), loop.create_waiter()
    loop.call_soon(lambda: soon.set_result(None))
    assert loop.run(wait(soon)) == "done"
    loop.call_at(loop.time() + 0.01, lambda: later.set_result(None))
    assert loop.run(wait(later)) == "done"
