"""Streams: the side that produces items and the side that reads them.

Belongs here: `Producer`, `StreamReader`. Never here: which method has a stream, encoding of single items (`_codec`).

A stream is an object of the producing side, and the reader pulls: a pull is a request, its answer a batch of at most so
many items. So nothing is sent that was not asked for, both sides hold a bounded number of items, and the quotas of the
port hold for streams as well. The reader has one pull under way while it works on the items of the last one. The
request that opens a stream of results is its first pull: a short stream takes one round trip.

The producer steps the iterator by hand, inside its own task. While the iterator has items without waiting they are
collected; the moment it waits, what was collected leaves. So items that come slowly leave one by one, and items that
come quickly leave in large batches, without a clock.
"""

from __future__ import annotations

import math
import types
from typing import TYPE_CHECKING, Any, Final

import anyio

from ..contract_errors import TypeMismatch
from ..errors import DeadlineExceeded, PortClosed, QuotaExceeded, RequestCancelled
from ..wire import Status
from ._layout import PULL, SPECIAL, decode_special, encode, pack_call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from ..link import Waiter
    from ..port import Message, PendingRequest
    from ._codec import ItemCodec
    from ._contract import Method
    from ._dispatcher import Worker
    from ._fault import Fault
    from ._session import Session

__all__ = ["Producer", "StreamReader"]

WINDOW: Final = 256
"""Most items that a producer holds ready and that one batch has.

Enough that the cost of a batch is a small share of that of its items; few enough to be no burden on memory.
"""

WINDOW_BYTES: Final = 32 * 1024
"""Bytes of items above which a producer goes on only when they were pulled: half of the longest message by default."""

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that an iterator is given to close."""

_NO_ITEMS: Final[tuple[Any, ...]] = ()
_TAKE_BATCH: Final = encode([WINDOW])


class Producer:
    """The side of a stream that has the items.

    Args:
        session: its connection.
        source: gives the items.
        method: whose result it is; ``None`` for an argument.
    """

    def __init__(self, session: Session, source: Any, method: Method | None) -> None:
        self._session = session
        self._method = method
        self.source = source
        self._iterator: AsyncIterator[Any] = source.__aiter__()
        self._codec: ItemCodec | None = None
        self._number = 0
        self._opening: Message | None = None
        self._worker: Worker | None = None
        self._parked: Message | None = None
        self._asked = WINDOW
        self._items: list[bytes] = []
        self._size = 0
        self._done = False
        self._failure: bytes | None = None
        self._started = False
        self._closed = False
        self._scope = anyio.CancelScope()
        self._room: Waiter | None = None

    def set_codec(self, codec: ItemCodec) -> None:
        """Tell what the items are; needed before the first pull."""
        self._codec = codec

    # -- being pulled ------------------------------------------------------------------------------------------------

    def open(self, message: Message, worker: Worker) -> None:
        """Take the request that opens the stream as its first pull; `run` must follow.

        Args:
            message: the request. Its deadline is for the first items, and ends with them.
            worker: who handles it.
        """
        self._opening = self._parked = message
        self._worker = worker
        self._started = True

    def pull(self, message: Message, maximum: int, number: int) -> None:
        """Answer a pull, now or when there are items.

        Args:
            message: the request.
            maximum: most items to give.
            number: the number of the stream.
        """
        if self._parked is not None or maximum < 1:
            message.fail(Status.BAD_ARGUMENTS, "a stream takes one pull at a time, of at least one item")
            return
        self._number = number
        self._asked = min(maximum, WINDOW)
        self._parked = message
        message.on_cancel = self._unpark
        self._flush()
        if not self._started:
            self._started = True
            self._session.dispatcher.spawn(self.run, "alpc_async stream")
        elif self._room is not None:
            room, self._room = self._room, None
            room.set_result(None)

    def _unpark(self) -> None:
        self._parked = None

    def _flush(self) -> None:
        """Answer the pull that waits, if there is something to say."""
        message = self._parked
        if message is None or not (self._items or self._done):
            return
        self._parked = None
        if message.cancelled:
            # Nobody takes the answer, so nobody would ever release the number in it.
            if message is self._opening:
                self._opening = None
                self.close()
            return
        if message.on_cancel == self._unpark:
            message.on_cancel = None
        if not self._items and self._failure is not None:
            message.reply(self._failure)
            self._forget()
            return
        taken, self._items = self._items[: self._asked], self._items[self._asked :]
        self._size = sum(map(len, self._items))
        last = self._done and not self._items and self._failure is None
        parts = [_array(len(taken)), *taken, b"\xc3" if last else b"\xc2"]
        if message is self._opening:
            self._opening = None
            if not last:
                self._number = self._session.exports.add(self, None, message_id=message.id).id
            parts.insert(0, b"\x93" + encode(self._number))
            message.deadline = math.inf
            if self._worker is not None:
                self._worker.deadline = math.inf
        else:
            parts.insert(0, b"\x92")
        message.reply(b"".join(parts))
        if last:
            self._forget()

    def _forget(self) -> None:
        self._session.exports.table.pop(self._number, None)

    def close(self) -> None:
        """Stop: the other side does not want more, or is gone."""
        self._closed = True
        self._scope.cancel()
        message, self._parked = self._parked, None
        if message is not None and message is not self._opening and not self._session.over:
            message.fail(Status.ABANDONED, "the stream was closed")

    # -- producing ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Produce until the end, the error, or until the other side wants no more. Cancelling closes the iterator."""
        try:
            with self._scope:
                await self._produce()
        except Exception as error:
            if not self._opening_failed():
                self._end(self._session.describe_failure(self._method, error))
                return
            raise
        finally:
            await self._close_iterator()

    def _opening_failed(self) -> bool:
        # Nothing was sent yet, so the request itself can fail like that of any other method.
        return self._opening is not None and not self._items

    async def _produce(self) -> None:
        try:
            while True:
                await self._collect()
                self._flush()
                if len(self._items) >= WINDOW or self._size >= WINDOW_BYTES:
                    self._room = self._session.loop.create_waiter()
                    await self._room
        except StopAsyncIteration:
            self._end(None)

    def _end(self, failure: bytes | None) -> None:
        self._done = True
        self._failure = failure
        self._flush()

    @types.coroutine
    def _collect(self) -> Generator[Any, Any, None]:
        """Take items until the window is full; what was taken leaves whenever the iterator has to wait."""
        iterator = self._iterator
        while len(self._items) < WINDOW and self._size < WINDOW_BYTES:
            steps = iterator.__anext__().__await__()
            try:
                trap = next(steps)
            except StopIteration as stop:
                self._add(stop.value)
                continue
            self._flush()
            self._add((yield from _resume(steps, trap)))

    def _add(self, item: Any) -> None:
        codec = self._codec
        if codec is None:
            raise TypeMismatch(where="stream", detail="its items have no declared type")
        encoded = self._session.encode_item(codec, item)
        self._items.append(encoded)
        self._size += len(encoded)

    async def _close_iterator(self) -> None:
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await close()


def _resume(steps: Generator[Any, Any, Any], trap: Any) -> Generator[Any, Any, Any]:
    """Go on with an awaitable that was stepped once, like ``yield from`` does from the beginning."""
    try:
        while True:
            try:
                value = yield trap
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:
                trap = steps.throw(error)
            else:
                trap = steps.send(value)
    except StopIteration as stop:
        return stop.value


def _array(length: int) -> bytes:
    if length < 16:
        return bytes((0x90 | length,))
    return b"\xdc" + length.to_bytes(2, "big")


class StreamReader:
    """The side of a stream that reads: an async iterator, usable as ``async with`` so that it ends with the block.

    Items arrive in batches; taking one that is there already does not let other tasks run. A wait that is cancelled
    loses nothing: the next one goes on where it stopped. Closing, or forgetting, the iterator ends the stream on the
    other side.

    Args:
        session: its connection.
        number: the number of the stream at the other side; 0 when it has to be opened.
        codec: of the items.
        timeout: longest time to wait for an item, in seconds; ``None`` for no end.
        faults: the faults that the method declares.
        opening: opens the stream, and returns the answer.
        ended: called once when the stream is over.
    """

    def __init__(
        self,
        session: Session,
        number: int,
        codec: ItemCodec,
        *,
        timeout: float | None,
        faults: Mapping[str, type[Fault]] | None = None,
        opening: Callable[[], Awaitable[Message]] | None = None,
        ended: Callable[[], None] | None = None,
    ) -> None:
        self._session = session
        self._number = number
        self._codec = codec
        self._timeout = timeout
        self._faults = faults or {}
        self._opening = opening
        self._ended = ended
        self._items: Iterator[Any] = iter(_NO_ITEMS)
        self._pending: PendingRequest | None = None
        self._done = False
        self._closed = False
        self._reading = False
        # The other side drops a stream by itself when it has told its end.
        self._forgotten = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """Return the next item; wait if there is none. Cancelling loses nothing, but ends a stream not opened yet.

        Raises:
            DeadlineExceeded: no item came in time; the stream is over.
            RemoteFault: the other side failed; what it had produced before has been returned.
            Disconnected: the connection ended.
            PortClosed: the stream or the connection was closed on this side.
            anyio.BusyResourceError: another task is waiting for an item.
        """
        while True:
            for item in self._items:
                return item
            if self._closed:
                raise PortClosed(port="the stream")
            if self._done:
                raise StopAsyncIteration
            if self._reading:
                raise anyio.BusyResourceError("reading from")
            self._reading = True
            try:
                await self._next_batch()
            finally:
                self._reading = False

    async def _next_batch(self) -> None:
        try:
            answer = await self._open() if self._opening is not None else await self._pull()
            if answer.data[:1] == _SPECIAL:
                self._forgotten = True
                raise decode_special(answer.data, self._faults, answer.id)
            if self._number:
                items, self._done = self._codec.take_batch(answer.data)
            else:
                self._number, items, self._done = self._codec.take_opening(answer.data)
                if not self._done:
                    self._session.imports.add(self._number, self)
        except Exception:
            self._finish()
            raise
        except BaseException:
            # Cancelled: what is under way goes on, unless the stream was not open yet.
            if not self._number:
                self._finish()
            raise
        self._items = iter(items)
        if self._done:
            self._forgotten = True
            self._finish()
        else:
            self._start_pull()

    async def _open(self) -> Message:
        opening, self._opening = self._opening, None
        if opening is None:
            raise anyio.BusyResourceError("opening")
        return await opening()

    def _start_pull(self) -> None:
        try:
            self._pending = self._session.port.start_request(self._pull_data(), timeout=None)
        except QuotaExceeded:
            self._pending = None

    def _pull_data(self) -> bytes:
        return pack_call(self._number, PULL, 0) + _TAKE_BATCH

    async def _pull(self) -> Message:
        pending = self._pending
        if pending is None:
            pending = self._pending = await self._session.start_request(self._pull_data(), None)
        if pending.done or self._timeout is None:
            await pending
        else:
            await self._wait(pending, self._timeout)
        self._pending = None
        return pending.result()

    async def _wait(self, pending: PendingRequest, timeout: float) -> None:
        # The pull itself has no end: it runs while the reader works, and its time is not the reader's patience.
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            pending.cancel()

        loop = self._session.loop
        timer = loop.call_at(loop.time() + timeout, give_up)
        try:
            await pending
        except RequestCancelled:
            if not late:
                raise
            raise DeadlineExceeded(
                what="waiting for the next item of a stream", timeout=timeout, setting="with_options(timeout=)"
            ) from None
        finally:
            timer.cancel()

    def _finish(self) -> None:
        self._done = True
        pending, self._pending = self._pending, None
        if pending is not None and not self._session.over:
            pending.cancel()
        if self._forgotten:
            self._session.imports.remove(self._number)
        elif self._number:
            self._session.release_import(self._number)
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()

    def close(self) -> None:
        """End the stream on the other side; does not wait. Items that are here can still be taken."""
        if not self._done:
            self._finish()

    async def aclose(self) -> None:
        """End the stream. Always completes, also when cancelled; may be repeated; does not raise."""
        self.close()
        self._items = iter(_NO_ITEMS)
        self._closed = True
        await self._session.loop.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


_SPECIAL: Final = bytes((SPECIAL,))
