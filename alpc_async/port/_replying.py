"""Answers with attributes, answers that wait for room in the sections, and receipts.

Belongs here: what is sent because of a message that was received. Never here: plain replies (`_sending`), how data is
lent (`_transfers`).
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from ..errors import MessageTooLong, QuotaExceeded, RemoteFault
from ..handles import close_all
from ..memory_errors import OutOfSharedMemory
from ..wire import State, Status, status_of
from ._extras import Extras
from ._receipt import Receipt, finish_receipt
from ._transfers import TransferringChannel

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import AlpcError
    from ..link import Link, Loop
    from ..security import Identity
    from ..wire import Attributes, Endpoint
    from ._arrived import Arrived
    from ._sent import SentRequest
    from ._source import Source

__all__ = ["ReplyingChannel"]

_TOO_LONG: Final = (
    "the reply of {} bytes is longer than the {} that the requester takes; raise PortLimits.max_message_length or "
    "max_view_size there"
)


class ReplyingChannel(TransferringChannel):
    """What is sent on one connection because of what was received. Arguments like `SendingChannel`."""

    __slots__ = ("_delayed_replies",)

    def __init__(self, endpoint: Endpoint[SentRequest], link: Link, loop: Loop, peer: Identity, source: Source) -> None:
        super().__init__(endpoint, link, loop, peer, source)
        self._delayed_replies: deque[tuple[Arrived, Callable[[], None]]] = deque()

    def wake_views(self) -> None:
        """Let replies and tasks that wait for room in the sections try again."""
        while self._delayed_replies and self.ending is None and not self.closing:
            message, answer = self._delayed_replies[0]
            if not message.cancelled:
                try:
                    answer()
                except QuotaExceeded:
                    return
                except OutOfSharedMemory as error:
                    self.fail(message, Status.HANDLER_FAILED, str(error))
            self._delayed_replies.popleft()
        super().wake_views()

    def end_transfers(self, leases: list[object]) -> None:
        """Give shared memory back and wake whoever waits for some, because the connection is over."""
        self._delayed_replies.clear()
        super().end_transfers(leases)

    def _reply_long(self, message: Arrived, data: bytes | memoryview) -> None:
        limits = self.endpoint.limits
        longest = max(limits.max_message_length, limits.max_view_size)
        if len(data) <= longest:
            self.reply_extended(message, data, Extras())
            return
        # Only a reply that is too long by our own limits is the replier's mistake. A client that asks for less must not
        # be able to raise an error in the server.
        own = self.own_limits
        if len(data) > max(own.max_message_length, own.max_view_size):
            setting = "max_view_size" if own.max_view_size else "max_message_length"
            raise MessageTooLong(port=self.label, size=len(data), limit=getattr(own, setting), setting=setting)
        self.fail(message, Status.REPLY_TOO_LONG, _TOO_LONG.format(len(data), longest))

    def reply_extended(self, message: Arrived, data: bytes | memoryview, extras: Extras) -> None:
        """Queue a reply that is long, or has attributes.

        A reply cannot wait for room in the sections, so one that finds none is kept and leaves when there is some; the
        number of such replies is that of the requests that the other side may have open.
        """
        try:
            self._reply_with(message, data, extras)
        except QuotaExceeded:
            if extras.handles or extras.view is not None:
                raise
            # A copy, since the caller may change the data once this returns.
            self.delay(message, partial(self._reply_with, message, bytes(data), Extras(way=extras.way)))

    def delay(self, message: Arrived, answer: Callable[[], None]) -> None:
        """Have a request answered when there is room in the sections.

        Args:
            message: the request; it counts as answered from now on.
            answer: answers it; raises `QuotaExceeded` when there is still no room.
        """
        self._delayed_replies.append((message, answer))
        message.answered = True

    def reply_now(self, message: Arrived, data: bytes | memoryview) -> None:
        """Queue a reply, or raise when there is no room for it; raises like `send_with`."""
        self._reply_with(message, data, Extras())

    def _reply_with(self, message: Arrived, data: bytes | memoryview, extras: Extras) -> None:
        view = extras.view
        if message.cancelled or self.endpoint.state is not State.OPEN:
            # Nothing leaves, so nothing may be lent or given back with it.
            self._drop_reply(message)
            close_all(extras.handles)
            if view is not None and view.record is not None:
                view.let_go()
            return

        def send(payload: bytes, attributes: Attributes) -> None:
            if view is None or view.record is None:
                self.send_reply(message, payload, attributes)
                return
            # The lease goes back with the reply; nobody here may use the memory any more.
            lease = view.record.lease
            self.sharing.surrender(view, lease)
            try:
                self.send_reply(message, payload, attributes)
            except BaseException:
                self.sharing.give_up(lease)
                raise

        self.send_with(data, extras, send)

    # -- receipts ----------------------------------------------------------------------------------------------------

    def give_receipt(self, message_id: int) -> None:
        """Tell the other side that a message was taken."""
        if self.ending is None:
            self.endpoint.taken_one(message_id)
            self.link.request_flush()

    def refuse_receipt(self, message_id: int, status: int) -> None:
        """Tell the other side that a message will never be taken, if it waits for that.

        Args:
            message_id: the message.
            status: why.
        """
        if self.ending is None and self.endpoint.taken_one(message_id, status):
            self.link.request_flush()

    def note_receipt(self, record: object, status: int = Status.OK) -> None:
        """Tell whoever waits for a receipt that it came, or that it never will."""
        if not isinstance(record, Receipt):
            return
        error: AlpcError | None = None
        if self.ending is not None:
            error = self.ending_error(sent=True)
        elif status:
            reason = "the receiver dropped the message before anybody took it"
            error = RemoteFault(status=status_of(status), reason=reason, message_id=record.message_id)
        finish_receipt(record, error)
