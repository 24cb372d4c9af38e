"""Endings: their order, what closing does to whoever waits, and closing from anywhere, at any time, repeatedly."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import alpc_async as alpc
from alpc_async import MessageType, PortLimits, Status
from tests.port.support import NAME, WAIT, connected, echo_server, occupy, raw_peer, serve, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

SMALL_WATER = PortLimits(max_view_size=0, high_water=32_768, low_water=8192, close_timeout=30.0)


async def test_endings_come_in_order() -> None:
    """After a client left: first what it had sent, then the cancellations of its open requests, then PORT_CLOSED."""
    async with connected() as (server, client):
        client.start_request(b"taken")
        taken = await server.receive()
        await client.post(b"data")
        client.start_request(b"untaken")
        await client.post(b"more data")
        await client.aclose()
        await until(lambda: not taken.port.connected)
        batch = await server.receive_batch()
        kinds = [message.type for message in batch]
        assert [message.data for message in batch if message.type is MessageType.DATAGRAM] == [b"data", b"more data"]
        assert kinds.index(MessageType.CANCELED) > max(
            index for index, kind in enumerate(kinds) if kind is MessageType.DATAGRAM
        )
        assert batch[kinds.index(MessageType.CANCELED)].id == taken.id
        assert kinds.count(MessageType.PORT_CLOSED) == 1
        assert kinds[-1] is MessageType.PORT_CLOSED
        assert batch[-1].data
        assert taken.cancelled


async def test_the_peer_learns_that_a_port_was_closed() -> None:
    """Who is left gets PORT_CLOSED once, and Disconnected from then on, for receiving and for sending."""
    async with alpc.port_pair() as (left, right):
        await left.aclose()
        assert (await right.receive()).type is MessageType.PORT_CLOSED
        for call in (right.receive, right.receive_batch, right.request, right.post):
            with pytest.raises(alpc.Disconnected):
                await call()
        with pytest.raises(alpc.Disconnected):
            right.start_request()
        assert not right.connected
        assert [batch async for batch in right] == []


async def test_a_request_that_waits_ends_with_the_connection() -> None:
    """A pending request is Disconnected at once when the peer closes, and says that it may have been seen."""
    async with alpc.port_pair() as (left, right):
        pending = left.start_request(b"")
        await right.receive()
        await right.aclose()
        with anyio.fail_after(WAIT), pytest.raises(alpc.Disconnected) as caught:
            await pending
        assert caught.value.sent
        with pytest.raises(alpc.Disconnected) as unsent:
            left.start_request(b"")
        assert not unsent.value.sent


async def test_what_was_queued_leaves_before_the_end() -> None:
    """Posted messages and replies of the last turn reach a peer that reads, although the port is closed right after."""
    async with alpc.port_pair() as (left, right):
        pending = left.start_request(b"")
        message = await right.receive()
        message.reply(b"last words")
        await right.post_batch([b"1", b"2"])
        await right.aclose()
        assert (await pending).data == b"last words"
        assert [(await left.receive()).data for _ in range(2)] == [b"1", b"2"]


async def test_disconnecting_keeps_what_was_received() -> None:
    """After disconnect the messages that had arrived are received, then Disconnected; the peer is told."""
    async with alpc.port_pair() as (left, right):
        await left.post_batch([b"1", b"2"])
        await until(lambda: right.statistics().queued == 2)
        await right.disconnect()
        await right.disconnect()
        assert [message.data async for batch in right for message in batch] == [b"1", b"2"]
        for call in (right.receive, right.request, right.post):
            with pytest.raises(alpc.Disconnected):
                await call()
        assert (await left.receive()).type is MessageType.PORT_CLOSED


@pytest.mark.parametrize("flush", [True, False])
async def test_disconnecting_flushes_or_drops(flush: bool) -> None:
    """With flush everything that is queued leaves first, also when the socket is full; without it is dropped."""
    async with connected(limits=SMALL_WATER) as (server, client):
        await client.post(b"")
        there = (await server.receive()).port
        payload = bytes(60_000)
        sending = [there.start_request(payload, timeout=None) for _ in range(4)]
        before = there.statistics().unsent
        with anyio.fail_after(WAIT):
            await there.disconnect(flush=flush)
        arrived: list[alpc.Message] = []
        async for batch in client:
            arrived += batch
        requests = [message for message in arrived if message.type is MessageType.REQUEST]
        assert before > 0
        assert arrived[-1].type is MessageType.PORT_CLOSED
        if flush:
            assert len(requests) == 4
        else:
            assert len(requests) < 4
        for pending in sending:
            with pytest.raises(alpc.Disconnected):
                await pending


async def test_closing_gives_up_on_a_peer_that_does_not_read(runtime_directory: Path) -> None:
    """What cannot leave is dropped after close_timeout, and closing succeeds."""
    limits = PortLimits(close_timeout=0.05)
    async with alpc.listen(NAME, limits=limits) as server:
        with raw_peer(runtime_directory) as peer:
            await peer.greet()
            there = server.connections[0]
            await occupy(there, 60_000)
            assert there.statistics().unsent > 0
            with anyio.fail_after(WAIT):
                await there.aclose()
            assert not there.connected


async def test_two_tasks_may_close_the_same_port(runtime_directory: Path) -> None:
    """Both calls return as soon as the connection is over, also when what is queued could not leave at once."""
    limits = PortLimits(close_timeout=WAIT * 2)
    async with alpc.listen(NAME, limits=limits) as server:
        with raw_peer(runtime_directory) as peer:
            await peer.greet()
            there = server.connections[0]
            await occupy(there, 60_000)
            closed: list[int] = []

            async def close(number: int) -> None:
                await there.aclose()
                closed.append(number)

            with anyio.fail_after(WAIT):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(close, 1)
                    tasks.start_soon(close, 2)
                    await anyio.wait_all_tasks_blocked()
                    assert closed == []
                    await peer.hear_the_end()
            assert sorted(closed) == [1, 2]


async def test_a_cancelled_close_closes_all_the_same(runtime_directory: Path) -> None:
    """Closing under cancellation closes at once, for ports of both kinds, and drops what is queued."""
    limits = PortLimits(close_timeout=WAIT * 2)
    server = await alpc.listen(NAME, limits=limits)
    with raw_peer(runtime_directory) as peer:
        await peer.greet()
        there = server.connections[0]
        await occupy(there, 60_000)
        with anyio.fail_after(WAIT):
            with anyio.move_on_after(0.02) as scope:
                await server.aclose()
            assert scope.cancelled_caught
        assert not there.connected
        with pytest.raises(alpc.PortClosed):
            await server.receive()
        with pytest.raises(alpc.NameNotFound):
            await alpc.connect(NAME)
        await server.aclose()


async def test_closing_ends_every_wait() -> None:
    """Requests, receives, iterations and senders that wait when their port is closed end at once with PortClosed."""
    async with alpc.port_pair(limits=PortLimits(max_outstanding_messages=1)) as (left, _):
        ended: list[str] = []

        async def expect(name: str, call: Callable[[], Awaitable[Any]]) -> None:
            with pytest.raises(alpc.PortClosed):
                await call()
            ended.append(name)

        async def iterate() -> None:
            async for _batch in left:
                pytest.fail("nothing was sent")
            ended.append("iteration")

        pending = left.start_request(b"")
        with anyio.fail_after(WAIT):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(expect, "pending", lambda: pending)
                for call in (left.receive, left.receive_batch, left.request, left.post):
                    tasks.start_soon(expect, call.__name__, call)
                tasks.start_soon(iterate)
                await until(lambda: left.statistics().waits == 2)
                await anyio.wait_all_tasks_blocked()
                await left.aclose()
        assert sorted(ended) == ["iteration", "pending", "post", "receive", "receive_batch", "request"]


async def test_closing_a_named_port_ends_every_wait() -> None:
    """Receivers of a connection port that is closed get PortClosed, its clients PORT_CLOSED and Disconnected."""
    async with connected() as (server, client), anyio.create_task_group() as tasks:
        ended: list[str] = []

        async def receive() -> None:
            with pytest.raises(alpc.PortClosed):
                await server.receive()
            ended.append("server")

        pending = client.start_request(b"")
        await server.receive()
        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        await server.aclose()
        with anyio.fail_after(WAIT):
            with pytest.raises(alpc.Disconnected):
                await pending
            assert (await client.receive()).type is MessageType.PORT_CLOSED
        await until(lambda: ended)


async def test_nothing_works_after_closing() -> None:
    """Every call on a closed communication port is PortClosed; closing again, facts and text still work."""
    left, right = alpc.port_pair()
    pending = right.start_request(b"")
    message = await left.receive()
    await left.aclose()
    for call in (left.request, left.post, left.receive, left.receive_batch):
        with pytest.raises(alpc.PortClosed):
            await call()
    for act in (left.start_request, left.fileno):
        with pytest.raises(alpc.PortClosed):
            act()
    with pytest.raises(alpc.PortClosed):
        await left.post_batch([b""])
    assert [batch async for batch in left] == []
    message.release()
    await left.aclose()
    await left.disconnect()
    assert not left.connected
    assert left.statistics().messages_received == 1
    assert left.peer.uid >= 0
    assert "over" in repr(left)
    with pytest.raises(alpc.Disconnected):
        await pending
    await right.aclose()


async def test_nothing_works_after_closing_a_named_port() -> None:
    """Every call on a closed connection port is PortClosed; closing again, facts and text still work."""
    async with connected() as (server, _):
        await server.aclose()
        for call in (server.receive, server.receive_batch, server.drain):
            with pytest.raises(alpc.PortClosed):
                await call()
        with pytest.raises(alpc.PortClosed):
            server.fileno()
        server.stop_listening()
        await server.aclose()
        assert (server.connections, server.name) == ((), NAME)
        assert server.statistics().accepted == 1
        assert [batch async for batch in server] == []
        assert "closed" in repr(server)


async def test_ports_close_in_any_order() -> None:
    """Ports opened in one order and closed in another, around a stack of exits, leave nothing behind."""
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        async with AsyncExitStack() as first, AsyncExitStack() as second, AsyncExitStack() as third:
            stacks = (first, second, third)
            server = await first.enter_async_context(alpc.listen(NAME))
            client = await second.enter_async_context(alpc.connect(NAME))
            left, right = await third.enter_async_context(alpc.port_pair())
            await client.post(b"x")
            await left.post(b"y")
            assert (await server.receive()).data == b"x"
            assert (await right.receive()).data == b"y"
            for index in order:
                await stacks[index].aclose()


async def test_a_port_is_opened_in_one_task_and_closed_in_another() -> None:
    """Tasks that opened a port may end, and any other task closes it."""
    ports: list[alpc.ConnectionPort | alpc.CommunicationPort] = []

    async def open_all() -> None:
        ports.append(await alpc.listen(NAME))
        ports.append(await alpc.connect(NAME))
        ports.extend(alpc.port_pair())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_all)
    async with anyio.create_task_group() as tasks:
        for port in ports:
            tasks.start_soon(port.aclose)
    assert len(ports) == 4
    for port in ports:
        with pytest.raises(alpc.PortClosed):
            await port.receive()


async def test_closing_right_after_a_client_vanished(runtime_directory: Path) -> None:
    """A port that is closed while it finds out whether a client died leaves nothing open and reports nothing more."""
    server = await alpc.listen(NAME)
    with raw_peer(runtime_directory) as peer:
        await peer.greet()
        there = server.connections[0]
    await until(lambda: not there.connected)
    await server.aclose()
    with pytest.raises(alpc.PortClosed):
        await server.receive()


# -- draining ----------------------------------------------------------------------------------------------------------


async def test_draining_lets_work_finish_and_turns_new_work_away() -> None:
    """Draining returns when what had been received is answered; meanwhile new requests fail with DRAINING."""
    async with alpc.port_pair() as (left, right):
        old = left.start_request(b"old")
        message = await right.receive()
        drained = anyio.Event()

        async def drain() -> None:
            await right.drain()
            drained.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drain)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(alpc.RemoteFault) as caught:
                await left.request(b"new")
            assert caught.value.status == Status.DRAINING
            assert not drained.is_set()
            message.reply(b"done")
        assert (await old).data == b"done"
        assert right.connected


async def test_draining_waits_for_our_own_requests_and_what_was_not_taken() -> None:
    """A port is drained only when its own requests are answered and everything received was taken."""
    async with alpc.port_pair() as (left, right):
        own = right.start_request(b"own")
        await left.post(b"untaken")
        for port in (right, left):
            with pytest.raises(alpc.DeadlineExceeded) as caught:
                await right.drain(timeout=0.02)
            assert caught.value.timeout == 0.02
            message = await port.receive()
            if message.type is MessageType.REQUEST:
                message.reply(b"")
        with anyio.fail_after(WAIT):
            await right.drain()
        await own


async def test_draining_a_named_port() -> None:
    """The port stops listening, its clients' old requests are answered, their new ones turned away."""
    async with alpc.listen(NAME) as server, alpc.connect(NAME) as one, alpc.connect(NAME) as two:
        old = [client.start_request(b"old") for client in (one, two)]
        messages = [await server.receive() for _ in old]
        with pytest.raises(alpc.DeadlineExceeded):
            await server.drain(timeout=0.02)
        with pytest.raises(alpc.NameNotFound):
            await alpc.connect(NAME)
        for client in (one, two):
            with pytest.raises(alpc.RemoteFault) as caught:
                await client.request(b"new")
            assert caught.value.status == Status.DRAINING
        for message in messages:
            message.reply(b"done")
        with anyio.fail_after(WAIT):
            await server.drain()
        assert [(await request).data for request in old] == [b"done", b"done"]


async def test_cancelling_a_drain_leaves_the_port() -> None:
    """A cancelled drain can be repeated, and the port still works for what was under way."""
    async with connected() as (server, client):
        pending = client.start_request(b"")
        message = await server.receive()
        with anyio.move_on_after(0.01) as scope:
            await server.drain()
        assert scope.cancelled_caught
        message.reply(b"done")
        assert (await pending).data == b"done"
        with anyio.fail_after(WAIT):
            await server.drain()


async def test_a_late_client_of_a_draining_port_is_refused(runtime_directory: Path) -> None:
    """Who had connected but not finished the handshake when draining began is refused with the reason."""
    async with echo_server() as server:
        with raw_peer(runtime_directory) as peer:
            await until(lambda: server.statistics().connections == 1)
            await server.drain(WAIT)
            peer.endpoint.hello(b"")
            await peer.flush()
            events = await peer.hear()
            assert [getattr(event, "status", None) for event in events] == [Status.DRAINING]
        await server.aclose()


async def test_a_pair_closes_both_of_its_ports() -> None:
    """Leaving the block of a pair closes both, also when one was closed before, and when the block failed."""
    left, right = pair = alpc.port_pair()
    with pytest.raises(RuntimeError, match="of the block"):  # noqa: PT012  # the block is what is tested
        async with pair:
            await left.aclose()
            raise RuntimeError("of the block")
    assert not left.connected
    assert not right.connected
    with pytest.raises(alpc.PortClosed):
        await right.receive()


async def test_an_echo_survives_its_clients() -> None:
    """Clients that come and go, in order or not, leave the server serving."""
    async with echo_server() as server, anyio.create_task_group() as tasks:
        for number in range(10):
            async with alpc.connect(NAME) as client:
                client.start_request(b"never awaited")
                assert (await client.request(b"%d" % number)).data == b"%d" % number
        await until(lambda: server.statistics().connections == 0)
        tasks.start_soon(serve, server)
        async with alpc.connect(NAME) as client:
            assert (await client.request(b"last")).data == b"last"
        await server.aclose()
