"""Direct access within a process: declared buffers, data that is read from the sender, and the detour."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import pytest

import alpc_async as alpc
from alpc_async import DirectBuffer, PortLimits, Transfer
from tests.port.support import NAME, WAIT, connected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from alpc_async.memory import Cookie

DIRECT = PortLimits(direct=True)
MIB = 1 << 20


def denied(pid: int, _cookie: Cookie, _address: int, _memory: object) -> None:
    """Answer as a kernel does that allows nothing."""
    raise alpc.DirectDenied(pid=pid, reason="not permitted")


@pytest.fixture(params=[Transfer.DIRECT, Transfer.VIEW], ids=["direct", "detour"])
async def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[alpc.PortPair]:
    """Two ports that may reach each other's memory, once with the kernel's leave and once without."""
    if request.param is Transfer.VIEW:
        monkeypatch.setattr("alpc_async.port._reaching.read_process", denied)
    async with alpc.port_pair(limits=DIRECT) as made:
        yield made


@pytest.mark.parametrize("size", [100, MIB])
async def test_a_declared_buffer_is_read_and_written(pair: alpc.PortPair, size: int) -> None:
    """The receiver reads any part of it and writes what may be written, small and large."""
    source, target = os.urandom(size), bytearray(size)
    pending = pair.left.start_request(b"copy", direct=[DirectBuffer(source), DirectBuffer(target, writable=True)])
    message = await pair.right.receive()
    assert message.data == b"copy"
    direct = message.direct
    assert direct is not None
    assert (direct.length, direct.writable, message.transfer) == (2 * size, False, direct.transfer)
    with anyio.fail_after(WAIT):
        assert await direct.read(0, size) == source
        assert await direct.read(size - 10, 20) == source[-10:] + bytes(10)
        await direct.write(size, source)
        part = bytearray(7)
        await direct.read_into(3, part)
    assert part == source[3:10]
    message.reply(b"done")
    assert (await pending).data == b"done"
    assert target == source


async def test_only_what_was_declared(pair: alpc.PortPair) -> None:
    """Bytes before, behind and read-only ones are refused, and nothing is copied."""
    source, target = b"read only", bytearray(10)
    pending = pair.left.start_request(direct=[DirectBuffer(source), DirectBuffer(target, writable=True)])
    message = await pair.right.receive()
    direct = message.direct
    assert direct is not None
    for offset, size in ((-1, 1), (0, 20), (19, 1), (18, 2), (2**63, 1)):
        with pytest.raises(alpc.DirectRange, match="outside"):
            await direct.read(offset, size)
    for offset in (0, 8):
        with pytest.raises(alpc.DirectRange, match="not declared as writable"):
            await direct.write(offset, b"12")
    await direct.write(9, b"0123456789")
    message.reply()
    await pending
    assert source == b"read only"
    assert target == b"0123456789"


async def test_only_while_the_request_is_open(pair: alpc.PortPair) -> None:
    """After the answer, and after a cancellation, the memory is out of reach."""
    buffer = DirectBuffer(bytearray(100), writable=True)
    pending = pair.left.start_request(direct=buffer)
    message = await pair.right.receive()
    message.reply()
    await pending
    other = pair.left.start_request(direct=buffer)
    second = await pair.right.receive()
    other.cancel()
    await pair.right.receive()
    for late in (message, second):
        assert late.direct is not None
        with pytest.raises(alpc.DirectOver):
            await late.direct.read()
        with pytest.raises(alpc.DirectOver):
            await late.direct.write(0, b"x")


async def test_direct_access_is_off_by_default() -> None:
    """Both sides have to allow it."""
    async with alpc.port_pair() as (left, _):
        with pytest.raises(alpc.AccessDenied, match=r"PortLimits\.direct"):
            await left.request(direct=DirectBuffer(b"x"))
    async with alpc.listen(NAME), alpc.connect(NAME, limits=DIRECT) as client:
        with pytest.raises(alpc.AccessDenied, match=r"PortLimits\.direct"):
            await client.request(direct=DirectBuffer(b"x"))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: DirectBuffer(b"constant", writable=True), ValueError),
        (lambda: DirectBuffer(b""), ValueError),
        (lambda: DirectBuffer(memoryview(bytes(10))[::2]), TypeError),
    ],
    ids=["constant", "empty", "gaps"],
)
def test_buffers_that_cannot_be_declared(make: Callable[[], object], error: type[Exception]) -> None:
    """Read-only memory to be written, nothing at all, and memory that does not lie in a row."""
    with pytest.raises(error):
        make()


async def test_too_many_buffers(pair: alpc.PortPair) -> None:
    """A request declares at least one buffer, and no more than fit a frame."""
    for buffers in ([], [DirectBuffer(b"x")] * 65):
        with pytest.raises(ValueError, match="1 to 64"):
            await pair.left.request(direct=buffers)


async def test_long_data_is_read_from_the_client() -> None:
    """From direct_threshold on the server reads the data of a request where it lies; it looks like any other."""
    limits = PortLimits(direct=True, direct_threshold=100_000)
    async with connected(limits=limits) as (server, client):
        for size, transfer in ((99_999, Transfer.VIEW), (100_000, Transfer.DIRECT), (5 * MIB, Transfer.DIRECT)):
            data = os.urandom(size)
            pending = client.start_request(data)
            message = await server.receive()
            assert (message.size, message.transfer, message.direct) == (size, transfer, None)
            assert message.data == data == message.data
            message.reply(message.data)
            reply = await pending
            assert (reply.data, reply.transfer) == (data, Transfer.VIEW)


async def test_data_that_was_not_read_in_time() -> None:
    """Data that is read from the client is there until the answer; afterwards the error says so."""
    async with connected(limits=PortLimits(direct=True)) as (server, client):
        pending = client.start_request(bytes(2 * MIB))
        message = await server.receive()
        message.reply(b"unread")
        await pending
        with pytest.raises(alpc.DirectOver):
            _ = message.data


async def test_a_server_that_cannot_read_gets_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel forbids is found out in the handshake, and long data travels as a view."""
    monkeypatch.setattr("alpc_async.port._reaching.read_process", denied)
    async with connected(limits=PortLimits(direct=True)) as (server, client):
        data = os.urandom(2 * MIB)
        pending = client.start_request(data)
        message = await server.receive()
        assert message.transfer is Transfer.VIEW
        assert message.data == data
        message.reply()
        await pending
