"""What one side does to itself or to the other at the worst moment."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import anyio
import pytest

import alpc_async as alpc
from alpc_async.wire import FrameType, pack
from tests.port.support import NAME, WAIT, raw_peer, until

if TYPE_CHECKING:
    from pathlib import Path

SLOW_TO_CLOSE = alpc.PortLimits(close_timeout=0.5)


async def clog(port: alpc.CommunicationPort) -> None:
    """Queue more than the kernel takes, so that closing the port has to wait."""
    for _ in range(8):
        port.start_request(bytes(60_000))


def refuses(port: alpc.CommunicationPort) -> bool:
    """Return whether the port takes no more requests."""
    try:
        port.start_request(b"")
    except alpc.PortClosed:
        return True
    return False


async def test_answers_while_the_port_closes_are_dropped() -> None:
    """A reply that comes while another task closes the port raises nothing, and the close goes on."""
    async with alpc.port_pair(limits=SLOW_TO_CLOSE) as (left, right), anyio.create_task_group() as tasks:
        left.start_request(b"first")
        left.start_request(b"second")
        first, second = await right.receive(), await right.receive()
        await clog(right)
        tasks.start_soon(right.aclose)
        await until(lambda: refuses(right))
        first.reply(b"too late")
        second.fail(1000, "too late")
        with pytest.raises(alpc.PortClosed):
            right.start_request(b"")
        with pytest.raises(alpc.PortClosed):
            await right.post(b"")


async def test_a_pool_survives_a_port_that_closes_under_its_handler(caplog: pytest.LogCaptureFixture) -> None:
    """A handler whose port is closed by another task does not take the pool along."""
    entered, leave = anyio.Event(), anyio.Event()

    async def handle(message: alpc.Message) -> None:
        if message.data == b"wait":
            entered.set()
            with anyio.CancelScope(shield=True):
                await leave.wait()
        message.reply(message.data)

    async with alpc.CompletionPort() as completion_port, alpc.WorkerPool(completion_port, handle) as pool:
        async with alpc.port_pair(limits=SLOW_TO_CLOSE) as (left, right), anyio.create_task_group() as tasks:
            completion_port.associate(right)
            left.start_request(b"wait")
            await entered.wait()
            await clog(right)
            tasks.start_soon(right.aclose)
            await until(lambda: refuses(right))
            leave.set()
        async with alpc.port_pair() as (left, right):
            completion_port.associate(right)
            assert (await left.request(b"again")).data == b"again"
        await pool.wait_idle()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("tail", [b"garbage" * 8, pack(FrameType.CLOSE, 0, 0)], ids=["garbage", "goodbye"])
async def test_a_draining_port_ends_connections_that_end(tail: bytes, runtime_directory: Path) -> None:
    """A request and the end of its connection in one send leave nothing behind on a port that drains."""
    async with alpc.listen(NAME) as server, anyio.create_task_group() as tasks:
        with raw_peer(runtime_directory) as peer:
            await peer.greet()
            await peer.say(pack(FrameType.REQUEST, 1, 0))
            held = await server.receive()
            tasks.start_soon(server.drain)
            await anyio.wait_all_tasks_blocked()
            await peer.say(pack(FrameType.REQUEST, 2, 0) + tail)
            await until(lambda: server.statistics().connections == 0)
        held.release()
        kinds: list[alpc.MessageType] = []
        while alpc.MessageType.PORT_CLOSED not in kinds:
            kinds += [message.type for message in await server.receive_batch(timeout=WAIT)]
        # The request that came with the end was turned away.
        assert alpc.MessageType.REQUEST not in kinds
        assert kinds[-1] is alpc.MessageType.PORT_CLOSED
        assert (server.connections, server.statistics().queued) == ((), 0)


async def test_a_fork_in_the_middle_of_a_turn_is_noticed() -> None:
    """A child that is forked right after its parent sent something cannot write to the parent's connection."""
    async with alpc.port_pair() as (left, right):
        pending = left.start_request(b"parent")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for _ in range(100):
                    left.start_request(b"child")
            except alpc.ForkedPort:
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # noqa: ASYNC222  # the child ends at once
        (await right.receive()).reply(b"answered")
        assert (await pending).data == b"answered"


async def test_deadlines_count_from_the_send() -> None:
    """Work between two sends of one turn does not shorten the time of the second request."""
    async with alpc.port_pair() as (left, right):
        left.start_request(b"first")
        time.sleep(0.3)  # noqa: ASYNC251  # the point is that the loop does not turn
        second = left.start_request(b"second", timeout=0.25)
        for _ in range(2):
            (await right.receive()).reply(b"in time")
        assert (await second).data == b"in time"


async def test_a_client_that_takes_little_does_not_break_the_server() -> None:
    """A reply that only the client finds too long fails that request, and the server hears nothing of it."""
    small = alpc.PortLimits(max_view_size=0, max_message_length=1, max_connect_data=1)
    inline = alpc.PortLimits(max_view_size=0)
    async with alpc.listen(NAME, limits=inline) as server, alpc.connect(NAME, limits=small) as client:
        pending = client.start_request(b"")
        request = await server.receive()
        request.reply(b"a fixed answer")
        with pytest.raises(alpc.RemoteFault, match="max_message_length") as caught:
            await pending
        assert caught.value.status == alpc.Status.REPLY_TOO_LONG
        pending = client.start_request(b"")
        request = await server.receive()
        with pytest.raises(alpc.MessageTooLong):
            request.reply(bytes(server.limits.max_message_length + 1))
        request.reply(b"1")
        assert (await pending).data == b"1"


async def test_a_client_that_takes_little_connect_data_is_not_let_in() -> None:
    """Reply data that only the client finds too long ends its connection, and the server hears nothing of it."""
    small = alpc.PortLimits(max_view_size=0, max_message_length=1, max_connect_data=1)
    async with alpc.listen(NAME, accept="manual") as server, anyio.create_task_group() as tasks:

        async def connect() -> None:
            with pytest.raises(alpc.Disconnected, match="max_connect_data"):
                await alpc.connect(NAME, limits=small)

        tasks.start_soon(connect)
        request = await server.receive()
        assert not request.accept(data=b"welcome").connected


@pytest.mark.parametrize("order", ["forwards", "backwards", "every other"])
async def test_withdrawing_many_requests(order: str) -> None:
    """Withdrawn requests are never received, whatever their order, and the others keep theirs."""
    async with alpc.port_pair() as (left, right):
        pending = [left.start_request(b"%d" % number) for number in range(500)]
        await until(lambda: right.statistics().queued == 500)
        chosen = {"forwards": pending[:400], "backwards": pending[:99:-1], "every other": pending[::2]}[order]
        for request in chosen:
            assert request.cancel() is alpc.CancelOutcome.CANCELLED
        await until(lambda: right.statistics().owed == 500 - len(chosen))
        kept = [request.id for request in pending if request not in chosen]
        received: list[int] = []
        while len(received) < len(kept):
            received += [message.id for message in await right.receive_batch(7)]
        assert received == kept
        with anyio.move_on_after(0.01):
            await right.receive()
            pytest.fail("a withdrawn request was received")


async def test_messages_of_clients_that_left_follow_the_association() -> None:
    """What a client sent before it left is received where the port's messages go."""
    async with alpc.listen(NAME) as server, alpc.CompletionPort() as completion_port:
        async with alpc.connect(NAME) as client:
            await client.post(b"before")
        await until(lambda: server.statistics().connections == 0)
        assert server.statistics().queued == 2
        completion_port.associate(server, key="late")
        batch = await completion_port.get_batch(timeout=5)
        assert [packet.message.type for packet in batch if packet.message is not None] == [
            alpc.MessageType.DATAGRAM,
            alpc.MessageType.PORT_CLOSED,
        ]


async def test_messages_of_clients_that_left_end_with_the_port() -> None:
    """After the port was closed nothing of former clients is received."""
    async with alpc.listen(NAME) as server:
        async with alpc.connect(NAME) as client:
            await client.post(b"before")
        await until(lambda: server.statistics().connections == 0)
    with pytest.raises(alpc.PortClosed):
        await server.receive()


async def test_a_question_that_is_released_is_refused() -> None:
    """A connection request that its receiver gives up does not hold a connection."""
    async with alpc.listen(NAME, accept="manual") as server, anyio.create_task_group() as tasks:

        async def connect() -> None:
            with pytest.raises(alpc.ConnectionRefused) as caught:
                await alpc.connect(NAME)
            assert caught.value.status == alpc.Status.ABANDONED

        tasks.start_soon(connect)
        with await server.receive():
            pass
        await until(lambda: server.statistics().connections == 0)


async def test_a_failed_association_leaves_no_name() -> None:
    """A port whose completion port is closed is not opened, and its name stays free."""
    closed = alpc.CompletionPort()
    await closed.aclose()
    with pytest.raises(alpc.PortClosed):
        await alpc.listen(NAME, completion_port=closed)
    async with alpc.listen(NAME):
        pass


async def test_a_policy_that_fails_leaves_no_connection() -> None:
    """An exception of a policy comes out of connect, and what was opened is closed."""

    class Broken:
        admits_others = False

        def judge(self, identity: alpc.Identity) -> str | None:
            raise ZeroDivisionError(str(identity))

    async with alpc.listen(NAME) as server:
        with pytest.raises(ZeroDivisionError):
            await alpc.connect(NAME, server=Broken())
        await until(lambda: server.statistics().connections == 0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": 5}, "the name of a port is a str, not int"),
        ({"name": b"x"}, "the name of a port is a str, not bytes"),
        ({"limits": {}}, "limits must be alpc.PortLimits"),
        ({"security": "anyone"}, "security must be a policy"),
    ],
)
def test_arguments_of_another_type(arguments: dict[str, object], text: str) -> None:
    """Arguments of a wrong type are refused when the port is described, not when it is opened."""
    with pytest.raises(TypeError, match=text):
        alpc.listen(**{"name": NAME, **arguments})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the point


async def test_an_opening_is_used_once() -> None:
    """Opening the same port twice is refused instead of losing the first one."""
    opening = alpc.listen(NAME)
    async with opening:
        with pytest.raises(RuntimeError, match="opened already"):
            await opening


async def test_receiving_ends_in_time() -> None:
    """A receive with a timeout ends with DeadlineExceeded, and the next message is received as usual."""
    async with alpc.port_pair() as (left, right):
        with pytest.raises(alpc.DeadlineExceeded, match="receiving from server end of a port pair"):
            await right.receive(timeout=0.01)
        with pytest.raises(alpc.DeadlineExceeded):
            await right.receive_batch(timeout=0.01)
        await left.post(b"later")
        assert (await right.receive(timeout=5)).data == b"later"


async def test_asking_again_who_is_there() -> None:
    """A policy can be asked about a connection at any time; a connection that is over meets none."""
    async with alpc.listen(NAME), alpc.connect(NAME) as client:
        assert client.is_connected_to(alpc.require(uid=os.geteuid()))
        assert not client.is_connected_to(alpc.require(uid=os.geteuid() + 1))
        await client.disconnect()
        assert not client.is_connected_to(alpc.ANYONE)
