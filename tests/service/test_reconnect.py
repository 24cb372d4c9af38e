"""Clients that connect again by themselves.

Belongs here: what becomes of calls, proxies and objects when the server goes away and comes back. Never here: single
connections.
"""

from __future__ import annotations

import anyio
import pytest

import alpc_async as alpc
from tests.port.support import until
from tests.service.contracts import NAME, Files, FilesServer

POLICY = alpc.Reconnect(timeout=10.0, pause=0.001)


class Safe(alpc.Interface, uuid="0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c11"):
    """One method that may be repeated."""

    @alpc.idempotent
    async def wait(self, seconds: float) -> int: ...


class SafeServer(Safe):
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    async def wait(self, seconds: float) -> int:
        self.calls += 1
        await anyio.sleep(seconds)
        return self.calls


async def cut(port: alpc.ServicePort) -> None:
    """Close what is under a service, while its handlers still run: its clients see that it is gone."""
    await port._service.port.aclose()  # pyright: ignore[reportPrivateUsage]  # what the death of a process does


async def test_new_calls_use_a_new_connection() -> None:
    """A proxy stays valid when its server is replaced, and so do copies of it with other options."""
    port = await alpc.serve(NAME, FilesServer())
    async with alpc.connect(NAME, Files, reconnect=POLICY) as client:
        quick = alpc.with_options(client, timeout=7.0)
        assert await client.size(b"x") == 1
        for _ in range(3):
            await port.aclose()
            port = await alpc.serve(NAME, FilesServer())
            assert await quick.size(b"xy") == 2
            assert await client.size(b"x") == 1
    with pytest.raises(alpc.PortClosed):
        await client.size(b"x")
    await port.aclose()


async def test_a_call_that_was_lost_tells_so() -> None:
    """A call that was under way when the server went away ends with an unknown outcome, once."""
    server = FilesServer()
    port = await alpc.serve(NAME, server)
    async with alpc.connect(NAME, Files, reconnect=POLICY) as client, anyio.create_task_group() as tasks:

        async def call() -> None:
            with pytest.raises(alpc.OutcomeUnknown, match=r"Files\.sleep may or may not"):
                await client.sleep(60)

        tasks.start_soon(call)
        await until(lambda: server.started == 1)
        await cut(port)
    await port.aclose()
    assert server.started == 1


async def test_an_idempotent_call_is_made_again() -> None:
    """An idempotent call that was under way is made again on the next connection."""
    first, second = SafeServer(), SafeServer()
    port = await alpc.serve(NAME, first)
    results: list[int] = []
    async with alpc.connect(NAME, Safe, reconnect=POLICY) as client, anyio.create_task_group() as tasks:

        async def call() -> None:
            results.append(await client.wait(0.1))

        tasks.start_soon(call)
        await until(lambda: first.calls == 1)
        await cut(port)
        await port.aclose()
        async with alpc.serve(NAME, second):
            await until(lambda: results == [1])
    assert (first.calls, second.calls) == (1, 1)


async def test_objects_of_the_old_connection_fail() -> None:
    """An object that a lost server had returned cannot be used any more, and says why."""
    port = await alpc.serve(NAME, FilesServer())
    async with alpc.connect(NAME, Files, reconnect=POLICY) as client:
        counter = await client.open(1)
        await port.aclose()
        async with alpc.serve(NAME, FilesServer()):
            assert await client.size(b"x") == 1
            with pytest.raises((alpc.Disconnected, alpc.PortClosed)):
                await counter.add(1)


async def test_trying_ends() -> None:
    """A client whose server does not come back fails with the reason after its timeout."""
    port = await alpc.serve(NAME, FilesServer())
    policy = alpc.Reconnect(timeout=0.3, pause=0.001)
    async with alpc.connect(NAME, Files, reconnect=policy) as client:
        await port.aclose()
        with pytest.raises((alpc.NameNotFound, alpc.Disconnected)):
            await client.size(b"x")
    with pytest.raises(alpc.NameNotFound):
        await alpc.connect(NAME, Files, reconnect=policy)
