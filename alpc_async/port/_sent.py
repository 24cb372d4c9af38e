"""A request that waits for its reply, as the layers see it: with the connection that it left through.

Belongs here: `SentRequest`, what a `PendingRequest` does. Never here: what a user is told about it (`_pending`),
frames, or who decides that a request has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from ..errors import RequestCancelled
from ._message import Message
from ._pending import CancelOutcome, PendingRequest
from ._source import slot_here

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from ..errors import AlpcError
    from ..link import Waiter
    from ._sending import SendingChannel

__all__ = ["SentRequest"]


class SentRequest(PendingRequest, eq=False, kw_only=True):
    """A request that waits for its reply.

    Attributes:
        channel: the connection that it left through.
        waiter: where a task waits for the reply.
        outcome: the reply, or the error that it ended with; ``None`` before.
        declared: the memory of ours that the receiver may reach until it answers.
    """

    channel: SendingChannel
    waiter: Waiter | None = None
    outcome: Message | AlpcError | None = None
    declared: object = None

    @property
    def done(self) -> bool:
        return self.outcome is not None

    def cancel(self) -> CancelOutcome:
        if self.outcome is not None:
            return CancelOutcome.TOO_LATE
        self.channel.abandon(self)
        self.finish(RequestCancelled(port=self.channel.label, message_id=self.id))
        return CancelOutcome.CANCELLED

    def finish(self, outcome: Message | AlpcError) -> None:
        """End the request; called once."""
        self.outcome = outcome
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def result(self) -> Message:
        outcome = self.outcome
        if isinstance(outcome, Message):
            return outcome
        if outcome is None:
            raise anyio.WouldBlock
        raise outcome

    def __await__(self) -> Generator[Any, Any, Message]:
        return self._wait().__await__()

    async def _wait(self) -> Message:
        if self.waiter is not None and not self.waiter.done():
            raise anyio.BusyResourceError("awaiting")
        loop = self.channel.loop
        if self.outcome is None:
            self.waiter = loop.create_waiter()
            slot = slot_here()
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
