"""Messages that arrive with attributes: checked, and made into what a user can use.

Belongs here: turning `Extended` events and their companions into messages, and failing the one message whose attributes
cannot be used. Never here: plain messages (`_channel`), sending (`_transfers`).

Whatever is wrong with the attributes of one message that an honest peer may cause (descriptors lost for want of room, a
kind that is not accepted) fails that message alone. What only a broken or hostile peer does ends the connection.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Final

from ..errors import ProtocolViolation, QuotaExceeded
from ..handles import dispose
from ..kinds import kind_of
from ..memory_errors import HandleRefused, OutOfSharedMemory
from ..wire import (
    Datagram,
    Extended,
    Released,
    Replied,
    Request,
    SectionGone,
    SectionOffered,
    Status,
    Taken,
    ViewMode,
)
from ._direct import DirectAccess, answer, carries_data
from ._message import MessageType
from ._reaching import ReachingChannel
from ._rich import RichMessage
from ._sharing import LostSection, Range

if TYPE_CHECKING:
    from ..link import Link, Loop, Waiter
    from ..security import Identity
    from ..wire import Attributes, Endpoint, Event, ViewRecord
    from ._channel import Channel
    from ._sent import SentRequest
    from ._source import Source
    from ._tally import HandleTally

__all__ = ["ArrivingChannel"]

_logger = logging.getLogger("alpc_async.port")

_REQUEST: Final = MessageType.REQUEST
_IS_DATA: Final = ViewMode.IS_DATA

_FAULTS = {
    Status.HANDLES_LOST: "handles of the message were lost on the way: a process had no descriptors left",
    Status.HANDLES_REFUSED: "a handle of the message is of a kind that the receiver does not take "
    "(its PortLimits.handle_kinds)",
    Status.USER_LIMIT: "the user of the sender has as many handles at the receiver as it may, until some are taken or "
    "closed there (its PortLimits.max_user_handles)",
}


class ArrivingChannel(ReachingChannel):
    """What arrives on one connection beside plain messages. Arguments like `SendingChannel`."""

    __slots__ = ("handle_tally",)

    def __init__(self, endpoint: Endpoint[SentRequest], link: Link, loop: Loop, peer: Identity, source: Source) -> None:
        super().__init__(endpoint, link, loop, peer, source)
        self.handle_tally: HandleTally | None = None
        """Counts the handles that the user at the other end has here, where users are counted."""

    def dispatch_extended(self, event: Event[SentRequest]) -> bool:
        """Handle an event of this module; ``False`` for any other.

        Raises:
            ProtocolViolation: the other side shares what cannot be used safely.
        """
        if isinstance(event, Released):
            self.take_released(event)
        elif isinstance(event, SectionOffered):
            if not self.endpoint.limits.max_view_size:
                dispose([event.handle] if event.handle is not None else [])
                raise ProtocolViolation(rule="sections are shared only where views are on")
            self.sharing.offered(event)
        elif isinstance(event, SectionGone):
            self.sharing.gone(event.section)
        elif isinstance(event, Taken):
            self.note_receipt(event.record, event.status)
        else:
            return False
        return True

    def take_released(self, event: Released) -> None:
        """Take a range of ours back."""
        if self.sharing.released(event.record, lost=event.lost):
            self.wake_views()

    def receive_extended(self, event: Extended[SentRequest]) -> RichMessage | Waiter | None:
        """Make what a user sees of a message with attributes.

        Args:
            event: the message.

        Returns:
            A message to be queued, or whom its arrival wakes.

        Raises:
            ProtocolViolation: an attribute cannot be used.
        """
        attributes, received = event.attributes, event.event
        if event.only_view and attributes.view is not None and isinstance(received, Request):
            return self._take_view_request(received, attributes.view, event.size)
        status = self._judge_handles(attributes)
        message = RichMessage(MessageType.REPLY, 0, b"", channel=self.as_channel())
        try:
            self._fill(message, attributes, event.size)
        except LostSection:
            status = Status.HANDLES_LOST
        except ProtocolViolation:
            dispose(attributes.received)
            raise
        if received is None:
            message.let_go()
            return None
        if isinstance(received, Replied):
            return self._finish_reply(received.ticket, message, received.data, status)
        if isinstance(received, Request):
            return self._take_request(message, received, attributes, status)
        return self._take_datagram(message, received, status)

    def _judge_handles(self, attributes: Attributes) -> Status:
        received = attributes.received
        if not received and not attributes.lost:
            return Status.OK
        status = Status.HANDLES_LOST
        if not attributes.lost:
            allowed = self.own_limits.handle_kinds
            if not all(kind_of(handle.fileno()) in allowed for handle in received):
                status = Status.HANDLES_REFUSED
            elif self._count_handles(attributes):
                return Status.OK
            else:
                status = Status.USER_LIMIT
        dispose(received)
        attributes.received = []
        return status

    def _count_handles(self, attributes: Attributes) -> bool:
        tally = self.handle_tally
        if tally is None or tally.held <= tally.limit:
            return True
        more = len(attributes.received)
        reason = f"{self.peer} has {tally.held - more} handles here, and {more} more are over the limit"
        self.complain("handles", "PortLimits.max_user_handles", f"{reason} of {tally.limit}")
        return False

    def _fill(self, message: RichMessage, attributes: Attributes, size: int) -> None:
        message.wire_size = size
        message.wants_receipt = attributes.receipt
        message.own_permission = attributes.security
        message.own_handles = attributes.received
        message.own_states = [record.state for record in attributes.handles]
        if (attributes.direct is not None or attributes.system) and not self.direct_agreed:
            raise ProtocolViolation(rule="memory is declared and asked for only where both sides allow direct access")
        if attributes.direct is not None:
            message.own_direct = DirectAccess(self, message, attributes.direct)
            limits = self.endpoint.limits
            longest = max(limits.max_view_size, limits.max_message_length)
            if carries_data(message.own_direct) and (not self.reads_data or message.own_direct.length > longest):
                raise ProtocolViolation(
                    rule="direct memory is declared only as agreed", detail=f"{message.own_direct.length} bytes"
                )
        view = attributes.view
        if view is None:
            return
        if view.mode & ViewMode.RETURNED:
            if isinstance(attributes.returned, Range):
                message.own_view = self.sharing.own_view(attributes.returned)
            return
        message.own_view = self.sharing.borrow(view)
        self.source.lends = True
        message.view_is_data = bool(view.mode & ViewMode.IS_DATA)

    def _finish_reply(self, pending: SentRequest, message: RichMessage, data: bytes, status: Status) -> Waiter | None:
        if status is not Status.OK:
            message.let_go()
            pending.outcome = HandleRefused(port=self.label, reason=_FAULTS[status])
            return pending.waiter
        message.id = pending.id
        message.own_context = pending.context
        message.answered = True
        if not message.view_is_data:
            message.own_data = data
        pending.outcome = message
        return pending.waiter

    def _take_request(
        self, message: RichMessage, request: Request, attributes: Attributes, status: Status
    ) -> RichMessage | None:
        message.type = MessageType.REQUEST
        message.id = request.id
        if request.timeout_ms:
            message.deadline = self.loop.time() + request.timeout_ms * 0.001
        if not message.view_is_data and not (message.own_direct is not None and carries_data(message.own_direct)):
            message.own_data = request.data
        if status is not Status.OK:
            message.let_go()
            self.fail(message, status, _FAULTS[status])
        elif attributes.system:
            self._answer_question(message)
        else:
            request.context = message
            self.source.datagrams += attributes.receipt
            return message
        return None

    def _take_view_request(self, request: Request, view: ViewRecord, size: int) -> RichMessage | None:
        """Take a request that has a view of the other side's and nothing else: `_fill` and `_take_request` for it."""
        deadline = self.loop.time() + request.timeout_ms * 0.001 if request.timeout_ms else math.inf
        is_data = bool(view.mode & _IS_DATA)
        try:
            borrowed = self.sharing.borrow(view)
        except LostSection:
            message = RichMessage(_REQUEST, request.id, b"", deadline, channel=self.as_channel(), wire_size=size)
            self.fail(message, Status.HANDLES_LOST, _FAULTS[Status.HANDLES_LOST])
            return None
        message = request.context = RichMessage(
            _REQUEST, request.id, b"", deadline,
            channel=self.as_channel(), own_view=borrowed, view_is_data=is_data, wire_size=size,
            own_data=None if is_data else request.data,
        )  # fmt: skip
        self.source.lends = True
        return message

    def _answer_question(self, message: RichMessage) -> None:
        try:
            answer(self, message)
        except QuotaExceeded:
            self.delay(message, partial(answer, self, message))
        except OutOfSharedMemory as error:
            self.fail(message, Status.HANDLER_FAILED, str(error))

    def _take_datagram(self, message: RichMessage, datagram: Datagram, status: Status) -> RichMessage | None:
        message.type = MessageType.DATAGRAM
        message.id = datagram.id
        if not message.view_is_data:
            message.own_data = datagram.data
        if status is not Status.OK:
            self.refuse_receipt(message.id, status)
            message.let_go()
            self.counters.dropped_datagrams += 1
            _logger.warning("%s dropped a datagram: %s", self.label, _FAULTS[status])
            self._taken(1, message.wire_size)
            return None
        self.source.datagrams += 1
        return message

    def complain(self, what: str, rule: str, reason: str) -> None:
        """Note that something was refused to the other side."""
        raise NotImplementedError

    def as_channel(self) -> Channel:
        """Return this as the channel that it is a part of."""
        raise NotImplementedError
