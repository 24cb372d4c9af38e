"""Datagrams and flow: order, quotas, waiting for room, and nobody who reads can be blocked by somebody who does not."""

from __future__ import annotations

import anyio
import pytest

import alpc_async as alpc
from alpc_async import MessageType, PortLimits
from tests.port.support import NAME, WAIT, connected, occupy, serve, until


async def test_datagrams_arrive_in_order_and_numbered() -> None:
    """What is posted arrives once, in order, with sequence numbers from 1 without gaps; requests count as well."""
    async with alpc.port_pair() as (left, right):
        await left.post(b"1")
        await left.post_batch([b"2", b"3"])
        left.start_request(b"4")
        await left.post(b"5")
        received: list[alpc.Message] = []
        while len(received) < 5:
            received += await right.receive_batch()
        assert [(message.sequence, message.data) for message in received] == [
            (number, b"%d" % number) for number in range(1, 6)
        ]
        assert [message.type for message in received] == [MessageType.DATAGRAM] * 3 + [
            MessageType.REQUEST,
            MessageType.DATAGRAM,
        ]


async def test_each_sender_is_numbered_by_itself() -> None:
    """The two directions of a connection, and two clients of one port, count independently."""
    async with alpc.listen(NAME) as server, alpc.connect(NAME) as one, alpc.connect(NAME) as two:
        for client in (one, two):
            await client.post_batch([b"a", b"b"])
        received: list[alpc.Message] = []
        while len(received) < 4:
            received += await server.receive_batch()
        by_port: dict[alpc.CommunicationPort, list[int]] = {message.port: [] for message in received}
        for message in received:
            by_port[message.port].append(message.sequence)
        assert list(by_port.values()) == [[1, 2], [1, 2]]
        await received[0].port.post(b"back")
        first: list[int] = []
        async with anyio.create_task_group() as tasks:

            async def take(client: alpc.CommunicationPort) -> None:
                first.append((await client.receive()).sequence)
                tasks.cancel_scope.cancel()

            tasks.start_soon(take, one)
            tasks.start_soon(take, two)
        assert first == [1]


async def test_a_batch_of_datagrams_leaves_in_one_send() -> None:
    """Posting a batch costs one send call."""
    async with alpc.port_pair() as (left, right):
        await left.post_batch([b"x"] * 100)
        await until(lambda: right.statistics().queued == 100)
        assert left.statistics().sends == 1
        assert right.statistics().largest_batch == 100


async def test_an_empty_payload_is_a_message() -> None:
    """Messages without a payload arrive."""
    async with alpc.port_pair() as (left, right):
        await left.post()
        assert (await right.receive()).data == b""
        await left.post_batch([])
        await left.post(b"next")
        assert (await right.receive()).data == b"next"


@pytest.mark.parametrize("swapped", [False, True], ids=["server smaller", "client smaller"])
async def test_the_smaller_message_length_of_both_sides_counts(swapped: bool) -> None:
    """A payload over the negotiated minimum is refused on either side before anything is sent."""
    small, large = (
        PortLimits(max_view_size=0, max_message_length=1000, max_connect_data=100),
        PortLimits(max_view_size=0, max_message_length=5000),
    )
    ours, theirs = (large, small) if swapped else (small, large)
    async with alpc.listen(NAME, limits=ours) as server, alpc.connect(NAME, limits=theirs) as client:
        assert client.limits.max_message_length == 1000
        for call in (client.request, client.post):
            with pytest.raises(alpc.MessageTooLong) as caught:
                await call(bytes(1001))
            assert (caught.value.size, caught.value.limit) == (1001, 1000)
            assert caught.value.setting == "max_message_length"
        with pytest.raises(alpc.MessageTooLong):
            client.start_request(bytes(1001))
        await client.post(bytes(1000))
        message = await server.receive()
        assert (message.sequence, len(message.data)) == (1, 1000)
        with pytest.raises(alpc.MessageTooLong):
            await message.port.post(bytes(1001))


async def test_a_long_payload_in_a_batch_leaves_those_before_it() -> None:
    """The payloads before one that is too long are sent."""
    async with alpc.port_pair(limits=PortLimits(max_view_size=0, max_message_length=10, max_connect_data=10)) as (
        left,
        right,
    ):
        with pytest.raises(alpc.MessageTooLong):
            await left.post_batch([b"sent", bytes(11), b"not sent"])
        await left.post(b"next")
        await until(lambda: right.statistics().queued == 2)
        assert [message.data for message in await right.receive_batch()] == [b"sent", b"next"]


# -- quotas ------------------------------------------------------------------------------------------------------------

BY_COUNT = PortLimits(max_outstanding_messages=4)
BY_BYTES = PortLimits(max_view_size=0, max_message_length=100, max_connect_data=10, max_pool_usage=400)


@pytest.mark.parametrize(
    ("limits", "setting", "quota"),
    [
        pytest.param(BY_COUNT, "max_outstanding_messages", 4, id="count"),
        pytest.param(BY_BYTES, "max_pool_usage", 400, id="bytes"),
    ],
)
async def test_a_started_request_over_the_quota_is_refused(limits: PortLimits, setting: str, quota: int) -> None:
    """What cannot wait gets QuotaExceeded with the setting and its value, and goes through once there is room."""
    async with alpc.port_pair(limits=limits) as (left, right):
        pending = [left.start_request(bytes(100)) for _ in range(4)]
        with pytest.raises(alpc.QuotaExceeded) as caught:
            left.start_request(bytes(100))
        assert (caught.value.setting, caught.value.limit) == (setting, quota)
        for message in await right.receive_batch():
            message.reply(b"")
        for request in pending:
            await request
        left.start_request(bytes(100))
        assert (await right.receive()).sequence == 5


@pytest.mark.parametrize("limits", [pytest.param(BY_COUNT, id="count"), pytest.param(BY_BYTES, id="bytes")])
async def test_a_request_over_the_quota_waits(limits: PortLimits) -> None:
    """An awaited request waits for room and is then answered like any other; the wait is counted."""
    async with alpc.port_pair(limits=limits) as (left, right), anyio.create_task_group() as tasks:
        done: list[int] = []

        async def ask(number: int) -> None:
            await left.request(bytes(100))
            done.append(number)

        for number in range(10):
            tasks.start_soon(ask, number)
        await until(lambda: left.statistics().waits == 6)
        assert right.statistics().messages_received <= 4
        tasks.start_soon(serve, right)
        await until(lambda: len(done) == 10)
        await left.aclose()


@pytest.mark.parametrize("limits", [pytest.param(BY_COUNT, id="count"), pytest.param(BY_BYTES, id="bytes")])
async def test_a_receiver_that_does_not_take_holds_the_sender_up(limits: PortLimits) -> None:
    """Datagrams that nobody takes fill the quota and no more; each one taken makes room again."""
    async with alpc.port_pair(limits=limits) as (left, right):
        assert await occupy(left, 100) == 4
        with pytest.raises(alpc.DeadlineExceeded) as caught:
            await left.post(bytes(100), timeout=0.02)
        assert caught.value.timeout == pytest.approx(0.02, abs=0.001)
        await until(lambda: right.statistics().queued == 4)
        assert len(await right.receive_batch()) == 4
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(left.post_batch, [bytes(100)] * 6)
            assert [(await right.receive()).sequence for _ in range(6)] == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("fraction", [0.0101, 0.0103, 0.0104, 0.0107])
async def test_waiting_for_room_ends_in_time(fraction: float) -> None:
    """The wait ends at its deadline, whatever the resolution of the loop's timers."""
    async with alpc.port_pair(limits=PortLimits(max_outstanding_messages=1)) as (left, _):
        await left.post(b"")
        with anyio.fail_after(WAIT):
            for call in (left.post, left.request):
                with pytest.raises(alpc.DeadlineExceeded):
                    await call(b"", timeout=fraction)


async def test_who_waits_first_sends_first() -> None:
    """Tasks that wait for room get it in the order in which they came."""
    async with alpc.port_pair(limits=PortLimits(max_outstanding_messages=1)) as (left, right):
        await left.post(b"full")
        received: list[bytes] = []
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(left.post, b"%d" % number)
                await until(lambda number=number: left.statistics().waits == number + 1)  # type: ignore[misc]  # bound now
            received = [(await right.receive()).data for _ in range(6)]
        assert received == [b"full", b"0", b"1", b"2", b"3", b"4"]


async def test_nobody_overtakes_who_waits_for_room() -> None:
    """A small message that would fit does not overtake a larger one that waits, so the larger one gets its turn."""
    async with alpc.port_pair(limits=BY_BYTES) as (left, right), anyio.create_task_group() as tasks:
        for size in (100, 100, 100, 50):
            await left.post(bytes(size))
        tasks.start_soon(left.post, bytes(100))
        await until(lambda: left.statistics().waits == 1)
        with pytest.raises(alpc.QuotaExceeded):
            left.start_request(b"tiny")
        tasks.start_soon(left.post, b"tiny")
        await until(lambda: left.statistics().waits == 2)
        sizes = [len((await right.receive()).data) for _ in range(6)]
        assert sizes == [100, 100, 100, 50, 100, 4]


async def test_a_payload_that_is_too_long_does_not_wait() -> None:
    """MessageTooLong comes at once, also when others wait for room, and holds nobody up."""
    async with alpc.port_pair(limits=BY_BYTES) as (left, right), anyio.create_task_group() as tasks:
        assert await occupy(left, 100) == 4
        tasks.start_soon(left.post, b"waits")
        await until(lambda: left.statistics().waits >= 2)
        with anyio.fail_after(WAIT / 3):
            for call in (left.request, left.post):
                for size in (101, 401):
                    with pytest.raises(alpc.MessageTooLong):
                        await call(bytes(size))
        with pytest.raises(alpc.MessageTooLong):
            left.start_request(bytes(101))
        assert [(await right.receive()).data for _ in range(5)][-1] == b"waits"


async def test_waiting_for_room_ends_with_the_connection() -> None:
    """A sender that waits for room gets Disconnected when the other side closes, PortClosed when its own side does."""
    for closes_itself, expected in ((True, alpc.PortClosed), (False, alpc.Disconnected)):
        async with alpc.port_pair(limits=PortLimits(max_outstanding_messages=1)) as (left, right):
            await left.post(b"")
            ended: list[type[Exception]] = []

            async def wait(left: alpc.CommunicationPort = left, ended: list[type[Exception]] = ended) -> None:
                try:
                    await left.post(b"")
                except alpc.AlpcError as error:
                    ended.append(type(error))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                tasks.start_soon(wait)
                await until(lambda left=left: left.statistics().waits == 2)  # type: ignore[misc]  # bound now
                await (left if closes_itself else right).aclose()
            assert ended == [expected, expected]


async def test_a_withdrawn_request_gives_its_place_back() -> None:
    """Withdrawing makes room again once the other side knows."""
    limits = PortLimits(max_outstanding_messages=1)
    async with alpc.port_pair(limits=limits) as (left, right), anyio.create_task_group() as tasks:
        tasks.start_soon(serve, right)
        for number in range(5):
            left.start_request(b"").cancel()
            assert (await left.request(b"%d" % number, timeout=WAIT)).data == b"%d" % number
        await right.aclose()


async def test_both_sides_flooding_and_asking_do_not_deadlock() -> None:
    """Two sides that fill each other's quota and wait for replies at the same time all get through."""
    limits = PortLimits(
        max_view_size=0,
        max_message_length=16_384,
        max_pool_usage=65_536,
        max_outstanding_messages=8,
        high_water=32_768,
        low_water=8192,
    )
    async with connected(limits=limits) as (server, client), anyio.create_task_group() as tasks:
        await client.post(b"")
        there = (await server.receive()).port
        counts = {client: [0, 0], there: [0, 0]}

        async def flood(port: alpc.CommunicationPort) -> None:
            for _ in range(60):
                await port.post(bytes(16_000))

        async def ask(port: alpc.CommunicationPort) -> None:
            for _ in range(30):
                assert len((await port.request(bytes(16_000))).data) == 16_000
                counts[port][0] += 1

        async def receive(port: alpc.CommunicationPort | alpc.ConnectionPort, sender: alpc.CommunicationPort) -> None:
            async for batch in port:
                for message in batch:
                    if message.type is MessageType.REQUEST:
                        message.reply(message.data)
                    elif message.type is MessageType.DATAGRAM:
                        counts[sender][1] += 1

        tasks.start_soon(receive, server, client)
        tasks.start_soon(receive, client, there)
        for port in (client, there):
            for work in (flood, ask, ask):
                tasks.start_soon(work, port)
        await until(lambda: list(counts.values()) == [[60, 60], [60, 60]])
        await client.aclose()
        await server.aclose()


async def test_large_messages_arrive_whole() -> None:
    """Messages far larger than the socket's buffer arrive unharmed, in order, in both directions."""
    limits = PortLimits(max_view_size=0, max_message_length=4 << 20)
    async with alpc.port_pair(limits=limits) as (left, right), anyio.create_task_group() as tasks:
        tasks.start_soon(serve, right)
        payloads = [bytes([number]) * (3 << 20) for number in (1, 2)]
        replies = [await left.request(payload) for payload in payloads]
        assert [reply.data for reply in replies] == payloads
        await left.aclose()
