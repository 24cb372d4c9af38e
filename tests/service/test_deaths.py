"""What is left when one side is killed, and when calls are cancelled at every moment.

Belongs here: real processes that die, and cancellation swept over the turns of a call. Never here: orderly endings.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

import alpc_async as alpc
from alpc_async.service._proxy import state_of
from tests.port.support import until
from tests.service.contracts import NAME, CounterServer, Files, FilesServer, numbers

if TYPE_CHECKING:
    from tests.service.conftest import Served

ROOT = Path(__file__).parents[2]
OBJECTS = 1000

CLIENT = f"""
import anyio
import alpc_async as alpc
from tests.service.contracts import Files

async def main():
    files = await alpc.connect({NAME!r}, Files)
    held = await files.many({OBJECTS})
    stream = files.walk(1, "wait")
    await anext(stream)
    print("holding", flush=True)
    await anyio.sleep_forever()

anyio.run(main)
"""

SERVER = f"""
import anyio
import alpc_async as alpc
from tests.service.contracts import FilesServer

async def main():
    async with alpc.serve({NAME!r}, FilesServer()):
        print("serving", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def start(code: str) -> subprocess.Popen[str]:
    """Start a program, and wait for its first line."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )
    assert process.stdout is not None
    return process


def first_line(process: subprocess.Popen[str]) -> str:
    """Return the first line that a program prints."""
    assert process.stdout is not None
    return process.stdout.readline()


async def test_everything_a_killed_client_held_is_run_down() -> None:
    """A client that is killed with a thousand objects and a stream leaves a thousand rundowns and no handler."""
    server = FilesServer()
    told: list[int] = []

    async def left(_port: alpc.CommunicationPort) -> None:
        await anyio.lowlevel.checkpoint()
        told.append(len(server.run_down))

    async with alpc.serve(NAME, server, left=left) as port:
        with await anyio.to_thread.run_sync(start, CLIENT) as client:
            assert await anyio.to_thread.run_sync(first_line, client) == "holding\n"
            assert port.statistics().objects == OBJECTS
            client.kill()
            await until(lambda: told == [OBJECTS])
        assert sorted(server.run_down) == list(range(OBJECTS))
        assert server.closed_streams == 1
        assert port.statistics().references == 0
        await until(lambda: port.statistics().running == 0)


async def test_a_killed_server_ends_calls_and_streams_at_once() -> None:
    """A client whose server is killed gets an error from its call, its stream and its object, and nothing hangs."""
    with await anyio.to_thread.run_sync(start, SERVER) as server:
        assert await anyio.to_thread.run_sync(first_line, server) == "serving\n"
        async with alpc.connect(NAME, Files) as files, anyio.create_task_group() as tasks:
            counter = await files.open(1)
            stream = files.walk(1, "wait")
            await anext(stream)
            ended: list[str] = []

            async def fails(name: str, call: Any) -> None:
                with pytest.raises(alpc.Disconnected):
                    await call
                ended.append(name)

            async def next_item() -> None:
                await anext(stream)

            tasks.start_soon(fails, "call", files.sleep(60))
            tasks.start_soon(fails, "stream", next_item())
            await anyio.lowlevel.checkpoint()
            server.kill()
            await until(lambda: sorted(ended) == ["call", "stream"])
            with pytest.raises(alpc.Disconnected):
                await counter.add(1)


async def quiet(served: Served) -> None:
    """Wait until the service and its client hold nothing for one another any more."""
    gc.collect()
    assert await served.client.size(b"x") == 1
    await until(lambda: served.port.statistics().references == 1, "the release of everything")
    await until(lambda: served.port.statistics().running == 0, "the end of every handler")
    session = state_of(served.client).session
    await until(lambda: not session.exports.table, "the release of what the client gave")

    def idle() -> bool:
        ends = (served.port.connections[0].statistics(), session.port.statistics())
        return not any(end.pending or end.owed or end.queued for end in ends)

    await until(idle, "the end of every message")


@pytest.mark.parametrize("what", ["unary", "object", "results", "arguments", "both", "callback", "nested"])
async def test_a_call_can_be_cancelled_at_every_moment(served: Served, what: str) -> None:
    """Whatever a call is doing when it is cancelled, both sides end it once and hold nothing of it."""
    run_down: list[int] = []

    async def call() -> None:
        client = served.client
        if what == "unary":
            await client.sleep(0)
        elif what == "object":
            async with await client.open(1) as counter:
                await counter.add(1)
        elif what == "results":
            assert len([entry async for entry in client.walk(600)]) == 600
        elif what == "arguments":
            await client.total(numbers(600))
        elif what == "both":
            assert len([number async for number in client.double(numbers(600))]) == 600
        elif what == "callback":
            await client.use(CounterServer(1, run_down), 1)
        else:
            await client.use(Caller(client), 1)

    for turns in range(30):
        finished = False
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def run() -> None:
                    nonlocal finished
                    await call()
                    finished = True

                tasks.start_soon(run)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
        if finished and turns > 20:
            break
    await quiet(served)
    await until(lambda: served.server.closed_streams == served.server.opened_streams)


class Caller(CounterServer):
    """Calls the server back from inside of a callback."""

    def __init__(self, client: Files) -> None:
        super().__init__()
        self.client = client

    async def add(self, number: int) -> int:
        return await self.client.use(CounterServer(number), number)
