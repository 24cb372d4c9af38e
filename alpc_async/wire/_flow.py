"""What is in flight between the two sides, and how much more may be.

Belongs here: numbering, quotas, the table of our open requests (`Outflow`) and of the other side's (`Inflow`). Never
here: bytes and frames.

Both sides keep the same two rooms, messages and bytes that are still free, so each can check the other. A request is in
flight until its final frame, a datagram until the receiver gave its credit back. A request that its owner gave up stays
known as *abandoned*, and takes room, until its final frame arrives: giving up must not be a way around the quota.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic

from ..errors import MessageTooLong, ProtocolViolation, QuotaExceeded, ReplyMismatch
from ._events import TicketT

if TYPE_CHECKING:
    from ..limits import PortLimits
    from ._events import Request

__all__ = ["Inflow", "Outflow"]


class Outflow(Generic[TicketT]):
    """What we have in flight to the other side.

    Args:
        limits: the agreed limits.
        label: what the port calls itself, for error messages.
    """

    __slots__ = (
        "_abandoned",
        "_datagram_bytes",
        "_datagrams",
        "_label",
        "_limits",
        "free_bytes",
        "free_messages",
        "inline_limit",
        "next_deadline",
        "next_id",
        "pending",
    )

    def __init__(self, limits: PortLimits, label: str) -> None:
        self._label = label
        self._limits = limits
        self.inline_limit = limits.max_message_length
        """Longest data that `charge` takes; a driver lowers it to have longer data travel as a view."""
        self.free_messages = limits.max_outstanding_messages
        self.free_bytes = limits.max_pool_usage
        self.next_id = 1
        self._datagrams = 0
        self._datagram_bytes = 0
        # The tickets, since what they hold has to stay until nobody can use it any more.
        self._abandoned: dict[int, TicketT] = {}
        self.pending: dict[int, TicketT] = {}
        self.next_deadline = math.inf

    def charge(self, size: int) -> int:
        """Take room for one message and return its id.

        Raises:
            MessageTooLong: the payload is longer than agreed.
            QuotaExceeded: too much is in flight.
        """
        if size > self.inline_limit or size > self.free_bytes or not self.free_messages:
            raise self.refusal(size)
        self.free_messages -= 1
        self.free_bytes -= size
        message_id = self.next_id
        self.next_id = message_id + 1
        return message_id

    def charge_payload(self, data_size: int, size: int) -> int:
        """Take room for one message with attributes and return its id; raises like `charge`.

        Args:
            data_size: bytes of its data.
            size: bytes of its payload, the attributes included.
        """
        if data_size > self._limits.max_message_length:
            raise self.refusal(data_size)
        if size > self.free_bytes or not self.free_messages:
            raise self.refusal(0)
        self.free_messages -= 1
        self.free_bytes -= size
        message_id = self.next_id
        self.next_id = message_id + 1
        return message_id

    def refusal(self, size: int) -> MessageTooLong | QuotaExceeded:
        """Return the error that says why a message of that many bytes has no room."""
        limits = self._limits
        if size > min(self.inline_limit, limits.max_message_length):
            return MessageTooLong(port=self._label, size=size, limit=limits.max_message_length)
        if not self.free_messages:
            setting, limit = "max_outstanding_messages", limits.max_outstanding_messages
        else:
            setting, limit = "max_pool_usage", limits.max_pool_usage
        return QuotaExceeded(port=self._label, setting=setting, limit=limit)

    def reserve(self, size: int) -> None:
        """Keep room for one message of at most so many bytes; raises like `charge`."""
        if size > self._limits.max_message_length:
            raise MessageTooLong(port=self._label, size=size, limit=self._limits.max_message_length)
        if size > self.free_bytes or not self.free_messages:
            raise self.refusal(0)
        self.free_messages -= 1
        self.free_bytes -= size

    def unreserve(self, size: int) -> None:
        """Give reserved room back, to be used for a message right now or by anybody later."""
        self.free_messages += 1
        self.free_bytes += size

    def charge_datagram(self, size: int) -> int:
        """Take room for one datagram and return its id; raises like `charge`."""
        message_id = self.charge(size)
        self.count_datagram(size)
        return message_id

    def count_datagram(self, size: int) -> None:
        """Note that the message charged last is a datagram, whose room comes back as credit."""
        self._datagrams += 1
        self._datagram_bytes += size

    def has_room(self, size: int) -> bool:
        """Return whether a message of that many bytes would be within the quotas."""
        return self.free_messages > 0 and size <= self.free_bytes

    def settle(self, message_id: int) -> TicketT | None:
        """Note the final frame of a request.

        Returns:
            The request's ticket, or ``None`` when it was abandoned.

        Raises:
            ProtocolViolation: no request of that id is open.
        """
        ticket = self.pending.pop(message_id, None)
        if ticket is not None:
            self.free_bytes += ticket.size
        else:
            abandoned = self._abandoned.pop(message_id, None)
            if abandoned is None:
                raise ProtocolViolation(rule="only open requests are answered, once", detail=f"message {message_id}")
            self.free_bytes += abandoned.size
        self.free_messages += 1
        return ticket

    def abandon(self, ticket: TicketT) -> bool:
        """Give a request up; ``False`` when it is not open any more."""
        if self.pending.pop(ticket.id, None) is None:
            return False
        self._abandoned[ticket.id] = ticket
        return True

    def credit(self, messages: int, size: int) -> None:
        """Note that the other side took datagrams.

        Raises:
            ProtocolViolation: more is given back than was sent.
        """
        if not 0 < messages <= self._datagrams or size > self._datagram_bytes:
            raise ProtocolViolation(
                rule="no more credit is given back than was used", detail=f"{messages} messages of {size} bytes"
            )
        self.free_messages += messages
        self.free_bytes += size
        self._datagrams -= messages
        self._datagram_bytes -= size

    def due(self, now: float) -> list[TicketT]:
        """Return the requests whose deadline has come, still open, and compute the next deadline of the others."""
        due: list[TicketT] = []
        following = math.inf
        for ticket in self.pending.values():
            deadline = ticket.deadline
            if deadline <= now:
                due.append(ticket)
            elif deadline < following:
                following = deadline
        self.next_deadline = following
        return due

    def end(self) -> list[TicketT]:
        """Forget everything; return the requests that were open, oldest first."""
        tickets = list(self.pending.values())
        self.pending.clear()
        self._abandoned.clear()
        self.next_deadline = math.inf
        return tickets

    @property
    def busy(self) -> bool:
        """Whether a request of ours is open, given up ones included."""
        return bool(self.pending or self._abandoned)

    @property
    def passed(self) -> tuple[int, int, int]:
        """The numbers with which another process can go on; assigned, it goes on with them."""
        return self.next_id, self._datagrams, self._datagram_bytes

    @passed.setter
    def passed(self, numbers: tuple[int, int, int]) -> None:
        self.next_id, self._datagrams, self._datagram_bytes = numbers
        self.free_messages -= self._datagrams
        self.free_bytes -= self._datagram_bytes
        if self.next_id < 1 or min(self.free_messages, self.free_bytes) < 0:
            raise ValueError("this is not the state of a connection: more is in flight than was agreed")


class Inflow:
    """What the other side has in flight to us.

    Args:
        limits: the agreed limits.
        label: what the port calls itself, for error messages.
    """

    __slots__ = (
        "_label",
        "_late_cancels",
        "_tell_bytes",
        "_tell_messages",
        "_untold_bytes",
        "_untold_messages",
        "free_bytes",
        "free_messages",
        "next_id",
        "owed",
    )

    def __init__(self, limits: PortLimits, label: str) -> None:
        self._label = label
        self.free_messages = limits.max_outstanding_messages
        self.free_bytes = limits.max_pool_usage
        # A sender may always send one longest message once everything was taken, also while we have not told it so.
        self._tell_messages = max(1, limits.max_outstanding_messages // 2)
        self._tell_bytes = min(limits.max_pool_usage // 2, limits.max_pool_usage - limits.max_message_length)
        self.next_id = 1
        self._untold_messages = 0
        self._untold_bytes = 0
        self._late_cancels = 0
        self.owed: dict[int, Request] = {}

    def accept(self, message_id: int, size: int) -> None:
        """Note that a message arrived.

        Raises:
            ProtocolViolation: its number is not the next one, or it is over the quota.
        """
        if message_id != self.next_id:
            raise ProtocolViolation(
                rule="messages are numbered without gaps", detail=f"got {message_id}, expected {self.next_id}"
            )
        self.next_id = message_id + 1
        if size > self.free_bytes or not self.free_messages:
            raise ProtocolViolation(
                rule="nobody sends more than the agreed quota",
                detail=f"{size} bytes, with room for {self.free_messages} messages and {self.free_bytes} bytes",
            )
        self.free_messages -= 1
        self.free_bytes -= size

    def mismatch(self, message_id: int) -> ReplyMismatch:
        """Return the error that says that no request of an id waits for an answer."""
        return ReplyMismatch(port=self._label, message_id=message_id, reason="no request of that id waits for a reply")

    def settle(self, message_id: int) -> None:
        """Note that we answer a request; `Commands.reply` does the same without the call.

        Raises:
            ReplyMismatch: no request of that id waits for an answer.
        """
        request = self.owed.pop(message_id, None)
        if request is None:
            raise self.mismatch(message_id)
        self.free_messages += 1
        self.free_bytes += request.size

    def cancel(self, message_id: int) -> Request | None:
        """Note that the sender gave a request up; ``None`` when we had answered it already.

        Raises:
            ProtocolViolation: no message of that id ever arrived.
        """
        request = self.owed.get(message_id)
        if request is not None:
            self.settle(message_id)
        elif not 0 < message_id < self.next_id or self._late_cancels >= self.next_id:
            raise ProtocolViolation(rule="only sent requests are cancelled, once", detail=f"message {message_id}")
        else:
            self._late_cancels += 1
        return request

    def end(self) -> list[Request]:
        """Forget everything; return the requests that were not answered, oldest first."""
        requests = list(self.owed.values())
        self.owed.clear()
        return requests

    def take(self, messages: int, size: int) -> tuple[int, int] | None:
        """Note that datagrams were taken out of the queue.

        Returns:
            The credit (messages, bytes) to give back now, or ``None`` to collect more first.
        """
        self.free_messages += messages
        self.free_bytes += size
        self._untold_messages += messages
        self._untold_bytes += size
        if self._untold_messages < self._tell_messages and self._untold_bytes <= self._tell_bytes:
            return None
        credit = self._untold_messages, self._untold_bytes
        self._untold_messages = self._untold_bytes = 0
        return credit

    @property
    def passed(self) -> tuple[int, int, int, int]:
        """The numbers with which another process can go on; assigned, it goes on with them."""
        return self.next_id, self._untold_messages, self._untold_bytes, self._late_cancels

    @passed.setter
    def passed(self, numbers: tuple[int, int, int, int]) -> None:
        self.next_id, self._untold_messages, self._untold_bytes, self._late_cancels = numbers
        if self.next_id < 1:
            raise ValueError("this is not the state of a connection: numbers begin with 1")
