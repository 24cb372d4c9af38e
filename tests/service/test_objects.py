"""Objects that cross by reference: context handles, callbacks, releasing, running down.

Belongs here: everything about references between two honest sides. Never here: hostile ones (`test_hostile`).
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import alpc_async as alpc
from alpc_async.service._proxy import state_of
from tests.port.support import until
from tests.service.contracts import NAME, Counter, CounterServer, Entry, Files, FilesServer

if TYPE_CHECKING:
    from tests.service.conftest import Served


async def test_a_result_may_be_an_object(served: Served) -> None:
    """A returned object stays at the server; its proxy calls it, and releasing the proxy runs it down."""
    async with await served.client.open(5) as counter:
        assert isinstance(counter, Counter)
        assert await counter.add(1) == 6
        assert await counter.add(2) == 8
        assert served.port.statistics().objects == 1
    await until(lambda: served.server.run_down == [8])
    with pytest.raises(alpc.PortClosed):
        await counter.add(1)
    await counter.aclose()
    await until(lambda: served.port.statistics().objects == 0)


async def test_forgetting_a_proxy_releases_its_object(served: Served) -> None:
    """An object whose proxy nobody holds any more is run down."""
    counter = await served.client.open(3)
    del counter
    gc.collect()
    await until(lambda: served.server.run_down == [3])
    assert served.port.statistics().objects == 0


async def test_objects_inside_of_containers(served: Served) -> None:
    """Objects cross in lists as well, each as a reference of its own."""
    counters = await served.client.many(10)
    assert [await counter.add(1) for counter in counters] == list(range(1, 11))
    for counter in counters:
        await counter.aclose()
    await until(lambda: sorted(served.server.run_down) == list(range(1, 11)))


async def test_an_object_that_is_passed_back_is_the_original(served: Served) -> None:
    """A proxy that is given back to where its object lives arrives as that object itself."""
    counter = await served.client.open()
    assert await served.client.same(counter)
    assert not await served.client.same(CounterServer())
    await counter.aclose()


async def test_an_argument_may_be_an_object(served: Served) -> None:
    """A handler can call an object of its client while the call runs; the object is released afterwards."""
    counter = CounterServer(10, served.server.run_down)
    assert await served.client.use(counter, 2) == 14
    assert counter.number == 14
    await until(lambda: served.server.run_down == [14])


async def test_an_object_can_be_kept(served: Served) -> None:
    """A server can keep an object of its client and call it between calls, until it lets go of it."""
    counter = CounterServer(0, served.server.run_down)
    await served.client.keep(counter)
    (kept,) = served.server.kept
    assert await kept.add(4) == 4
    assert served.server.run_down == []
    await kept.aclose()
    await until(lambda: served.server.run_down == [4])


async def test_an_object_that_crosses_twice_is_run_down_once(served: Served) -> None:
    """An object that is held more than once is run down when the last holder let go."""
    counter = CounterServer(1, served.server.run_down)
    await served.client.keep(counter)
    await served.client.keep(counter)
    first, second = served.server.kept
    await first.aclose()
    assert await second.add(1) == 2
    assert served.server.run_down == []
    await second.aclose()
    await until(lambda: served.server.run_down == [2])


class Nesting(CounterServer):
    """Calls the server back from inside of a callback, deeper and deeper."""

    def __init__(self, client: Files) -> None:
        super().__init__()
        self.client = client
        self.depths: list[int] = []

    async def add(self, number: int) -> int:
        self.depths.append(alpc.current_call().depth)
        return await self.client.use(self, number + 1)


async def test_callbacks_nest_up_to_a_limit() -> None:
    """Calls that go back and forth are turned away at the limit of the receiver, and all of them end."""
    limits = alpc.PortLimits(max_call_depth=6)
    async with alpc.serve(NAME, FilesServer(), limits=limits), alpc.connect(NAME, Files, limits=limits) as client:
        nesting = Nesting(client)
        with pytest.raises(alpc.RemoteFault):
            await client.use(nesting, 0)
        assert nesting.depths == [1, 3, 5]


async def test_an_argument_of_a_call_that_is_turned_away_comes_back(served: Served) -> None:
    """An object among arguments that did not leave is not run down; one of a call that was cancelled is."""
    counter: Any = CounterServer(7, served.server.run_down)
    with pytest.raises(alpc.TypeMismatch):
        await served.client.use(counter, "x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # so
    assert served.server.run_down == []

    class Waiting(CounterServer):
        async def add(self, number: int) -> int:
            await anyio.sleep_forever()
            return 0

    waiting = Waiting(8, served.server.run_down)
    with anyio.move_on_after(0.05):
        await served.client.use(waiting, 1)
    gc.collect()
    await until(lambda: served.server.run_down == [8])


async def test_a_result_that_nobody_takes_comes_back(served: Served) -> None:
    """An object whose caller was cancelled meanwhile is released again, at every moment of the call."""
    for turns in range(12):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(served.client.open, turns)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
        gc.collect()
    assert await served.client.size(b"") == 0
    await until(lambda: served.port.statistics().objects == 0)
    assert len(served.server.run_down) == len(served.server.opened)


async def test_everything_is_run_down_when_the_client_leaves() -> None:
    """What a client holds is run down when it leaves, before the server is told that it has left."""
    server = FilesServer()
    told: list[int] = []

    async def left(_port: alpc.CommunicationPort) -> None:
        await anyio.lowlevel.checkpoint()
        told.append(len(server.run_down))

    async with alpc.serve(NAME, server, left=left) as port:
        async with alpc.connect(NAME, Files) as client:
            counters = await client.many(100)
            assert port.statistics().objects == 100
        await until(lambda: told == [100])
        assert sorted(server.run_down) == list(range(100))
        assert len(counters) == 100
        assert port.statistics().references == 0


async def test_callbacks_are_run_down_when_the_server_leaves() -> None:
    """What a server holds of a client is run down at the client when the server leaves."""
    run_down: list[int] = []
    port = await alpc.serve(NAME, FilesServer())
    async with alpc.connect(NAME, Files) as client:
        await client.keep(CounterServer(3, run_down))
        await port.aclose()
        await until(lambda: run_down == [3])
        with pytest.raises(alpc.Disconnected):
            await client.size(b"")


async def test_closing_a_client_runs_down_its_callbacks() -> None:
    """What a server holds of a client is run down when the client closes the connection itself."""
    run_down: list[int] = []
    async with alpc.serve(NAME, FilesServer()):
        async with alpc.connect(NAME, Files) as client:
            await client.keep(CounterServer(3, run_down))
            assert run_down == []
        await until(lambda: run_down)
        assert run_down == [3]


async def test_a_peer_may_hold_so_many_objects(caplog: pytest.LogCaptureFixture) -> None:
    """A client that holds as many objects as it may gets no more, until it lets some go."""
    limits = alpc.PortLimits(max_objects=5)
    async with alpc.serve(NAME, FilesServer(), limits=limits), alpc.connect(NAME, Files) as client:
        counters = await client.many(4)
        with pytest.raises(alpc.RemoteFault, match="max_objects") as caught:
            await client.open()
        assert caught.value.status == alpc.Status.TOO_MANY_OBJECTS
        for counter in counters:
            await counter.aclose()
        assert await client.size(b"") == 0
        await (await client.open()).aclose()
    caplog.clear()


async def test_a_proxy_of_another_connection_is_handed_on(served: Served) -> None:
    """A proxy that is passed to somebody else can be called there; its calls go through the one who passed it."""
    async with alpc.serve("acme.other", FilesServer()), alpc.connect("acme.other", Files) as other:
        counter = await other.open(40)
        assert await served.client.use(counter, 1) == 42


async def test_an_object_of_another_interface_is_refused(served: Served) -> None:
    """An object that does not implement the declared interface does not leave the client."""
    with pytest.raises(alpc.TypeMismatch, match="argument 'counter': expected `Counter`, got `FilesServer`"):
        await served.client.use(FilesServer(), 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # so
    with pytest.raises(alpc.TypeMismatch, match="an object of type object cannot cross"):
        await served.client.use(object(), 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # so


async def test_a_failing_rundown_is_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """A rundown that raises is logged, and harms nothing."""

    class Failing(CounterServer):
        async def rundown(self) -> None:
            raise ValueError("no")

    await served.client.use(Failing(), 1)
    await until(lambda: "the rundown of" in caplog.text)
    assert await served.client.echo(Entry("x")) == Entry("x")
    caplog.clear()


async def test_a_proxy_says_what_it_is(served: Served) -> None:
    """The text of a proxy names the interface, the object and the connection."""
    assert repr(served.client).startswith("<Files proxy, object 1 of <CommunicationPort connection to port")
    assert repr(served.port) == "<ServicePort 'acme.files': Files>"
    with pytest.raises(alpc.TypeMismatch, match="is not what connect"):
        state_of(FilesServer())
