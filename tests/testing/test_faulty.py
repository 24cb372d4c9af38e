"""Faults on plan: each does what it says, at the place that it says, the same in every run."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import anyio
import pytest

import alpc_async as alpc
from alpc_async.link import current_loop
from alpc_async.testing import (
    Corrupt,
    Delay,
    Disconnect,
    Drop,
    DropFrame,
    FaultyLink,
    Recorder,
    Silence,
    Split,
    memory_link_pair,
    memory_port_pair,
    random_plan,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alpc_async.testing import Fault

LETTERS = bytes(range(65, 91))


class Pieces(Recorder):
    """Remembers in which pieces the bytes came."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def data_received(self, data: bytes | memoryview, /) -> None:
        """Remember the piece."""
        self.pieces.append(bytes(data))
        super().data_received(data)


async def transfer(plan: Sequence[Fault], *chunks: bytes) -> Pieces:
    """Send chunks, each in a turn of its own, over a link with faults, and end the link."""
    left, right = memory_link_pair()
    faulty = FaultyLink(right, plan)
    near, far = Recorder(), Pieces()
    left.start(near)
    faulty.start(far)
    for chunk in chunks:
        near.queued.append(chunk)
        left.flush()
        for _ in range(4):
            await current_loop().checkpoint()
    left.close()
    if not any(isinstance(fault, Silence) for fault in plan):
        await far.until(lambda: far.ended, "the link ended")
    for _ in range(8):
        await current_loop().checkpoint()
    assert far.calls.count("ended") <= 1
    faulty.close()
    return far


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ([], LETTERS),
        ([Drop(3, 2)], b"ABCFGHIJKLMNOPQRSTUVWXYZ"),
        ([Drop(3, 2), Drop(4, 20), Drop(9)], b"ABCYZ"),
        ([Drop(24, 100)], LETTERS[:24]),
        ([Corrupt(1, 0x20), Corrupt(25)], b"Ab" + LETTERS[2:25] + b"\xa5"),
        ([Disconnect(5)], b"ABCDE"),
        ([Disconnect(0)], b""),
        ([Disconnect(100)], LETTERS),
        ([Disconnect(20), Disconnect(7)], b"ABCDEFG"),
        ([Split(4), Drop(0), Delay(1)], LETTERS[1:]),
    ],
)
async def test_what_arrives_is_what_the_plan_leaves(plan: list[Fault], expected: bytes) -> None:
    """Bytes are lost, changed and cut off at their places, whether they come at once or one by one."""
    assert (await transfer(plan, LETTERS)).received == expected
    assert (await transfer(plan, *(LETTERS[i : i + 1] for i in range(26)))).received == expected


async def test_splitting() -> None:
    """What arrives together is handed over in pieces of the planned size, the smallest if there are several."""
    far = await transfer([Split(10), Split(12)], LETTERS, b"123")
    assert far.pieces == [b"ABCDEFGHIJ", b"KLMNOPQRST", b"UVWXYZ", b"123"]


async def test_lost_frames() -> None:
    """Whole frames are lost, however the bytes come, and other faults count what is left."""
    maker = Recorder()
    frames = [maker.queue(bytes([65 + index]) * index) for index in range(4)]
    kept = frames[0] + frames[2]
    plan = [DropFrame(1), DropFrame(3)]
    assert (await transfer(plan, b"".join(frames))).received == kept
    stream = b"".join(frames)
    assert (await transfer(plan, *(stream[i : i + 1] for i in range(len(stream))))).received == kept
    assert (await transfer([*plan, Disconnect(30)], stream)).received == kept[:30]


async def test_silence() -> None:
    """After the last byte nothing is heard any more, not even the end, until the rest is asked for."""
    left, right = memory_link_pair()
    faulty = FaultyLink(right, [Silence(3)])
    near, far = Recorder(), Recorder()
    left.start(near)
    faulty.start(far)
    near.queued.append(LETTERS)
    left.flush()
    await far.until(lambda: bool(far.received), "something arrived")
    left.close()
    for _ in range(8):
        await current_loop().checkpoint()
    assert far.received == b"ABC"
    assert far.calls == ["data"]


async def test_silence_ends_with_the_process() -> None:
    """A silent link ends when its owner knows that the peer is dead, and hands over what it held back."""
    left, right = memory_link_pair()
    faulty = FaultyLink(right, [Silence(20), Split(10), Delay(1000)])
    near, far = Recorder(), Recorder()
    left.start(near)
    faulty.start(far)
    near.queued.append(LETTERS)
    left.flush()
    faulty.receive_rest()
    assert far.received == LETTERS[:20]
    assert far.calls == ["data", "data", "ended"]
    left.close()


async def test_delay() -> None:
    """Pieces come one by one, the planned turns apart, and the end comes last."""
    left, right = memory_link_pair()
    faulty = FaultyLink(right, [Split(13), Delay(3)])
    near, far = Recorder(), Recorder()
    left.start(near)
    faulty.start(far)
    near.queued.append(LETTERS)
    left.flush()
    left.close()
    turns = 0
    while not far.ended:
        before = len(far.calls)
        await current_loop().checkpoint()
        turns += 1
        assert len(far.calls) <= before + 1
        assert turns < 100
    assert far.calls == ["data", "data", "ended"]
    assert turns >= 9


@pytest.mark.parametrize(("code", "kind"), [(0, None), (errno.ECONNRESET, ConnectionResetError)])
async def test_how_a_disconnected_link_ends(code: int, kind: type[OSError] | None) -> None:
    """A planned disconnection ends both sides, here with the planned error."""
    left, right = memory_link_pair()
    faulty = FaultyLink(right, [Disconnect(2, code)])
    near, far = Recorder(), Recorder()
    left.start(near)
    faulty.start(far)
    near.queued.append(b"abc")
    left.flush()
    await far.until(lambda: far.ended, "the link ended")
    await near.until(lambda: near.ended, "the other side saw the end")
    assert far.received == b"ab"
    assert type(far.error) is (kind or type(None))
    assert near.error is None


async def test_closing_forgets_what_is_delayed() -> None:
    """An owner that closes its link hears nothing more, also nothing that was on its way."""
    left, right = memory_link_pair()
    faulty = FaultyLink(right, [Split(1), Delay(1)])
    near, far = Recorder(), Recorder()
    left.start(near)
    faulty.start(far)
    near.queued.append(LETTERS)
    left.flush()
    await far.until(lambda: bool(far.calls), "something arrived")
    faulty.close()
    calls = list(far.calls)
    for _ in range(8):
        await current_loop().checkpoint()
    assert far.calls == calls
    assert faulty.fileno() == -1


def test_random_plans_repeat() -> None:
    """One seed makes one plan; other seeds make others, of every kind of fault."""
    plans = [random_plan(seed, length=1000) for seed in range(50)]
    assert plans == [random_plan(seed, length=1000) for seed in range(50)]
    assert len(set(plans)) > 40
    kinds = {type(fault) for plan in plans for fault in plan}
    assert kinds == {Split, Delay, Drop, DropFrame, Corrupt, Silence, Disconnect}


async def answer(port: alpc.CommunicationPort) -> None:
    """Answer requests as long as the connection lives."""
    async for batch in port:
        for message in batch:
            if message.type is alpc.MessageType.REQUEST and port.connected:
                message.reply(message.data)


async def exchange(plan: Sequence[Fault]) -> list[object]:
    """Make requests over ports with faults, and say how they ended."""
    outcomes: list[object] = []
    limits = alpc.PortLimits(request_timeout=0.05, close_timeout=0.05)
    async with memory_port_pair(limits=limits, right=plan[:2], left=plan[2:], capacity=300) as (left, right):
        pending = [left.start_request(b"%d" % number) for number in range(40)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer, right)
            for request in pending:
                try:
                    outcomes.append((await request).data)
                except alpc.AlpcError as error:
                    outcomes.append(type(error))
            tasks.cancel_scope.cancel()
    return outcomes


@pytest.mark.parametrize("seed", range(12))
async def test_every_request_ends_whatever_goes_wrong(seed: int) -> None:
    """Over any plan of faults each request ends, with its own reply or with an error of the framework."""
    plan = [fault for fault in random_plan(seed, length=1500, faults=4) if not isinstance(fault, Corrupt)]
    outcomes = await exchange(plan)
    assert len(outcomes) == 40
    assert all(isinstance(outcome, type) or outcome == b"%d" % index for index, outcome in enumerate(outcomes))
