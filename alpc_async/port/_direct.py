"""Memory of the sender that the receiver of a request may read and write.

Belongs here: declaring buffers, reaching them from the other process, and the detour through shared memory where the
kernel forbids that. Never here: the system calls (memory), frames (wire).

A request declares ranges of its sender's memory. While it is open its receiver copies from them and to them with one
system call and without the sender's help. Three things keep that honest: the receiver accepts no range but the declared
ones; it reads a secret of the sender's program in the same system call, so that neither a reused process id nor another
program in its place can be taken for the sender; and it looks afterwards whether the request is still open.

Where the kernel says no (another user, Yama, a container) the receiver asks the sender for each piece with a request
of the framework itself, and the piece travels like any long data. The sender answers as long as the request is open.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import anyio.to_thread

from ..errors import RemoteFault
from ..memory import Cookie, PinnedBuffer, read_process, write_process
from ..memory_errors import DirectDenied, DirectFailed, DirectOver, DirectRange
from ..wire import DIRECT_DATA, DIRECT_WRITABLE, MAX_DIRECT_RANGES, DirectRecord, Status
from ._message import Transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Buffer

    from ._arrivals import ArrivingChannel
    from ._message import Message
    from ._rich import RichMessage

    Copy = Callable[[int, int, memoryview], None]

__all__ = ["Declared", "DirectAccess", "DirectBuffer", "answer", "declare"]

OFF_LOOP: Final = 256 * 1024
"""Bytes from which a copy runs in a thread: about 30 µs of copying, as long as handing it to a thread takes.

Copies from processes of other users always do: a page of theirs may come from a file system that they serve, and then
the copy takes as long as they like.
"""

PIECE: Final = 8 * 1024 * 1024
"""Bytes asked for at once where memory cannot be reached directly: enough that asking does not count."""

_QUESTION: Final = struct.Struct("<IIQQQ")
_PULL: Final = 1
_PUSH: Final = 2


class DirectBuffer:
    """Declares that the receiver of one request may read a buffer of this process, or write it too.

    Give it as ``direct=`` of a request. It may be used for several requests; the memory stays where it is as long as
    one of them is open.

    Args:
        buffer: contiguous memory, such as ``bytes``, a ``bytearray``, a memory map or an array.
        writable: whether the receiver may write it. After a request was cancelled, or ran out of time, it may still be
            written until the other side has noticed that; use another buffer then.

    Raises:
        ValueError: ``writable`` is asked of memory that is read-only, or the buffer is empty.
        BufferError: the buffer is not contiguous.
    """

    __slots__ = ("_memory", "_pin", "writable")

    def __init__(self, buffer: Buffer, writable: bool = False) -> None:
        memory = memoryview(buffer).cast("B")
        if writable and memory.readonly:
            raise ValueError("the buffer is read-only; give writable memory, or leave writable out")
        if not memory.nbytes:
            raise ValueError("an empty buffer has nothing to be read")
        self._memory = memory
        self._pin = PinnedBuffer(memory)
        self.writable = writable

    def __len__(self) -> int:
        return self._pin.length

    def __repr__(self) -> str:
        return f"<DirectBuffer of {len(self)} bytes{', writable' if self.writable else ''}>"

    @property
    def memory(self) -> memoryview:
        """The memory itself."""
        return self._memory

    @property
    def place(self) -> tuple[int, int, int]:
        """(address, bytes, 1 if writable else 0)."""
        return self._pin.address, self._pin.length, int(self.writable)


class Declared:
    """The buffers that one request declares, kept in place until its final frame.

    Args:
        buffers: the buffers.
        cookie: the secret of this program.
        flags: for all of the ranges, beside whether they can be written.
    """

    __slots__ = ("buffers", "record")

    def __init__(self, buffers: Sequence[DirectBuffer], cookie: Cookie, *, flags: int = 0) -> None:
        self.buffers = buffers
        places = tuple((address, length, writable | flags) for address, length, writable in map(_place, buffers))
        self.record = DirectRecord(cookie.address, cookie.value, places)


def _place(buffer: DirectBuffer) -> tuple[int, int, int]:
    return buffer.place


def declare(direct: DirectBuffer | Sequence[DirectBuffer], cookie: Cookie) -> Declared:
    """Return what a request declares.

    Raises:
        ValueError: there are no buffers, or too many.
    """
    buffers = [direct] if isinstance(direct, DirectBuffer) else list(direct)
    if not 0 < len(buffers) <= MAX_DIRECT_RANGES:
        raise ValueError(f"a request declares 1 to {MAX_DIRECT_RANGES} buffers, not {len(buffers)}")
    return Declared(buffers, cookie)


def _pieces(lengths: Sequence[int], offset: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield (which buffer, where in it, how many bytes) for a range of the buffers in a row."""
    for index, length in enumerate(lengths):
        if offset < length and size:
            count = min(length - offset, size)
            yield index, offset, count
            size -= count
            offset = 0
        else:
            offset = max(0, offset - length)


class DirectAccess:
    """Memory of the sender of a request, as its receiver sees it: the declared buffers in a row, from offset 0.

    Attributes:
        length: bytes that are declared, together.
        writable: whether all of them may be written.
        transfer: ``DIRECT``, or ``VIEW`` where the kernel forbids the direct way and the bytes take the detour.
    """

    __slots__ = ("_channel", "_cookie", "_is_data", "_message", "_record", "length", "transfer", "writable")

    def __init__(self, channel: ArrivingChannel, message: RichMessage, record: DirectRecord) -> None:
        self._channel = channel
        self._message = message
        self._record = record
        self.length = sum(length for _, length, _ in record.ranges)
        self.writable = all(flags & DIRECT_WRITABLE for _, _, flags in record.ranges)
        self._is_data = bool(record.ranges[0][2] & DIRECT_DATA)
        self._cookie = Cookie.of_peer(record.cookie_address, record.cookie)
        self.transfer = Transfer.DIRECT if channel.can_reach(self._cookie) else Transfer.VIEW

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        return f"<DirectAccess to {self.length} bytes, {self.transfer.value}>"

    async def read_into(self, offset: int, buffer: Buffer) -> None:
        """Fill a buffer with the sender's memory.

        Cancelling waits for a copy that has begun, and leaves the buffer filled in part.

        Args:
            offset: first byte to read.
            buffer: writable and contiguous; as many bytes are read as it holds.

        Raises:
            DirectRange: the bytes are not all inside what was declared; nothing was read.
            DirectOver: the request is not open any more; what was read does not count.
            DirectFailed: the memory of the sender is gone.
        """
        await self._move(offset, memoryview(buffer).cast("B"), writing=False)

    async def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """Return a part of the sender's memory; raises and is cancelled like `read_into`.

        Args:
            offset: first byte to read.
            length: how many bytes; by default all that follow.
        """
        size = self.length - offset if length is None else length
        self._check(offset, size, writing=False)
        target = bytearray(size)
        await self.read_into(offset, target)
        return bytes(target)

    async def write(self, offset: int, data: Buffer) -> None:
        """Copy data into the sender's memory. Cancelling waits for a copy that has begun.

        Args:
            offset: first byte to write.
            data: contiguous bytes.

        Raises:
            DirectRange: the bytes are not all inside what was declared as writable; nothing was written.
            DirectOver: the request is not open any more.
            DirectFailed: the memory of the sender is gone; it may have been written in part.
        """
        await self._move(offset, memoryview(data).cast("B"), writing=True)

    async def _move(self, offset: int, ours: memoryview, *, writing: bool) -> None:
        self._check(offset, len(ours), writing=writing)
        copy, detour = (self._write, self._push) if writing else (self._read, self._pull)
        position = 0
        for index, start, count in self._pieces(offset, len(ours)):
            piece = ours[position : position + count]
            if not await self._reach(copy, index, start, piece):
                await detour(offset + position, piece)
            position += count
        await self._channel.loop.checkpoint()
        self._check_open()

    def _read_now(self, target: memoryview) -> None:
        self._check(0, len(target), writing=False)
        position = 0
        for index, start, count in self._pieces(0, len(target)):
            self._read(index, start, target[position : position + count])
            position += count
        self._check_open()

    # -- checks ------------------------------------------------------------------------------------------------------

    def _check(self, offset: int, size: int, *, writing: bool) -> None:
        if offset < 0 or size < 0 or offset + size > self.length:
            raise DirectRange(offset=offset, size=size, length=self.length, reason="outside of what was declared")
        if writing and not all(
            self._record.ranges[index][2] & DIRECT_WRITABLE for index, _, _ in self._pieces(offset, size)
        ):
            raise DirectRange(offset=offset, size=size, length=self.length, reason="not declared as writable")
        self._check_open()

    def _check_open(self) -> None:
        message = self._message
        if message.answered or message.cancelled or self._channel.ending is not None:
            raise DirectOver(port=self._channel.label, message_id=message.id)

    def _pieces(self, offset: int, size: int) -> Iterator[tuple[int, int, int]]:
        return _pieces([length for _, length, _ in self._record.ranges], offset, size)

    # -- the direct way ----------------------------------------------------------------------------------------------

    async def _reach(self, copy: Copy, index: int, start: int, ours: memoryview) -> bool:
        """Copy one piece; ``False`` when the kernel forbids that, so that it has to take the detour."""
        if self.transfer is not Transfer.DIRECT:
            return False
        channel = self._channel
        try:
            if len(ours) < OFF_LOOP and channel.peer_is_ours:
                copy(index, start, ours)
            else:
                await anyio.to_thread.run_sync(copy, index, start, ours, limiter=channel.copy_limiter)
        except DirectDenied:
            channel.note_unreachable()
            self.transfer = Transfer.VIEW
            return False
        return True

    def _read(self, index: int, start: int, target: memoryview) -> None:
        address = self._record.ranges[index][0] + start
        read_process(self._channel.peer_pid, self._cookie, address, target)
        self._check_alive()

    def _write(self, index: int, start: int, source: memoryview) -> None:
        address = self._record.ranges[index][0] + start
        write_process(self._channel.peer_pid, self._cookie, address, source)
        self._check_alive()

    def _check_alive(self) -> None:
        if self._channel.peer.process_ended():
            raise DirectFailed(pid=self._channel.peer_pid, reason="the process has ended")

    # -- the detour --------------------------------------------------------------------------------------------------

    async def _pull(self, offset: int, target: memoryview) -> None:
        step = self._channel.detour_step(PIECE)
        for begin in range(0, len(target), step):
            piece = target[begin : begin + step]
            reply = await self._ask(_QUESTION.pack(_PULL, 0, self._message.id, offset + begin, len(piece)))
            with reply:
                if len(reply.data) != len(piece):
                    raise DirectFailed(pid=self._channel.peer_pid, reason="the other side gave less than it declared")
                piece[:] = reply.data

    async def _push(self, offset: int, source: memoryview) -> None:
        step = self._channel.detour_step(PIECE)
        for begin in range(0, len(source), step):
            piece = source[begin : begin + step]
            question = _QUESTION.pack(_PUSH, 0, self._message.id, offset + begin, len(piece))
            (await self._ask(question + piece)).release()

    async def _ask(self, question: bytes) -> Message:
        try:
            return await self._channel.ask_system(question)
        except RemoteFault as error:
            if error.status == Status.NO_ACCESS:
                raise DirectOver(port=self._channel.label, message_id=self._message.id) from None
            raise


def carries_data(access: DirectAccess) -> bool:
    """Return whether the memory is the data of its message, rather than something beside it."""
    return access._is_data  # pyright: ignore[reportPrivateUsage]  # the way in for the layers


def read_now(access: DirectAccess, target: memoryview) -> None:
    """Fill memory from offset 0 without awaiting, for data that travels directly.

    Args:
        access: the memory of the sender.
        target: as many bytes as are declared.
    """
    access._read_now(target)  # pyright: ignore[reportPrivateUsage]  # the way in for the layers


def answer(channel: ArrivingChannel, message: RichMessage) -> None:
    """Answer a question about the memory that a request of ours declares.

    Whoever asks may be hostile: nothing long is copied before it is clear that it belongs to an open request.

    Args:
        channel: the connection, which knows our open requests.
        message: the question.

    Raises:
        QuotaExceeded: there is no room for the reply in the sections; ask again when there may be some.
        OutOfSharedMemory: the system has no room.
    """
    # A question may have been given up in the very receive that brought it.
    if message.id in channel.endpoint.inflow.owed:
        _answer(channel, message)
    message.let_go()


def _answer(channel: ArrivingChannel, message: RichMessage) -> None:
    head = message.peek(_QUESTION.size)
    operation, _, request_id, offset, size = _QUESTION.unpack(head) if len(head) == _QUESTION.size else (0,) * 5
    length = _QUESTION.size + size * (operation == _PUSH)
    if operation not in (_PULL, _PUSH) or message.size != length or size > channel.detour_step(PIECE):
        channel.fail(message, Status.NO_ACCESS, "this is no question about direct memory")
        return
    pending = channel.endpoint.outflow.pending.get(request_id)
    declared = pending.declared if pending is not None else None
    if not isinstance(declared, Declared):
        channel.fail(message, Status.NO_ACCESS, f"request {request_id} declares no memory, or it is over")
        return
    buffers = declared.buffers
    lengths = [len(buffer) for buffer in buffers]
    pieces = list(_pieces(lengths, offset, size))
    if offset + size > sum(lengths):
        reason = f"{size} bytes at {offset} are outside of what request {request_id} declares"
        channel.fail(message, Status.NO_ACCESS, reason)
    elif operation == _PULL:
        parts = [buffers[index].memory[start : start + count] for index, start, count in pieces]
        channel.reply_now(message, parts[0] if len(parts) == 1 else b"".join(parts))
    elif not all(buffers[index].writable for index, _, _ in pieces):
        channel.fail(message, Status.NO_ACCESS, f"request {request_id} declares that memory as read-only")
    else:
        data = memoryview(message.data)
        position = _QUESTION.size
        for index, start, count in pieces:
            buffers[index].memory[start : start + count] = data[position : position + count]
            position += count
        channel.reply_now(message, b"")
