"""Receiving: batches, several receivers, waiting by descriptor, and the facts that ports tell about themselves."""

from __future__ import annotations

import os
import select
import threading

import anyio
import anyio.lowlevel
import pytest

import alpc_async as alpc
from alpc_async import MessageType, PortAttribute, PortLimits
from tests.port.support import NAME, WAIT, connected, readable, serve, until


async def test_a_batch_is_what_has_arrived_up_to_a_maximum() -> None:
    """A batch has at most max_messages messages in order, and what is left comes with the next."""
    async with alpc.port_pair() as (left, right):
        await left.post_batch([b"%d" % number for number in range(10)])
        await until(lambda: right.statistics().queued == 10)
        batches = [await right.receive_batch(max_messages=4) for _ in range(3)]
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert [message.data for batch in batches for message in batch] == [b"%d" % number for number in range(10)]


async def test_a_batch_of_nothing_is_a_mistake() -> None:
    """A maximum below one is a ValueError."""
    async with alpc.port_pair() as (left, _):
        for maximum in (0, -1):
            with pytest.raises(ValueError, match=str(maximum)):
                await left.receive_batch(maximum)


async def test_iterating_yields_batches_until_the_end() -> None:
    """Iteration gives lists that are never empty, and ends after the closing message."""
    async with alpc.port_pair() as (left, right):
        await left.post_batch([b"1", b"2"])
        await until(lambda: right.statistics().queued == 2)
        sizes: list[int] = []
        async for batch in right:
            sizes.append(len(batch))
            if len(sizes) == 1:
                await left.aclose()
        assert sizes == [2, 1]


async def test_each_message_goes_to_one_of_several_receivers() -> None:
    """Tasks that receive at the same time share the messages, none twice and none lost."""
    async with alpc.port_pair() as (left, right), anyio.create_task_group() as tasks:
        got: list[bytes] = []

        async def take(maximum: int) -> None:
            while True:
                got.extend(message.data for message in await right.receive_batch(maximum))

        for maximum in (1, 1, 2, 64):
            tasks.start_soon(take, maximum)
        for start in range(0, 300, 10):
            await left.post_batch([b"%d" % number for number in range(start, start + 10)])
            await anyio.lowlevel.checkpoint()
        await until(lambda: len(got) >= 300)
        assert sorted(map(int, got)) == list(range(300))
        tasks.cancel_scope.cancel()


async def test_a_second_receiver_gets_what_the_first_left() -> None:
    """Two messages that come with one wake-up wake two tasks that take one each."""
    async with alpc.port_pair() as (left, right):
        got: list[bytes] = []

        async def take() -> None:
            got.append((await right.receive()).data)

        with anyio.fail_after(WAIT):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(take)
                tasks.start_soon(take)
                await anyio.wait_all_tasks_blocked()
                await left.post_batch([b"1", b"2"])
        assert sorted(got) == [b"1", b"2"]


async def test_the_task_that_went_idle_last_is_woken_first() -> None:
    """Waiting receivers are woken newest first, one for each message."""
    async with alpc.port_pair() as (left, right), anyio.create_task_group() as tasks:
        order: list[int] = []

        async def take(number: int) -> None:
            await right.receive()
            order.append(number)

        for number in range(3):
            tasks.start_soon(take, number)
            await anyio.wait_all_tasks_blocked()
        for count in range(1, 4):
            await left.post(b"")
            await until(lambda count=count: len(order) == count)  # type: ignore[misc]  # bound now
        assert order == [2, 1, 0]


async def test_a_server_receives_in_one_place_only() -> None:
    """The port of one client does not receive: its messages arrive at the connection port, and the error says so."""
    async with connected() as (server, client):
        await client.post(b"x")
        there = (await server.receive()).port
        for call in (there.receive, there.receive_batch):
            with pytest.raises(alpc.PortAssociated, match=NAME):
                await call()


# -- waiting by descriptor ---------------------------------------------------------------------------------------------


async def test_the_descriptor_is_readable_while_a_message_waits() -> None:
    """The descriptor follows what can be received, however it was taken, and is one for the life of the port."""
    async with alpc.port_pair() as (left, right):
        fd = right.fileno()
        assert not readable(fd)
        await left.post_batch([b"1", b"2", b"3"])
        await until(lambda: readable(fd))
        await right.receive()
        assert readable(fd)
        await right.receive_batch(1)
        assert readable(fd)
        await right.receive_batch(1)
        assert not readable(fd)
        await left.post(b"4")
        await until(lambda: readable(fd))
        await right.receive_batch()
        assert not readable(fd)
        assert right.fileno() == fd


async def test_the_descriptor_is_not_readable_for_a_withdrawn_request() -> None:
    """A request that was withdrawn before it was taken leaves nothing to receive, and the descriptor says so."""
    async with alpc.port_pair() as (left, right):
        fd = right.fileno()
        pending = left.start_request(b"")
        await until(lambda: readable(fd))
        pending.cancel()
        await until(lambda: right.statistics().owed == 0)
        assert not readable(fd)


async def test_a_descriptor_that_is_asked_for_late_knows_what_waits() -> None:
    """Messages that came before the first call of fileno count."""
    async with alpc.port_pair() as (left, right):
        await left.post(b"early")
        await until(lambda: right.statistics().queued == 1)
        assert readable(right.fileno())


async def test_the_descriptor_stays_readable_after_the_end() -> None:
    """Nobody who waits with select sleeps through the end: the descriptor is readable once nothing more will come."""
    async with alpc.port_pair() as (left, right):
        fd = right.fileno()
        await left.aclose()
        await until(lambda: readable(fd))
        assert (await right.receive()).type is MessageType.PORT_CLOSED
        assert readable(fd)
        with pytest.raises(alpc.Disconnected):
            await right.receive()
        assert readable(fd)


async def test_a_thread_waits_for_messages_with_select() -> None:
    """Another thread is woken by select when a client's message arrives at a connection port."""
    async with connected() as (server, client):
        fd = server.fileno()
        seen: list[bool] = []
        started = threading.Event()

        def wait() -> None:
            started.set()
            seen.append(bool(select.select([fd], [], [], WAIT)[0]))

        thread = threading.Thread(target=wait)
        thread.start()
        await until(started.is_set)
        assert seen == []
        await client.post(b"x")
        await until(lambda: seen)
        thread.join()
        assert seen == [True]
        assert (await server.receive()).data == b"x"
        assert not readable(fd)


# -- facts -------------------------------------------------------------------------------------------------------------


async def test_the_extra_attributes_of_a_port() -> None:
    """extra() gives peer, limits and, for a named connection, the name; a default stands in for what is absent."""
    async with connected() as (server, client), alpc.port_pair() as (left, _):
        assert client.extra(PortAttribute.name) == NAME  # noqa: S610  # not that extra
        assert client.extra(PortAttribute.peer) is client.peer  # noqa: S610  # not that extra
        assert client.extra(PortAttribute.limits) == client.limits  # noqa: S610  # not that extra
        assert left.extra(PortAttribute.name, "none") == "none"  # noqa: S610  # not that extra
        with pytest.raises(anyio.TypedAttributeLookupError):
            left.extra(PortAttribute.name)  # noqa: S610  # not that extra
        assert server.limits == PortLimits()


async def test_what_a_port_counts() -> None:
    """The statistics of a port follow what happens on it."""
    async with alpc.port_pair() as (left, right):
        pending = left.start_request(b"12345")
        assert (left.statistics().pending, left.statistics().unsent > 5) == (1, True)
        message = await right.receive()
        there = right.statistics()
        assert (there.owed, there.queued, there.receives, there.messages_received, there.largest_batch) == (
            1,
            0,
            1,
            1,
            1,
        )
        assert there.bytes_received == left.statistics().bytes_sent > 5
        message.reply(b"")
        await pending
        assert (left.statistics().pending, right.statistics().owed, left.statistics().unsent) == (0, 0, 0)
        assert left.statistics().sends == right.statistics().sends == 1


async def test_ports_and_messages_say_what_they_are() -> None:
    """The text of ports and messages names the port, the type and the size, and never the payload."""
    async with connected() as (server, client):
        await client.post(b"secret")
        message = await server.receive()
        assert NAME in repr(server)
        assert NAME in repr(client)
        assert "datagram 1" in repr(message)
        assert "6 bytes" in repr(message)
        assert "secret" not in repr(message)


async def test_an_identity_does_not_keep_descriptors_after_the_end() -> None:
    """The pinned process of a peer is given back with the connection, and the facts stay."""
    async with connected() as (server, client):
        await client.post(b"")
        there = (await server.receive()).port
        assert there.peer.has_pidfd == client.peer.has_pidfd
        await client.aclose()
        await until(lambda: not there.connected)
        for peer in (there.peer, client.peer):
            assert not peer.has_pidfd
            assert peer.pid == os.getpid()


async def test_a_slow_receiver_does_not_hold_replies_up() -> None:
    """Replies arrive although the same port has a full queue of messages that nobody takes."""
    limits = PortLimits(max_outstanding_messages=8)
    async with alpc.port_pair(limits=limits) as (left, right), anyio.create_task_group() as tasks:
        await right.post_batch([b"untaken"] * 8)
        tasks.start_soon(serve, right)
        assert (await left.request(b"through")).data == b"through"
        await until(lambda: left.statistics().queued == 8)
        await right.aclose()
