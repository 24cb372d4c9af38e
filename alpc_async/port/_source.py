"""Where the packets of one connection wait, and the slot that a running task holds.

Belongs here: `Source`, and `Slot` with the variable that leads to the one of the running task. Never here: whose turn
it is (`_queue`), what a packet means.
"""

from __future__ import annotations

from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol

from ._arrived import Arrived
from ._message import Completion, Message, MessageType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ._queue import PacketQueue

__all__ = ["Slot", "Source", "current_slot", "slot_here"]

MARKS: Final = 64
"""Times of arrival that a source keeps, to tell how old its oldest packet is."""

SHORT: Final = 64
"""Packets up to which a queue is simply searched when one is taken back; the search is a loop in C."""


class Slot(Protocol):
    """What a task holds while it counts as running at a completion port."""

    def leave(self) -> None:
        """Note that the task waits now; does nothing when it is not the holder."""
        ...

    def enter(self) -> None:
        """Note that it goes on."""
        ...


current_slot: Final[ContextVar[Slot | None]] = ContextVar("alpc_async.port.slot", default=None)
"""The slot of the task that is running; waits of the framework give it back for their time."""

slot_here: Final = current_slot.get
"""Returns that slot. CPython takes the short way to a method of what a module imports only where it is bound before."""


class Source:
    """Where the packets of one connection, or the posted ones, wait.

    Args:
        queue: the queue that hands them out.
        key: completion key.
        taken: called with (messages, bytes) of the datagrams that were handed out.

    Attributes:
        weight: turns that this source has for one of the others.
        throttle: asks the connection to read nothing more, or to go on.
        in_flight: tells the payload bytes that wait here or are being worked on.
        lends: whether messages that wait here may have brought memory, so that their number says little.
    """

    __slots__ = (
        "_withdrawn",
        "arrived",
        "datagrams",
        "debt",
        "held",
        "in_flight",
        "in_ring",
        "key",
        "lends",
        "marks",
        "packets",
        "queue",
        "taken",
        "throttle",
        "waiting",
        "weight",
    )

    def __init__(self, queue: PacketQueue, key: object, taken: Callable[[int, int], None] | None = None) -> None:
        self.queue = queue
        self.key = key
        self.taken = taken
        self.packets: deque[Completion] = deque()
        self.datagrams = 0
        self.in_ring = False
        self.held = False
        self.weight = 1
        self.debt = 0
        self.lends = False
        self.arrived = 0
        self.marks: deque[tuple[int, float]] = deque()
        self.throttle: Callable[[bool], None] | None = None
        self.in_flight: Callable[[], int] | None = None
        # Both by identity of the packet; they exist only after a packet was taken back out of a long queue.
        self.waiting: set[int] | None = None
        self._withdrawn: set[int] = set()

    def hold(self) -> None:
        """Keep the packets back."""
        self.held = True
        self.queue.lower_flag()

    def let_go(self) -> None:
        """Hand packets out again."""
        self.held = False
        if self.packets:
            self.queue.announce(self)

    def put(self, packets: Iterable[Completion]) -> None:
        """Append packets and wake one waiting task.

        Args:
            packets: the packets.
        """
        before = len(self.packets)
        if self.waiting is None:
            self.packets.extend(packets)
        else:
            added = list(packets)
            self.packets.extend(added)
            self.waiting.update(map(id, added))
        self.arrived += len(self.packets) - before
        self.mark()
        queue = self.queue
        if queue.bounded:
            queue.look(self)
        if not self.held:
            queue.announce(self)

    def mark(self) -> None:
        """Note when the packets came that were appended since the last mark."""
        waiting = len(self.packets)
        marks = self.marks
        # The number of a packet is how many came before it; those below the first one that waits are gone.
        first = self.arrived - waiting
        while marks and marks[0][0] <= first:
            marks.popleft()
        if len(marks) < MARKS:
            marks.append((self.arrived, self.queue.loop.time()))

    def age(self, now: float) -> float:
        """Return how long the first packet has waited, in seconds, as far as was noted."""
        first = self.arrived - len(self.packets)
        return next((now - time for number, time in self.marks if number > first), 0.0) if self.packets else 0.0

    def put_now(self, packet: Completion) -> None:
        """Append one packet and let a waiting task run before this returns, where the loop can do that.

        The same as `put`, for the packet that is alone in its turn of the loop, without the calls.
        """
        packets = self.packets
        packets.append(packet)
        self.arrived += 1
        queue = self.queue
        if self.waiting is not None:
            self.waiting.add(id(packet))
        if len(packets) > 1 or self.held:
            self.mark()
            if queue.bounded:
                queue.look(self)
        if self.held:
            return
        if not self.in_ring:
            self.in_ring = True
            queue.ring.append(self)
        if queue.flag is not None:
            queue.flag.set(True)
        seats = queue.seats
        while seats:
            waiter = seats.pop().waiter
            if not waiter.done():
                queue.loop.wake_now(waiter)
                return

    def hand_over(self, packet: Message) -> None:
        """Give a request to a waiting task past the queue, if nothing has to be asked or noted; else as `put_now`.

        Args:
            packet: a request that is alone in its turn of the loop and needs no receipt.
        """
        queue = self.queue
        seats = queue.seats
        if seats and not queue.ring and not self.held and queue.flag is None:
            seat = seats[-1]
            waiter = seat.waiter
            if seat.takes and not waiter.done():
                seats.pop()
                seat.batch = [packet]
                queue.loop.wake_now(waiter)
                return
        self.put_now(packet)

    def put_back(self, packet: Completion) -> None:
        """Put a packet that `hand_over` gave to a task before everything else, since the task never saw it.

        Args:
            packet: the packet.
        """
        self.packets.appendleft(packet)
        self.arrived += 1
        if self.waiting is not None:
            self.waiting.add(id(packet))
        if not self.held:
            self.queue.announce(self)

    def remove(self, packet: Completion) -> bool:
        """Take a packet back; ``False`` when it was handed out already.

        Costs constant time on average, whatever the order: a peer must not be able to make us search long queues.
        """
        packets = self.packets
        if self.waiting is None:
            if len(packets) <= SHORT:
                return self._remove_from_short(packet)
            self.waiting = {id(waiting) for waiting in packets}
        if id(packet) not in self.waiting:
            return False
        self.waiting.discard(id(packet))
        self._withdrawn.add(id(packet))
        if 2 * len(self._withdrawn) > len(packets) or packets[0] is packet:
            self._compact()
        self.queue.lower_flag()
        return True

    def _remove_from_short(self, packet: Completion) -> bool:
        try:
            self.packets.remove(packet)
        except ValueError:
            return False
        self.queue.lower_flag()
        return True

    def _compact(self) -> None:
        withdrawn = self._withdrawn
        if 2 * len(withdrawn) > len(self.packets):
            live = [packet for packet in self.packets if id(packet) not in withdrawn]
            self.packets.clear()
            self.packets.extend(live)
            withdrawn.clear()
            if not live:
                self.waiting = None
        else:
            self._drop_withdrawn_head()

    def _drop_withdrawn_head(self) -> None:
        packets = self.packets
        while packets and id(packets[0]) in self._withdrawn:
            self._withdrawn.discard(id(packets.popleft()))
        if not packets:
            self.waiting = None

    def pop(self) -> Completion:
        """Hand the first packet out; there must be one."""
        packet = self.packets.popleft()
        if self.waiting is not None:
            self.waiting.discard(id(packet))
            self._drop_withdrawn_head()
        if self.datagrams:
            self.note_taken(packet)
        return packet

    def pop_many(self, maximum: int) -> list[Completion]:
        """Hand out the first packets, up to ``maximum`` of them."""
        packets = self.packets
        if self.waiting is not None:
            taken: list[Completion] = []
            while packets and len(taken) < maximum:
                taken.append(self.pop())
            return taken
        taken = [packets.popleft() for _ in range(min(maximum, len(packets)))]
        if self.datagrams:
            for packet in taken:
                self.note_taken(packet)
        return taken

    def clear(self) -> None:
        """Drop what waits."""
        for packet in self.packets:
            if isinstance(packet, Arrived):
                packet.let_go()
        self.packets.clear()
        self.waiting = None
        self._withdrawn.clear()
        self.marks.clear()
        self.queue.lower_flag()
        self.datagrams = 0
        self.queue.relieve()

    def move(self, queue: PacketQueue, key: object) -> None:
        """Let another queue hand the packets out from now on, those that wait included."""
        if self.in_ring:
            self.queue.forget(self)
            self.queue.lower_flag()
        if self.throttle is not None:
            self.throttle(False)
        self.queue = queue
        self.key = key
        if self.packets and not self.held:
            queue.announce(self)

    def note_taken(self, packet: Completion) -> None:
        """Give the credit of a datagram back."""
        if isinstance(packet, Arrived) and packet.counted:
            self.datagrams -= 1
            packet.note_taken()
            if self.taken is not None and packet.type is MessageType.DATAGRAM:
                self.taken(1, packet.charge)
