"""The test kit for services: in memory, with a chosen caller, with virtual time.

Belongs here: `service_pair`. Never here: memory links and faults by themselves.
"""

from __future__ import annotations

import anyio
import pytest

import alpc_async as alpc
from alpc_async.testing import Disconnect, LeakCounter, Split, service_pair
from tests.port.support import until
from tests.service.contracts import Counter, CounterServer, Entry, Files, FilesServer, numbers


async def test_a_service_works_in_memory() -> None:
    """Calls, streams and callbacks work over a pair, also when every byte arrives alone, without any descriptor."""
    for faults in ((), (Split(1),)):
        server = FilesServer()
        counter = LeakCounter()
        async with service_pair(Files, server, client_faults=faults, server_faults=faults) as files:
            assert await files.size(b"abc") == 3
            assert [entry.size async for entry in files.walk(20)] == list(range(20))
            assert await files.total(numbers(20)) == 190
            assert await files.use(CounterServer(1, server.run_down), 2) == 5
            await until(lambda server=server: server.run_down == [5])  # type: ignore[misc]  # bound at once
            assert counter.left() == []


async def test_the_caller_can_be_chosen() -> None:
    """The server sees the identity that the test says."""
    server = FilesServer()
    async with service_pair(Files, server, identity=alpc.Identity(uid=4711, gid=7)) as files:
        await files.size(b"")
    assert server.calls[0].peer.uid == 4711


def test_the_interface_comes_first() -> None:
    """A pair whose arguments are in the wrong order is refused at once."""
    with pytest.raises(alpc.InvalidInterface, match="an interface is a class"):
        service_pair(FilesServer(), Files)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # so


async def test_any_object_serves_in_a_pair() -> None:
    """An object that only has the methods serves as well, and one that lacks them is refused."""

    class Plain:
        async def add(self, number: int) -> int:
            return number + 1

    async with service_pair(Counter, Plain()) as counter:
        assert await counter.add(1) == 2
    with pytest.raises(alpc.InvalidInterface):
        await service_pair(Files, Plain())


async def test_a_broken_connection_is_seen() -> None:
    """A client whose connection breaks within a call gets an error at once."""
    async with service_pair(Files, FilesServer(), client_faults=[Disconnect(77)]) as files:
        await files.size(b"")
        with pytest.raises(alpc.Disconnected):
            await files.echo(Entry("a long name, whose echo does not arrive any more"))


def test_time_is_virtual_on_trio() -> None:
    """With a mocked clock the default deadline of half a minute passes at once."""
    testing = pytest.importorskip("trio.testing")

    async def main() -> float:
        async with service_pair(Files, FilesServer()) as files:
            began = anyio.current_time()
            with pytest.raises(alpc.DeadlineExceeded):
                await files.sleep(3600)
            return anyio.current_time() - began

    clock = testing.MockClock(autojump_threshold=0)
    assert anyio.run(main, backend="trio", backend_options={"clock": clock}) == pytest.approx(30.0, abs=0.1)
