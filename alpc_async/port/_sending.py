"""The half of a connection that sends: requests, datagrams, answers, and waiting for room.

Belongs here: commands to the endpoint, the line of tasks that wait for room, and the deadlines of requests. Never here:
what arrives, and how a connection ends (`_channel`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from ..errors import DeadlineExceeded, Disconnected, MessageTooLong, PortClosed, QuotaExceeded
from ..handles import close_all
from ..wire import State
from ._counters import Counters
from ._sent import SentRequest
from ._source import slot_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import AlpcError
    from ..link import Link, Loop, TimerHandle, Waiter
    from ..security import Identity
    from ..wire import Attributes, Endpoint
    from ._arrived import Arrived
    from ._source import Source

__all__ = ["BURST", "Place", "SendingChannel", "wake"]

BURST: Final = 32
"""Frames that collect within one turn before they are sent without waiting for its end.

A sender that holds a hundred frames back until its turn ends lets the receiver idle meanwhile, and the two take turns
instead of working at the same time. Bursts of this size cost one system call per 32 frames and let them overlap
(decision record 10).
"""

BURST_BYTES: Final = 192 * 1024
"""Bytes that collect likewise: what a socket holds by default, its bookkeeping apart."""


_OPEN: Final = State.OPEN


class Place:
    """A place in the line of tasks that wait for room."""

    __slots__ = ("late", "waiter")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.late = False

    def give_up(self) -> None:
        # A flag rather than a comparison of clocks: uvloop's timers may fire half a millisecond early.
        self.late = True
        wake(self.waiter)


class SendingChannel:
    """What can be sent on one connection.

    Args:
        endpoint: its protocol state.
        link: moves its bytes; owned from now on.
        loop: the running loop.
        peer: who is at the other end.
        source: where received messages wait.
    """

    __slots__ = (
        "_check_loop",
        "_frames",
        "_high_water",
        "_in_turn",
        "_now",
        "_room",
        "_timer",
        "_timer_at",
        "closing",
        "counters",
        "ending",
        "endpoint",
        "label",
        "link",
        "loop",
        "own_limits",
        "peer",
        "request_timeout",
        "sender",
        "source",
    )

    def __init__(self, endpoint: Endpoint[SentRequest], link: Link, loop: Loop, peer: Identity, source: Source) -> None:
        self.endpoint = endpoint
        self.link = link
        self.peer = peer
        self.sender: tuple[int, int, int] | None = None
        """(pid, uid, gid) of whoever sent what arrived last, where the kernel was asked."""
        self.loop = loop
        self.source = source
        self.label = endpoint.label
        self.request_timeout = endpoint.limits.request_timeout
        self.own_limits = endpoint.limits
        # Bound once, and called through a variable: CPython takes a longer way to a method that an instance holds.
        self._check_loop = loop.check
        self._now = loop.time
        self._in_turn = False
        self.closing = False
        self._frames = endpoint.frames
        self.counters = Counters()
        self.ending: AlpcError | None = None
        self._timer: TimerHandle | None = None
        self._timer_at = math.inf
        self._room: list[Place] = []
        self._high_water = endpoint.limits.high_water
        source.taken = self._taken

    def check_usable(self) -> None:
        """Raise unless messages can be sent here and now."""
        if self.ending is not None:
            raise self.ending_error()
        self.loop.check(self.label)
        if self.closing:
            raise PortClosed(port=self.label)

    def ending_error(self, *, sent: bool = False) -> AlpcError:
        """Return a fresh error that says how the connection ended."""
        ending = self.ending
        if not isinstance(ending, Disconnected):
            return PortClosed(port=self.label)
        error = Disconnected(port=self.label, reason=ending.reason, sent=sent)
        error.__cause__ = ending.__cause__
        return error

    def _begin_turn(self) -> None:
        """Check the caller. Afterwards what is queued leaves at the turn's end, or, out of a turn, by ``send_now``."""
        # The check costs a system call on CPython 3.11, and within a turn the caller's thread and loop do not change.
        if self.ending is not None or self.closing:
            self.check_usable()
        check = self._check_loop
        check(self.label)
        if not self.link.prompt:
            self._in_turn = True
            self.loop.call_soon(self._end_turn)

    def _send_now(self, frame: bytes | None) -> None:
        # What could not leave past the queue leaves after what is queued.
        if frame:
            self.endpoint.queue(frame)
        self.link.send_now()

    def _end_turn(self) -> None:
        self._in_turn = False
        if self._frames:
            self.link.flush()

    def flush_later(self) -> None:
        """Send what is queued at the end of this turn of the loop at the latest."""
        if not self._in_turn:
            self.link.request_flush()

    def start(
        self,
        data: bytes | memoryview,
        timeout: float | None,
        context: object,
        waiter: Waiter | None = None,
        in_line: bool = False,
        certain: bool = False,
        attributes: Attributes | None = None,
    ) -> SentRequest:
        """Queue a request.

        Args:
            data: the payload.
            timeout: time for the reply, in seconds; ``None`` for no end.
            context: cookie for the reply.
            waiter: where the caller will wait.
            in_line: the caller has waited its turn in `wait_for_room`.
            certain: the room for it was kept in a reserve.
            attributes: what goes with it; its descriptors belong to the connection once this returns.

        Raises:
            QuotaExceeded: too much is in flight or unsent, or others wait for room.
            MessageTooLong: the payload cannot travel inline; it may still travel as a view.
        """
        if not self._in_turn or self.loop.forked:
            self._begin_turn()
        endpoint = self.endpoint
        if (self._room or endpoint.output_size > self._high_water) and not certain:
            self._check_room(len(data) if attributes is None else 0, in_line)
        pending = SentRequest(channel=self, context=context, timeout=timeout, waiter=waiter)
        now = self._now
        frame = endpoint.request(pending, data, now(), timeout, attributes, not self._in_turn)
        if endpoint.outflow.next_deadline < self._timer_at:
            self._arm_timer()
        if not self._in_turn:
            if frame is None or not self.link.send_frame(frame):
                self._send_now(frame)
        elif len(self._frames) >= BURST or endpoint.output_size >= BURST_BYTES:
            self.link.flush()
        return pending

    def post(
        self,
        data: bytes | memoryview,
        *,
        in_line: bool = False,
        certain: bool = False,
        attributes: Attributes | None = None,
    ) -> int:
        """Queue a datagram and return its number; arguments and errors like `start`."""
        if not self._in_turn or self.loop.forked:
            self._begin_turn()
        endpoint = self.endpoint
        if (self._room or endpoint.output_size > self._high_water) and not certain:
            self._check_room(len(data) if attributes is None else 0, in_line)
        message_id = endpoint.datagram(data, attributes)
        if not self._in_turn:
            self.link.send_now()
        return message_id

    def check_room(self, size: int, *, in_line: bool) -> None:
        """Raise what `start` and `post` would for want of room, before anything is done that cannot be undone.

        Args:
            size: bytes of the message, attributes included.
            in_line: the caller has waited its turn in `wait_for_room`.

        Raises:
            QuotaExceeded: too much is in flight or unsent, or others wait for room.
        """
        if self._room or self.endpoint.output_size > self._high_water:
            self._check_room(0, in_line)
        if not self.endpoint.outflow.has_room(size):
            raise self.endpoint.outflow.refusal(0)

    def _check_room(self, size: int, in_line: bool) -> None:
        limit = self.endpoint.outflow.inline_limit
        if size > limit:
            raise MessageTooLong(port=self.label, size=size, limit=self.endpoint.limits.max_message_length)
        if self.link.clogged() or (self._room and not in_line):
            raise QuotaExceeded(port=self.label, setting="high_water", limit=self._high_water)

    async def wait_for_room(self, size: int, deadline: float, *, moved: int = 0) -> None:
        """Wait until a message may be sent, first come first served. Cancelling gives the place up.

        Args:
            size: bytes of the message.
            deadline: when to give up, on the loop's clock, in seconds; infinity for never.
            moved: bytes that it moves on any way, for connections with a limit of bytes per second.

        Raises:
            DeadlineExceeded: the deadline came first.
            Disconnected: the connection ended.
            PortClosed: the port was closed on this side.
        """
        what = f"waiting for room to send on {self.label}"
        await self.wait_in_line(self._room, lambda: self.has_room(size, moved), deadline, what, self.wake_room)

    async def wait_in_line(
        self, line: list[Place], attempt: Callable[[], bool], deadline: float, what: str, wake_next: Callable[[], None]
    ) -> None:
        """Wait at the end of a line until an attempt succeeds; only the first in line tries, when it is woken.

        Args:
            line: the places of those who wait for the same.
            attempt: returns whether it succeeded.
            deadline: when to give up, on the loop's clock, in seconds; infinity for never.
            what: what this is, for the error.
            wake_next: lets the first in line try.

        Raises:
            DeadlineExceeded: the deadline came first.
            Disconnected: the connection ended.
            PortClosed: the port was closed on this side.
        """
        self.counters.waits += 1
        place = Place(self.loop.create_waiter())
        line.append(place)
        timer = None if deadline == math.inf else self.loop.call_at(deadline, place.give_up)
        began = self.loop.time()
        slot = slot_here()
        if slot is not None:
            slot.leave()
        try:
            while True:
                await place.waiter
                if self.ending is not None:
                    raise self.ending_error()
                if line[0] is place and attempt():
                    return
                if place.late:
                    raise DeadlineExceeded(what=what, timeout=deadline - began, setting="timeout=")
                # Woken for less than is needed: keep the place at the head of the line.
                place.waiter = self.loop.create_waiter()
        finally:
            if slot is not None:
                slot.enter()
            if timer is not None:
                timer.cancel()
            if place in line:
                line.remove(place)
            wake_next()

    def has_room(self, size: int, _moved: int) -> bool:
        """Return whether a message may be sent; arguments like `wait_for_room`."""
        return self.endpoint.outflow.has_room(size) and not self.link.clogged()

    def wake_room(self) -> None:
        """Wake the task that has waited longest for room, if it may have some now."""
        if self._room and (self.ending is not None or not self.link.clogged()):
            wake(self._room[0].waiter)

    def reply(self, message: Arrived, data: bytes | memoryview) -> None:
        """Queue the answer to a request; `send_reply` without attributes, without the call."""
        endpoint = self.endpoint
        if message.cancelled or endpoint.state is not _OPEN:
            self._drop_reply(message)
            return
        if not self._in_turn or self.loop.forked:
            self._begin_turn()
        try:
            frame = endpoint.reply(message.id, data, None, not self._in_turn)
        except MessageTooLong:
            self._reply_long(message, data)
            return
        message.answered = True
        if not self._in_turn:
            if frame is None or not self.link.send_frame(frame):
                self._send_now(frame)
        elif len(self._frames) >= BURST or endpoint.output_size >= BURST_BYTES:
            self.link.flush()
        if endpoint.output_size > self._high_water:
            self._check_backlog()

    def _reply_long(self, message: Arrived, data: bytes | memoryview) -> None:
        raise NotImplementedError

    def send_reply(self, message: Arrived, data: bytes | memoryview, attributes: Attributes | None) -> None:
        """Queue the answer to a request, with attributes or without.

        Raises:
            MessageTooLong: the data cannot travel inline; the request still waits.
        """
        if message.cancelled or self.endpoint.state is not _OPEN:
            if attributes is not None:
                close_all(attributes.received)
            self._drop_reply(message)
            return
        if not self._in_turn or self.loop.forked:
            self._begin_turn()
        endpoint = self.endpoint
        endpoint.reply(message.id, data, attributes)
        message.answered = True
        if not self._in_turn:
            self.link.send_now()
        elif len(self._frames) >= BURST or endpoint.output_size >= BURST_BYTES:
            self.link.flush()
        if endpoint.output_size > self._high_water:
            self._check_backlog()

    def fail(self, message: Arrived, status: int, reason: str) -> None:
        """Queue a fault as the answer to a request; nothing when its sender has given it up, as far as was received."""
        # The message itself is told of that a little later when the request and its end came together.
        if message.cancelled or self.endpoint.state is not _OPEN or message.id not in self.endpoint.inflow.owed:
            self._drop_reply(message)
            return
        self.check_usable()
        self.endpoint.fault(message.id, status, reason)
        message.answered = True
        self.link.request_flush()

    def _drop_reply(self, message: Arrived) -> None:
        message.answered = True
        self.counters.dropped_replies += 1

    def _check_backlog(self) -> None:
        if self.link.clogged():
            self.source.hold()
            if self.link.unsent() > self.endpoint.limits.max_unsent:
                self.counters.cut += 1
                self.loop.call_soon(self._cut_slow_reader)

    def _cut_slow_reader(self) -> None:
        raise NotImplementedError

    def abandon(self, pending: SentRequest) -> None:
        """Give a request up, if it still waits, and tell the other side."""
        if self.ending is None:
            self.loop.check(self.label)
            if self.endpoint.cancel(pending):
                self.counters.cancelled += 1
                self.link.request_flush()

    def _taken(self, messages: int, size: int) -> None:
        endpoint = self.endpoint
        if self.ending is None:
            endpoint.taken(messages, size)
            if endpoint.output_size:
                self.link.request_flush()

    # -- deadlines -----------------------------------------------------------------------------------------------------

    def _arm_timer(self) -> None:
        deadline = self.endpoint.outflow.next_deadline
        self._stop_timer()
        self._timer_at = deadline
        if deadline < math.inf:
            self._timer = self.loop.call_at(deadline, self._expire)

    def stop_timers(self) -> None:
        """Forget the timers, because the connection is over."""
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        if self.ending is not None:
            return
        for event in self.endpoint.expire(self.loop.time()):
            pending = event.ticket
            self.counters.expired += 1
            what = f"request {pending.id} of {self.label}"
            pending.finish(DeadlineExceeded(what=what, timeout=pending.timeout or 0.0, setting="timeout="))
        self._arm_timer()
        self.link.request_flush()


def wake(waiter: Waiter) -> None:
    """Wake a task unless it was woken or cancelled already."""
    if not waiter.done():
        waiter.set_result(None)
