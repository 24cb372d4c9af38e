"""Cancelling at every suspension: nothing is lost, nothing is half done, nothing stays behind on either side."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import alpc_async as alpc
from alpc_async import MessageType, PortLimits
from tests.port.support import NAME, WAIT, Attempt, cancelled_at, connected, occupy, serve, until

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def take(how: str, port: alpc.CommunicationPort) -> Callable[[], Coroutine[Any, Any, list[alpc.Message]]]:
    """Return one of the ways to receive, as a function that returns a list."""

    async def receive() -> list[alpc.Message]:
        return [await port.receive()]

    async def iterate() -> list[alpc.Message]:
        async for batch in port:
            return batch
        return []

    return {"receive": receive, "receive_batch": port.receive_batch, "iteration": iterate}[how]


@pytest.mark.parametrize("how", ["receive", "receive_batch", "iteration"])
@pytest.mark.parametrize("waiting", [False, True], ids=["ready", "waiting"])
async def test_receiving_loses_nothing(how: str, waiting: bool) -> None:
    """Wherever receiving is cancelled, with messages there or still to come, every message is received once."""
    async with alpc.port_pair() as (left, right), anyio.create_task_group() as tasks:
        call = take(how, right)
        got: list[bytes] = []
        sent = 0
        step = 0
        for step in itertools.count(1):
            sent += 1
            if waiting:
                tasks.start_soon(left.post, b"%d" % sent)
            else:
                await left.post(b"%d" % sent)
                await until(lambda: right.statistics().queued)
            attempt = await cancelled_at(step, call())
            got += [message.data for message in attempt.value or []]
            if attempt.last:
                break
        assert step > 1
        while len(got) < sent:
            got += [message.data for message in await right.receive_batch()]
        assert got == [b"%d" % number for number in range(1, sent + 1)]


async def test_a_request_is_withdrawn_wherever_it_is_cancelled() -> None:
    """A cancelled request leaves no entry on either side, whatever it waited for."""
    limits = PortLimits(max_outstanding_messages=2)
    for full in (False, True):
        async with alpc.port_pair(limits=limits) as (left, right):
            step = 0
            for step in itertools.count(1):
                filler = [left.start_request(b"filler") for _ in range(2 * full)]
                attempt: Attempt[Any] = Attempt(False, None, False)
                async with anyio.create_task_group() as tasks:

                    async def answer() -> None:
                        async for batch in right:
                            for message in batch:
                                if message.type is MessageType.REQUEST:
                                    message.reply(b"re " + message.data)

                    tasks.start_soon(answer)
                    attempt = await cancelled_at(step, left.request(b"asked"))
                    for pending in filler:
                        assert (await pending).data == b"re filler"
                    await until(lambda: right.statistics().owed == left.statistics().pending == 0)
                    assert (await left.request(b"next")).data == b"re next"
                    tasks.cancel_scope.cancel()
                if attempt.last:
                    assert attempt.value is not None
                    assert attempt.value.data == b"re asked"
                    break
            assert step > 1


@pytest.mark.parametrize("full", [False, True], ids=["room", "full"])
async def test_a_datagram_is_sent_wholly_or_not_at_all(full: bool) -> None:
    """A cancelled post was either not sent, or arrives once; the numbers on the connection have no gap."""
    limits = PortLimits(max_outstanding_messages=2)
    async with alpc.port_pair(limits=limits) as (left, right):
        received: list[alpc.Message] = []
        returned: list[bytes] = []
        step = 0
        for step in itertools.count(1):
            fillers = await occupy(left, 1) if full else 0
            data = b"post %d" % step
            attempt: Attempt[Any] = Attempt(False, None, False)
            async with anyio.create_task_group() as tasks:

                async def drain(tasks: Any = tasks) -> None:
                    while True:
                        received.extend(await right.receive_batch())

                tasks.start_soon(drain)
                attempt = await cancelled_at(step, left.post(data))
                mark = b"mark %d" % step
                await left.post(mark, timeout=WAIT)
                await until(lambda mark=mark: received and received[-1].data == mark)  # type: ignore[misc]  # bound now
                tasks.cancel_scope.cancel()
            if attempt.finished:
                returned.append(data)
            assert bool(fillers) == full
            if attempt.last:
                break
        assert step > 1
        arrived = [message.data for message in received if message.data.startswith(b"post")]
        assert arrived == returned
        assert [message.sequence for message in received] == list(range(1, len(received) + 1))


async def test_a_cancelled_batch_sends_a_beginning_of_itself() -> None:
    """What arrives of a cancelled post_batch is its first messages, whole and in order."""
    limits = PortLimits(max_outstanding_messages=2)
    step = 0
    for step in itertools.count(1):
        async with alpc.port_pair(limits=limits) as (left, right):
            batch = [b"%d" % number for number in range(5)]
            received: list[bytes] = []
            attempt: Attempt[Any] = Attempt(False, None, False)
            async with anyio.create_task_group() as tasks:

                async def drain(right: alpc.CommunicationPort = right, received: list[bytes] = received) -> None:
                    while True:
                        received.append((await right.receive()).data)

                tasks.start_soon(drain)
                attempt = await cancelled_at(step, left.post_batch(batch))
                await left.post(b"mark", timeout=WAIT)
                await until(lambda received=received: received and received[-1] == b"mark")  # type: ignore[misc]  # bound now
                tasks.cancel_scope.cancel()
            assert received[:-1] == batch[: len(received) - 1]
            if attempt.last:
                assert received[:-1] == batch
                break
    assert step > 2


async def test_a_cancelled_wait_for_room_gives_its_place_up() -> None:
    """When the first in line is cancelled, the next one gets the room."""
    async with alpc.port_pair(limits=PortLimits(max_outstanding_messages=1)) as (left, right):
        await left.post(b"full")
        scope = anyio.CancelScope()

        async def first() -> None:
            with scope:
                await left.post(b"first")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
            await until(lambda: left.statistics().waits == 1)
            tasks.start_soon(left.post, b"second")
            await until(lambda: left.statistics().waits == 2)
            scope.cancel()
            with anyio.fail_after(WAIT):
                assert [(await right.receive()).data for _ in range(2)] == [b"full", b"second"]


async def test_connecting_leaves_nothing_behind() -> None:
    """Wherever connecting is cancelled, the server is rid of the client, and the next one is served."""
    async with alpc.listen(NAME) as server:
        step = 0
        for step in itertools.count(1):
            attempt = await cancelled_at(step, _connect())
            if attempt.value is not None:
                await attempt.value.aclose()
            await until(lambda: server.statistics().connections == 0)
            if attempt.last:
                break
        assert step > 2


async def _connect() -> alpc.CommunicationPort:
    return await alpc.connect(NAME)


async def _listen() -> alpc.ConnectionPort:
    return await alpc.listen(NAME)


async def test_listening_leaves_nothing_behind() -> None:
    """Wherever listening is cancelled, the name is free afterwards."""
    step = 0
    for step in itertools.count(1):
        attempt = await cancelled_at(step, _listen())
        if attempt.value is not None:
            await attempt.value.aclose()
        with pytest.raises(alpc.NameNotFound):
            await alpc.connect(NAME)
        if attempt.last:
            break
    assert step > 1


@pytest.mark.parametrize("method", ["aclose", "disconnect"])
async def test_closing_completes_wherever_it_is_cancelled(method: str) -> None:
    """A port of either kind is closed after a cancelled close, and its peer is told."""
    step = 0
    for step in itertools.count(1):
        async with alpc.port_pair() as (left, right):
            await left.post(b"queued")
            attempt = await cancelled_at(step, getattr(left, method)())
            assert not left.connected
            with pytest.raises((alpc.PortClosed, alpc.Disconnected)):
                await left.request()
            with anyio.fail_after(WAIT):
                kinds = [message.type async for batch in right for message in batch]
            assert kinds[-1] is MessageType.PORT_CLOSED
        if attempt.last:
            break
    assert step > 1


async def test_closing_a_named_port_completes_wherever_it_is_cancelled() -> None:
    """After a cancelled close the name is free, every client is told, and nobody is connected."""
    step = 0
    for step in itertools.count(1):
        server = await alpc.listen(NAME)
        async with alpc.connect(NAME) as client:
            await client.post(b"x")
            await server.receive()
            attempt = await cancelled_at(step, server.aclose())
            assert server.connections == ()
            assert server.statistics().connections == 0
            with anyio.fail_after(WAIT):
                assert (await client.receive()).type is MessageType.PORT_CLOSED
        with pytest.raises(alpc.PortClosed):
            await server.receive()
        async with alpc.listen(NAME):
            pass
        if attempt.last:
            break
    assert step > 1


async def test_draining_may_be_cancelled_anywhere() -> None:
    """A cancelled drain of either kind of port can be repeated and then succeeds."""
    for step in range(1, 5):
        async with connected() as (server, client):
            pending = client.start_request(b"")
            message = await server.receive()
            for port in (message.port, server):
                attempt = await cancelled_at(step, port.drain(WAIT))
                assert not attempt.finished
            message.reply(b"done")
            await server.drain(WAIT)
            assert (await pending).data == b"done"


async def test_a_cancelled_answerer_leaves_the_request_to_another() -> None:
    """Cancelling the task that serves loses no request that it had not taken."""
    async with alpc.port_pair() as (left, right):
        for number in range(10):
            pending = [left.start_request(b"%d" % (10 * number + index)) for index in range(10)]
            for _ in range(2):
                with anyio.move_on_after(0.002 * (number % 3)):
                    await serve(right)
            replies: list[bytes] = []
            with anyio.fail_after(WAIT):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(serve, right)
                    replies = [(await request).data for request in pending]
                    tasks.cancel_scope.cancel()
            assert replies == [b"%d" % (10 * number + index) for index in range(10)]
