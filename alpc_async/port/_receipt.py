"""Receipts and reserves: knowing that a message was taken, and being certain that one can be sent.

Belongs here: `Receipt` and `Reserve`. Never here: who gives and takes the room (wire).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..errors import AlpcError
    from ..link import Loop, Waiter
    from ._sending import SendingChannel

__all__ = ["Receipt", "Reserve", "finish_receipt", "take_reserve"]


class Receipt:
    """Resolves when the receiver takes the message out of its queue. Await it, any number of times, in any task.

    Args:
        loop: the running loop.
        message_id: number of the message.
    """

    __slots__ = ("_error", "_loop", "_waiters", "message_id", "taken")

    def __init__(self, loop: Loop, message_id: int) -> None:
        self._loop = loop
        self.message_id = message_id
        self._waiters: list[Waiter] = []
        self._error: AlpcError | None = None
        self.taken = False
        """Whether the message was taken, as far as is known."""

    def _finish(self, error: AlpcError | None) -> None:
        self.taken = error is None
        self._error = error
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait until the message was taken. Cancelling stops the wait and nothing else.

        Raises:
            RemoteFault: the other side dropped the message, because handles were lost on the way or are not taken.
            Disconnected: the connection ended before the other side said so.
            PortClosed: the port was closed on this side.
        """
        return self._wait().__await__()

    async def _wait(self) -> None:
        if self.taken or self._error is not None:
            await self._loop.checkpoint()
        else:
            waiter = self._loop.create_waiter()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        if self._error is not None:
            raise self._error


def finish_receipt(receipt: Receipt, error: AlpcError | None) -> None:
    """Note how the way of a message ended; called once.

    Args:
        receipt: whoever waits for it is woken.
        error: why the message was not taken, or ``None`` if it was.
    """
    receipt._finish(error)  # pyright: ignore[reportPrivateUsage]  # the way in for the layers


class Reserve:
    """Room that is kept for one message, so that sending it cannot fail for want of room and never waits.

    Give it as ``reserve=`` of one `CommunicationPort.start_request`, `CommunicationPort.request` or
    `CommunicationPort.post`. Usable as ``with reserve:``, which gives the room back when it was not used.

    Attributes:
        size: longest data that the message may have, in bytes.
    """

    __slots__ = ("_channel", "_held", "size")

    def __init__(self, channel: SendingChannel, size: int) -> None:
        channel.endpoint.outflow.reserve(size)
        self._channel = channel
        self._held = True
        self.size = size

    @property
    def held(self) -> bool:
        """Whether the room is still kept."""
        return self._held

    def _take(self, channel: SendingChannel, size: int) -> None:
        if not self._held or channel is not self._channel or size > self.size:
            what = "was used or given back" if not self._held else "is of another port"
            reason = what if not self._held or channel is not self._channel else f"holds {self.size} bytes, not {size}"
            raise ValueError(f"the reserve {reason}; reserve room for each message")
        self.close()

    def close(self) -> None:
        """Give the room back. Doing so again does nothing."""
        if self._held:
            self._held = False
            self._channel.endpoint.outflow.unreserve(self.size)
            self._channel.wake_room()

    def __enter__(self) -> Reserve:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def take_reserve(reserve: Reserve, channel: SendingChannel, size: int) -> None:
    """Give the room up for a message that is sent right now.

    Args:
        reserve: the room.
        channel: the connection that the message takes.
        size: length of its data, in bytes.

    Raises:
        ValueError: it was used already, is of another port, or too small.
    """
    reserve._take(channel, size)  # pyright: ignore[reportPrivateUsage]  # the way in for the layers
