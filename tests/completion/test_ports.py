"""Completion ports: keys, association, posted packets, batches, slots, fairness, wake-ups and the end."""

from __future__ import annotations

import itertools

import anyio
import pytest

import alpc_async as alpc
from alpc_async import MessageType
from alpc_async.port import DEFAULT_BATCH, QUANTUM
from tests.port.support import NAME, WAIT, Attempt, cancelled_at, connected, readable, until


async def collect(completion_port: alpc.CompletionPort, count: int) -> list[alpc.Completion]:
    """Take batches until so many packets have come."""
    packets: list[alpc.Completion] = []
    with anyio.fail_after(WAIT):
        while len(packets) < count:
            packets += await completion_port.get_batch()
    return packets


async def test_a_connection_port_brings_its_present_and_future_clients() -> None:
    """Messages of every client carry the key, the message and the client's port; those that waited come as well."""
    async with alpc.CompletionPort() as completion_port, alpc.listen(NAME) as server, alpc.connect(NAME) as present:
        await present.post(b"before")
        await until(lambda: server.statistics().queued == 1)
        completion_port.associate(server, key="spooler")
        await present.post(b"after")
        async with alpc.connect(NAME) as future:
            await future.post(b"of a new client")
            packets = await collect(completion_port, 3)
            assert [packet.key for packet in packets] == ["spooler"] * 3
            assert [packet.message.data for packet in packets if packet.message] == [
                b"before",
                b"after",
                b"of a new client",
            ]
            assert all(packet.message is packet and packet.value is None for packet in packets)
            assert {packet.port for packet in packets} == set(server.connections)
            with pytest.raises(alpc.PortAssociated, match="completion port"):
                await server.receive()


async def test_listening_straight_into_a_completion_port() -> None:
    """listen() takes the completion port and the key."""
    async with (
        alpc.CompletionPort() as completion_port,
        alpc.listen(NAME, completion_port=completion_port, key=7),
        alpc.connect(NAME) as client,
    ):
        pending = client.start_request(b"x")
        (packet,) = await collect(completion_port, 1)
        assert packet.key == 7
        assert packet.message is not None
        packet.message.reply(b"y")
        assert (await pending).data == b"y"


async def test_communication_ports_are_associated_each_with_its_key() -> None:
    """The messages of several ports arrive in one place, told apart by key; their endings too."""
    async with alpc.CompletionPort() as completion_port, alpc.port_pair() as one, alpc.port_pair() as two:
        completion_port.associate(one.right, "one")
        completion_port.associate(two.right, "two")
        await one.left.post(b"1")
        await two.left.post(b"2")
        packets = await collect(completion_port, 2)
        assert {packet.key: packet.message.data for packet in packets if packet.message} == {"one": b"1", "two": b"2"}
        await two.left.aclose()
        (packet,) = await collect(completion_port, 1)
        assert packet.message is not None
        assert (packet.key, packet.message.type) == ("two", MessageType.PORT_CLOSED)


async def test_a_client_of_a_server_can_be_associated_by_itself() -> None:
    """The port of a single client can be moved to a completion port; the other clients stay where they were."""
    async with (
        alpc.CompletionPort() as completion_port,
        alpc.listen(NAME) as server,
        alpc.connect(NAME) as moved,
        alpc.connect(NAME) as stays,
    ):
        await moved.post(b"hello")
        completion_port.associate((await server.receive()).port, "moved")
        await moved.post(b"here")
        await stays.post(b"there")
        (packet,) = await collect(completion_port, 1)
        assert packet.message is not None
        assert (packet.key, packet.message.data) == ("moved", b"here")
        assert (await server.receive()).data == b"there"


async def test_associating_again_moves_what_waits() -> None:
    """A port belongs to one completion port at a time; packets that nobody took go with it, under the new key."""
    async with alpc.CompletionPort() as old, alpc.CompletionPort() as new, connected() as (server, client):
        old.associate(server, "old")
        await client.post(b"waits")
        await until(lambda: old.statistics().queued == 1)
        new.associate(server, "new")
        assert old.statistics().queued == 0
        await client.post(b"comes")
        packets = await collect(new, 2)
        assert [(packet.key, packet.message.data) for packet in packets if packet.message] == [
            ("new", b"waits"),
            ("new", b"comes"),
        ]


async def test_associating_wakes_who_received_there() -> None:
    """A task that waits for a message of a port that is associated meanwhile gets PortAssociated."""
    for kind in ("pair", "server"):
        async with alpc.CompletionPort() as completion_port, alpc.port_pair() as (left, _), alpc.listen(NAME) as server:
            port: alpc.CommunicationPort | alpc.ConnectionPort = left if kind == "pair" else server
            ended: list[str] = []

            async def receive(port: alpc.CommunicationPort | alpc.ConnectionPort = port) -> None:
                with pytest.raises(alpc.PortAssociated):
                    await port.receive()
                ended.append("receive")  # noqa: B023  # the task ends within this turn of the loop

            with anyio.fail_after(WAIT):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(receive)
                    await anyio.wait_all_tasks_blocked()
                    completion_port.associate(port)
            assert ended == ["receive"]


async def test_posted_packets_come_back_as_they_are() -> None:
    """A posted packet carries its key and value, no message and no port, in order."""
    async with alpc.CompletionPort() as completion_port:
        value = object()
        completion_port.post("key", value)
        completion_port.post("other")
        first, second = await completion_port.get_batch()
        assert (first.key, first.value, first.message, first.port) == ("key", value, None, None)
        assert (second.key, second.value) == ("other", None)
        assert completion_port.statistics().posted == 2


async def test_waiting_for_a_packet_ends_in_time() -> None:
    """get_batch gives up after its timeout and takes nothing that comes later."""
    async with alpc.CompletionPort() as completion_port:
        with pytest.raises(alpc.DeadlineExceeded) as caught:
            await completion_port.get_batch(timeout=0.02)
        assert caught.value.timeout == 0.02
        completion_port.post("late")
        assert [packet.key for packet in await completion_port.get_batch(timeout=WAIT)] == ["late"]
        with pytest.raises(ValueError, match="0"):
            await completion_port.get_batch(0)


async def test_a_batch_has_at_most_so_many_packets() -> None:
    """get_batch and iteration hand out at most their maximum, and count what they handed out."""
    async with alpc.CompletionPort() as completion_port:
        for number in range(10 + DEFAULT_BATCH + 7):
            completion_port.post(number)
        assert completion_port.statistics().queued == 10 + DEFAULT_BATCH + 7
        assert [packet.key for packet in await completion_port.get_batch(10)] == list(range(10))
        async for batch in completion_port:
            assert len(batch) == DEFAULT_BATCH
            break
        statistics = completion_port.statistics()
        assert (statistics.handed_out, statistics.batches) == (10 + DEFAULT_BATCH, 2)
        assert (statistics.largest_batch, statistics.queued, statistics.running) == (DEFAULT_BATCH, 7, 0)


async def test_cancelling_consumes_no_packet() -> None:
    """Wherever get_batch or iteration is cancelled, with packets there or in the same turn, each packet comes once."""
    async with alpc.CompletionPort() as completion_port:
        got: list[object] = []
        posted = 0
        for early, step in itertools.product((True, False), (1, 2, 3)):
            for iterating in (True, False):
                posted += 1
                if early:
                    completion_port.post(posted)

                async def take(iterating: bool = iterating) -> list[alpc.Completion]:
                    if not iterating:
                        return await completion_port.get_batch()
                    async for batch in completion_port:
                        return batch
                    return []

                attempt: Attempt[list[alpc.Completion]] = Attempt(False, None, False)
                async with anyio.create_task_group() as tasks:
                    if not early:

                        async def late(number: int = posted) -> None:
                            completion_port.post(number)

                        tasks.start_soon(late)
                    attempt = await cancelled_at(step, take())
                got += [packet.key for packet in attempt.value or []]
        while len(got) < posted:
            got += [packet.key for packet in await completion_port.get_batch(timeout=WAIT)]
        assert got == list(range(1, posted + 1))
        assert completion_port.statistics().running == 0


async def test_a_wake_up_that_meets_a_cancellation_is_passed_on() -> None:
    """When the task that was woken for a packet is cancelled in the same turn, another waiting task gets the packet."""
    async with alpc.CompletionPort() as completion_port:
        got: list[str] = []

        async def take(name: str, scope: anyio.CancelScope) -> None:
            with scope:
                await completion_port.get_batch(1)
                got.append(name)

        scopes = {name: anyio.CancelScope() for name in ("older", "newer")}
        with anyio.fail_after(WAIT):
            async with anyio.create_task_group() as tasks:
                for name, scope in scopes.items():
                    tasks.start_soon(take, name, scope)
                    await anyio.wait_all_tasks_blocked()
                completion_port.post("packet")
                scopes["newer"].cancel()
                await until(lambda: got)
                scopes["older"].cancel()
        # A loop may also let the woken task finish; the packet must not be lost with it.
        assert len(got) == 1
        assert completion_port.statistics().queued == 0


# -- several at once ---------------------------------------------------------------------------------------------------


async def test_the_task_that_went_idle_last_is_woken_first() -> None:
    """Waiting tasks are released newest first."""
    async with alpc.CompletionPort() as completion_port, anyio.create_task_group() as tasks:
        order: list[int] = []

        async def take(number: int) -> None:
            await completion_port.get_batch()
            order.append(number)

        for number in range(3):
            tasks.start_soon(take, number)
            await anyio.wait_all_tasks_blocked()
        assert completion_port.statistics().waiting == 3
        for count in range(1, 4):
            completion_port.post(None)
            await until(lambda count=count: len(order) == count)  # type: ignore[misc]  # bound now
        assert order == [2, 1, 0]


async def test_many_packets_wake_one_task() -> None:
    """What arrives together is taken by one task in one batch, and the others sleep on."""
    async with alpc.CompletionPort() as completion_port, alpc.port_pair() as (left, right):
        completion_port.associate(right)
        sizes: list[int] = []

        async def take() -> None:
            while True:
                sizes.append(len(await completion_port.get_batch()))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(take)
            await anyio.wait_all_tasks_blocked()
            await left.post_batch([b"x"] * 50)
            await until(lambda: sizes)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert sizes == [50]


async def test_a_polite_client_is_not_held_up_by_a_chatty_one() -> None:
    """With 10,000 messages of one client waiting, another client's message comes after QUANTUM of them at most."""
    limits = alpc.PortLimits(max_outstanding_messages=10_000)
    async with alpc.listen(NAME, limits=limits) as server, alpc.connect(NAME, limits=limits) as chatty:
        await chatty.post_batch([b"chatter"] * 10_000)
        await until(lambda: server.statistics().queued == 10_000)
        async with alpc.connect(NAME) as polite:
            await polite.post(b"please")
            await until(lambda: server.statistics().queued == 10_001)
            batch = await server.receive_batch()
            place = [message.data for message in batch].index(b"please")
            assert place <= QUANTUM
            assert len(batch) == DEFAULT_BATCH > QUANTUM


async def test_every_client_has_its_turn() -> None:
    """Clients that all flood are served in turns of QUANTUM packets, and each client's packets stay in order."""
    async with alpc.CompletionPort() as completion_port, alpc.listen(NAME, completion_port=completion_port) as server:
        clients = [await alpc.connect(NAME) for _ in range(3)]
        for name, client in zip("abc", clients, strict=True):
            await client.post_batch([f"{name}{number}".encode() for number in range(40)])
        await until(lambda: server.statistics().queued == 120)
        data = [packet.message.data.decode() for packet in await collect(completion_port, 120) if packet.message]
        runs = [(name, len(list(run))) for name, run in itertools.groupby(data, key=lambda text: text[0])]
        assert runs[:6] == [(name, QUANTUM) for name in "abcabc"]
        for name in "abc":
            assert [text for text in data if text[0] == name] == [f"{name}{number}" for number in range(40)]
        for client in clients:
            await client.aclose()


async def test_slots_bound_the_iterators_that_hold_a_batch() -> None:
    """No more iterators than slots hold a batch at a time; each gives its slot back when it asks for the next."""
    async with alpc.CompletionPort(concurrency=2) as completion_port:
        holding = 0
        most = 0
        seen: list[object] = []

        async def work() -> None:
            nonlocal holding, most
            async for batch in completion_port:
                holding += 1
                most = max(most, holding)
                assert completion_port.statistics().running == holding
                await anyio.sleep(0.001)
                seen.extend(packet.key for packet in batch)
                holding -= 1

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(work)
            for number in range(10 * DEFAULT_BATCH):
                completion_port.post(number)
            await until(lambda: len(seen) == 10 * DEFAULT_BATCH)
            completion_port.close()
        assert most == 2
        assert sorted(map(int, map(str, seen))) == list(range(10 * DEFAULT_BATCH))


async def test_a_left_loop_gives_its_slot_back() -> None:
    """Leaving an iteration by break, by an error or by cancellation frees its slot."""
    async with alpc.CompletionPort(concurrency=1) as completion_port:
        for number in range(3):
            completion_port.post(number)
            async for _batch in completion_port:
                break
            assert completion_port.statistics().running == 0
        with anyio.move_on_after(0.01):
            async for _batch in completion_port:
                pytest.fail("nothing was posted")
        completion_port.post("last")
        with anyio.fail_after(WAIT):
            async for batch in completion_port:
                assert [packet.key for packet in batch] == ["last"]
                break


async def test_an_iterator_without_a_slot_does_not_keep_a_packet_from_others() -> None:
    """A packet that comes while all slots are held wakes a task that waits in get_batch."""
    async with alpc.CompletionPort(concurrency=1) as completion_port, anyio.create_task_group() as tasks:
        completion_port.post("first")
        iterator = completion_port.__aiter__()
        await iterator.__anext__()
        got: list[object] = []

        async def take() -> None:
            got.extend(packet.key for packet in await completion_port.get_batch())

        async def iterate() -> None:
            async for _ in completion_port:
                pass

        tasks.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(iterate)
        await anyio.wait_all_tasks_blocked()
        completion_port.post("second")
        await until(lambda: got)
        assert got == ["second"]
        tasks.cancel_scope.cancel()


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [0, 1, 2])
@pytest.mark.parametrize("packets", [0, DEFAULT_BATCH + 6, 3 * DEFAULT_BATCH])
async def test_closing_hands_out_the_rest_and_ends_every_iteration(concurrency: int, packets: int) -> None:
    """After close() the packets that wait are handed out once, then every iterator and every get_batch ends."""
    completion_port = alpc.CompletionPort(concurrency)
    seen: list[object] = []
    ended: list[str] = []

    async def iterate() -> None:
        async for batch in completion_port:
            await anyio.sleep(0.001)
            seen.extend(packet.key for packet in batch)
        ended.append("iterator")

    for number in range(packets):
        completion_port.post(number)
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(iterate)
            await anyio.wait_all_tasks_blocked()
            completion_port.close()
            completion_port.close()
    assert ended == ["iterator"] * 4
    assert sorted(map(int, map(str, seen))) == list(range(packets))
    with pytest.raises(alpc.PortClosed):
        await completion_port.get_batch()
    await completion_port.aclose()


async def test_nothing_works_after_closing() -> None:
    """Posting, associating, taking and asking for the descriptor are PortClosed; closing again does nothing."""
    async with alpc.port_pair() as (left, right):
        async with alpc.CompletionPort() as completion_port:
            completion_port.associate(right)
            completion_port.post("key")
        await completion_port.aclose()
        completion_port.close()
        for act in (
            lambda: completion_port.post("key"),
            lambda: completion_port.associate(left),
            completion_port.fileno,
        ):
            with pytest.raises(alpc.PortClosed):
                act()
        # Associated ports stay open, and can go on elsewhere.
        assert left.connected
        async with alpc.CompletionPort() as successor:
            successor.associate(right, "successor")
            await left.post(b"x")
            assert (await successor.get_batch(timeout=WAIT))[0].key == "successor"


async def test_a_closed_port_does_not_end_its_completion_port() -> None:
    """Closing an associated port on this side leaves the completion port to the others."""
    async with alpc.CompletionPort() as completion_port, alpc.port_pair() as one, alpc.port_pair() as two:
        completion_port.associate(one.right, 1)
        completion_port.associate(two.right, 2)
        await one.right.aclose()
        await two.left.post(b"x")
        assert [packet.key for packet in await completion_port.get_batch(timeout=WAIT)] == [2]
        completion_port.post("still open")
        assert [packet.key for packet in await completion_port.get_batch(timeout=WAIT)] == ["still open"]


async def test_closing_wakes_who_waits() -> None:
    """Tasks that wait in get_batch or iterate when the completion port is closed end at once."""
    completion_port = alpc.CompletionPort()
    ended: list[str] = []

    async def take() -> None:
        with pytest.raises(alpc.PortClosed):
            await completion_port.get_batch()
        ended.append("get_batch")

    async def iterate() -> None:
        async for _ in completion_port:
            pass
        ended.append("iteration")

    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            tasks.start_soon(iterate)
            await anyio.wait_all_tasks_blocked()
            await completion_port.aclose()
    assert sorted(ended) == ["get_batch", "iteration"]


async def test_the_descriptor_is_readable_while_a_packet_waits() -> None:
    """The descriptor of a completion port follows its packets, and stays readable after close()."""
    async with alpc.CompletionPort() as completion_port:
        fd = completion_port.fileno()
        assert not readable(fd)
        completion_port.post("1")
        completion_port.post("2")
        assert readable(fd)
        await completion_port.get_batch(1)
        assert readable(fd)
        await completion_port.get_batch(1)
        assert not readable(fd)
        completion_port.close()
        assert readable(fd)


def test_a_negative_concurrency_is_a_mistake() -> None:
    """A negative number of slots is a ValueError."""
    with pytest.raises(ValueError, match="-1"):
        alpc.CompletionPort(-1)
