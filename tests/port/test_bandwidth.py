"""Bytes per second of one connection: what arrives over the limit is held, what would leave over it waits.

Times are checked for being long enough only. Limits of one side alone show which side it is that waits.
"""

from __future__ import annotations

from functools import partial

import anyio
import pytest

import alpc_async as alpc
from alpc_async import MessageType, PortLimits, Transfer
from tests.port.support import NAME, WAIT, connected, echo_server, until

KIB = 1024
MIB = KIB * KIB
RATE = 100_000
NARROW = PortLimits(memory_bandwidth=RATE)


# -- arriving ----------------------------------------------------------------------------------------------------------


async def test_what_arrives_over_the_bandwidth_waits() -> None:
    """A second's worth comes at once, the rest when the bucket has refilled, and nothing is lost."""
    async with alpc.listen(NAME, limits=NARROW) as server, alpc.connect(NAME) as client:
        began = anyio.current_time()
        await client.post_batch([bytes(30_000)] * 4)
        with anyio.fail_after(WAIT):
            assert [len((await server.receive()).data) for _ in range(4)] == [30_000] * 4
        assert anyio.current_time() - began > 0.15


async def test_arriving_views_count() -> None:
    """Data that travelled as a view counts with its whole length, and so does a view beside the data."""
    async with alpc.listen(NAME, limits=PortLimits(memory_bandwidth=MIB)) as server, alpc.connect(NAME) as client:
        began = anyio.current_time()
        await client.post(bytes(MIB))
        await client.post(b"beside", view=await client.allocate(MIB // 4))
        with anyio.fail_after(WAIT):
            assert [(await server.receive()).size for _ in range(2)] == [MIB, 6]
        assert anyio.current_time() - began > 0.2


async def test_answers_that_arrive_are_not_held_up() -> None:
    """Replies to requests of ours pass, however much they bring."""
    async with alpc.listen(NAME) as server, alpc.connect(NAME, limits=PortLimits(memory_bandwidth=1000)) as client:
        pending = client.start_request(b"")
        (await server.receive()).reply(bytes(100_000))
        with anyio.fail_after(WAIT):
            assert len((await pending).data) == 100_000


async def test_closing_while_messages_are_held() -> None:
    """The end of the connection hands out what waits, and no timer is left."""
    async with alpc.listen(NAME, limits=PortLimits(memory_bandwidth=10)) as server, alpc.connect(NAME) as client:
        await client.post(bytes(10_000))
        await until(lambda: server.statistics().queued == 1)
        await client.aclose()
        with anyio.fail_after(WAIT):
            assert (await server.receive()).type is MessageType.DATAGRAM


# -- leaving -----------------------------------------------------------------------------------------------------------


async def test_posting_over_the_bandwidth_waits() -> None:
    """A second's worth leaves at once, and what goes over it when the bucket has refilled, in order."""
    async with alpc.listen(NAME) as server, alpc.connect(NAME, limits=NARROW) as client:
        began = anyio.current_time()
        await client.post_batch([bytes([number]) * 30_000 for number in range(3)])
        await client.post(b"3" * 30_000)
        assert anyio.current_time() - began > 0.15
        with anyio.fail_after(WAIT):
            firsts = [(await server.receive()).data[:1] for _ in range(4)]
        assert firsts == [b"\0", b"\1", b"\2", b"3"]


def _has_waited(port: alpc.CommunicationPort, times: int) -> bool:
    return port.statistics().waits > times


async def test_requests_over_the_bandwidth_wait() -> None:
    """A request that finds the bucket empty is sent when it has refilled, those first that have waited longest."""
    order: list[int] = []

    async def ask(client: alpc.CommunicationPort, number: int) -> None:
        await client.request(bytes(20_000))
        order.append(number)

    async with echo_server(), alpc.connect(NAME, limits=NARROW) as client, anyio.create_task_group() as tasks:
        await client.request(bytes(RATE))
        began = anyio.current_time()
        for number in range(3):
            tasks.start_soon(ask, client, number)
            await until(partial(_has_waited, client, number))
        await until(lambda: len(order) == 3)
        assert order == [0, 1, 2]
        assert anyio.current_time() - began > 0.3


async def test_starting_a_request_over_the_bandwidth_fails() -> None:
    """What cannot wait is refused with the setting's name, and nothing is sent."""
    async with alpc.listen(NAME) as server, alpc.connect(NAME, limits=NARROW) as client:
        await client.post(bytes(90_000))
        with pytest.raises(alpc.QuotaExceeded) as caught:
            client.start_request(bytes(20_000))
        assert (caught.value.setting, caught.value.limit) == ("memory_bandwidth", RATE)
        assert client.statistics().pending == 0
        client.start_request(b"fits")
        with anyio.fail_after(WAIT):
            assert [(await server.receive()).size for _ in range(2)] == [90_000, 4]


@pytest.mark.parametrize("how", ["view", "beside", "direct"])
async def test_all_ways_of_leaving_count(how: str) -> None:
    """Data in shared memory, memory beside the data, and data that the server reads by itself count like any other."""
    limits = PortLimits(memory_bandwidth=2 * MIB, direct=how == "direct")
    async with alpc.listen(NAME, limits=PortLimits(direct=True)) as server, alpc.connect(NAME, limits=limits) as client:
        view = await client.allocate(2 * MIB) if how == "beside" else None
        client.start_request(b"x" if view is not None else bytes(2 * MIB), view=view)
        with anyio.fail_after(WAIT):
            message = await server.receive()
        assert message.transfer is (Transfer.DIRECT if how == "direct" else Transfer.VIEW)
        with pytest.raises(alpc.QuotaExceeded, match="memory_bandwidth"):
            client.start_request(bytes(MIB))
        assert client.statistics().lent == (how != "direct")
        message.release()


async def test_more_than_a_second_brings_leaves_when_the_bucket_is_full() -> None:
    """A message that no bucket can hold is sent all the same, and what follows waits until it is made up for."""
    async with alpc.listen(NAME) as server, alpc.connect(NAME, limits=PortLimits(memory_bandwidth=50_000)) as client:
        began = anyio.current_time()
        await client.post(bytes(60_000))
        await client.post(b"next")
        assert anyio.current_time() - began > 0.15
        with anyio.fail_after(WAIT):
            assert [(await server.receive()).size for _ in range(2)] == [60_000, 4]


async def test_what_is_too_long_is_said_at_once() -> None:
    """Waiting for the bucket would be in vain for a message that no way of moving it takes."""
    async with connected(limits=PortLimits(memory_bandwidth=1000, max_view_size=0)) as (_, client):
        await client.post(bytes(1000))
        for send in (client.post, client.request):
            with anyio.fail_after(WAIT), pytest.raises(alpc.MessageTooLong):
                await send(bytes(100_000), timeout=None)


async def test_waiting_for_the_bandwidth_ends_with_the_timeout() -> None:
    """Nothing is sent when there was no room in time, and the place in the line is given up."""
    async with alpc.listen(NAME) as server, alpc.connect(NAME, limits=PortLimits(memory_bandwidth=1000)) as client:
        await client.post(bytes(1000))
        with pytest.raises(alpc.DeadlineExceeded):
            await client.post(bytes(900), timeout=0.01)
        with anyio.move_on_after(0.01):
            await client.post(bytes(900), timeout=None)
        with anyio.fail_after(WAIT):
            await client.post(b"short", timeout=None)
            assert [(await server.receive()).size for _ in range(2)] == [1000, 5]


async def test_waiting_for_the_bandwidth_ends_with_the_connection() -> None:
    """Whoever waits is told when the port is closed, and no timer is left."""
    async with connected(limits=PortLimits(memory_bandwidth=10)) as (_, client), anyio.create_task_group() as tasks:
        await client.post(bytes(10_000))

        async def wait() -> None:
            with pytest.raises(alpc.PortClosed):
                await client.post(b"1234", timeout=None)

        tasks.start_soon(wait)
        await until(lambda: client.statistics().waits == 1)
        await client.aclose()


async def test_a_reserve_is_certain_whatever_the_bandwidth() -> None:
    """A message for which room was kept leaves at once; it counts, so what follows waits."""
    async with alpc.listen(NAME) as server, alpc.connect(NAME, limits=PortLimits(memory_bandwidth=1000)) as client:
        await client.post(bytes(1000))
        await client.post(bytes(500), reserve=client.reserve(500))
        with anyio.fail_after(WAIT):
            assert [(await server.receive()).size for _ in range(2)] == [1000, 500]
        with pytest.raises(alpc.QuotaExceeded, match="memory_bandwidth"):
            client.start_request(b"")


async def test_answers_leave_and_hold_back_what_follows() -> None:
    """A reply is never refused; as long as it is not made up for, the replier is handed nothing more to answer."""
    async with alpc.listen(NAME, limits=NARROW) as server, alpc.connect(NAME) as client:
        first, second = client.start_request(b"first"), client.start_request(b"second")
        message = await server.receive()
        began = anyio.current_time()
        message.reply(bytes(RATE + 20_000))
        await until(lambda: server.statistics().queued == 1)
        with anyio.fail_after(WAIT):
            assert len((await first).data) == RATE + 20_000
            (await server.receive()).reply(b"short")
            assert (await second).data == b"short"
        assert anyio.current_time() - began > 0.15


async def test_answers_to_what_was_given_up_do_not_count() -> None:
    """A reply that is dropped moves nothing, so nothing is held back for it."""
    async with alpc.listen(NAME, limits=PortLimits(memory_bandwidth=1000)) as server, alpc.connect(NAME) as client:
        pending = client.start_request(b"first")
        message = await server.receive()
        pending.cancel()
        await until(lambda: message.cancelled)
        message.reply(bytes(60_000))
        client.start_request(b"second")
        with anyio.fail_after(WAIT):
            assert (await server.receive()).type is MessageType.CANCELED
            assert (await server.receive()).data == b"second"


async def test_a_clogged_connection_and_an_empty_bucket_both_hold() -> None:
    """What was received is handed out when the other side has read its answers and the bucket has refilled."""
    limits = PortLimits(memory_bandwidth=8 * MIB, high_water=64 * KIB, low_water=16 * KIB, max_view_size=0)
    async with alpc.listen(NAME, limits=limits) as server, alpc.connect(NAME) as client:
        pending = [client.start_request(b"x", timeout=None) for _ in range(300)]
        answered = 0
        with anyio.fail_after(WAIT):
            while answered < len(pending):
                for message in await server.receive_batch():
                    message.reply(bytes(60_000))
                    answered += 1
            assert [len((await request).data) for request in pending] == [60_000] * len(pending)
