"""What drives one connection: the endpoint, its link, its timers, and what becomes of every event.

Belongs here: turning events into messages and waking callers. Never here: the calls of a user (`_communication`,
`_connection`), bytes (wire), sockets (link), or how a connection ends (`_ending`).

User code runs from here in one place only, at the very end of `Channel.data_received`.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from ..errors import (
    ProtocolViolation,
    QuotaExceeded,
    RemoteFault,
    WorkerDied,
)
from ..handles import dispose
from ..security import Access
from ..wire import (
    CancelRequested,
    Datagram,
    Extended,
    Faulted,
    PeerClosed,
    Released,
    Replied,
    ReplyLost,
    Request,
    Revoked,
    Status,
    Taken,
    Violated,
    status_of,
)
from ._arrived import Arrived
from ._ending import EndingChannel
from ._message import MessageType
from ._queue import COSTLY
from ._senders import note_sender

if TYPE_CHECKING:
    from ..handles import Handle
    from ..link import Link, Loop, Waiter
    from ..security import Identity
    from ..wire import Endpoint, Event
    from ._communication import CommunicationPort
    from ._pace import Pace
    from ._sent import SentRequest
    from ._source import Source

__all__ = ["Channel"]

_logger = logging.getLogger("alpc_async.port")

_REPLY = MessageType.REPLY
_REQUEST = MessageType.REQUEST
_DATAGRAM = MessageType.DATAGRAM
_NEVER = math.inf
_ASKED_FOR = Faulted, Released, Taken
"""Events that only follow something of ours, so that nobody can flood us with them."""


class Channel(EndingChannel):
    """One connection.

    Args:
        endpoint: its protocol state.
        link: moves its bytes; owned from now on.
        loop: the running loop.
        peer: who is at the other end.
        source: where received messages wait.
    """

    __slots__ = ("follows_senders", "listens_only", "screens")

    port: CommunicationPort

    def __init__(self, endpoint: Endpoint[SentRequest], link: Link, loop: Loop, peer: Identity, source: Source) -> None:
        super().__init__(endpoint, link, loop, peer, source)
        self.listens_only = False
        self.follows_senders = False
        self.screens = False

    # -- receiving: the link's owner -----------------------------------------------------------------------------------

    def sender_changed(self, pid: int, uid: int, gid: int, process: Handle | None = None, /) -> None:
        self.sender = pid, uid, gid
        if self.gate is not None:
            note_sender(self, self.gate, (pid, uid, gid), process)
        elif process is not None:
            process.close()

    def handles_received(self, handles: list[Handle], lost: bool, /) -> None:
        tally = self.handle_tally
        if tally is None:
            self.endpoint.receive_handles(handles, lost)
            return
        self.endpoint.receive_handles(tally.add(handles), lost)
        if tally.held > 2 * tally.limit:
            # What nobody wants is closed, but its sender may delay that for ever.
            reason = f"{self.peer} has {tally.held} handles here, most of them about to be closed"
            self.complain("handles", "PortLimits.max_user_handles", reason)
            self.hang_up(Status.USER_LIMIT, "your user has too many handles here (max_user_handles)")

    def data_received(self, data: bytes | memoryview, /) -> None:
        event = self.endpoint.receive_single(data)
        if event is None:
            event = self._take_unusual(data)
            if event is None:
                return
        self.counters.events += 1
        self.link.prompt = True
        if isinstance(event, Replied):
            pending = event.ticket
            pending.outcome = Arrived(
                _REPLY, pending.id, event.data, _NEVER, False, True, channel=self, own_context=pending.context
            )
            if self._room:
                self.wake_room()
            # Last, because it may run user code; `SentRequest.finish`, without the call.
            waiter = pending.waiter
            if waiter is not None and not waiter.done():
                self.loop.wake_now(waiter)
            return
        if isinstance(event, Request):
            deadline = self.loop.time() + event.timeout_ms * 0.001 if event.timeout_ms else _NEVER
            message = Arrived(_REQUEST, event.id, event.data, deadline, channel=self)
            event.context = message
        elif isinstance(event, Extended) and isinstance(made := self._take_extended(event), Arrived):
            message = made
        else:
            return
        if self.screens:
            self._queue([message])
        elif self.source.datagrams:
            self.source.put_now(message)
        else:
            self.source.hand_over(message)

    def _take_unusual(self, data: bytes | memoryview) -> Event[SentRequest] | None:
        """Take what is not one ordinary message; return the message if it is one after a range that comes back."""
        pair = self.endpoint.receive_pair(data) if self._sharing is not None else None
        if pair is None:
            self._take_events(self.endpoint.receive_data(data))
            return None
        released, event = pair
        counters = self.counters
        counters.events += 1
        if counters.largest_batch < 2:
            counters.largest_batch = 2
        self.take_released(released)
        return event

    def _take_events(self, events: list[Event[SentRequest]]) -> None:
        counters = self.counters
        count = len(events)
        counters.events += count
        if count > counters.largest_batch:
            counters.largest_batch = count
        single = count == 1 or (count == 2 and _is_pair(events))
        answered: Waiter | None = None
        packets: list[Arrived] = []
        now = self.loop.time()
        for event in events:
            if isinstance(event, Replied):
                pending = event.ticket
                pending.outcome = Arrived(
                    _REPLY, pending.id, event.data, _NEVER, False, True, channel=self, own_context=pending.context
                )
                # `SentRequest.finish`, without the call.
                waiter = pending.waiter
                if waiter is not None and not waiter.done():
                    if single:
                        answered = waiter
                    else:
                        waiter.set_result(None)
            elif isinstance(event, Request):
                deadline = now + event.timeout_ms * 0.001 if event.timeout_ms else _NEVER
                message = Arrived(_REQUEST, event.id, event.data, deadline, channel=self)
                event.context = message
                packets.append(message)
            elif isinstance(event, Datagram):
                packets.append(Arrived(_DATAGRAM, event.id, event.data, channel=self))
                self.source.datagrams += 1
            elif isinstance(event, Extended):
                answered = self._take_rich(event, packets, single=single)
            else:
                # Anything else may depend on the messages before it being queued.
                self._queue(packets)
                packets = []
                self._dispatch(event)
                if self.pace is not None and not isinstance(event, _ASKED_FOR):
                    self.keep_pace(1)
        if self.ending is None:
            self._settle_receive(single)
        # Last, because it may run user code.
        self._hand_over(packets, answered, single=single)

    def _hand_over(self, packets: list[Arrived], answered: Waiter | None, *, single: bool) -> None:
        if packets:
            if single and not self.screens:
                self.source.put_now(packets[0])
            else:
                self._queue(packets)
        elif answered is not None:
            self.loop.wake_now(answered)

    def _settle_receive(self, single: bool) -> None:
        self.link.prompt = single
        if self.endpoint.output_size:
            self.link.request_flush()
            if self.endpoint.output_size > self._high_water:
                # Cancellations are acknowledged by themselves; a peer that does not read must not pile them up.
                self._check_backlog()
        if self._room:
            self.wake_room()

    def _queue(self, packets: list[Arrived]) -> None:
        if self.pace is not None and packets:
            long = sum(message.effort for message in packets) // COSTLY
            self.keep_pace(len(packets) + long)
        if self.screens:
            packets = [message for message in packets if not self._turned_away(message)]
        if packets:
            self.source.put(packets)

    def keep_pace(self, messages: int) -> None:
        """Count what arrived from a user with a pace.

        Args:
            messages: how many messages it is worth.
        """
        if self.pace is not None and self.source.throttle is not None:
            self.pace.count(self.source.throttle, messages)

    def set_screens(self, *, draining: bool = False, listens_only: bool | None = None) -> None:
        """Note what makes it necessary to look at each received message before it is queued.

        Args:
            draining: new requests are turned away from now on.
            listens_only: whether the client has no right to send.
        """
        self.draining = self.draining or draining
        if listens_only is not None:
            self.listens_only = listens_only
        looks = self.draining or self.listens_only or self.origin is not None
        self.screens = looks or self.pace is not None

    def set_pace(self, pace: Pace | None) -> None:
        """Keep the other side to the pace of its user.

        Args:
            pace: that of its user, or ``None`` for none.
        """
        self.pace = pace
        self.set_screens()

    def follow(self, sender: Identity) -> None:
        """Give the messages to come another sender.

        Args:
            sender: who that is.
        """
        self.origin = sender
        self.set_screens(listens_only=self.gate is not None and self.gate.listens_only)

    def _turned_away(self, message: Arrived) -> bool:
        if self.origin is not None:
            message.origin = self.origin if self.shown is self.peer else self.shown
        if self.listens_only and self.gate is not None and not self.gate.permits(Access.SEND, "send"):
            self._return_unsent(message)
            return True
        if not self.draining or message.type is not _REQUEST:
            return False
        self.fail(message, Status.DRAINING, "the receiver is shutting down and takes no new requests")
        return True

    def _return_unsent(self, message: Arrived) -> None:
        if message.type is _REQUEST:
            self.fail(message, Status.ACCESS_DENIED, "the receiver's access list gives no right to send")
        else:
            self.source.datagrams -= 1
            self._taken(1, message.charge)
        message.let_go()

    def _dispatch(self, event: Event[SentRequest]) -> None:
        if isinstance(event, Faulted):
            pending = event.ticket
            fault = WorkerDied if event.status == Status.WORKER_DIED else RemoteFault
            pending.finish(fault(status=status_of(event.status), reason=event.reason, message_id=pending.id))
        elif isinstance(event, CancelRequested):
            self._cancel_message(event.request)
        elif isinstance(event, ReplyLost):
            self._report_lost_reply(event.id)
        elif isinstance(event, Revoked):
            self.note_revoked(event.context)
        elif self.on_greeting is None and self._dispatch_extended(event):
            pass
        elif isinstance(event, PeerClosed):
            if self.on_greeting is not None:
                self.on_greeting(event)
            self.finish(event.reason or "the other side closed the connection")
        elif isinstance(event, Violated):
            self.link.flush()
            if self.on_greeting is not None:
                self.on_greeting(event)
            self._end_violation(event.error)
        elif self.on_greeting is not None:
            self.on_greeting(event)

    def _take_rich(self, event: Extended[SentRequest], packets: list[Arrived], *, single: bool) -> Waiter | None:
        """Take a message with attributes; return whom to wake at the end, when it is the only one that arrived."""
        made = self._take_extended(event)
        if isinstance(made, Arrived):
            packets.append(made)
        elif made is not None and not made.done():
            if single:
                return made
            made.set_result(None)
        return None

    def _take_extended(self, event: Extended[SentRequest]) -> Arrived | Waiter | None:
        if self.ending is not None:
            # Forgetting them would close them here, for as long as their sender likes.
            dispose(event.attributes.received)
            return None
        try:
            return self.receive_extended(event)
        except ProtocolViolation as error:
            self._end_because(error)
            return None

    def _dispatch_extended(self, event: Event[SentRequest]) -> bool:
        try:
            return self.dispatch_extended(event)
        except (ProtocolViolation, QuotaExceeded) as error:
            self._end_because(error)
            return True

    def _end_because(self, error: ProtocolViolation | QuotaExceeded) -> None:
        if isinstance(error, ProtocolViolation):
            self.endpoint.violate(error)
            self._end_violation(error)
        else:
            self.complain("section", f"PortLimits.{error.setting}", f"{self.peer} shares more than {error.limit}")
            self.hang_up(Status.USER_LIMIT, f"your user shares more sections than it may ({error.setting})")

    def _end_violation(self, error: ProtocolViolation) -> None:
        self.counters.violations += 1
        self.complain("connection", error.rule, f"{error}; the peer is {self.peer}")
        self.link.flush()
        self.finish(str(error), cause=error)

    def as_channel(self) -> Channel:
        return self

    def _cancel_message(self, request: Request) -> None:
        message = request.context
        if not isinstance(message, Arrived):
            return
        message.cancelled = True
        if self.source.remove(message):
            message.let_go()
        else:
            message.cancel()
            self._notify(MessageType.CANCELED, message.id)

    def data_to_send(self, limit: int, /) -> bytes:
        return self.endpoint.data_to_send(limit)

    def unsent_output(self) -> int:
        return self.endpoint.output_size

    def link_drained(self) -> None:
        if self.source.held:
            self.source.let_go()
        self.wake_room()

    def link_ended(self, error: OSError | None, /) -> None:
        reason = "the other side closed the connection" if error is None else f"the connection broke ({error.strerror})"
        if self.on_greeting is not None:
            self.on_greeting(PeerClosed(Status.OK, reason))
        self.finish(reason, peer_silent=True)


def _is_pair(events: list[Event[SentRequest]]) -> bool:
    """Return whether one of two events is that a range came back, which makes no difference to who has to be woken."""
    return isinstance(events[0], Released) is not isinstance(events[1], Released)
