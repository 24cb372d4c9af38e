"""Quotas of shared memory and of bytes per second, for connections and for users."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

import alpc_async as alpc
from alpc_async import MessageType, PortLimits
from tests.port.support import NAME, WAIT, until

if TYPE_CHECKING:
    from alpc_async import AuditRecord

KIB = 1024
MIB = KIB * KIB


async def test_what_goes_over_the_bandwidth_waits() -> None:
    """A second's worth comes at once, the rest when the bucket has refilled, and nothing is lost."""
    async with alpc.port_pair(limits=PortLimits(memory_bandwidth=100_000)) as (left, right):
        began = anyio.current_time()
        await left.post_batch([bytes(30_000)] * 4)
        with anyio.fail_after(WAIT):
            assert [len((await right.receive()).data) for _ in range(3)] == [30_000] * 3
            assert len((await right.receive()).data) == 30_000
        assert anyio.current_time() - began > 0.15


async def test_views_count_for_the_bandwidth() -> None:
    """Data that travelled as a view counts with its whole length."""
    async with alpc.port_pair(limits=PortLimits(memory_bandwidth=MIB)) as (left, right):
        began = anyio.current_time()
        await left.post(bytes(MIB))
        await left.post(bytes(MIB // 4))
        with anyio.fail_after(WAIT):
            assert [(await right.receive()).size for _ in range(2)] == [MIB, MIB // 4]
        assert anyio.current_time() - began > 0.2


async def test_answers_are_not_held_up() -> None:
    """Replies to requests of ours pass, however much they bring."""
    async with alpc.port_pair(limits=PortLimits(memory_bandwidth=1000)) as (left, right):
        pending = left.start_request(b"")
        (await right.receive()).reply(bytes(100_000))
        with anyio.fail_after(WAIT):
            assert len((await pending).data) == 100_000


async def test_closing_while_messages_are_held() -> None:
    """The end of the connection hands out what waits, and no timer is left."""
    async with alpc.port_pair(limits=PortLimits(memory_bandwidth=10)) as (left, right):
        await left.post(bytes(10_000))
        await until(lambda: right.statistics().queued == 1)
        await left.aclose()
        with anyio.fail_after(WAIT):
            assert (await right.receive()).type is MessageType.DATAGRAM


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        (PortLimits(max_user_sections=2), "max_user_sections"),
        (PortLimits(max_user_section_size=3 * MIB), "max_user_section_size"),
    ],
)
async def test_sections_of_one_user_are_bounded(limits: PortLimits, setting: str) -> None:
    """Over all connections a user shares so much and no more; the connection that goes over is cut, with a record."""
    records: list[AuditRecord] = []
    async with (
        alpc.listen(NAME, limits=limits, audit=records.append) as server,
        alpc.connect(NAME) as first,
        alpc.connect(NAME) as second,
    ):
        for port in (first, first, second):
            view = await port.allocate(MIB + 1, mode="sealed")
            await port.post(view=view)
        await until(lambda: not second.connected)
        assert first.connected
        assert setting in records[0].rule
        assert len(records) == 1
        # What the messages hold counts until they are let go.
        for message in await server.receive_batch():
            message.release()
        view = await first.allocate(MIB + 1, mode="sealed")
        await first.post(view=view)
        with anyio.fail_after(WAIT):
            assert (await server.receive()).size == MIB + 1
        assert first.connected
