"""A request that waits for its reply.

Belongs here: `PendingRequest`. Never here: frames, or who decides that a request has ended.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import anyio

from ..errors import RequestCancelled
from ..wire import Ticket
from ._message import Message
from ._source import current_slot

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from ..errors import AlpcError
    from ..link import Waiter
    from ._sending import SendingChannel

__all__ = ["CancelOutcome", "PendingRequest"]


class CancelOutcome(enum.Enum):
    """What became of an attempt to cancel."""

    CANCELLED = "cancelled"
    """The request has ended with `RequestCancelled`; the other side is told, and a late reply is dropped."""
    TOO_LATE = "too late"
    """The request had ended before; its outcome stands."""


class PendingRequest(Ticket, eq=False, kw_only=True):
    """A request that was sent with `CommunicationPort.start_request`. Await it for the reply.

    Attributes:
        id: number of the request among the messages of its sender on this connection.
        size: length of its payload, in bytes.
        deadline: when it expires, on the clock of ``anyio.current_time``, in seconds; infinity for never.
        timeout: the time it was given, in seconds; ``None`` for no end.
        context: the cookie that its reply will show.
    """

    channel: SendingChannel
    context: object = None
    timeout: float | None = None
    waiter: Waiter | None = None
    outcome: Message | AlpcError | None = None
    declared: object = None

    @property
    def done(self) -> bool:
        """Whether the request has ended: with a reply, an error, or by `cancel`."""
        return self.outcome is not None

    def cancel(self) -> CancelOutcome:
        """Withdraw the request.

        A request that the receiver has not taken is never seen by it; one that it handles is cancelled there.

        Returns:
            ``CANCELLED``: awaiting it raises `RequestCancelled`; ``TOO_LATE``: it had ended before.

        Raises:
            ForkedPort: called from another process, thread or event loop.
        """
        if self.outcome is not None:
            return CancelOutcome.TOO_LATE
        self.channel.abandon(self)
        self.finish(RequestCancelled(port=self.channel.label, message_id=self.id))
        return CancelOutcome.CANCELLED

    def finish(self, outcome: Message | AlpcError) -> None:
        """End the request; the framework calls this, once."""
        self.outcome = outcome
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def result(self) -> Message:
        """Return the reply of an ended request, or raise what it ended with."""
        outcome = self.outcome
        if isinstance(outcome, Message):
            return outcome
        if outcome is None:
            raise anyio.WouldBlock
        raise outcome

    def __await__(self) -> Generator[Any, Any, Message]:
        """Wait for the reply.

        Cancelling the wait leaves the request running; await it again, or end it with `cancel`.

        Returns:
            The reply.

        Raises:
            RemoteFault: the other side answered with a fault.
            RequestCancelled: `cancel` came before the reply.
            DeadlineExceeded: no reply came in time; the other side has been told.
            Disconnected: the connection ended.
            PortClosed: the port was closed on this side.
            anyio.BusyResourceError: another task waits for it already.
        """
        return self._wait().__await__()

    async def _wait(self) -> Message:
        if self.waiter is not None and not self.waiter.done():
            raise anyio.BusyResourceError("awaiting")
        loop = self.channel.loop
        if self.outcome is None:
            self.waiter = loop.create_waiter()
            slot = current_slot.get()
            if slot is not None:
                slot.leave()
            try:
                await self.waiter
            finally:
                if slot is not None:
                    slot.enter()
        else:
            await loop.checkpoint()
        return self.result()
