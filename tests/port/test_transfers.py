"""Long data, views, handles, receipts and reserves between two ports of one process."""

from __future__ import annotations

import gc
import os
import socket
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import numpy as np
import pytest

import alpc_async as alpc
from alpc_async import HandleKind, MessageType, PortLimits, Transfer
from alpc_async.handles import Handle
from tests.port.support import WAIT, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from typing_extensions import Buffer

    from alpc_async import CommunicationPort, Message

MIB = 1 << 20
LIMITS = PortLimits(max_handles=300, handle_kinds=HandleKind.FILE | HandleKind.PIPE)


@pytest.fixture
async def pair() -> AsyncGenerator[alpc.PortPair]:
    """Two connected ports that allow everything."""
    async with alpc.port_pair(limits=LIMITS) as made:
        yield made


async def answered(left: CommunicationPort, right: CommunicationPort, data: bytes) -> Message:
    """Send data there and back; return the reply."""
    pending = left.start_request(data)
    message = await right.receive()
    message.reply(message.data)
    return await pending


def noise(size: int) -> bytes:
    """Return bytes that do not repeat within a page."""
    return (os.urandom(4093) * (size // 4093 + 1))[:size]


@pytest.mark.parametrize(
    ("size", "transfer"),
    [
        (0, Transfer.INLINE),
        (64 * 1024, Transfer.INLINE),
        (64 * 1024 + 1, Transfer.VIEW),
        (5 * MIB + 7, Transfer.VIEW),
    ],
)
async def test_data_travels_by_its_size_and_looks_the_same(pair: alpc.PortPair, size: int, transfer: Transfer) -> None:
    """Whatever its length data arrives as the same bytes, and the message says how it came."""
    data = noise(size)
    pending = pair.left.start_request(data)
    message = await pair.right.receive()
    assert (message.size, message.transfer) == (size, transfer)
    assert type(message.data) is bytes
    assert message.data == data
    message.reply(data)
    reply = await pending
    assert (reply.data, reply.transfer) == (data, transfer)
    await pair.left.post(data)
    datagram = await pair.right.receive()
    assert (datagram.type, datagram.data) == (MessageType.DATAGRAM, data)


def as_array(data: bytes) -> memoryview:
    """Return the memory of an array of numbers."""
    return np.frombuffer(data, np.uint16).data


@pytest.mark.parametrize("kind", [bytearray, memoryview, as_array])
async def test_any_buffer_is_data(pair: alpc.PortPair, kind: Callable[[bytes], Buffer]) -> None:
    """Arrays and other buffers travel like bytes, short and long."""
    for size in (100, 200_000):
        data = noise(size)
        await pair.left.post(kind(data))
        assert (await pair.right.receive()).data == data


async def test_an_array_that_does_not_lie_in_a_row(pair: alpc.PortPair) -> None:
    """Every second row of a matrix arrives as its bytes in order."""
    matrix = np.arange(200_000, dtype=np.uint16).reshape(400, 500)[::2]
    await pair.left.post(matrix.data)
    assert (await pair.right.receive()).data == matrix.tobytes()


async def test_sections_are_used_again(pair: alpc.PortPair) -> None:
    """A thousand long messages one after the other need no more memory than a few."""
    data = noise(100_000)
    for _ in range(1000):
        assert (await answered(pair.left, pair.right, data)).data == data
    await until(lambda: not pair.left.statistics().lent)
    assert pair.left.statistics().shared <= 2 * MIB


async def test_a_view_is_filled_and_read_in_place(pair: alpc.PortPair) -> None:
    """An array on allocated memory reaches the receiver's array without a copy, and later writes are seen."""
    with await pair.left.allocate(8 * 1000) as view:
        numbers = np.frombuffer(view.data, dtype=np.float64)
        numbers[:] = range(1000)
        pending = pair.left.start_request(view=view)
        message = await pair.right.receive()
        assert message.transfer is Transfer.VIEW
        assert message.view is not None
        there = np.frombuffer(message.view.data, dtype=np.float64)
        assert there.sum() == 499_500
        numbers[0] = 500
        assert there[0] == 500
        assert not there.flags.writeable
        del there, numbers
        with message:
            message.reply(b"read")
        assert (await pending).data == b"read"


async def test_an_array_can_be_made_of_a_view_itself(pair: alpc.PortPair) -> None:
    """Numpy takes the view as it is."""
    with await pair.left.allocate(100) as view:
        array = np.asarray(view)
        array[:] = 7
        assert bytes(view.data) == b"\x07" * 100
        del array


async def test_data_of_a_live_view_is_a_copy(pair: alpc.PortPair) -> None:
    """What was read as data does not change when the sender writes on, whenever it writes."""
    with await pair.left.allocate(1000) as view:
        view.data[:] = b"a" * 1000
        await pair.left.post(view=view)
        message = await pair.right.receive()
        data = message.data
        view.data[:] = b"b" * 1000
        assert data == message.data == b"a" * 1000
        message.release()


async def test_a_sealed_view_is_used_in_place(pair: alpc.PortPair) -> None:
    """Once it was sent nobody can write it: the sender's view is over, and the receiver's is sealed."""
    view = await pair.left.allocate(5000, mode="sealed")
    view.data[:] = noise(5000)
    content = bytes(view.data)
    await pair.left.post(view=view)
    assert view.released
    with await pair.right.receive() as message:
        assert message.view is not None
        assert message.view.sealed
        assert message.view.data == content
    with pytest.raises(ValueError, match="released"):
        await pair.left.post(view=view)


async def test_a_sealed_view_that_is_still_used_is_not_sent(pair: alpc.PortPair) -> None:
    """An array on it keeps it from being sealed; without the array it can be sent."""
    view = await pair.left.allocate(64, mode="sealed")
    array = np.asarray(view)
    with pytest.raises(alpc.ViewInUse):
        await pair.left.post(view=view)
    array[:] = 3
    del array
    await pair.left.post(view=view)
    assert (await pair.right.receive()).data == b"\x03" * 64


async def test_a_sealed_view_waits_for_room() -> None:
    """Sealed before there was room to send it, it is sent when there is; one that never was gives its memory back."""
    async with alpc.port_pair(limits=PortLimits(max_outstanding_messages=1)) as (left, right):
        await left.post(b"in the way")
        view = await left.allocate(4096, mode="sealed")
        view.data[:] = b"x" * 4096
        with pytest.raises(alpc.DeadlineExceeded):
            await left.post(view=view, timeout=0.02)
        async with anyio.create_task_group() as tasks:

            async def post() -> None:
                await left.post(view=view)

            tasks.start_soon(post)
            await anyio.wait_all_tasks_blocked()
            assert (await right.receive()).data == b"in the way"
            with anyio.fail_after(WAIT):
                assert (await right.receive()).data == b"x" * 4096
        with pytest.raises(ValueError, match="released"):
            await left.post(view=view)
        pending = left.start_request(b"in the way again")
        forgotten = await left.allocate(4096, mode="sealed")
        with pytest.raises(alpc.QuotaExceeded):
            left.start_request(view=forgotten)
        del forgotten
        gc.collect()
        await until(lambda: not left.statistics().shared)
        pending.cancel()


async def test_a_reply_is_written_into_the_view_of_the_request(pair: alpc.PortPair) -> None:
    """Memory that both sides share goes there and back, and its owner has it again with the reply."""
    view = await pair.left.allocate(256, mode="shared")
    view.data[:] = b"?" * 256
    pending = pair.left.start_request(b"fill it", view=view)
    message = await pair.right.receive()
    assert message.data == b"fill it"
    assert message.view is not None
    message.view.data[:] = b"!" * 256
    returned = message.view
    message.reply(b"done", view=returned)
    assert returned.released
    reply = await pending
    assert reply.data == b"done"
    assert reply.view is not None
    assert bytes(reply.view.data) == b"!" * 256 == bytes(view.data)
    reply.release()
    view.release()
    await until(lambda: not pair.left.statistics().lent)


async def test_views_come_back(pair: alpc.PortPair) -> None:
    """Released, forgotten, cancelled and withdrawn messages give their views back."""
    data = noise(100_000)
    for number in range(4):
        pending = pair.left.start_request(data)
        message = await pair.right.receive() if number < 3 else None
        assert pair.left.statistics().lent == 1
        if number == 0 and message is not None:
            message.release()
            with pytest.raises(alpc.RemoteFault):
                await pending
        elif number == 1:
            pending.cancel()
        elif number == 2 and message is not None:
            message.reply()
        elif number == 3:
            await until(lambda: pair.right.statistics().queued == 1)
            pending.cancel()
        del message
        if number == 1:
            assert (await pair.right.receive()).type is MessageType.CANCELED
        gc.collect()
        await until(lambda: not pair.left.statistics().lent)
        pending.cancel()
    while pair.right.statistics().queued:
        await pair.right.receive()


async def test_a_view_is_held_as_long_as_an_array_of_it(pair: alpc.PortPair) -> None:
    """The receiver's array keeps the range although the message is forgotten."""
    await pair.left.post(noise(100_000))
    message = await pair.right.receive()
    assert message.view is not None
    array = np.asarray(message.view)
    total = int(array.sum())
    del message
    gc.collect()
    await pair.left.post(b"another")
    await pair.right.receive()
    assert pair.left.statistics().lent == 1
    assert int(array.sum()) == total
    del array
    await until(lambda: not pair.left.statistics().lent)


async def test_use_after_release(pair: alpc.PortPair) -> None:
    """A view that was given back says so, and giving it back again does nothing."""
    await pair.left.post(noise(100_000))
    message = await pair.right.receive()
    view = message.view
    assert view is not None
    message.release()
    message.release()
    with pytest.raises(alpc.ViewReleased):
        _ = view.data
    assert message.view is None


async def test_a_full_quota_makes_senders_wait() -> None:
    """Data that finds no room in the sections waits until a view comes back, in line; a sync send refuses."""
    limits = PortLimits(max_view_size=MIB, max_section_size=MIB, max_total_section_size=MIB)
    async with alpc.port_pair(limits=limits) as (left, right):
        data = noise(700_000)
        await left.post(data)
        with pytest.raises(alpc.QuotaExceeded, match="max_total_section_size"):
            left.start_request(data)
        with pytest.raises(alpc.DeadlineExceeded):
            await left.post(data, timeout=0.02)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(left.post, data)
            await anyio.wait_all_tasks_blocked()
            assert right.statistics().queued == 1
            assert (await right.receive()).data == data
            with anyio.fail_after(WAIT):
                assert (await right.receive()).data == data


async def test_a_full_quota_does_not_hold_up_what_can_travel_inline() -> None:
    """Data between the two limits goes through the socket when the sections are full."""
    limits = PortLimits(max_view_size=MIB, max_section_size=MIB, max_total_section_size=MIB)
    async with alpc.port_pair(limits=limits) as (left, right):
        await left.post(noise(1_000_000))
        await left.post(noise(60_000))
        assert [(await right.receive()).transfer for _ in range(2)] == [Transfer.VIEW, Transfer.INLINE]


async def test_replies_that_find_no_room_follow_later() -> None:
    """A server may answer any number of requests at length; what has no room leaves when views come back."""
    limits = PortLimits(max_view_size=MIB, max_section_size=MIB, max_total_section_size=MIB)
    async with alpc.port_pair(limits=limits) as (left, right):
        pending = [left.start_request(b"%d" % number) for number in range(5)]
        for _ in range(5):
            message = await right.receive()
            message.reply(message.data * 700_000)
        with anyio.fail_after(WAIT):
            for number, request in enumerate(pending):
                reply = await request
                assert reply.data == b"%d" % number * 700_000
                del reply


async def test_too_long_for_any_way() -> None:
    """The error names the limit of views, and nothing was sent."""
    limits = PortLimits(max_view_size=100_000)
    async with alpc.port_pair(limits=limits) as (left, right):
        for call in (left.request, left.post):
            with pytest.raises(alpc.MessageTooLong, match="max_view_size"):
                await call(bytes(100_001))
        with pytest.raises(alpc.MessageTooLong, match="max_view_size"):
            await left.allocate(100_001)
        assert right.statistics().queued == 0


async def test_handles_are_passed(pair: alpc.PortPair) -> None:
    """An open file arrives as an open file; the sender's handle is consumed, what is not taken is closed."""
    reader, writer = os.pipe()
    with Handle(writer) as kept:
        first, second = Handle.open("/dev/zero"), Handle(reader)
        pending = pair.left.start_request(b"two", handles=[second, Handle.open(__file__)])
        first.close()
        assert second.closed
        message = await pair.right.receive()
        assert [handle.kind for handle in message.handles] == [HandleKind.PIPE, HandleKind.FILE]
        taken = message.take_handle(0)
        other = message.handles[1]
        message.reply(b"thanks", handles=[Handle.open(__file__)])
        message.release()
        assert other.closed
        os.write(kept.fileno(), b"through")
        assert os.read(taken.fileno(), 10) == b"through"
        taken.close()
        reply = await pending
        assert os.read(reply.handles[0].fileno(), 3) == b'"""'
        reply.release()
        with pytest.raises(ValueError, match="closed"):
            reply.take_handle(0)
        with pytest.raises(alpc.UnsuitableHandle):
            reply.take_handle(1)


async def test_three_hundred_handles_in_one_message(pair: alpc.PortPair) -> None:
    """More handles than one send can carry arrive with one message, in order."""
    handles = [Handle.open(__file__) for _ in range(300)]
    for number, handle in enumerate(handles):
        os.lseek(handle.fileno(), number, os.SEEK_SET)
    await pair.left.post(handles=handles)
    with anyio.fail_after(WAIT):
        message = await pair.right.receive()
    with message:
        assert [os.lseek(handle.fileno(), 0, os.SEEK_CUR) for handle in message.handles] == list(range(300))


async def test_forgotten_handles_are_closed_quietly(pair: alpc.PortPair) -> None:
    """A message that nobody looks at closes what came with it."""
    await pair.left.post(handles=[Handle.open(__file__)])
    number = (await pair.right.receive()).handles[0].fileno()
    await anyio.lowlevel.checkpoint()
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


async def test_kinds_that_are_not_taken_fail_their_message(pair: alpc.PortPair) -> None:
    """A socket where files are taken fails the request, drops the datagram, and the connection goes on."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(alpc.RemoteFault, match="handle_kinds") as caught:
            await pair.left.request(handles=[Handle(os.dup(ours.fileno()))])
        assert caught.value.status == alpc.Status.HANDLES_REFUSED
        await pair.left.post(handles=[Handle(os.dup(ours.fileno()))])
        pending = pair.left.start_request(b"next")
        (await pair.right.receive()).reply(b"fine", handles=[Handle(os.dup(ours.fileno()))])
        with pytest.raises(alpc.HandleRefused, match="handle_kinds"):
            await pending
        pending = pair.left.start_request(b"last")
        message = await pair.right.receive()
        assert message.data == b"last"
        message.reply()
        await pending


async def test_handles_are_off_by_default() -> None:
    """Without limits that say otherwise no handle is sent, and it is closed all the same."""
    async with alpc.port_pair() as (left, _):
        handle = Handle.open(__file__)
        with pytest.raises(alpc.HandleRefused, match="max_handles"):
            await left.request(handles=[handle])
        assert handle.closed
        handle = Handle.open(__file__)
        with pytest.raises(TypeError, match="Handle"):
            await left.post(handles=[handle, 1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]  # the mistake under test
        assert handle.closed
        handle = Handle.open(__file__)
        with pytest.raises(TypeError, match="handles are given as a list"):
            await left.post(handles=handle)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]  # so
        assert handle.closed


async def test_a_receipt_comes_when_the_message_is_taken(pair: alpc.PortPair) -> None:
    """It resolves with the receive, not with the arrival, for everybody who waits."""
    receipt = await pair.left.post(b"read me", receipt=True)
    await until(lambda: pair.right.statistics().queued == 1)
    taken = receipt.taken
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            await receipt

        tasks.start_soon(wait)
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert (await pair.right.receive()).data == b"read me"
    assert (taken, receipt.taken) == (False, True)
    await receipt


async def test_a_receipt_ends_with_the_connection(pair: alpc.PortPair) -> None:
    """Without a connection nobody will say that the message was taken."""
    receipt = await pair.left.post(b"", receipt=True)
    await pair.right.aclose()
    with anyio.fail_after(WAIT), pytest.raises(alpc.Disconnected):
        await receipt


async def test_a_reserve_makes_a_send_certain() -> None:
    """With the quota used up by others the reserved message leaves at once; used or closed it is over."""
    async with alpc.port_pair(limits=PortLimits(max_outstanding_messages=3)) as (left, right):
        reserve, spare = left.reserve(100), left.reserve(100)
        await left.post(b"first")
        with pytest.raises(alpc.QuotaExceeded):
            left.start_request(b"no room")
        with pytest.raises(alpc.QuotaExceeded):
            left.reserve(1)
        with pytest.raises(ValueError, match="100 bytes"):
            await left.post(bytes(101), reserve=reserve)
        await left.post(b"certain", reserve=reserve)
        assert not reserve.held
        with pytest.raises(ValueError, match="used"):
            await left.post(b"again", reserve=reserve)
        with spare:
            pass
        left.start_request(b"room again").cancel()
        assert [(await right.receive()).data for _ in range(2)] == [b"first", b"certain"]


async def test_views_outlive_the_connection(pair: alpc.PortPair) -> None:
    """What was received stays readable after both sides have closed, and nothing of it is left afterwards."""
    data = noise(100_000)
    await pair.left.post(data)
    message = await pair.right.receive()
    view = message.view
    assert view is not None
    await pair.left.aclose()
    await pair.right.aclose()
    assert view.data == data
    message.release()


async def test_allocate_says_what_is_wrong(pair: alpc.PortPair) -> None:
    """Sizes and modes that do not exist, and views of other connections, are refused in words."""
    with pytest.raises(ValueError, match="at least one byte"):
        await pair.left.allocate(0)
    with pytest.raises(ValueError, match="'live', 'sealed' or 'shared'"):
        await pair.left.allocate(1, mode="secret")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the mistake
    with await pair.right.allocate(1) as view:
        with pytest.raises(ValueError, match="another connection"):
            await pair.left.post(view=view)
        with pytest.raises(TypeError, match="view="):
            pair.left.start_request(view=b"bytes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the mistake
