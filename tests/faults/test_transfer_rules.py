"""What an honest or a hostile other end does to the tables of shared memory, receipts and questions about memory."""

from __future__ import annotations

import gc
import os
import struct
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import numpy as np
import pytest

import alpc_async as alpc
from alpc_async import MessageType, PortLimits, Status
from alpc_async.handles import Handle
from alpc_async.wire import Attributes, DirectRecord, Ticket
from tests.faults.puppets_transfers import LIMITS, MIB, SMALL, next_of, receipts_owed, used
from tests.port.support import NAME, WAIT, RawPeer, echo_server, raw_peer, until

if TYPE_CHECKING:
    from pathlib import Path

QUESTION = struct.Struct("<IIQQQ")
PULL, PUSH = 1, 2


async def test_a_reply_to_a_cancelled_request_keeps_nothing() -> None:
    """Neither the range that it would have lent nor a handle stays behind when the requester is gone already."""
    async with alpc.port_pair(limits=LIMITS) as (left, right):
        for kind in ("allocated", "received", "handle"):
            view = await left.allocate(100_000, mode="shared")
            pending = left.start_request(view=view)
            message = await right.receive()
            pending.cancel()
            await until(lambda message=message: message.cancelled)  # type: ignore[misc]  # bound now
            handles = [Handle.open(__file__)] if kind == "handle" else []
            own = await right.allocate(1000)
            message.reply(view={"allocated": own, "received": message.view}.get(kind), handles=handles)
            assert all(handle.closed for handle in handles)
            message.release()
            own.release()
            view.release()
            assert (await right.receive()).type is MessageType.CANCELED
            await until(lambda: not left.statistics().lent)
            assert not right.statistics().lent
            assert used(right) == (0, 0)


async def test_a_view_that_is_used_is_not_sent_back() -> None:
    """While an array of it is held a received view cannot go back; the request still waits, and works afterwards."""
    async with alpc.port_pair() as (left, right):
        view = await left.allocate(64, mode="shared")
        pending = left.start_request(view=view)
        message = await right.receive()
        array = np.asarray(message.view)
        with pytest.raises(alpc.ViewInUse):
            message.reply(view=message.view)
        assert not message.answered
        array[:] = 5
        del array
        gc.collect()
        message.reply(view=message.view)
        reply = await pending
        assert reply.view is not None
        content = bytes(reply.view.data)
        assert content == b"\x05" * 64
        reply.release()
        view.release()
        await until(lambda: not left.statistics().lent)


async def test_a_sealed_view_waits_for_room_like_other_data() -> None:
    """A view that is sealed by its sending survives a full quota: it is sent when there is room, or stays writable."""
    async with alpc.port_pair(limits=PortLimits(max_outstanding_messages=1)) as (left, right):
        view = await left.allocate(5000, mode="sealed")
        view.data[:] = b"1" * 5000
        await left.post(b"fills the quota")
        with pytest.raises(alpc.QuotaExceeded):
            left.start_request(view=view)
        with pytest.raises(alpc.DeadlineExceeded):
            await left.post(view=view, timeout=0.01)
        view.data[:] = b"2" * 5000
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                await left.post(view=view)

            tasks.start_soon(send)
            await until(lambda: left.statistics().waits == 2)
            assert (await right.receive()).data == b"fills the quota"
            with anyio.fail_after(WAIT):
                assert (await right.receive()).data == b"2" * 5000


async def test_all_sections_of_a_side_share_one_quota() -> None:
    """Sealed views and copied data together keep to max_total_section_size, whichever came first."""
    async with alpc.port_pair(limits=SMALL) as (left, right):
        for sealed_first in (True, False):
            views = []
            if sealed_first:
                views = [await left.allocate(900_000, mode="sealed") for _ in range(2)]
                for view in views:
                    await left.post(view=view)
                with pytest.raises(alpc.QuotaExceeded):
                    left.start_request(bytes(900_000))
            else:
                await left.post(bytes(900_000))
                await left.post(bytes(900_000))
                with pytest.raises(alpc.DeadlineExceeded):
                    await left.allocate(900_000, mode="sealed", timeout=0.01)
            for _ in range(2):
                assert len((await right.receive()).data) == 900_000
            await until(lambda: not left.statistics().lent)
        # What the pool does not use any more makes room.
        (await left.allocate(900_000, mode="sealed", timeout=WAIT)).release()
        assert left.connected


async def test_many_sealed_views_wait_for_one_another() -> None:
    """There is an end to the number of sections; a view more waits until one is given back, and nothing is lost."""
    async with alpc.port_pair() as (left, right):
        for _ in range(200):
            await left.post(view=await left.allocate(10, mode="sealed"))
        with pytest.raises(alpc.DeadlineExceeded):
            await left.allocate(10, mode="sealed", timeout=0.01)
        await left.post(bytes(100_000))
        assert len((await right.receive()).data) == 10
        (await left.allocate(10, mode="sealed", timeout=WAIT)).release()


async def test_a_delayed_reply_is_what_it_was_when_it_was_given() -> None:
    """A reply that waits for room in the sections does not change with the buffer that it was made of."""
    limits = PortLimits(max_view_size=MIB, max_section_size=MIB, max_total_section_size=MIB)
    async with alpc.port_pair(limits=limits) as (left, right):
        pending = [left.start_request() for _ in range(2)]
        for letter in (b"a", b"b"):
            buffer = bytearray(letter * 700_000)
            (await right.receive()).reply(buffer)
            buffer[:] = b"?" * 700_000
        with anyio.fail_after(WAIT):
            for letter, request in zip((b"a", b"b"), pending, strict=True):
                reply = await request
                assert reply.data == letter * 700_000
                del reply


async def test_receipts_of_what_is_dropped_leave_nothing_behind(runtime_directory: Path) -> None:
    """A peer that asks for receipts and cancels makes the server remember none of it."""
    async with alpc.listen(NAME) as server:
        with raw_peer(runtime_directory) as peer:
            await peer.greet()
            there = server.connections[0]
            for _ in range(50):
                ticket = Ticket()
                peer.endpoint.request(ticket, b"", 0.0, None, Attributes(receipt=True))
                peer.endpoint.cancel(ticket)
            await peer.flush()
            await until(lambda: there.statistics().messages_received >= 100)
            assert not receipts_owed(there)


async def ask(peer: RawPeer, data: bytes) -> Ticket:
    """Send a question of the framework itself."""
    ticket = Ticket()
    peer.endpoint.request(ticket, data, 0.0, None, Attributes(system=True))
    await peer.flush()
    return ticket


async def test_questions_about_memory_are_refused_where_it_was_not_agreed(runtime_directory: Path) -> None:
    """Where direct access is off, declaring memory and asking for it are violations."""
    record = DirectRecord(4096, bytes(16), ((4096, 1, 0),))
    for attributes in (Attributes(system=True), Attributes(direct=record)):
        async with echo_server() as server:
            with raw_peer(runtime_directory) as peer:
                await peer.greet()
                peer.endpoint.request(Ticket(), QUESTION.pack(PULL, 0, 1, 0, 1), 0.0, None, attributes)
                await peer.flush()
                await until(lambda server=server: server.statistics().violations == 1)  # type: ignore[misc]  # bound now
                assert server.connections == ()
            await server.aclose()


async def test_hostile_questions_about_memory(runtime_directory: Path) -> None:
    """Whoever asks for more than is declared, too much at once, or in another form, is refused and nothing breaks."""
    memory = bytearray(b"s" * 9_000_000)
    async with alpc.listen(NAME, limits=LIMITS) as server:
        peer = RawPeer(runtime_directory / NAME, LIMITS)
        peer.endpoint.features = 1
        with peer.socket:
            await peer.greet()
            there = server.connections[0]
            pending = there.start_request(direct=alpc.DirectBuffer(memory), timeout=None)
            await until(lambda: there.statistics().pending == 1)
            size = len(memory)
            questions = [
                b"",
                b"short",
                QUESTION.pack(PULL, 0, pending.id, size, 1),
                QUESTION.pack(PULL, 0, pending.id, 0, size),
                QUESTION.pack(PULL, 0, pending.id, 2**64 - 1, 2),
                QUESTION.pack(PULL, 0, pending.id + 1, 0, 1),
                QUESTION.pack(PULL, 0, pending.id, 0, 1) + b"more",
                QUESTION.pack(PUSH, 0, pending.id, 0, 4) + b"over",
                QUESTION.pack(PUSH, 0, pending.id, 0, 2**63),
                QUESTION.pack(3, 0, pending.id, 0, 1),
            ]
            tickets = [await ask(peer, data) for data in questions]
            events: list[Any] = []
            with anyio.fail_after(WAIT):
                while sum(type(event).__name__ == "Faulted" for event in events) < len(tickets):
                    events += await peer.hear()
            faults = [event for event in events if type(event).__name__ == "Faulted"]
            assert {fault.status for fault in faults} == {Status.NO_ACCESS}
            assert memory == b"s" * size
            await ask(peer, QUESTION.pack(PULL, 0, pending.id, 10, 100))
            with anyio.fail_after(WAIT):
                replies = [event for event in await peer.hear() if type(event).__name__ in ("Replied", "Extended")]
            assert len(replies) == 1
            pending.cancel()
            await ask(peer, QUESTION.pack(PULL, 0, pending.id, 10, 100))
            with anyio.fail_after(WAIT):
                while not any(getattr(event, "status", 0) == Status.NO_ACCESS for event in await peer.hear()):
                    pass
            assert there.connected


async def test_views_and_handles_are_held_over_a_fork(runtime_directory: Path) -> None:
    """A forked child that lets go of inherited views and handles, or reads them, changes nothing for its parent."""
    async with alpc.port_pair(limits=LIMITS) as (left, right):
        view = await left.allocate(100_000)
        view.data[:] = b"p" * 100_000
        await left.post(view=view)
        message = await next_of(right, MessageType.DATAGRAM)
        received = message.view
        assert received is not None
        child = os.fork()
        if not child:
            status = 1
            try:
                status = 2 if bytes(received.data) != b"p" * 100_000 else 3
                received.release()
                view.release()
                del view, received, message
                gc.collect()
                status = 0
            finally:
                os._exit(status)
        ended = await anyio.to_thread.run_sync(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(ended[1]) == 0
        assert left.statistics().lent == 1
        await left.post(b"goes on")
        assert (await right.receive()).data == b"goes on"
        content = bytes(received.data)
        assert content == b"p" * 100_000
        message.release()
        view.release()
        await until(lambda: not left.statistics().lent)
