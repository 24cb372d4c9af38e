"""Streams of results and of arguments: items, ends, cancellation, bounded memory.

Belongs here: everything about streams between two honest sides. Never here: hostile ones (`test_hostile`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

import alpc_async as alpc
from alpc_async.service._stream import WINDOW
from tests.port.support import until
from tests.service.contracts import NAME, Entry, Files, FilesServer, NoSuchEntry, numbers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.service.conftest import Served


def references(served: Served) -> int:
    """Return how many objects and streams clients hold beside what they are bound to."""
    return served.port.statistics().references - 1


@pytest.mark.parametrize("count", [0, 1, 15, 16, WINDOW - 1, WINDOW, WINDOW + 1, 5 * WINDOW])
async def test_results_stream(served: Served, count: int) -> None:
    """All items arrive in order, however many there are, and nothing is left behind."""
    entries = [entry async for entry in served.client.walk(count)]
    assert entries == [Entry(f"entry {number}", number) for number in range(count)]
    await until(lambda: served.server.closed_streams == 1)
    await until(lambda: references(served) == 0)


@pytest.mark.parametrize("count", [0, 1, WINDOW, 5 * WINDOW])
async def test_arguments_stream(served: Served, count: int) -> None:
    """A method takes all items of an iterator that the caller gives it."""
    assert await served.client.total(numbers(count)) == sum(range(count))


@pytest.mark.parametrize("count", [0, 1, WINDOW, 5 * WINDOW])
async def test_both_directions_stream(served: Served, count: int) -> None:
    """A stream of results can be made of a stream of arguments."""
    doubled = [number async for number in served.client.double(numbers(count))]
    assert doubled == [2 * number for number in range(count)]
    await until(lambda: references(served) == 0)


async def test_items_do_not_wait_for_others(served: Served) -> None:
    """What was produced leaves when the producer has to wait, and not when a batch is full."""
    stream = served.client.walk(3, "wait")
    first = [await anext(stream) for _ in range(3)]
    assert [entry.size for entry in first] == [0, 1, 2]
    await aclose(stream)
    await until(lambda: served.server.closed_streams == 1)


async def aclose(stream: Any) -> None:
    """Close a stream, which its declared type does not know."""
    await stream.aclose()


@pytest.mark.parametrize("count", [0, 3, WINDOW, 2 * WINDOW])
async def test_a_stream_may_end_with_a_declared_fault(served: Served, count: int) -> None:
    """All items before the fault arrive, then the fault with its fields; then the stream is over."""
    stream = served.client.walk(count, "declared")
    for number in range(count):
        assert (await anext(stream)).size == number
    with pytest.raises(NoSuchEntry) as caught:
        await anext(stream)
    assert caught.value.path == "/end"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await until(lambda: references(served) == 0)


@pytest.mark.parametrize(
    ("end", "status"), [("undeclared", alpc.Status.HANDLER_FAILED), ("type", alpc.Status.BAD_RESULT)]
)
async def test_a_stream_may_end_with_an_error(
    served: Served, end: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the producer, and an item of another type, end the stream with a status and an incident."""
    stream = served.client.walk(2, end)
    assert [(await anext(stream)).size for _ in range(2)] == [0, 1]
    with pytest.raises(alpc.RemoteFault) as caught:
        await anext(stream)
    assert caught.value.status == status
    assert caught.value.incident in caplog.text
    assert "secret" not in str(caught.value)
    caplog.clear()


async def test_an_error_of_the_caller_ends_its_stream(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that reads a stream whose producer fails at the client gets an error as well."""

    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ValueError("secret")

    with pytest.raises(alpc.RemoteFault) as caught:
        await served.client.total(broken())
    assert caught.value.status == alpc.Status.HANDLER_FAILED
    caplog.clear()


async def test_a_wrong_item_of_the_caller_is_refused(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """An item of another type does not leave the client."""

    async def wrong() -> AsyncIterator[Any]:
        yield "one"

    with pytest.raises(alpc.RemoteFault):
        await served.client.total(wrong())
    assert "item of a stream: Expected `int`, got `str`" in caplog.text
    caplog.clear()


async def test_leaving_a_stream_stops_the_producer(served: Served) -> None:
    """A stream whose block ends early is cancelled at the producer, which holds no more than a window of items."""
    stream: Any = served.client.walk(1_000_000)
    async with stream:
        async for entry in stream:
            if entry.size == 10:
                break
    await until(lambda: served.server.closed_streams == 1)
    assert served.server.produced <= 3 * WINDOW
    with pytest.raises(alpc.PortClosed):
        await anext(stream)
    await until(lambda: references(served) == 0)


async def test_forgetting_a_stream_stops_the_producer(served: Served) -> None:
    """A stream that nobody holds any more is cancelled at the producer."""
    stream: Any = served.client.walk(1_000_000)
    await anext(stream)
    del stream
    await until(lambda: served.server.closed_streams == 1)
    await until(lambda: references(served) == 0)
    assert served.server.produced <= 3 * WINDOW


async def test_a_slow_reader_bounds_the_producer(served: Served) -> None:
    """A producer is at most a few windows ahead of its reader."""
    stream = served.client.walk(100_000)
    read = 0
    async for _ in stream:
        read += 1
        if read % 100 == 0:
            await anyio.lowlevel.checkpoint()
            assert served.server.produced <= read + 4 * WINDOW
        if read == 20 * WINDOW:
            break
    await aclose(stream)


async def test_a_cancelled_wait_loses_nothing(served: Served) -> None:
    """A wait for an item that is cancelled leaves the stream as it was."""
    release = anyio.Event()

    async def slow() -> AsyncIterator[int]:
        yield 1
        await release.wait()
        yield 2

    doubled: Any = served.client.double(slow())
    assert await anext(doubled) == 2
    with anyio.move_on_after(0.02):
        await anext(doubled)
    release.set()
    assert await anext(doubled) == 4
    with pytest.raises(StopAsyncIteration):
        await anext(doubled)


async def test_cancelling_the_first_wait_ends_the_stream(served: Served) -> None:
    """A stream that is cancelled before its first items have come is over on both sides."""
    stream = served.client.walk(0, "wait")
    with anyio.move_on_after(0.02):
        await anext(stream)
    await until(lambda: served.server.closed_streams == 1)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await until(lambda: references(served) == 0)


async def test_an_item_has_a_deadline(served: Served) -> None:
    """A reader waits for each item no longer than its timeout, and a stream may live longer than that."""
    quick = alpc.with_options(served.client, timeout=0.25)
    with pytest.raises(alpc.DeadlineExceeded):
        await anext(quick.walk(0, "wait"))
    stream = quick.walk(2, "wait")
    await anext(stream)
    await anyio.sleep(0.4)
    await anext(stream)
    with pytest.raises(alpc.DeadlineExceeded, match="next item"):
        await anext(stream)
    await until(lambda: served.server.closed_streams == 2)
    assert await served.client.size(b"x") == 1


async def test_two_tasks_cannot_wait_for_one_stream(served: Served) -> None:
    """A stream has one reader at a time."""
    stream = served.client.walk(0, "wait")
    async with anyio.create_task_group() as tasks:

        async def read() -> None:
            await anext(stream)

        tasks.start_soon(read)
        await until(lambda: served.port.statistics().running == 1)
        with pytest.raises(anyio.BusyResourceError):
            await anext(stream)
        tasks.cancel_scope.cancel()


async def test_the_end_of_the_connection_ends_streams() -> None:
    """A reader whose server goes away gets an error at once, and a producer whose reader goes away is closed."""
    server = FilesServer()
    port = await alpc.serve(NAME, server)
    async with alpc.connect(NAME, Files) as client:
        stream = client.walk(0, "wait")
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                with pytest.raises((alpc.Disconnected, alpc.RemoteFault)):
                    await anext(stream)

            tasks.start_soon(read)
            await until(lambda: port.statistics().running == 1)
            await port.aclose()
    assert server.closed_streams == 1
    async with alpc.serve(NAME, server) as port:
        async with alpc.connect(NAME, Files) as client:
            await anext(client.walk(1, "wait"))
        await until(lambda: server.closed_streams == 2)
        await until(lambda: port.statistics().running == 0)


async def test_many_streams_at_once(served: Served) -> None:
    """Streams of one connection do not hold one another up."""
    totals: list[int] = []

    async def read(count: int) -> None:
        totals.append(sum([entry.size async for entry in served.client.walk(count)]))

    async with anyio.create_task_group() as tasks:
        for count in range(0, 2000, 100):
            tasks.start_soon(read, count)
    assert sorted(totals) == [sum(range(count)) for count in range(0, 2000, 100)]
    await until(lambda: references(served) == 0)


async def test_large_items_stream(served: Served) -> None:
    """Batches stay below the longest message, however large the items are."""

    class Large(FilesServer):
        async def walk(self, count: int, end: str = "") -> AsyncIterator[Entry]:
            for number in range(count):
                yield Entry("x" * 10_000, number)

    async with alpc.serve("acme.large", Large()), alpc.connect("acme.large", Files) as client:
        assert [entry.size async for entry in client.walk(50)] == list(range(50))
