"""Reading streams.

Belongs here: `StreamReader`, the side of a stream that reads. Never here: producing items (`_producer`), which method
has a stream, encoding of single items (`_codec`).

A stream is an object of the producing side, and the reader pulls: a pull is a request, its answer a batch of at most so
many items. So nothing is sent that was not asked for, both sides hold a bounded number of items, and the quotas of the
port hold for streams as well. The reader has one pull under way while it works on the items of the last one. The
request that opens a stream of results is its first pull: a short stream takes one round trip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio

from ..contract_errors import TypeMismatch
from ..errors import DeadlineExceeded, PortClosed, QuotaExceeded, RequestCancelled
from ._layout import PULL, SPECIAL, UNREADABLE, decode_special, encode, pack_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from ..port import Message, PendingRequest
    from ._codec import ItemCodec
    from ._fault import Fault
    from ._session import Session

__all__ = ["WINDOW", "StreamReader"]

WINDOW: Final = 256
"""Most items that a producer holds ready and that one batch has.

Enough that the cost of a batch is a small share of that of its items; few enough to be no burden on memory.
"""

_NO_ITEMS: Final[tuple[Any, ...]] = ()
_TAKE_BATCH: Final = encode([WINDOW])
_SPECIAL: Final = bytes((SPECIAL,))


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
            TypeMismatch: the other side sent what is no item of the declared type; the stream is over.
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
            try:
                items = self._take_items(answer.data)
            except UNREADABLE as error:
                raise TypeMismatch(where="a stream, items of the other side", detail=str(error)) from None
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

    def _take_items(self, data: Buffer) -> list[Any]:
        if self._number:
            items, self._done = self._codec.take_batch(data)
        else:
            self._number, items, self._done = self._codec.take_opening(data)
            if not self._done:
                self._session.imports.add(self._number, self)
        return items

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
