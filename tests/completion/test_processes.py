"""Worker pools whose handlers run in processes: feeding, dying, cancelling and the end, with real processes."""

from __future__ import annotations

import math
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import psutil  # type: ignore[import-untyped]  # it comes without annotations
import pytest

import alpc_async as alpc
from alpc_async import Status
from alpc_async.completion import _processes
from alpc_async.completion._envelope import Facts, Outcome, open_answer, open_work, seal_answer, seal_work
from tests.completion.handlers import NAME
from tests.completion.test_pools import pool_of
from tests.port.support import WAIT, until

ROOT = Path(__file__).parents[2]

PARENT = """
import anyio, sys
import alpc_async as alpc

async def main():
    async with alpc.port_pair() as (left, right), alpc.CompletionPort() as completion_port:
        completion_port.associate(right)
        async with alpc.WorkerPool(completion_port, "tests.completion.handlers:process", kind="process"):
            print((await left.request(b"0")).data.decode(), flush=True)
            left.start_request(b"60000", timeout=None)
            await anyio.sleep_forever()

anyio.run(main)
"""


def processes(handler: str, **options: Any) -> Any:
    """Run a pool of processes with one of the handlers for tests."""
    return pool_of(f"{NAME}:{handler}", kind="process", **options)


def children() -> list[Any]:
    """Return the child processes of this one."""
    return list(psutil.Process().children())


async def test_processes_answer() -> None:
    """Every request gets its own answer, from another process."""
    async with processes("echo") as (pool, left, _):
        pending = [left.start_request(b"%d" % number * 1000) for number in range(50)]
        assert [(await request).data for request in pending] == [b"%d" % number * 1000 for number in range(50)]
        await pool.wait_idle()
        assert (pool.statistics().handled, pool.statistics().failed) == (50, 0)
    assert children() == []


async def test_as_many_processes_as_the_minimum_work_at_the_same_time() -> None:
    """Requests that take a while are spread over the processes."""
    async with processes("process", minimum=3, maximum=3) as (pool, left, _):
        await until(lambda: pool.statistics().idle == 3)
        pending = [left.start_request(b"100") for _ in range(3)]
        pids = {(await request).data for request in pending}
        assert len(pids) == 3
        assert b"%d" % os.getpid() not in pids


async def test_a_handler_in_a_process_knows_the_sender_and_the_key() -> None:
    """What the kernel said about the sender, and a plain key, reach the handler; posted packets too."""
    async with processes("sender") as (pool, left, completion_port):
        answer = (await left.request(b"")).data
        assert answer == f"key {os.geteuid()} {os.getpid()} False".encode()
        completion_port.post("mine", 5)
        await until(lambda: pool.statistics().failed == 1)


@pytest.mark.parametrize("size", [64 * 1024 + 1, 17 * 1024 * 1024])
async def test_long_data_and_replies_travel_as_views(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the threshold on, and beyond what one message may have inline, data goes to a process and comes back."""
    replies: list[alpc.Transfer] = []

    class Watched(_processes._Child):  # pyright: ignore[reportPrivateUsage]  # how a reply came is seen there only
        async def ask(self, data: bytes, timeout: float | None = None) -> bytes:
            answer = await super().ask(data, timeout)
            if answer and self.pending is not None:
                replies.append(self.pending.result().transfer)
            return answer

    monkeypatch.setattr(_processes, "_Child", Watched)
    data = os.urandom(64) * (size // 64) + b"x" * (size % 64)
    async with processes("transfer") as (_, left, _completion_port):
        answer = await left.request(data, timeout=WAIT)
    assert answer.data == b"view " + data
    assert replies == [alpc.Transfer.VIEW]


async def test_the_deadline_reaches_a_process() -> None:
    """It is there on the clock that all processes share; without one it is infinite."""
    async with processes("time_left") as (_, left, _completion_port):
        begun = time.monotonic()
        (deadline,) = struct.unpack("d", (await left.request(b"", timeout=WAIT)).data)
        # Each of the two connections rounds the time that is left up to milliseconds.
        assert begun + WAIT - 1 < deadline <= time.monotonic() + WAIT + 0.002
        assert struct.unpack("d", (await left.request(b"", timeout=None)).data) == (math.inf,)


async def test_errors_cross_from_a_process(caplog: pytest.LogCaptureFixture) -> None:
    """An exception fails its request and is logged here, with the message and without telling the client."""
    async with processes("misbehave") as (pool, left, _):
        with pytest.raises(alpc.RemoteFault) as caught:
            await left.request(b"raise")
        assert caught.value.status == Status.HANDLER_FAILED
        assert "secret" not in caught.value.reason
        with pytest.raises(alpc.RemoteFault, match="not today") as caught:
            await left.request(b"fail")
        assert caught.value.status == 1234
        with pytest.raises(alpc.DeadlineExceeded):
            await left.request(b"silent", timeout=0.1)
        assert (await left.request(b"fine")).data == b"fine"
        assert (pool.statistics().failed, pool.statistics().restarted) == (1, 0)
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "request 1" in errors[0].message
    assert errors[0].exc_info is not None
    assert "the secret detail" in str(errors[0].exc_info[1])


@pytest.mark.parametrize("end", ["exit", "crash", "kill"])
async def test_a_process_that_dies_is_replaced(end: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its message fails as WorkerDied, those of others do not, and the next one is answered by another process."""
    async with processes("misbehave", minimum=2, maximum=2) as (pool, left, _):
        dies = left.start_request(end.encode())
        lives = left.start_request(b"lives")
        with pytest.raises(alpc.WorkerDied) as caught:
            await dies
        assert caught.value.status == Status.WORKER_DIED
        assert (await lives).data == b"lives"
        for number in range(4):
            assert (await left.request(b"%d" % number, timeout=WAIT)).data == b"%d" % number
        await until(lambda: pool.statistics().restarted == 1)
        assert pool.statistics().failed == 1
    assert any("it was working on <Message request 1" in record.message for record in caplog.records)


async def test_cancelling_a_message_frees_its_process(tmp_path: Path) -> None:
    """A handler that looks at `cancelled` ends, and its process takes the next message."""
    mark = tmp_path / "begun"
    async with processes("until_cancelled", maximum=1) as (pool, left, _):
        pending = left.start_request(str(mark).encode())
        await until(mark.exists)
        (before,) = children()
        pending.cancel()
        await pool.wait_idle()
        assert (pool.statistics().cancelled, pool.statistics().restarted) == (1, 0)
        assert [child.pid for child in children()] == [before.pid]


async def test_a_process_that_ignores_a_cancellation_is_ended(tmp_path: Path) -> None:
    """After the grace time the process is ended, and another one is there for the next message."""
    mark = tmp_path / "begun"
    async with processes("stay", maximum=1, cancel_grace=0.05) as (pool, left, _):
        for number in range(2):
            pending = left.start_request(str(mark).encode(), timeout=None)
            await until(mark.exists)
            pending.cancel()
            with anyio.fail_after(WAIT):
                await pool.wait_idle()
            mark.unlink()
            assert pool.statistics().restarted == number + 1


async def test_a_busy_process_does_not_keep_the_pool_open(tmp_path: Path) -> None:
    """Leaving the pool ends processes in the middle of their work, and the caller is told."""
    mark = tmp_path / "begun"
    with anyio.fail_after(WAIT):
        async with processes("stay") as (pool, left, _):
            pending = left.start_request(str(mark).encode(), timeout=None)
            await until(mark.exists)
            await pool.shut_down()
            with pytest.raises(alpc.RemoteFault) as caught:
                await pending
            assert caught.value.status == Status.ABANDONED
    assert children() == []


async def test_a_handler_that_cannot_be_imported_is_seen_at_once() -> None:
    """The pool cannot be entered when its process finds no plain function there, and the error has what it found."""
    cases = {
        "tests.completion.handlers:missing": "AttributeError: .*no attribute 'missing'; name a plain",
        "tests.completion.handlers:NAME": "TypeError: .*NAME is not a function; name a plain",
        "tests.completion.handlers:waits": "TypeError: .*waits is async, and a plain function is needed; name a plain",
        "tests.completion.nowhere:handler": "ModuleNotFoundError: No module named 'tests.completion.nowhere'; name",
        "tests.completion.plain_handlers.echo:x": r"ModuleNotFoundError: .*; name a plain",
        "tests.completion.broken:handler": r"ZeroDivisionError: division by zero \(.*broken\.py:\d+\); name a plain",
    }
    async with alpc.CompletionPort() as completion_port:
        for target, text in cases.items():
            with pytest.raises(alpc.HandlerNotLoaded, match=text) as caught:
                async with alpc.WorkerPool(completion_port, target, kind="process"):
                    pass
            assert (caught.value.target, caught.value.kind) == (target, "process")


async def test_a_process_that_ends_while_it_starts_is_seen_at_once() -> None:
    """The pool cannot be entered when its process ends before it says anything; a name in another form is a mistake."""
    async with alpc.CompletionPort() as completion_port:
        with pytest.raises(alpc.WorkerDied, match="ended with status 3"):
            async with alpc.WorkerPool(completion_port, "tests.completion.exits:handler", kind="process"):
                pass
        for handler in ("no colon", print):
            with pytest.raises(TypeError, match="module:function"):
                alpc.WorkerPool(completion_port, handler, kind="process")
    assert children() == []


def test_processes_end_when_their_parent_is_killed() -> None:
    """SIGKILL of the pool's process leaves no worker behind, not even one that computes."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True
    )
    with parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + WAIT
        while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_what_travels_comes_back() -> None:
    """Work and answers are what they were before they were packed."""
    facts = Facts("key", (1, 2, (3, 4), 5, None), 7.5)
    assert open_work(seal_work(facts, b"data")) == (facts, b"data")
    identity = facts.identity()
    assert identity is not None
    assert (identity.uid, identity.groups, identity.pid) == (1, (3, 4), 5)
    assert Facts(None, None).identity() is None
    assert open_answer(seal_answer(Outcome.FAILED, b"why", 2**32 - 1)) == (Outcome.FAILED, 2**32 - 1, b"why")
