"""A port as a stream of anyio, checked by what others wrote for streams.

Belongs here: object streams and byte streams. Never here: streams of services (`tests/service`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

import alpc_async as alpc
from tests.port.support import NAME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def objects() -> AsyncIterator[tuple[Any, Any]]:
    """Both ends of an object stream."""
    left, right = alpc.port_pair()
    async with left.object_stream() as one, right.object_stream() as other:
        yield one, other


async def test_objects_cross_in_order_and_end(objects: tuple[Any, Any]) -> None:
    """Objects arrive as they were sent, empty ones too; then the end, while the other direction goes on."""
    one, other = objects
    for item in (b"a", b"", b"b" * 1000):
        await one.send(item)
    await one.send_eof()
    await one.send_eof()
    assert [item async for item in other] == [b"a", b"", b"b" * 1000]
    with pytest.raises(anyio.ClosedResourceError):
        await one.send(b"late")
    await other.send(b"back")
    assert await one.receive() == b"back"
    await other.aclose()
    with pytest.raises(anyio.EndOfStream):
        await one.receive()
    facts = [stream.extra_attributes[alpc.PortAttribute.peer]() for stream in (one, other)]
    assert facts[0] == facts[1]


async def test_closed_and_busy_streams_say_so(objects: tuple[Any, Any]) -> None:
    """Use after closing, sending to a closed stream, and receiving twice at once raise what anyio expects."""
    one, other = objects
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.receive)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await one.receive()
        tasks.cancel_scope.cancel()
    await other.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await other.receive()
    with pytest.raises(anyio.ClosedResourceError):
        await other.send(b"x")

    async def send_on() -> None:
        while True:
            await one.send(b"x")

    with pytest.raises(anyio.BrokenResourceError):
        await send_on()


async def test_bytes_cross_however_they_are_cut() -> None:
    """A byte stream takes and gives any number of bytes, and works under anyio's buffered streams."""
    left, right = alpc.port_pair()
    async with left.byte_stream() as one, right.byte_stream() as other, anyio.create_task_group() as tasks:
        data = bytes(range(256)) * 2000

        async def send() -> None:
            await one.send(data)
            await one.send(b"line\nrest")
            await one.send_eof()

        tasks.start_soon(send)
        reader = BufferedByteReceiveStream(other)
        assert await reader.receive_exactly(len(data)) == data
        assert await reader.receive_until(b"\n", 100) == b"line"
        assert await reader.receive(2) == b"re"
        assert await reader.receive_exactly(2) == b"st"
        with pytest.raises(anyio.EndOfStream):
            await reader.receive()
        with pytest.raises(ValueError, match="at least 1"):
            await other.receive(0)


async def test_a_named_port_is_a_stream_too() -> None:
    """A client of a named port and the server's port for it are the two ends of a stream."""
    async with alpc.listen(NAME, accept="manual") as port, anyio.create_task_group() as tasks:

        async def echo() -> None:
            message = await port.receive()
            accepted = message.accept()
            request = await port.receive()
            assert bytes(request.data) == b"hello"
            await accepted.post(b"hello back")

        tasks.start_soon(echo)
        async with await alpc.connect(NAME) as client, client.object_stream() as stream:
            await stream.send(b"hello")
            assert await stream.receive() == b"hello back"


@pytest.mark.parametrize("half", [False, True], ids=["two-way", "half-closeable"])
def test_trio_finds_nothing_wrong(half: bool) -> None:
    """Trio's own check of streams passes over a port as a byte stream."""
    trio = pytest.importorskip("trio")
    pytest.importorskip("trio.testing")
    from tests.port.trio_streams import stream_pair

    check = trio.testing.check_half_closeable_stream if half else trio.testing.check_two_way_stream
    # It raises what it finds.
    assert trio.run(check, stream_pair, None) is None
