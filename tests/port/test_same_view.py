"""One live view that is sent with one request after the other: the most common use of `allocate`, and the shortest way.

The first request announces the section; from the second on nothing but the range travels, which takes a way of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

import alpc_async as alpc
from alpc_async import MessageType, PortLimits
from alpc_async.port._requesting import DEFAULT, Default
from tests.port.support import WAIT, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from alpc_async import CommunicationPort, View

SIZE = 100_000


@pytest.fixture
async def warm() -> AsyncGenerator[tuple[alpc.PortPair, View]]:
    """Two connected ports, and a view of the left one that the right one has seen."""
    async with alpc.port_pair(limits=PortLimits(max_outstanding_messages=2)) as pair:
        view = await pair.left.allocate(SIZE)
        view.data[:4] = b"true"
        await ask(pair, view)
        await until(lambda: not pair.left.statistics().lent)
        yield pair, view
        view.release()
        await until(lambda: not pair.left.statistics().lent)


async def echo(port: CommunicationPort) -> None:
    """Answer one request with its data and the beginning of its view."""
    message = await port.receive()
    with message:
        assert message.view is not None
        data = b"" if message.size == SIZE else message.data
        message.reply(data + bytes(message.view.data[:4]) + message.view.length.to_bytes(4, "little"))


async def ask(pair: alpc.PortPair, view: View, data: bytes = b"", timeout: float | Default | None = DEFAULT) -> bytes:
    """Send the view and return what its receiver saw of it."""
    answers: list[bytes] = []
    async with anyio.create_task_group() as group:
        group.start_soon(echo, pair.right)
        answers.append((await pair.left.request(data, view=view, timeout=timeout)).data)
    return answers[0]


async def test_it_is_seen_each_time(warm: tuple[alpc.PortPair, View]) -> None:
    """Each request shows the view as it is by then, with and without data beside it, whatever its timeout."""
    pair, view = warm
    length = SIZE.to_bytes(4, "little")
    for number, timeout in ((1, 5.0), (2, 5.0), (3, None), (4, None), (5, 1.0)):
        view.data[:4] = bytes((number,)) * 4
        assert await ask(pair, view, timeout=timeout) == bytes((number,)) * 4 + length
        assert await ask(pair, view, b"beside", timeout) == b"beside" + bytes((number,)) * 4 + length
        assert await ask(pair, view, bytes(60_000), timeout) == bytes(60_000) + bytes((number,)) * 4 + length


async def test_its_range_is_not_used_again_before_all_let_go(warm: tuple[alpc.PortPair, View]) -> None:
    """What the receiver still holds keeps the range, although its owner gave the view back."""
    pair, view = warm
    async with anyio.create_task_group() as group:
        group.start_soon(ask_in_vain, pair.left, view)
        message = await pair.right.receive()
        view.release()
        with await pair.left.allocate(SIZE) as other:
            other.data[:4] = b"else"
            assert message.view is not None
            assert bytes(message.view.data[:4]) == b"true"
        message.fail(1000, "enough")
        message.release()
    await until(lambda: not pair.left.statistics().lent)


async def ask_in_vain(port: CommunicationPort, view: View) -> None:
    """Send the view in a request that fails."""
    with pytest.raises(alpc.RemoteFault):
        await port.request(view=view)


async def test_it_waits_for_room_like_any_message(warm: tuple[alpc.PortPair, View]) -> None:
    """A third request waits until one of two that are allowed has been answered, and its timeout counts meanwhile."""
    pair, view = warm
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(lambda: pair.left.request(view=view))
        await until(lambda: pair.right.statistics().queued == 2)
        with pytest.raises(alpc.DeadlineExceeded):
            await pair.left.request(view=view, timeout=0.02)
        assert pair.right.statistics().queued == 2
        with anyio.fail_after(WAIT):
            for _ in range(2):
                await echo(pair.right)
        assert (await ask(pair, view))[:4] == b"true"


async def test_it_counts_against_the_bandwidth() -> None:
    """On a connection with a limit of bytes per second its bytes are counted, and sending it again waits."""
    async with alpc.port_pair(limits=PortLimits(memory_bandwidth=4 * SIZE)) as pair:
        with await pair.left.allocate(SIZE) as view:
            for _ in range(4):
                await ask(pair, view)
            with pytest.raises(alpc.DeadlineExceeded):
                await pair.left.request(view=view, timeout=0.02)
            assert not pair.right.statistics().queued
        await until(lambda: not pair.left.statistics().lent)


async def test_what_cannot_be_sent_is_refused_in_words(warm: tuple[alpc.PortPair, View]) -> None:
    """A view that was released, that belongs elsewhere, or whose connection is closed, is refused; nothing is lent."""
    pair, view = warm
    with await pair.left.allocate(10) as released:
        pass
    with pytest.raises(ValueError, match="was released"):
        await pair.left.request(view=released)
    async with alpc.port_pair() as (stranger, _), stranger:
        with await stranger.allocate(10) as foreign, pytest.raises(ValueError, match="another connection"):
            await pair.left.request(view=foreign)
    with pytest.raises(TypeError, match="view="):
        await pair.left.request(view=memoryview(b"x"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the mistake that is tested
    await until(lambda: not pair.left.statistics().lent)
    await pair.left.aclose()
    with pytest.raises(alpc.PortClosed):
        await pair.left.request(view=view)


async def test_giving_up_gives_it_back(warm: tuple[alpc.PortPair, View]) -> None:
    """A request that is cancelled while its receiver holds the view cancels the receiver's work and frees the lease."""
    pair, view = warm
    scope = anyio.CancelScope()

    async def give_up() -> None:
        with scope:
            await pair.left.request(view=view)

    async with anyio.create_task_group() as group:
        group.start_soon(give_up)
        message = await pair.right.receive()
        scope.cancel()
        with anyio.fail_after(WAIT):
            assert (await pair.right.receive()).type is MessageType.CANCELED
        assert message.cancelled
        assert pair.left.statistics().lent == 1
        message.release()
    await until(lambda: not pair.left.statistics().lent)
    assert (await ask(pair, view))[:4] == b"true"
