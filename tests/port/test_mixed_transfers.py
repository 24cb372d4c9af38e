"""Messages of all sizes and ways on one connection at the same time arrive whole, and share their calls."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Literal

import anyio
import pytest

import alpc_async as alpc
from tests.port.support import until

if TYPE_CHECKING:
    from alpc_async import CommunicationPort

SIZES = (10, 1000, 20_000, 60_000, 65_536, 100_000, 1_000_000)
MIB = 1 << 20
LIMITS = alpc.PortLimits(view_threshold=65_536)


async def answer(port: CommunicationPort) -> None:
    """Answer every request with the length of its data, wherever that is."""
    async for batch in port:
        for message in batch:
            if message.type is alpc.MessageType.REQUEST:
                with message:
                    data = message.data if message.view is None else message.view.data
                    message.reply(len(data).to_bytes(8, "little"))


async def ask(port: CommunicationPort, seed: int) -> None:
    """Send messages of random sizes, the long ones as views, some of them filled in place."""
    choice = random.Random(seed)
    for _ in range(20):
        size = choice.choice(SIZES)
        if size > LIMITS.view_threshold and choice.random() < 0.5:
            with await port.allocate(size) as view, await port.request(view=view) as reply:
                assert int.from_bytes(reply.data, "little") == size
        else:
            with await port.request(bytes(size)) as reply:
                assert int.from_bytes(reply.data, "little") == size


async def test_descriptors_come_between_long_messages() -> None:
    """New sections are announced while long inline messages arrive in pieces, and neither harms the other."""
    async with alpc.port_pair(limits=LIMITS) as (left, right), anyio.create_task_group() as group:
        group.start_soon(answer, right)
        async with anyio.create_task_group() as askers:
            for seed in range(24):
                askers.start_soon(ask, left, seed)
        asked = left.statistics()
        assert (asked.pending, right.statistics().owed) == (0, 0)
        assert asked.messages_received >= 24 * 20
        assert asked.shared > max(SIZES)
        group.cancel_scope.cancel()


@pytest.mark.parametrize("in_place", [True, False])
async def test_a_range_goes_back_with_the_next_frame(in_place: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request with a view takes one send on each side, like one without, although its range is given back."""
    monkeypatch.setattr("alpc_async.port._transfers.RELEASE_DELAY", 1e6)
    async with alpc.port_pair() as (left, right), anyio.create_task_group() as group:
        group.start_soon(answer, right)

        async def ask() -> None:
            if in_place:
                with await left.allocate(100_000) as view:
                    (await left.request(view=view)).release()
            else:
                (await left.request(bytes(100_000))).release()

        # The first views of a connection also announce sections.
        for _ in range(5):
            await ask()
        before = left.statistics().sends, right.statistics().sends
        for _ in range(50):
            await ask()
        assert (left.statistics().sends, right.statistics().sends) == (before[0] + 50, before[1] + 50)
        # Those of the last request wait for a frame that does not come.
        assert left.statistics().lent == 1
        group.cancel_scope.cancel()


@pytest.mark.parametrize("mode", ["live", "sealed"])
async def test_a_range_goes_back_without_any_other_frame(mode: Literal["live", "sealed"]) -> None:
    """Where nothing else is sent the word that a range is free leaves by itself, a little later."""
    async with alpc.port_pair() as (left, right):
        view = await left.allocate(100_000, mode=mode)
        await left.post(view=view)
        view.release()
        message = await right.receive()
        assert left.statistics().lent == 1
        message.release()
        await until(lambda: not left.statistics().lent)


async def test_much_memory_goes_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is a large part of the memory that the owner has, or a section of its own, does not wait for a frame."""
    monkeypatch.setattr("alpc_async.port._transfers.RELEASE_DELAY", 1e6)
    limits = alpc.PortLimits(max_view_size=MIB, max_section_size=16 * MIB, max_total_section_size=16 * MIB)
    async with alpc.port_pair(limits=limits) as (left, right):

        async def received(size: int, mode: Literal["live", "sealed"] = "live") -> alpc.Message:
            view = await left.allocate(size, mode=mode)
            await left.post(view=view)
            view.release()
            return await right.receive()

        messages = [await received(300_000) for _ in range(5)]
        small = await received(1000)
        own = await received(1000, "sealed")
        await anyio.wait_all_tasks_blocked()
        for message in messages[:3]:
            message.release()
        await anyio.wait_all_tasks_blocked()
        assert left.statistics().lent == 7
        messages[3].release()
        await until(lambda: left.statistics().lent == 3)
        small.release()
        await anyio.wait_all_tasks_blocked()
        assert left.statistics().lent == 3
        own.release()
        await until(lambda: left.statistics().lent == 1)
