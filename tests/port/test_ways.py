"""Messages whose sender says how their data travels.

Belongs here: ``transfer=`` of requests, datagrams and answers. Never here: what lengths decide (`test_transfers`).
"""

from __future__ import annotations

from typing import Any, cast

import anyio
import pytest

import alpc_async as alpc
from alpc_async import MessageTooLong, PortLimits, Transfer
from alpc_async.port import arrived
from tests.port.support import until

KIB = 1024
ROOMY = PortLimits(max_message_length=256 * KIB, view_threshold=16 * KIB, max_pool_usage=1024 * KIB)


@pytest.mark.parametrize("size", [1, 16 * KIB, 16 * KIB + 1, 256 * KIB])
@pytest.mark.parametrize("way", ["inline", "view"])
async def test_data_travels_as_its_sender_says(size: int, way: Any) -> None:
    """Whatever its length data goes the way that was asked for, there and back, and looks the same."""
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    transfer = Transfer.VIEW if way == "view" else Transfer.INLINE
    async with alpc.port_pair(limits=ROOMY) as (left, right):
        pending = left.start_request(data, transfer=way)
        message = await right.receive()
        assert (message.transfer, message.data) == (transfer, data)
        arrived(message).reply_by(way, data)
        reply = await pending
        assert (reply.transfer, reply.data) == (transfer, data)
        await left.post(data, transfer=way)
        with await right.receive() as datagram:
            assert (datagram.transfer, datagram.data) == (transfer, data)
        await until(lambda: not left.statistics().lent and not right.statistics().lent)


async def test_no_data_needs_no_view() -> None:
    """A message without data cannot be in shared memory, and travels anyway."""
    async with alpc.port_pair() as (left, right):
        await left.post(b"", transfer="view")
        message = await right.receive()
        assert (message.transfer, message.data) == (Transfer.INLINE, b"")


async def test_a_way_that_is_closed_is_refused() -> None:
    """Data that is too long for the connection is not sent inline, and none as a view where views are off."""
    async with alpc.port_pair(limits=ROOMY) as (left, right):
        for _ in range(2):
            with pytest.raises(MessageTooLong, match="max_message_length"):
                left.start_request(bytes(256 * KIB + 1), transfer="inline")
            with pytest.raises(MessageTooLong, match="max_message_length"):
                await left.post(bytes(256 * KIB + 1), transfer="inline")
        pending = left.start_request(b"")
        message = await right.receive()
        with pytest.raises(MessageTooLong, match="max_message_length"):
            arrived(message).reply_by("inline", bytes(256 * KIB + 1))
        message.reply(b"short")
        assert (await pending).data == b"short"
    async with alpc.port_pair(limits=PortLimits(max_view_size=0)) as (left, _):
        with pytest.raises(MessageTooLong, match="max_view_size"):
            left.start_request(b"x", transfer="view")
        with pytest.raises(MessageTooLong, match="max_view_size"):
            await left.post(b"x", transfer="view")


async def test_a_way_that_does_not_exist_is_refused() -> None:
    """Only the three ways are taken, and nothing is sent otherwise."""
    wrong = cast("Any", "pigeon")
    async with alpc.port_pair() as (left, right):
        with pytest.raises(ValueError, match="'auto', 'inline' or 'view', not 'pigeon'"):
            left.start_request(b"x", transfer=wrong)
        with pytest.raises(ValueError, match="pigeon"):
            await left.post(b"x", transfer=wrong)
        pending = left.start_request(b"")
        message = await right.receive()
        with pytest.raises(ValueError, match="pigeon"):
            arrived(message).reply_by(wrong, b"x")
        message.reply(b"fine")
        assert (await pending).data == b"fine"


async def test_shared_memory_that_is_used_up_is_waited_for() -> None:
    """A datagram and an answer that shall be views wait for room in the sections, and do not go inline instead."""
    limits = PortLimits(max_view_size=128 * KIB, max_section_size=128 * KIB, max_total_section_size=128 * KIB)
    async with alpc.port_pair(limits=limits) as (left, right):
        first = left.start_request(bytes(128 * KIB), transfer="view")
        held = await right.receive()
        with pytest.raises(alpc.QuotaExceeded):
            left.start_request(b"x", transfer="view")
        async with anyio.create_task_group() as tasks:

            async def post() -> None:
                await left.post(b"x", transfer="view")

            tasks.start_soon(post)
            await anyio.wait_all_tasks_blocked()
            assert right.statistics().queued == 0
            held.reply(held.data[:1])
            datagram = await right.receive()
            assert datagram.transfer is Transfer.VIEW
            assert datagram.data == b"x"
        assert (await first).data == b"\0"
        # Answers: the first one is held by the requester, and the second one finds no room while it is.
        pendings = [left.start_request(b"") for _ in range(2)]
        for size in (128 * KIB, 1):
            arrived(await right.receive()).reply_by("view", bytes(size))
        with await pendings[0] as answer:
            assert answer.view is not None
            assert right.statistics().lent == 1
        late = await pendings[1]
        assert (late.transfer, late.data) == (Transfer.VIEW, b"\0")
