"""Calls that say how their arguments and results travel.

Belongs here: ``with_options(transfer=...)``. Never here: what lengths decide by themselves (`test_calls`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator  # noqa: TC003  # contracts are read at run time
from typing import Any, cast

import pytest

import alpc_async as alpc
from tests.port.support import until
from tests.service.contracts import NAME, Counter, CounterServer

KIB = 1024
ROOMY = alpc.PortLimits(max_message_length=256 * KIB, view_threshold=16 * KIB, max_pool_usage=1024 * KIB)


class Blobs(alpc.Interface, uuid="0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c40"):
    """Takes and gives bytes in every way that a call can."""

    async def copy(self, data: bytes) -> bytes: ...

    @alpc.oneway
    async def note(self, data: bytes) -> None: ...

    def parts(self, data: bytes, count: int) -> AsyncIterator[bytes]: ...

    async def measure(self, counter: Counter, data: bytes) -> Counter: ...

    async def make(self, size: int) -> bytes: ...

    def grow(self, sizes: list[int]) -> AsyncIterator[bytes]: ...

    async def fill(self, view: alpc.View) -> int: ...

    async def relay(self, counter: Counter) -> int: ...


class BlobsServer(Blobs):
    """Notes how each call came."""

    def __init__(self) -> None:
        self.came: list[tuple[alpc.Transfer, str]] = []
        self.own = CounterServer(1)

    def note_call(self) -> None:
        """Note how the call came that is being handled, and what its caller wants."""
        call = alpc.current_call()
        self.came.append((call.message.transfer, call.transfer))

    async def copy(self, data: bytes) -> bytes:
        self.note_call()
        return data

    async def note(self, data: bytes) -> None:
        self.note_call()

    async def parts(self, data: bytes, count: int) -> AsyncIterator[bytes]:
        self.note_call()
        for _ in range(count):
            yield data

    async def measure(self, counter: Counter, data: bytes) -> Counter:
        self.note_call()
        await counter.add(len(data))
        return self.own

    async def make(self, size: int) -> bytes:
        return bytes(size)

    async def grow(self, sizes: list[int]) -> AsyncIterator[bytes]:
        for size in sizes:
            yield bytes(size)

    async def fill(self, view: alpc.View) -> int:
        self.note_call()
        return view.length

    async def relay(self, counter: Counter) -> int:
        self.note_call()
        return await counter.add(1)


class NotingCounter(CounterServer):
    """Notes how calls came that the server made."""

    def __init__(self) -> None:
        super().__init__()
        self.came: list[alpc.Transfer] = []

    async def add(self, number: int) -> int:
        self.came.append(alpc.current_call().message.transfer)
        return await super().add(number)


@pytest.mark.parametrize("size", [10, 100 * KIB])
@pytest.mark.parametrize("way", ["inline", "view"])
async def test_arguments_and_results_travel_as_the_caller_says(size: int, way: Any) -> None:
    """Whatever their length, the arguments come as asked for, and the results of all kinds of calls go back so."""
    server = BlobsServer()
    data = bytes(size)
    transfer = alpc.Transfer.VIEW if way == "view" else alpc.Transfer.INLINE
    async with alpc.serve(NAME, server, limits=ROOMY) as port, alpc.connect(NAME, Blobs, limits=ROOMY) as client:
        chosen = alpc.with_options(client, transfer=way)
        server_end = port.connections[0]
        assert await chosen.copy(data) == data
        assert [part async for part in chosen.parts(data, 3)] == [data] * 3
        # Four times the data left the server, or nothing but where it lies.
        assert (server_end.statistics().bytes_sent > 4 * size) is (way == "inline" or size < KIB)
        assert await (await chosen.measure(CounterServer(), data)).add(1) == 2
        await chosen.note(data)
        await until(lambda: len(server.came) == 4)
        assert set(server.came) == {(transfer, way)}
        assert (server_end.statistics().shared > 0) is (way == "view")
        await until(lambda: not server_end.statistics().lent)


async def test_the_option_is_kept_and_given_up() -> None:
    """Other options leave the way as it is, ``"auto"`` takes it back, and the first proxy is not changed."""
    server = BlobsServer()
    async with alpc.serve(NAME, server), alpc.connect(NAME, Blobs) as client:
        viewed = alpc.with_options(client, transfer="view")
        patient = alpc.with_options(viewed, timeout=60.0)
        for proxy in (client, viewed, patient, alpc.with_options(patient, transfer="auto")):
            assert await proxy.copy(b"x") == b"x"
        inline, view = (alpc.Transfer.INLINE, "auto"), (alpc.Transfer.VIEW, "view")
        assert server.came == [inline, view, view, inline]
        with pytest.raises(ValueError, match="'auto', 'inline' or 'view', not 'pigeon'"):
            alpc.with_options(client, transfer=cast("Any", "pigeon"))


async def test_calls_of_the_handler_do_not_inherit_it() -> None:
    """How a call travels says nothing about those that its handler makes."""
    counter = NotingCounter()
    async with alpc.serve(NAME, BlobsServer()), alpc.connect(NAME, Blobs) as client:
        assert await alpc.with_options(client, transfer="view").relay(counter) == 1
    assert counter.came == [alpc.Transfer.INLINE]


async def test_a_view_among_the_arguments_is_the_view_of_the_call() -> None:
    """A call with a view of its own goes on working: one view travels with a message, and that is it."""
    server = BlobsServer()
    async with alpc.serve(NAME, server), alpc.connect(NAME, Blobs) as client:
        with await alpc.port_of(client).allocate(100) as view:
            assert await alpc.with_options(client, transfer="view").fill(view) == 100
    # The view that the message came with was taken out of it, as an argument.
    assert server.came == [(alpc.Transfer.INLINE, "view")]


async def test_what_is_too_long_to_go_inline_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Arguments that do not fit raise at the caller, and a result that does not fit is a failure of its own kind."""
    async with alpc.serve(NAME, BlobsServer()) as port, alpc.connect(NAME, Blobs) as client:
        inline = alpc.with_options(client, transfer="inline")
        with pytest.raises(alpc.MessageTooLong, match="max_message_length"):
            await inline.copy(bytes(64 * KIB))
        with pytest.raises(alpc.RemoteFault) as caught:
            await inline.make(64 * KIB)
        assert caught.value.status == alpc.Status.REPLY_TOO_LONG
        for before in (0, 1000):
            parts = inline.grow([10] * before + [64 * KIB] + [10] * 1000)
            with pytest.raises(alpc.RemoteFault) as caught:
                assert {len(part) async for part in parts} == {10}
            assert caught.value.status == alpc.Status.REPLY_TOO_LONG
        lengths = [30 * KIB, 60 * KIB, 10, 20 * KIB]
        assert [len(part) async for part in inline.grow(lengths)] == lengths
        assert await inline.make(1) == b"\0"
        assert port.statistics().references == 1  # the interface itself
        await until(lambda: port.statistics().running == 0)
    assert "the answer to message" not in caplog.text
    caplog.clear()
