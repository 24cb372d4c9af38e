"""Messages of all sizes and ways on one connection at the same time arrive whole, and share their calls."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import anyio

import alpc_async as alpc

if TYPE_CHECKING:
    from alpc_async import CommunicationPort

SIZES = (10, 1000, 20_000, 60_000, 65_536, 100_000, 1_000_000)
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
        group.cancel_scope.cancel()


async def test_a_view_goes_back_with_the_answer() -> None:
    """A request with a view takes one send on each side, like one without, although its range is given back."""
    async with alpc.port_pair() as (left, right), anyio.create_task_group() as group:
        group.start_soon(answer, right)
        for in_place in (True, False):
            before = left.statistics().sends, right.statistics().sends
            for _ in range(50):
                if in_place:
                    with await left.allocate(100_000) as view:
                        (await left.request(view=view)).release()
                else:
                    (await left.request(bytes(100_000))).release()
            after = left.statistics().sends, right.statistics().sends
            # The first views of a connection also announce sections.
            assert after[0] - before[0] <= 55
            assert after[1] - before[1] <= 55
        group.cancel_scope.cancel()
