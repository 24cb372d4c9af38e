"""Receiving, as every kind of port does it.

Belongs here: `ReceivePoint` and its iterator. Never here: where packets come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, cast

import anyio

from ..errors import DeadlineExceeded, Disconnected, PortAssociated, PortClosed
from ._source import slot_here

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..errors import AlpcError
    from ..link import Loop
    from ._message import Message
    from ._queue import PacketQueue

__all__ = ["DEFAULT_BATCH", "BatchIterator", "ReceivePoint", "close_now", "redirect"]

DEFAULT_BATCH = 256
"""Messages in one batch unless the caller says otherwise.

Enough that a few hundred concurrent callers are served in one turn of the loop, few enough that replies of 1 KiB to a
whole batch stay below the high-water mark.
"""


class ReceivePoint:
    """A port that messages can be received from.

    Any number of tasks may receive at the same time; each message goes to one of them.
    """

    _queue: PacketQueue
    _loop: Loop
    _label: str
    _receiver: str = ""
    """Where the messages arrive if not here."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self._label} can be neither copied nor sent to another process; open a port where one is needed, or "
            "pass its name"
        )

    def _redirect(self, queue: PacketQueue, key: object, receiver: str) -> None:
        raise NotImplementedError

    def _close_now(self) -> None:
        raise NotImplementedError

    def _receive_error(self) -> AlpcError | None:
        """Return why nothing more will come, or ``None`` while something may."""
        raise NotImplementedError

    async def receive_batch(self, max_messages: int = DEFAULT_BATCH, *, timeout: float | None = None) -> list[Message]:
        """Return the messages that have arrived, at least one; wait if there are none.

        Cancelling never consumes a message.

        Args:
            max_messages: most messages to return.
            timeout: how long to wait, in seconds; ``None`` for no end, since a server has all the time in the world.

        Returns:
            A non-empty list, in order of arrival for each sender.

        Raises:
            DeadlineExceeded: nothing came in time.
            PortClosed: the port was closed on this side.
            Disconnected: the connection is over and everything that came before has been received.
            PortAssociated: the messages arrive at a completion port, or at the connection port of the server.
            ForkedPort: called from another process, thread or event loop.
            ValueError: ``max_messages`` is not positive.
        """
        if max_messages < 1:
            raise ValueError(f"max_messages must be at least 1, not {max_messages}")
        self._loop.check(self._label)
        if timeout is None:
            return await self._next_batch(max_messages)
        with anyio.move_on_after(timeout):
            return await self._next_batch(max_messages)
        raise DeadlineExceeded(what=f"receiving from {self._label}", timeout=timeout, setting="timeout=")

    async def _next_batch(self, max_messages: int, iterating: bool = False) -> list[Message]:
        queue = self._queue
        paused = False
        while True:
            if self._receiver:
                raise PortAssociated(port=self._label, receiver=self._receiver)
            if paused:
                batch = queue.take_batch(max_messages)
                if batch:
                    # Packets without a message are posted to completion ports only.
                    return cast("list[Message]", batch)
            elif queue.ready:
                await self._loop.checkpoint()
                paused = True
                continue
            error = self._receive_error()
            if error is not None:
                if iterating and isinstance(error, PortClosed | Disconnected):
                    raise StopAsyncIteration
                raise error
            slot = slot_here()
            if slot is not None:
                slot.leave()
            seat = queue.take_seat(True)
            try:
                await seat.waiter
            except BaseException:
                queue.leave_seat(seat)
                raise
            finally:
                if slot is not None:
                    slot.enter()
            if seat.batch is not None:
                return seat.batch
            paused = True

    async def receive(self, *, timeout: float | None = None) -> Message:
        """Return the next message; wait if there is none.

        Cancelling never consumes a message. Raises like `receive_batch`.

        Args:
            timeout: how long to wait, in seconds; ``None`` for no end.
        """
        return (await self.receive_batch(1, timeout=timeout))[0]

    def __aiter__(self) -> BatchIterator:
        """Iterate over batches of messages until the port is closed or disconnected.

        Raises:
            ForkedPort: called from another process, thread or event loop.
        """
        self._loop.check(self._label)
        return BatchIterator(self._next_batch)

    def fileno(self) -> int:
        """Return a descriptor that is readable while a message can be received, or nothing more will come.

        It is for waiting only (``select``, another event loop); the messages come from `receive` and `receive_batch`.
        It belongs to the port, exists from the first call on, and is closed with the port.

        Raises:
            PortClosed: the port was closed on this side.
            PortAssociated: the messages arrive at a completion port, or at the connection port of the server.
        """
        if self._receiver:
            raise PortAssociated(port=self._label, receiver=self._receiver)
        if isinstance(error := self._receive_error(), PortClosed):
            raise error
        return self._queue.fileno()


def redirect(port: ReceivePoint, queue: PacketQueue, key: object, receiver: str) -> None:
    """Let another queue hand out the messages of a port from now on, those that wait included.

    Args:
        port: the port.
        queue: the other queue.
        key: completion key for the messages.
        receiver: what the owner of the queue calls itself.
    """
    port._redirect(queue, key, receiver)  # pyright: ignore[reportPrivateUsage]  # the way in for the layers


def close_now(port: ReceivePoint) -> None:
    """Close a port without letting anything leave, where nothing can be awaited.

    Args:
        port: the port.
    """
    port._close_now()  # pyright: ignore[reportPrivateUsage]  # the way in for the layers


class BatchIterator:
    """Yields batches, and ends with the port.

    Args:
        receive: waits for the next batch of at most so many messages; told that somebody iterates, it raises
            StopAsyncIteration when none will come.
    """

    __slots__ = ("_receive",)

    def __init__(self, receive: Callable[[int, bool], Awaitable[list[Message]]]) -> None:
        self._receive = receive

    def __aiter__(self) -> BatchIterator:
        return self

    def __anext__(self) -> Awaitable[list[Message]]:
        # Handing the coroutine out instead of awaiting it in another one saves a frame for each batch.
        receive = self._receive
        return receive(DEFAULT_BATCH, True)
