"""Passing a live connection on: within a process, and to another one."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

import anyio
import pytest

import alpc_async as alpc
from alpc_async import HandleKind, MessageType, PortLimits
from alpc_async.handles import Handle
from tests.port.support import NAME, WAIT, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PASSING = PortLimits(max_handles=4, handle_kinds=HandleKind.SOCKET)

WORKER = """
import sys, anyio, alpc_async as alpc
limits = alpc.PortLimits(max_handles=4, handle_kinds=alpc.HandleKind.SOCKET)
async def main():
    async with alpc.connect(sys.argv[1], limits=limits) as broker:
        async for batch in broker:
            for message in batch:
                if message.handles:
                    async with message.take_port() as client:
                        async for requests in client:
                            for request in requests:
                                if request.type is alpc.MessageType.REQUEST:
                                    request.reply(b"worker: " + request.data)
anyio.run(main, backend=sys.argv[2])
"""


@pytest.fixture
async def courier() -> AsyncGenerator[alpc.PortPair]:
    """Two ports that take sockets."""
    async with alpc.port_pair(limits=PASSING) as made:
        yield made


async def passed(courier: alpc.PortPair, port: alpc.CommunicationPort) -> alpc.CommunicationPort:
    """Pass a port on and go on with it."""
    await courier.left.post(handles=[await port.hand_over(timeout=WAIT)])
    with await courier.right.receive() as message:
        return message.take_port()


@pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
async def test_a_connection_goes_on(courier: alpc.PortPair, client: bool) -> None:
    """Numbers, credit and answers go on where they were, in both directions and on either end."""
    limits = PortLimits(max_outstanding_messages=8, max_view_size=0)
    async with alpc.port_pair(limits=limits) as (left, right):
        one, other = (left, right) if client else (right, left)
        for number in range(3):
            await one.post(b"%d" % number)
            pending = other.start_request(b"question")
            assert (await other.receive()).data == b"%d" % number
            (await one.receive()).reply(b"answer")
            assert (await pending).data == b"answer"
        async with await passed(courier, one) as new:
            with pytest.raises(alpc.PortClosed):
                await one.post(b"")
            for _ in range(20):
                await new.post(b"more")
                assert (await other.receive()).sequence > 3
                pending = other.start_request(b"question")
                (await new.receive()).reply(b"from the new owner")
                assert (await pending).data == b"from the new owner"
        with anyio.fail_after(WAIT):
            assert (await other.receive()).type is MessageType.PORT_CLOSED


async def test_what_is_under_way_is_waited_for(courier: alpc.PortPair) -> None:
    """An open request keeps the port; when it is answered the port can go."""
    async with alpc.port_pair(limits=PortLimits(max_view_size=0)) as (left, right):
        pending = left.start_request(b"first")
        with pytest.raises(alpc.DeadlineExceeded):
            await left.hand_over(timeout=0.02)
        (await right.receive()).reply(b"done")
        assert (await pending).data == b"done"
        async with await passed(courier, left) as new:
            await new.post(b"still here")
            assert (await right.receive()).data == b"still here"


async def test_memory_that_nobody_uses_is_taken_back(courier: alpc.PortPair) -> None:
    """A connection that has sent long data and views goes on; its next owner shares memory of its own."""
    async with alpc.port_pair() as (left, right):
        with await left.allocate(3_000_000) as view:
            await left.post(view=view)
            (await right.receive()).release()
        await left.post(bytes(100_000))
        held = await right.receive()
        with pytest.raises(alpc.DeadlineExceeded):
            await left.hand_over(timeout=0.02)
        held.release()
        async with await passed(courier, left) as new:
            for number in (1, 2):
                await new.post(bytes((number,)) * 200_000)
                with await right.receive() as message:
                    assert message.data == bytes((number,)) * 200_000
                    assert message.transfer is alpc.Transfer.VIEW
            await until(lambda: not new.statistics().lent)


async def test_shared_memory_that_is_used_keeps_a_connection(courier: alpc.PortPair) -> None:
    """Sections belong to their process: a view that is held here, and what the other side shares, say what to do."""
    async with alpc.port_pair() as (left, right):
        with await left.allocate(100) as view:
            await left.post(view=view)
            (await right.receive()).release()
            with pytest.raises(ValueError, match="views of its memory are still held"):
                await left.hand_over(timeout=WAIT)
        await left.post(b"still here")
        assert (await right.receive()).data == b"still here"
        with pytest.raises(ValueError, match=r"the other side shares memory.*max_view_size=0"):
            await right.hand_over(timeout=WAIT)
        await left.post(bytes(100_000))
        assert (await right.receive()).data == bytes(100_000)
        del courier


async def test_what_is_no_connection(courier: alpc.PortPair) -> None:
    """Other sockets, and states that say nonsense, are refused and closed."""
    ours, theirs = socket.socketpair()
    plain = socket.socket()
    with ours, theirs, plain:
        for sock in (ours, plain):
            await courier.left.post(handles=[Handle(os.dup(sock.fileno()))])
            message = await courier.right.receive()
            with pytest.raises(alpc.UnsuitableHandle):
                message.take_port()
            with pytest.raises(ValueError, match="closed"):
                message.take_port()
    await courier.left.post(b"plain")
    message = await courier.right.receive()
    with pytest.raises(alpc.UnsuitableHandle, match="without handles"):
        message.take_port()


async def test_a_server_passes_a_client_to_another_process(anyio_backend_name: str) -> None:
    """The client asks, is handed on between two requests, and is answered by the worker without noticing."""
    async with (
        alpc.listen("worker.pool", limits=PASSING) as pool,
        alpc.listen(NAME, limits=PortLimits(max_view_size=0)) as server,
        alpc.connect(NAME) as client,
    ):
        arguments = [sys.executable, "-c", WORKER, "worker.pool", anyio_backend_name]
        async with await anyio.open_process(arguments, stdin=None, stdout=None, stderr=None) as worker:
            try:
                pending = client.start_request(b"who are you?")
                request = await server.receive()
                request.reply(b"server")
                assert (await pending).data == b"server"
                await until(lambda: bool(pool.connections))
                handle = await request.port.hand_over(timeout=WAIT)
                await pool.connections[0].post(handles=[handle])
                reply = await client.request(b"and now?", timeout=WAIT)
                assert reply.data == b"worker: and now?"
                assert server.statistics().connections == 0
            finally:
                worker.kill()
        with anyio.fail_after(WAIT):
            assert (await client.receive()).type is MessageType.PORT_CLOSED
