"""Producing the items of a stream.

Belongs here: `Producer`, the side of a stream that has the items. Never here: reading them (`_stream`, which tells how
streams work), encoding of single items (`_codec`).

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
from ..errors import MessageTooLong
from ..port import arrived
from ..wire import Status
from ._layout import encode
from ._stream import WINDOW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Generator

    from ..link import Waiter
    from ..port import Arrived, Message, Way
    from ._codec import ItemCodec
    from ._contract import Method
    from ._dispatcher import Worker
    from ._session import Session

__all__ = ["Producer"]

WINDOW_BYTES: Final = 32 * 1024
"""Bytes of items above which a producer goes on only when they were pulled: half of the longest message by default."""

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that an iterator is given to close."""

FRAME: Final = 16
"""Bytes that a batch has around its items at most: two arrays, the number of the stream, whether they are the last."""

_FULL: Final = object()


class Producer:
    """The side of a stream that has the items.

    Args:
        session: its connection.
        source: gives the items.
        method: whose result it is; ``None`` for an argument.
        way: how the items travel.
    """

    def __init__(self, session: Session, source: Any, method: Method | None, way: Way = "auto") -> None:
        self._session = session
        self._way: Way = way
        self._method = method
        self.source = source
        self._iterator: AsyncIterator[Any] = source.__aiter__()
        self._codec: ItemCodec | None = None
        self._number = 0
        self._opening: Arrived | None = None
        self._worker: Worker | None = None
        self._parked: Arrived | None = None
        self._asked = WINDOW
        self._items: list[bytes] = []
        self._size = 0
        self._done = False
        self._failure: bytes | None = None
        self._started = False
        self._closed = False
        self._scope = anyio.CancelScope()
        self._room: Waiter | None = None
        self._steps: Coroutine[Any, Any, None] | None = None

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
        self._opening = self._parked = arrived(message)
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
        self._parked = parked = arrived(message)
        parked.on_cancel = self._unpark
        self._flush()
        if not self._started:
            self._started = True
            self._session.dispatcher.spawn(self.run, "alpc_async stream")
        elif self._room is not None:
            room, self._room = self._room, None
            # Answering may have been the end of it all.
            if not room.done():
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
        items = self._items
        count = self._asked if self._way != "inline" else self._fitting()
        taken = items[:count]
        del items[:count]
        self._size = sum(map(len, items)) if items else 0
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
        try:
            if self._way == "auto":
                message.reply(b"".join(parts))
            else:
                message.reply_by(self._way, b"".join(parts))
        except MessageTooLong as error:
            # An item that cannot travel is the end: leaving it out would not be told to anybody.
            message.reply(self._session.describe_failure(self._method, error))
            self._items.clear()
            self._size, last = 0, True
            self.close()
        if last:
            self._forget()

    def _fitting(self) -> int:
        """Return how many of the items fit into a message that has to travel inline; one at least."""
        room = self._session.port.limits.max_message_length - FRAME
        for number, item in enumerate(self._items[: self._asked]):
            room -= len(item)
            if room < 0:
                return max(number, 1)
        return self._asked

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
        """Take items until the window is full; what was taken leaves whenever the iterator has to wait.

        Raises:
            StopAsyncIteration: there are no more.
        """
        steps = self._steps
        if steps is None:
            steps = self._steps = self._take_all()
        send, value = steps.send, None
        try:
            trap = send(None)
            while trap is not _FULL:
                self._flush()
                try:
                    value = yield trap
                except GeneratorExit:
                    steps.close()
                    raise
                except BaseException as error:
                    trap = steps.throw(error)
                else:
                    trap = send(value)
        except StopIteration:
            raise StopAsyncIteration from None

    async def _take_all(self) -> None:
        """Take items for ever; between two of them this waits for whoever steps it to have room for more."""
        codec, items = self._codec, self._items
        if codec is None:
            raise TypeMismatch(where="stream", detail="its items have no declared type")
        encode, check, plain, append = codec.encode, codec.check, codec.plain, items.append
        encode_item = self._session.encode_item
        async for item in _Resumed(self._iterator):
            if plain:
                try:
                    encoded = encode(item)
                    check(encoded)
                except (TypeError, ValueError) as error:
                    raise TypeMismatch(where="item of a stream", detail=str(error)) from None
            else:
                encoded = encode_item(codec, item)
            append(encoded)
            self._size += len(encoded)
            if len(items) >= WINDOW or self._size >= WINDOW_BYTES:
                await _Full()

    async def _close_iterator(self) -> None:
        if self._steps is not None:
            self._steps.close()
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await close()


class _Resumed:
    """Lets ``async for`` go on with an iterator that was made already."""

    __slots__ = ("_iterator",)

    def __init__(self, iterator: AsyncIterator[Any]) -> None:
        self._iterator = iterator

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._iterator


class _Full:
    """What is awaited when the window is full; only `Producer._collect` steps that."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        yield _FULL


def _array(length: int) -> bytes:
    if length < 16:
        return bytes((0x90 | length,))
    return b"\xdc" + length.to_bytes(2, "big")
