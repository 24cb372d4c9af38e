"""A request that waits for its reply, as a user sees it.

Belongs here: `PendingRequest`. Never here: what it does, and what the layers need to know of it (`_sent`).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from ..wire import Ticket

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from ._message import Message

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

    context: object = None
    timeout: float | None = None

    @property
    def done(self) -> bool:
        """Whether the request has ended: with a reply, an error, or by `cancel`."""
        raise NotImplementedError

    def cancel(self) -> CancelOutcome:
        """Withdraw the request.

        A request that the receiver has not taken is never seen by it; one that it handles is cancelled there.

        Returns:
            ``CANCELLED``: awaiting it raises `RequestCancelled`; ``TOO_LATE``: it had ended before.

        Raises:
            ForkedPort: called from another process, thread or event loop.
        """
        raise NotImplementedError

    def result(self) -> Message:
        """Return the reply of an ended request, or raise what it ended with.

        Raises:
            anyio.WouldBlock: it has not ended; `done` tells.
        """
        raise NotImplementedError

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
        raise NotImplementedError
