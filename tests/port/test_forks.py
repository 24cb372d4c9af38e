"""Ports belong to one process, thread and event loop; elsewhere they refuse, and their owner notices nothing."""

from __future__ import annotations

import os
import threading
import warnings
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import alpc_async as alpc
from alpc_async import MessageType
from tests.port.support import NAME, WAIT, connected, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Call = Callable[[], Awaitable[object]]


def calls(
    server: alpc.ConnectionPort,
    client: alpc.CommunicationPort,
    request: alpc.Message,
    pending: alpc.PendingRequest,
    completion_port: alpc.CompletionPort,
) -> dict[str, Call]:
    """Return everything that acts on a connection, by name, as functions to be awaited."""

    def sync(act: Callable[[], object]) -> Call:
        async def call() -> None:
            act()

        return call

    return {
        "request": lambda: client.request(b"from elsewhere"),
        "post": lambda: client.post(b"from elsewhere"),
        "receive": client.receive,
        "receive_batch": client.receive_batch,
        "disconnect": client.disconnect,
        "aclose": client.aclose,
        "drain": lambda: client.drain(0.0),
        "start_request": sync(lambda: client.start_request(b"from elsewhere")),
        "cancel": sync(pending.cancel),
        "reply": sync(lambda: request.reply(b"from elsewhere")),
        "fail": sync(lambda: request.fail(1000, "from elsewhere")),
        "release": sync(request.release),
        "server.receive": server.receive,
        "server.stop_listening": sync(server.stop_listening),
        "server.drain": lambda: server.drain(0.0),
        "server.aclose": server.aclose,
        "associate": sync(lambda: completion_port.associate(client)),
        "completion_port.post": sync(lambda: completion_port.post(None)),
        "completion_port.get_batch": completion_port.get_batch,
    }


async def outcomes(everything: dict[str, Call]) -> dict[str, str]:
    """Return what each call ended with."""
    ended: dict[str, str] = {}
    for name, call in everything.items():
        try:
            with anyio.fail_after(WAIT / 3):
                await call()
        except Exception as error:
            ended[name] = type(error).__name__
        else:
            ended[name] = "nothing"
    return ended


async def ended_elsewhere(elsewhere: Callable[[dict[str, Call]], dict[str, str]]) -> set[str]:
    """Make every call elsewhere, check that the connection is as it was, and return what the calls ended with."""
    async with connected() as (server, client), alpc.CompletionPort() as completion_port:
        completion_port.post("own")
        pending = client.start_request(b"open")
        request = await server.receive()
        everything = calls(server, client, request, pending, completion_port)
        ended = await anyio.to_thread.run_sync(elsewhere, everything)
        assert ended.keys() == everything.keys()
        request.reply(b"answered by the owner")
        assert (await pending).data == b"answered by the owner"
        await client.post(b"goes on")
        message = await server.receive()
        assert (message.type, message.data, message.sequence) == (MessageType.DATAGRAM, b"goes on", 2)
        assert [packet.key for packet in await completion_port.get_batch()] == ["own"]
        async with alpc.connect(NAME) as other:
            await other.post(b"still listening")
            assert (await server.receive()).data == b"still listening"
    return set(ended.values())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_another_loop_in_another_thread(backend: str) -> None:
    """Every call from another event loop is ForkedPort."""

    def elsewhere(everything: dict[str, Call]) -> dict[str, str]:
        return anyio.run(outcomes, everything, backend=backend)

    assert await ended_elsewhere(elsewhere) == {"ForkedPort"}


async def test_another_thread_without_a_loop() -> None:
    """Calls that do not wait are ForkedPort in a thread without an event loop."""
    async with connected() as (server, client):
        pending = client.start_request(b"open")
        request = await server.receive()
        acts: tuple[Callable[[], Any], ...] = (
            lambda: client.start_request(b""),
            pending.cancel,
            request.reply,
            server.stop_listening,
        )
        ended: list[type[Exception]] = []

        def elsewhere() -> None:
            for act in acts:
                try:
                    act()
                except alpc.AlpcError as error:
                    ended.append(type(error))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await until(lambda: not thread.is_alive())
        thread.join()
        assert ended == [alpc.ForkedPort] * len(acts)
        request.reply(b"fine")
        assert (await pending).data == b"fine"


def in_a_child(work: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Run a function in a forked child, which ends without cleaning anything up, and return what it returned."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            # Loops take over the signal descriptor that the parent's loop left set, and one of them warns about it.
            warnings.simplefilter("ignore")
            os.write(writer, "\n".join(f"{name} {end}" for name, end in work().items()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return dict(line.split() for line in text.splitlines())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forking with threads is what is tested here
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_a_forked_child_with_a_loop_of_its_own(backend: str) -> None:
    """Every call in a forked child is ForkedPort there, and the parent's connection goes on undisturbed."""

    def elsewhere(everything: dict[str, Call]) -> dict[str, str]:
        return in_a_child(lambda: anyio.run(outcomes, everything, backend=backend))

    assert await ended_elsewhere(elsewhere) == {"ForkedPort"}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # likewise
async def test_a_forked_child_inside_the_loop() -> None:
    """Calls that do not wait are ForkedPort in a child that a task forked, although trio seems to run there."""
    async with connected() as (server, client):
        pending = client.start_request(b"open")
        request = await server.receive()
        acts: dict[str, Callable[[], object]] = {
            "start_request": lambda: client.start_request(b"from the child"),
            "cancel": pending.cancel,
            "reply": request.reply,
            "stop_listening": server.stop_listening,
        }

        def work() -> dict[str, str]:
            ended: dict[str, str] = {}
            for name, act in acts.items():
                try:
                    act()
                except Exception as error:
                    ended[name] = type(error).__name__
            return ended

        assert in_a_child(work) == dict.fromkeys(acts, "ForkedPort")
        request.reply(b"fine")
        assert (await pending).data == b"fine"
        async with alpc.connect(NAME):
            pass


async def test_the_error_names_the_port() -> None:
    """ForkedPort says which port it is about."""
    async with alpc.port_pair() as (left, _):
        caught: list[alpc.ForkedPort] = []

        def elsewhere() -> None:
            try:
                left.start_request(b"")
            except alpc.ForkedPort as error:
                caught.append(error)

        await anyio.to_thread.run_sync(elsewhere)
        assert "port pair" in caught[0].port
        assert caught[0].port in str(caught[0])
