"""The contracts of links and ports: kept by every kind that there is, and noticed when one breaks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import alpc_async as alpc
from alpc_async.link import SocketLink, current_loop, socket_pair
from alpc_async.port import Arrived
from alpc_async.testing import (
    Corrupt,
    Delay,
    FaultyLink,
    LinkPair,
    MemoryLink,
    Recorder,
    Split,
    check_link,
    check_port,
    memory_link_pair,
    memory_port_pair,
)
from alpc_async.wire import HEADER_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from alpc_async.handles import Handle

HIGH = 256 * 1024
LOW = 64 * 1024
SMALL = alpc.PortLimits(max_outstanding_messages=32, max_pool_usage=256 * 1024, max_message_length=16 * 1024)

TINY = alpc.PortLimits(max_outstanding_messages=8, max_pool_usage=8192, max_message_length=2048, max_connect_data=2048)


def socket_links() -> LinkPair:
    """Make two links over a pair of sockets."""
    left, right = socket_pair()
    loop = current_loop()
    return LinkPair(
        SocketLink(left, loop, high_water=HIGH, low_water=LOW),
        SocketLink(right, loop, high_water=HIGH, low_water=LOW),
    )


def small_memory_links() -> LinkPair:
    """Make two links in memory through which hardly anything fits at a time."""
    return memory_link_pair(high_water=10_000, low_water=0, capacity=1000)


def faulty_links() -> LinkPair:
    """Make two links over sockets that split what arrives."""
    left, right = socket_links()
    return LinkPair(FaultyLink(left, [Split(30_000)]), FaultyLink(right, [Split(77_777)]))


@pytest.mark.parametrize("make", [socket_links, memory_link_pair, faulty_links])
async def test_every_link_keeps_the_contract(make: Callable[[], LinkPair]) -> None:
    """Links over sockets, in memory and with harmless faults keep the contract of a link."""
    await check_link(make)


async def test_a_link_with_a_small_pipe_transfers_everything() -> None:
    """A pipe that is much smaller than a frame passes it in many partial writes."""
    left, right = small_memory_links()
    near, far = Recorder(), Recorder()
    left.start(near)
    right.start(far)
    sent = near.queue(bytes(range(256)) * 64)
    left.flush()
    assert left.clogged()
    await far.until(lambda: len(far.received) == len(sent), "everything arrived")
    assert far.received == sent
    assert near.calls == ["flushed", "drained"]
    assert left.statistics().sends == len(sent) // 1000 + 1
    left.close()
    right.close()


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: alpc.port_pair(limits=SMALL), id="sockets"),
        pytest.param(lambda: memory_port_pair(limits=SMALL), id="memory"),
        pytest.param(lambda: memory_port_pair(limits=SMALL, capacity=100), id="small pipe"),
        pytest.param(lambda: memory_port_pair(limits=TINY, left=[Split(70)], right=[Split(50), Delay(2)]), id="pieces"),
        pytest.param(memory_port_pair, id="default limits"),
    ],
)
async def test_every_port_pair_keeps_the_contract(make: Callable[[], alpc.PortPair]) -> None:
    """Ports over sockets and memory, with small pipes, in pieces and late, keep the contract of a port."""
    await check_port(make)


class DeafLink(MemoryLink):
    """Never hears that the other side closed."""

    def pipe_closed(self) -> None:
        """Do nothing."""


class EagerLink(MemoryLink):
    """Sends every frame by itself."""

    def request_flush(self) -> None:
        """Send now."""
        self.flush()


class LooseLink(MemoryLink):
    """Never clogs."""

    def clogged(self) -> bool:
        """Deny it."""
        return False


class TurnedLink(MemoryLink):
    """Mixes bytes up."""

    def take(self, data: memoryview, handles: Sequence[Handle] = ()) -> int:
        """Take the bytes in the wrong order."""
        return super().take(memoryview(bytes(data)[::-1]), handles)


@pytest.mark.parametrize(
    ("kind", "clause"),
    [
        (DeafLink, "until the other side ended"),
        (EagerLink, "nothing is sent before the turn ends"),
        (LooseLink, "a link that nobody reads clogs"),
        (TurnedLink, "bytes arrive as they were sent"),
    ],
)
async def test_a_link_that_breaks_the_contract_is_found(
    kind: type[MemoryLink], clause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each broken clause fails the check with a sentence that says so."""
    monkeypatch.setattr("alpc_async.testing._recorder.PATIENCE", 0.1)
    options: dict[str, Any] = {"high_water": HIGH, "low_water": LOW, "capacity": 200_000}

    def make() -> LinkPair:
        left, right = kind(current_loop(), **options), kind(current_loop(), **options)
        left.join(right)
        right.join(left)
        return LinkPair(left, right)

    with pytest.raises(AssertionError, match=clause):
        await check_link(make)


async def test_ports_that_change_data_are_found() -> None:
    """Ports over which a byte changes fail the check with the clause."""
    with pytest.raises(AssertionError, match="the data of a request arrives unchanged"):
        await check_port(
            lambda: memory_port_pair(limits=SMALL, left=[Corrupt(HEADER_SIZE)], right=[Corrupt(HEADER_SIZE)])
        )


async def test_ports_that_let_answer_twice_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing refusal fails the check with the clause."""
    reply = Arrived.reply

    def lenient(message: Arrived, data: bytes = b"") -> None:
        if not message.answered:
            reply(message, data)

    monkeypatch.setattr(Arrived, "reply", lenient)
    with pytest.raises(AssertionError, match="a request is answered once"):
        await check_port(memory_port_pair)


async def test_ports_that_hide_faults_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that should have failed and did not fails the check with the clause."""
    fail = Arrived.fail

    def friendly(message: Arrived, status: int, reason: str) -> None:
        if message.answered:
            fail(message, status, reason)
        message.reply(reason.encode())

    monkeypatch.setattr(Arrived, "fail", friendly)
    with pytest.raises(AssertionError, match="a request that fails there raises RemoteFault here"):
        await check_port(memory_port_pair)


async def test_a_memory_link_needs_room() -> None:
    """A pipe that holds nothing is refused."""
    with pytest.raises(ValueError, match="at least one byte"):
        memory_link_pair(capacity=0)
