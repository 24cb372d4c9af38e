"""Shared memory between processes of which one breaks the rules, writes meanwhile, or dies."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import anyio
import numpy as np
import psutil  # type: ignore[import-untyped]  # it comes without annotations
import pytest

import alpc_async as alpc
from alpc_async import MessageType
from tests.faults.puppets_transfers import LIMITS, MIB, RAW, SMALL, next_of, partner, shared_bytes
from tests.port.support import NAME, WAIT, connected, until

if TYPE_CHECKING:
    from pathlib import Path


HAMMER = (
    RAW
    + """
size = 1 << 20
fd, memory = memfd(size, SEALS | FUTURE_WRITE)
memory[:] = b"a" * size
raw = Raw()
raw.offer(fd)
raw.lend(1, 0, size)
raw.lend(2, 0, size, mode=0)
stop = threading.Event()
def hammer():
    while not stop.is_set():
        for letter in b"bcdefgh":
            memory[:] = bytes([letter]) * size
thread = threading.Thread(target=hammer)
thread.start()
hear()
stop.set()
thread.join()
"""
)


async def test_data_stands_still_while_its_sender_writes_on(runtime_directory: Path) -> None:
    """What was taken as data stays what it was under a writer that never pauses; the live view beside it changes."""
    async with alpc.listen(NAME) as server:
        with partner(HAMMER) as writer:
            first, second = [await next_of(server, MessageType.DATAGRAM) for _ in range(2)]
            data, copy = first.data, bytes(first.data)
            view = second.view
            assert view is not None
            assert not view.sealed
            seen = {view.data[0]}
            await until(lambda: len(seen | {view.data[0]}) > len(seen), "the live view to change")
            assert first.data is data
            assert first.data == copy
            assert len(data) == MIB
            second.release()
            with pytest.raises(alpc.ViewReleased):
                _ = view.data
            writer.tell()


HOLDER = """
async def main():
    async with alpc.connect(NAME, limits=LIMITS) as port:
        lent = await port.allocate(700_000)
        lent.data[:] = b"x" * 700_000
        await port.post(view=lent)
        pending = port.start_request(bytes(500_000))
        held = await port.receive()
        array = held.view.data[:1000]
        say("holding")
        await anyio.sleep_forever()
run(main)
"""


@pytest.mark.parametrize("taken", [False, True], ids=["untaken", "taken"])
async def test_a_killed_peer_leaves_neither_bytes_nor_descriptors(taken: bool, runtime_directory: Path) -> None:
    """After SIGKILL of a process that lent and held views, everything is given back and what is held can be read."""
    process = psutil.Process()
    async with alpc.listen(NAME, limits=LIMITS) as server:
        gc.collect()
        before, descriptors = shared_bytes(), process.num_fds()
        with partner(HOLDER) as holder:
            await until(lambda: server.connections)
            there = server.connections[0]
            view = await there.allocate(300_000)
            view.data[:] = b"y" * 300_000
            await there.post(view=view)
            assert await holder.hear() == "holding"
            await until(lambda: server.statistics().queued == 2)
            received = [await server.receive() for _ in range(2)] if taken else []
            assert there.statistics().lent == 1
            assert shared_bytes() > before
            holder.kill()
            await until(lambda: not server.connections)
            assert there.statistics().lent == 0
            if taken:
                content = bytes(received[0].view.data) if received[0].view is not None else b""
                assert content == b"x" * 700_000
                assert received[1].data == bytes(500_000)
            content = bytes(view.data)
            assert content == b"y" * 300_000
            view.release()
            for message in received:
                message.release()
            while server.statistics().queued:
                (await server.receive()).release()
        del there, received, view
        gc.collect()
        await until(lambda: shared_bytes() == before, "the sections to be unmapped")
        # The pipes of the program are gone with its block.
        assert process.num_fds() == descriptors


RECEIVER = """
async def main():
    async with alpc.connect(NAME) as port:
        while True:
            message = await port.receive()
            if message.type is not MessageType.REQUEST:
                view = message.view
                assert view.sealed and bytes(view.data[:1]) == b"s"
                message.release()
            else:
                message.reply(json.dumps([open_descriptors(), mapped_sections()]).encode())
run(main)
"""


@pytest.mark.timeout(240)
async def test_ten_thousand_sections_leave_the_counts_unchanged(runtime_directory: Path) -> None:
    """Sections that were sealed, sent and released are gone on both sides, whatever their number."""
    async with alpc.listen(NAME) as server:
        with partner(RECEIVER):
            await until(lambda: server.connections)
            there = server.connections[0]
            counts: list[bytes] = []
            ours: list[tuple[int, int]] = []
            for total in (50, 10_000):
                for _ in range(total):
                    view = await there.allocate(5000, mode="sealed", timeout=WAIT)
                    view.data[:1] = b"s"
                    await there.post(view=view)
                await until(lambda: not there.statistics().lent)
                counts.append((await there.request(b"count")).data)
                ours.append((psutil.Process().num_fds(), shared_bytes()))
            assert counts[0] == counts[1]
            assert ours[0] == ours[1]


async def test_a_full_section_quota_waits_or_refuses_by_choice(runtime_directory: Path) -> None:
    """With all memory lent to another process a sender waits for a release, or hears QuotaExceeded at once."""
    async with alpc.listen(NAME, limits=SMALL) as server:
        with partner(SLOW) as holder:
            await until(lambda: server.connections)
            there = server.connections[0]
            await there.post(bytes(MIB))
            await there.post(bytes(MIB))
            with pytest.raises(alpc.QuotaExceeded, match="max_total_section_size"):
                there.start_request(bytes(MIB))
            with pytest.raises(alpc.DeadlineExceeded):
                await there.allocate(MIB, timeout=0.01)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(there.post, bytes(MIB))
                await until(lambda: there.statistics().waits == 2)
                holder.tell()
            assert await holder.hear() == [MIB] * 3


SLOW = """
async def main():
    async with alpc.connect(NAME) as port:
        await hear_later()
        sizes = []
        while len(sizes) < 3:
            with await port.receive() as message:
                sizes.append(len(message.view.data))
        say(sizes)
run(main)
"""


async def test_an_array_of_a_released_message_keeps_its_bytes(runtime_directory: Path) -> None:
    """Releasing a message with an array on its view is refused in words, and the bytes stay where they are."""
    async with connected() as (server, client):
        await client.post(np.arange(50_000, dtype=np.uint16).data)
        message = await next_of(server, MessageType.DATAGRAM)
        assert message.view is not None
        array = np.frombuffer(message.view.data, dtype=np.uint16)
        with pytest.raises(alpc.ViewInUse):
            message.release()
        assert int(array[-1]) == 49_999
        del array
        message.release()
