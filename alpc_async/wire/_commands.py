"""The half of an endpoint that says things: commands in, bytes out.

Belongs here: what we send, in which state, and the queue of frames. Never here: what arrives (`_endpoint`), rooms and
open requests (`_flow`), the layout of a frame (`_frames`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Generic

from ..errors import MessageTooLong
from ._carrier import Carrier
from ._ceilings import MAX_GREETING_OVERHEAD, MAX_REASON_LENGTH, MAX_TIMEOUT_MS
from ._events import TicketT
from ._flow import Inflow, Outflow
from ._frames import (
    HEADER_SIZE,
    MAGIC,
    MAX_HANDLES_PER_FRAME,
    VERSION,
    FrameType,
    Status,
    find_replies,
    pack,
    pack_header,
)
from ._greeting import DEFAULT_LEVEL, Greeting
from ._states import RECEIVABLE, SENDABLE, Role, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..handles import Handle
    from ..limits import PortLimits
    from ._attributes import Attributes

__all__ = ["Commands"]

_HELLO: Final = int(FrameType.HELLO)
_WELCOME: Final = int(FrameType.WELCOME)
_REFUSE: Final = int(FrameType.REFUSE)
_REQUEST: Final = int(FrameType.REQUEST)
_REPLY: Final = int(FrameType.REPLY)
_FAULT: Final = int(FrameType.FAULT)
_DATAGRAM: Final = int(FrameType.DATAGRAM)
_CANCEL: Final = int(FrameType.CANCEL)
_CREDIT: Final = int(FrameType.CREDIT)
_REVOKED: Final = int(FrameType.REVOKED)
_CLOSE: Final = int(FrameType.CLOSE)
_HANDLES: Final = int(FrameType.HANDLES)
# Looking a member up in its enumeration costs as much as a method call (CPython 3.11), and happens per message.
_OPEN: Final = State.OPEN
_LONGEST: Final = MAX_TIMEOUT_MS / 1000.0 - 1.0
_CLOSED: Final = State.CLOSED


class Commands(Generic[TicketT]):
    """The half of an endpoint that says things.

    Args:
        role: which side.
        limits: what this side offers; `limits` holds the agreed values once the connection is open.
        label: what the port calls itself, for error messages.
        features: bit set of optional parts of the protocol that this side has.
    """

    __slots__ = (
        "_carriers",
        "_ceilings",
        "_longest",
        "_receivable",
        "_sendable",
        "_span",
        "_timeout",
        "_timeout_ms",
        "cookie",
        "dynamic",
        "features",
        "frames",
        "inflow",
        "label",
        "level",
        "limits",
        "outflow",
        "output_size",
        "role",
        "state",
    )

    def __init__(self, role: Role, limits: PortLimits, *, label: str = "port", features: int = 0) -> None:
        self.role = role
        self.limits = limits
        self.label = label
        self.features = features
        self.level = DEFAULT_LEVEL
        """What the other side may do with our identity; said in our greeting."""
        self.dynamic = False
        """Whether our identity may change; said in our greeting."""
        self.cookie: tuple[int, bytes] | None = None
        """(address, bytes) of a secret in our memory; said in our greeting."""
        self.output_size: int = 0
        """Bytes that `data_to_send` would give."""
        self.outflow: Outflow[TicketT] = Outflow(limits, label)
        self.inflow = Inflow(limits, label)
        self.frames: list[bytes] = []
        """Queued frames; for drivers to count, not to change."""
        self._carriers = 0
        self._timeout: float | None = None
        self._span, self._timeout_ms = _span(None)
        self._ceilings: Sequence[int] = ()
        self._enter(State.NEW)

    # -- state ---------------------------------------------------------------------------------------------------

    def _enter(self, state: State) -> None:
        self.state = state
        self._receivable = RECEIVABLE[self.role][state]
        self._sendable = SENDABLE[self.role][state]
        limits = self.limits
        greeting = limits.max_connect_data + MAX_GREETING_OVERHEAD
        message = limits.max_message_length
        self._longest = message
        # Indexed by frame type; a frame's announced length is compared before anything is kept for it.
        self._ceilings = (
            0, greeting, greeting, greeting, message, message, MAX_REASON_LENGTH, message, 0, 0, MAX_REASON_LENGTH,
            0, 0, 0, 0, 0, 0,
        )  # fmt: skip

    def _agree(self, limits: PortLimits) -> None:
        self.limits = limits
        self.outflow = Outflow(limits, self.label)
        self.inflow = Inflow(limits, self.label)

    def open_pair(self, limits: PortLimits) -> None:
        """Go to `State.OPEN` without a handshake, for two ends that one process makes together.

        Args:
            limits: the agreed limits, equal on both ends.
        """
        self._agree(limits)
        self._enter(State.OPEN)

    def _command(self, kind: int) -> None:
        following = self._sendable.get(kind)
        if following is None:
            raise RuntimeError(f"{self.label} cannot send {FrameType(kind).name} in state {self.state.name}")
        self._enter(following)

    def queue(self, frame: bytes) -> None:
        """Queue a whole frame, such as one that `request` or `reply` gave out and that could not be sent."""
        self.frames.append(frame)
        self.output_size += len(frame)

    # -- commands: handshake and end -----------------------------------------------------------------------------

    def hello(self, data: bytes) -> None:
        """Say who we are (client).

        Args:
            data: connect data, at most ``limits.max_connect_data`` bytes.

        Raises:
            MessageTooLong: the connect data is longer.
        """
        self.check_connect_data(data)
        self._command(_HELLO)
        greeting = Greeting(self.features, self.limits.offer(), data, self.level, self.dynamic, self.cookie)
        self.queue(pack(_HELLO, MAGIC, VERSION, greeting.encode()))

    def accept(self, data: bytes) -> None:
        """Let the client in (server); messages may follow at once.

        Args:
            data: reply data, at most ``limits.max_connect_data`` bytes.

        Raises:
            MessageTooLong: the reply data is longer.
        """
        self.check_connect_data(data)
        self._command(_WELCOME)
        greeting = Greeting(self.features, self.limits.offer(), data, self.level, self.dynamic)
        self.queue(pack(_WELCOME, MAGIC, VERSION, greeting.encode()))

    def refuse(self, status: int, data: bytes) -> None:
        """Decline the client (server); legal before and after its HELLO.

        Args:
            status: a `Status` or an application's number.
            data: reply data, at most ``limits.max_connect_data`` bytes.

        Raises:
            MessageTooLong: the reply data is longer.
        """
        self.check_connect_data(data)
        frame = pack(_REFUSE, 0, status, data)
        self._command(_REFUSE)
        self.queue(frame)

    def close(self, status: int = Status.OK, reason: str = "") -> None:
        """Say goodbye. Does nothing when the connection is over already."""
        if self.state < State.CLOSED:
            frame = pack(_CLOSE, 0, status, _cut(reason))
            self._command(_CLOSE)
            self.queue(frame)

    def check_connect_data(self, data: bytes) -> None:
        """Check connect or reply data against ``limits.max_connect_data``.

        Raises:
            MessageTooLong: the data is longer.
        """
        limit = self.limits.max_connect_data
        if len(data) > limit:
            raise MessageTooLong(port=self.label, size=len(data), limit=limit, setting="max_connect_data")

    # -- commands: messages ----------------------------------------------------------------------------------------

    def request(
        self,
        ticket: TicketT,
        data: bytes | memoryview,
        now: float,
        timeout: float | None,
        attributes: Attributes | None = None,
        alone: bool = False,
    ) -> bytes | None:
        """Send a message that wants an answer.

        Args:
            ticket: record to be given back with the answer; its id, size and deadline are set here.
            data: the payload.
            now: the time, on the driver's clock, in seconds.
            timeout: time that the request is given, in seconds; ``None`` for no end.
            attributes: what goes with it; its descriptors belong to the connection once this returns.
            alone: give the frame out at once if nothing is queued before it.

        Returns:
            The frame, to be sent right now or given to `queue`; ``None`` when it was queued.

        Raises:
            MessageTooLong: the payload is longer than agreed.
            QuotaExceeded: too much is in flight.
            ValueError: the timeout is negative or not a number.
        """
        if self.state is not _OPEN:
            self._command(_REQUEST)
        outflow = self.outflow
        # The same object nearly always, since most requests have the default.
        if timeout is not self._timeout:
            self._span, self._timeout_ms = _span(timeout)
            self._timeout = timeout
        deadline = now + self._span
        size = len(data)
        if attributes is None:
            # `Outflow.charge`, without the call.
            if size > outflow.inline_limit or size > outflow.free_bytes or not outflow.free_messages:
                raise outflow.refusal(size)
            outflow.free_messages -= 1
            outflow.free_bytes -= size
            message_id = outflow.next_id
            outflow.next_id = message_id + 1
            kind = _REQUEST
        else:
            flags, prefix = attributes.encode()
            message_id = outflow.charge_payload(size, size + len(prefix))
            kind, data = self._attach(_REQUEST | flags << 8, prefix, data, attributes)
            size = len(data)
        ticket.id = message_id
        ticket.size = size
        ticket.deadline = deadline
        if deadline < outflow.next_deadline:
            outflow.next_deadline = deadline
        outflow.pending[message_id] = ticket
        frame = pack_header(size, kind, message_id, self._timeout_ms) + data
        if alone and not self.frames:
            return frame
        self.frames.append(frame)
        self.output_size += size + HEADER_SIZE
        return None

    def _attach(self, kind: int, prefix: bytes, data: bytes | memoryview, attributes: Attributes) -> tuple[int, bytes]:
        handles = attributes.received
        for first in range(0, len(handles), MAX_HANDLES_PER_FRAME):
            self._queue_carrier(Carrier.of(_HANDLES, 0, 0, handles[first : first + MAX_HANDLES_PER_FRAME]))
        return kind, prefix + data

    def datagram(self, data: bytes | memoryview, attributes: Attributes | None = None) -> int:
        """Send a message that wants no answer.

        Args:
            data: the payload.
            attributes: what goes with it; its descriptors belong to the connection once this returns.

        Returns:
            The message's id.

        Raises:
            MessageTooLong: the payload is longer than agreed.
            QuotaExceeded: too much is in flight.
        """
        if self.state is not _OPEN:
            self._command(_DATAGRAM)
        if attributes is None:
            message_id = self.outflow.charge_datagram(len(data))
            self.queue(pack(_DATAGRAM, message_id, 0, data))
            return message_id
        flags, prefix = attributes.encode()
        size = len(data) + len(prefix)
        message_id = self.outflow.charge_payload(len(data), size)
        self.outflow.count_datagram(size)
        kind, data = self._attach(_DATAGRAM | flags << 8, prefix, data, attributes)
        self.queue(pack(kind, message_id, 0, data))
        return message_id

    def reply(
        self, message_id: int, data: bytes | memoryview, attributes: Attributes | None = None, alone: bool = False
    ) -> bytes | None:
        """Answer a request.

        Args:
            message_id: the request's id.
            data: the payload.
            attributes: what goes with it; its descriptors belong to the connection once this returns.
            alone: give the frame out at once if nothing is queued before it, or a frame without data, which then goes
                with it.

        Returns:
            The frame, or ``None``; see `request`.

        Raises:
            MessageTooLong: the payload is longer than agreed; the request still waits for its answer.
            ReplyMismatch: no request of that id waits for an answer.
        """
        size = len(data)
        if size > (self.outflow.inline_limit if attributes is None else self.limits.max_message_length):
            raise MessageTooLong(port=self.label, size=size, limit=self.limits.max_message_length)
        if self.state is not _OPEN:
            self._command(_REPLY)
        inflow = self.inflow
        request = inflow.owed.pop(message_id, None)
        if request is None:
            raise inflow.mismatch(message_id)
        inflow.free_messages += 1
        inflow.free_bytes += request.size
        kind = _REPLY
        if attributes is not None:
            flags, prefix = attributes.encode()
            kind, data = self._attach(_REPLY | flags << 8, prefix, data, attributes)
            size = len(data)
        frame = pack_header(size, kind, message_id, 0) + data
        if alone:
            if not self.frames:
                return frame
            if self.output_size == HEADER_SIZE and not self._carriers:
                # What is queued is one bare header, most likely that the request's view goes back.
                self.output_size = 0
                return self.frames.pop() + frame
        self.frames.append(frame)
        self.output_size += size + HEADER_SIZE
        return None

    def fault(self, message_id: int, status: int, reason: str) -> None:
        """Answer a request with a fault.

        Args:
            message_id: the request's id.
            status: a `Status`, or an application's number.
            reason: a sentence; cut to 4 KiB.

        Raises:
            ReplyMismatch: no request of that id waits for an answer.
        """
        # Packed first: a status that does not fit must leave the request waiting.
        frame = pack(_FAULT, message_id, status, _cut(reason))
        if self.state is not _OPEN:
            self._command(_FAULT)
        self.inflow.settle(message_id)
        self.queue(frame)

    def cancel(self, ticket: TicketT) -> bool:
        """Withdraw a request.

        Returns:
            Whether it was still waiting; its answer will not be reported. ``False``: too late, it has ended.
        """
        if not self.outflow.abandon(ticket):
            return False
        if self.state is State.OPEN:
            self.queue(pack(_CANCEL, ticket.id, 0))
        return True

    def taken(self, messages: int, size: int) -> None:
        """Note that datagrams were taken out of the queue, so that the sender may send as much again.

        Args:
            messages: how many.
            size: their payload bytes together.
        """
        credit = self.inflow.take(messages, size)
        if credit is not None and self.state is State.OPEN:
            self.queue(pack(_CREDIT, credit[1], credit[0]))

    def revoke(self, context: int) -> None:
        """Say that a security context counts no longer, also for messages that are on their way or open.

        Args:
            context: its number.
        """
        if self.state is _OPEN:
            self.queue(pack(_REVOKED, context, 0))

    # -- bytes out -----------------------------------------------------------------------------------------------------

    def data_to_send(self, limit: int) -> bytes:
        """Take queued frames out, whole ones, up to about ``limit`` bytes; at least one when there is any."""
        output = self.frames
        if self._carriers:
            return self._next_run(limit)
        if self.output_size <= limit:
            data = b"".join(output)
            output.clear()
            self.output_size = 0
            return data
        size = count = 0
        for frame in output:
            if size and size + len(frame) > limit:
                break
            size += len(frame)
            count += 1
        data = b"".join(output[:count])
        del output[:count]
        self.output_size -= size
        return data

    def _next_run(self, limit: int) -> bytes:
        # A carrier leaves alone: its descriptors must begin a send, and nothing may stand before it.
        output = self.frames
        size = count = 0
        for frame in output:
            if isinstance(frame, Carrier):
                if not count:
                    count = 1
                    size = len(frame)
                    self._carriers -= 1
                break
            if size and size + len(frame) > limit:
                break
            size += len(frame)
            count += 1
        data = output[0] if count == 1 else b"".join(output[:count])
        del output[:count]
        self.output_size -= size
        return data

    def drop_output(self) -> list[Handle]:
        """Forget what is queued. Only the end of the connection may follow, since numbers are missing now.

        Returns:
            The descriptors that would have left, for the caller to close.
        """
        dropped = [handle for frame in self.frames if isinstance(frame, Carrier) for handle in frame.handles]
        self._carriers = 0
        self.frames.clear()
        self.output_size = 0
        return dropped

    def _queue_carrier(self, carrier: Carrier) -> None:
        self.queue(carrier)
        self._carriers += 1

    def lost_replies(self, sending: bytes, sent: int) -> list[int]:
        """Return the ids of requests whose REPLY the other side cannot have got whole, when the link is gone.

        Args:
            sending: the run of frames that was being sent.
            sent: how many of its bytes left.
        """
        return find_replies(sending, sent) + [found for frame in self.frames for found in find_replies(frame, 0)]


def _span(timeout: float | None) -> tuple[float, int]:
    """Return a timeout in seconds, and as it travels: in milliseconds, 0 for none."""
    if timeout is None or timeout == math.inf:
        return math.inf, 0
    try:
        if timeout >= _LONGEST:
            return timeout, MAX_TIMEOUT_MS
        if timeout >= 0:
            return timeout, int(timeout * 1000.0) + 1
    except TypeError:
        raise TypeError(f"timeout must be a number of seconds, or None for no end; not {timeout!r}") from None
    raise ValueError(f"timeout must be a number of seconds from 0, or None for no end; not {timeout!r}")


def _cut(reason: str) -> bytes:
    # Cutting may split a character; the receiver decodes with replacement.
    return reason.encode("utf-8", "replace")[:MAX_REASON_LENGTH]
