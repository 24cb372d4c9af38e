"""Processes that are killed at every step: survivors get the documented error or notice, and the server goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

import alpc_async as alpc
from alpc_async import MessageType
from tests.faults.puppets import client_frames, puppet, server_frames
from tests.port.support import NAME, WAIT, raw_peer, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

ROOT = Path(__file__).parents[2]
HELLO, REQUEST, SECOND = client_frames(b"question", b"second question")
WELCOME, REPLY = server_frames(b"answer")


@asynccontextmanager
async def still_served(server: alpc.ConnectionPort) -> AsyncGenerator[None]:
    """Check around the block that another client is served, and that no connection is left of the dead one."""
    async with alpc.connect(NAME) as bystander:
        for moment in (b"before", b"after"):
            pending = bystander.start_request(moment)
            message = await server.receive()
            while message.type is not MessageType.REQUEST:
                message = await server.receive()
            assert message.data == moment
            message.reply(b"served")
            assert (await pending).data == b"served"
            if moment == b"before":
                yield
                await until(lambda: server.statistics().connections == 1, "the end of the dead client's connection")


def environment() -> dict[str, str]:
    """Return the variables of a child that uses the package and this test's directory of names."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


async def ending(server: alpc.ConnectionPort) -> list[alpc.Message]:
    """Receive up to the last message of a connection."""
    received: list[alpc.Message] = []
    with anyio.fail_after(WAIT):
        while not received or received[-1].type not in (MessageType.CLIENT_DIED, MessageType.PORT_CLOSED):
            received += await server.receive_batch()
    return received


@pytest.fixture
def pidfd_of_peers(runtime_directory: Path) -> bool:
    """Whether this kernel pins the process behind a connection, which tells a death from a close."""
    return tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) >= (6, 5)


@pytest.mark.parametrize("sent", [b"", HELLO[:1], HELLO[:30], HELLO[:-1]], ids=["nothing", "byte", "header", "most"])
async def test_a_client_dies_before_it_has_greeted(sent: bytes, runtime_directory: Path) -> None:
    """The server forgets the client without a message about it."""
    async with alpc.listen(NAME) as server, still_served(server):
        with puppet() as client:
            await client.connect(runtime_directory / NAME)
            if sent:
                await client.send(sent)
            await until(lambda: server.statistics().connections == 2)
            client.kill()
            await until(lambda: server.statistics().connections == 1)
        assert server.statistics().queued == 0


@pytest.mark.parametrize("taken", [False, True], ids=["question waits", "question taken"])
async def test_a_client_dies_while_the_server_decides(taken: bool, runtime_directory: Path) -> None:
    """A decision about a dead client comes to nothing, and an untaken question about it goes away."""
    async with alpc.listen(NAME, accept="manual") as server:
        with puppet() as client:
            await client.connect(runtime_directory / NAME)
            await client.send(HELLO)
            await until(lambda: server.statistics().queued == 1)
            question = await server.receive() if taken else None
            client.kill()
            await until(lambda: server.statistics().connections == 0)
        if question is not None:
            assert not question.accept().connected
        assert server.statistics().queued == 0


@pytest.mark.parametrize("stage", ["welcomed", "half a request", "request untaken", "request taken", "reply unread"])
async def test_a_client_dies_after_it_was_welcomed(stage: str, pidfd_of_peers: bool, runtime_directory: Path) -> None:
    """What it sent whole is received, its open requests are cancelled, and its death is reported last."""
    async with alpc.listen(NAME) as server, still_served(server):
        with puppet() as client:
            await client.connect(runtime_directory / NAME)
            await client.send(HELLO)
            await client.do(f"receive {len(WELCOME)}")
            taken: alpc.Message | None = None
            if stage == "half a request":
                await client.send(REQUEST[:-3])
            elif stage != "welcomed":
                await client.send(REQUEST)
                await until(lambda: server.statistics().queued == 1)
            if stage in ("request taken", "reply unread"):
                taken = await server.receive()
            if stage == "reply unread":
                assert taken is not None
                taken.reply(b"answer")
                await client.send(SECOND)
            client.kill()
            received = await ending(server)
        kinds = [message.type for message in received]
        assert kinds.pop() is (MessageType.CLIENT_DIED if pidfd_of_peers else MessageType.PORT_CLOSED)
        assert (
            kinds
            == {
                "welcomed": [],
                "half a request": [],
                "request untaken": [MessageType.REQUEST, MessageType.CANCELED],
                "request taken": [MessageType.CANCELED],
                "reply unread": [MessageType.REQUEST, MessageType.CANCELED],
            }[stage]
        )
        if stage == "request taken":
            assert taken is not None
            assert taken.cancelled


async def test_a_client_that_closes_has_not_died(runtime_directory: Path) -> None:
    """A client whose process lives on after it hung up is reported as closed, not as dead."""
    async with alpc.listen(NAME) as server, still_served(server):
        with puppet() as client:
            await client.connect(runtime_directory / NAME)
            await client.send(HELLO)
            await client.do(f"receive {len(WELCOME)}")
            await client.do("close")
            assert [message.type for message in await ending(server)] == [MessageType.PORT_CLOSED]


async def test_a_descendant_does_not_keep_a_dead_client_alive(pidfd_of_peers: bool, runtime_directory: Path) -> None:
    """A client whose socket was inherited by a process that lives on is reported dead all the same."""
    if not pidfd_of_peers:
        pytest.skip("this kernel does not pin the process behind a connection")
    async with alpc.listen(NAME) as server, still_served(server):
        with puppet() as client:
            await client.connect(runtime_directory / NAME)
            await client.send(HELLO)
            await client.do(f"receive {len(WELCOME)}")
            await client.send(REQUEST)
            await client.do("fork")
            client.kill()
            kinds = [message.type for message in await ending(server)]
        assert kinds == [MessageType.REQUEST, MessageType.CANCELED, MessageType.CLIENT_DIED]


# -- servers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["accepted", "greeted", "half a welcome"])
async def test_a_server_dies_during_the_handshake(stage: str, runtime_directory: Path) -> None:
    """Connecting ends as Disconnected at once, not with the timeout."""
    with puppet() as server:
        await server.do(f"listen {runtime_directory / NAME}")

        async def play() -> None:
            await server.do("accept")
            if stage != "accepted":
                await server.do(f"receive {len(HELLO)}")
            if stage == "half a welcome":
                await server.send(WELCOME[:-5])
            server.kill()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play)
            with anyio.fail_after(WAIT), pytest.raises(alpc.Disconnected):
                await alpc.connect(NAME, timeout=None)


@pytest.mark.parametrize("stage", ["welcomed", "request unread", "request read", "half a reply", "reply"])
async def test_a_server_dies_after_the_welcome(stage: str, runtime_directory: Path) -> None:
    """Every open request ends as Disconnected at once, unless its reply was whole, and PORT_CLOSED is received."""
    with puppet() as server:
        await server.do(f"listen {runtime_directory / NAME}")

        welcomed = anyio.Event()

        async def welcome() -> None:
            await server.do("accept")
            await server.do(f"receive {len(HELLO)}")
            await server.send(WELCOME)
            welcomed.set()

        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(anyio.create_task_group())
            tasks.start_soon(welcome)
            client = await stack.enter_async_context(alpc.connect(NAME))
            await welcomed.wait()
            pending = None if stage == "welcomed" else client.start_request(b"question", timeout=None)
            if stage not in ("welcomed", "request unread"):
                await server.do(f"receive {len(REQUEST)}")
            if stage in ("half a reply", "reply"):
                await server.send(REPLY[:-2] if stage == "half a reply" else REPLY)
            server.kill()
            with anyio.fail_after(WAIT):
                if stage == "reply":
                    assert pending is not None
                    assert (await pending).data == b"answer"
                elif pending is not None:
                    with pytest.raises(alpc.Disconnected) as caught:
                        await pending
                    assert caught.value.sent
                assert (await client.receive()).type is MessageType.PORT_CLOSED
                with pytest.raises(alpc.Disconnected):
                    await client.request(b"")


_SERVER = """
import anyio, sys
import alpc_async as alpc

async def main():
    async with alpc.listen(sys.argv[1]) as port:
        print("listening", flush=True)
        async for batch in port:
            for message in batch:
                if message.type is alpc.MessageType.REQUEST and message.data != b"keep":
                    message.reply(message.data)

anyio.run(main)
"""


async def test_a_real_server_is_killed_and_another_takes_over(runtime_directory: Path) -> None:
    """Clients of a killed server are told, and a new server takes the name that the dead one left lying about."""
    command = [sys.executable, "-c", _SERVER, NAME]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:  # noqa: ASYNC220  # short
        try:
            assert process.stdout is not None
            line = await anyio.to_thread.run_sync(process.stdout.readline)
            assert line == b"listening\n"
            async with alpc.connect(NAME) as client:
                assert (await client.request(b"x")).data == b"x"
                pending = [client.start_request(b"keep") for _ in range(3)]
                await client.request(b"all arrived")
                process.kill()
                with anyio.fail_after(WAIT):
                    for request in pending:
                        with pytest.raises(alpc.Disconnected):
                            await request
        finally:
            process.kill()
    with pytest.raises(alpc.NameNotFound):
        await alpc.connect(NAME)
    async with alpc.listen(NAME) as server, still_served(server):
        assert len(server.connections) == 1


_CLIENT = """
import anyio, sys
import alpc_async as alpc

async def main():
    port = await alpc.connect(sys.argv[1])
    await port.post(b"here")
    await anyio.sleep_forever()

anyio.run(main)
"""


async def test_a_real_client_is_killed(pidfd_of_peers: bool, runtime_directory: Path) -> None:
    """The death of a client process is reported with its port, and its handlers' replies harm nobody."""
    command = [sys.executable, "-c", _CLIENT, NAME]
    async with alpc.listen(NAME) as server, still_served(server):
        with subprocess.Popen(command, env=environment()) as process:  # noqa: ASYNC220  # short
            try:
                with anyio.fail_after(WAIT):
                    message = await server.receive()
                assert (message.data, message.sender.pid) == (b"here", process.pid)
                asked = message.port.start_request(b"never answered")
                process.kill()
                (notice,) = await ending(server)
                assert notice.port is message.port
                assert notice.type is (MessageType.CLIENT_DIED if pidfd_of_peers else MessageType.PORT_CLOSED)
                with pytest.raises(alpc.Disconnected):
                    await asked
            finally:
                process.kill()


async def test_many_clients_come_and_vanish(runtime_directory: Path) -> None:
    """Connections that end at any point of their handshake leave nothing in the server."""
    async with alpc.listen(NAME) as server, still_served(server):
        for length in range(0, len(HELLO) + 1, 7):
            with raw_peer(runtime_directory) as peer:
                await peer.say(HELLO[:length])
        with raw_peer(runtime_directory) as peer:
            await peer.say(HELLO)
        await until(lambda: server.statistics().connections == 1)
        # The one that is left is that of the bystander.
        (left,) = server.connections
        assert (left.connected, left.statistics().messages_received > 0) == (True, True)
