"""Cancelling transfers at every suspension: no lease, no range, no descriptor and no byte stays behind."""

from __future__ import annotations

import gc
import itertools
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import alpc_async as alpc
from alpc_async import HandleKind, MessageType, PortLimits
from alpc_async.handles import Handle
from alpc_async.testing import LeakCounter
from tests.faults.puppets_transfers import MIB, partner, room, used
from tests.port.support import NAME, WAIT, Attempt, cancelled_at, until

if TYPE_CHECKING:
    from pathlib import Path

    from alpc_async import CommunicationPort

SMALL = PortLimits(
    max_view_size=MIB, max_section_size=MIB, max_total_section_size=MIB, max_outstanding_messages=2,
    max_handles=10, handle_kinds=HandleKind.FILE, direct=True, direct_threshold=1 << 40,
)  # fmt: skip

NOT_YET: Attempt[Any] = Attempt(False, None, False)


async def answer_all(port: CommunicationPort) -> None:
    """Answer every request and take every datagram, in as many turns of the loop as they come."""
    while True:
        message = await port.receive()
        await anyio.lowlevel.checkpoint()
        if message.type is MessageType.REQUEST:
            message.reply(b"%d" % message.size)
        message.release()
        del message


@pytest.mark.parametrize("mode", ["live", "sealed", "shared"])
@pytest.mark.parametrize("full", [False, True], ids=["room", "full"])
async def test_allocating(mode: Any, full: bool) -> None:
    """A cancelled allocate has taken nothing, whether there was room or it came meanwhile."""
    async with alpc.port_pair(limits=SMALL) as (left, right):
        step, attempt = 0, NOT_YET
        for step in itertools.count(1):
            if full:
                await left.post(bytes(900_000))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(answer_all, right)
                attempt = await cancelled_at(step, left.allocate(900_000, mode=mode))
                if attempt.value is not None:
                    attempt.value.release()
                await until(lambda: used(left) == (0, 0))
                tasks.cancel_scope.cancel()
            if attempt.last:
                break
        assert step > 1
        assert left.connected


@pytest.mark.parametrize("mode", ["live", "sealed", "shared"])
@pytest.mark.parametrize("full", [False, True], ids=["room", "full"])
async def test_requests_with_views(mode: Any, full: bool) -> None:
    """A cancelled request gives its range back: the view is still the caller's, or it was sent and returns."""
    async with alpc.port_pair(limits=SMALL) as (left, right):
        step, attempt = 0, NOT_YET
        for step in itertools.count(1):
            view = await left.allocate(5000, mode=mode)
            fillers = [left.start_request() for _ in range(2 * full)]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(answer_all, right)
                attempt = await cancelled_at(step, left.request(view=view))
                for filler in fillers:
                    await filler
                view.release()
                await until(lambda: used(left) == (0, 0))
                await until(lambda: not left.statistics().pending and not right.statistics().owed)
                tasks.cancel_scope.cancel()
            if attempt.last:
                assert attempt.value is not None
                assert attempt.value.data == b"5000"
                break
        assert step > 1


@pytest.mark.parametrize("length", [0, 40_000, 700_000], ids=["empty", "medium", "long"])
@pytest.mark.parametrize("full", [False, True], ids=["room", "full"])
async def test_posts_with_handles(length: int, full: bool) -> None:
    """A cancelled post has closed its handles, and those that it sent are closed where they arrive."""
    async with alpc.port_pair(limits=SMALL) as (left, right):
        await left.post()
        await right.receive()
        gc.collect()
        before = LeakCounter()
        step, attempt = 0, NOT_YET
        for step in itertools.count(1):
            handles = [Handle.open(__file__) for _ in range(3)]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(answer_all, right)
                await until(lambda: room(left) == 2)
                fillers = [left.start_request() for _ in range(2 * full)]
                attempt = await cancelled_at(step, left.post(bytes(length), handles=handles))
                assert all(handle.closed for handle in handles)
                for filler in fillers:
                    await filler
                await until(lambda: used(left) == (0, 0) and room(left) == 2)
                tasks.cancel_scope.cancel()
            if attempt.last:
                break
        assert step > 1
        await until(lambda: not [left for left in before.left() if "memfd" not in left], "the handles to be closed")


DECLARER = """
async def main():
    memory = bytearray(b"m" * 1_000_000)
    async with alpc.connect(NAME, limits=LIMITS) as port:
        await port.request(direct=alpc.DirectBuffer(memory, writable=True), timeout=None)
        say(bytes(memory[:3]).decode())
run(main)
"""


@pytest.mark.parametrize("detour", [False, True], ids=["direct", "detour"])
async def test_direct_copies(detour: bool, runtime_directory: Path) -> None:
    """A cancelled copy is over when the call is, and leaves no question open; the request can be served on."""
    limits = PortLimits(direct=True)
    async with alpc.listen(NAME, limits=limits) as server:
        with partner(DECLARER) as client:
            with anyio.fail_after(WAIT):
                message = await server.receive()
            direct = message.direct
            assert direct is not None
            if detour:
                direct.transfer = alpc.Transfer.VIEW
            there = message.port
            for copy in (
                lambda: direct.read_into(0, bytearray(1_000_000)),
                lambda: direct.read(5, 10),
                lambda: direct.write(3, bytes(900_000)),
            ):
                step = 0
                for step in itertools.count(1):
                    attempt = await cancelled_at(step, copy())
                    await until(lambda: not there.statistics().pending)
                    await until(lambda: used(there) == (0, 0))
                    if attempt.last:
                        break
                assert step > 1
            await direct.write(0, b"end")
            message.reply()
            assert await client.hear() == "end"
