"""The one place where received packets wait: fair between sources, first-in first-out within one.

Belongs here: `PacketQueue`. Never here: what a packet means, how it came, who handles it.

Every connection is a `Source` with a deque of its own; sources that have packets stand in a ring. While several stand
there, they take turns: a source hands out `QUANTUM` packets, times its weight, before the next one has its turn, so a
client that floods delays the others by that many packets of its own and no more. A long packet counts as several, one
more for each `COSTLY` bytes, and what a turn took too much is missing in the next one (deficit round robin).

The queue as a whole may have a bound. Above it, the sources that fill it are asked to read nothing more, so that what
they send piles up at the senders, who wait; below half of it they go on.

A source is *held* while its connection is clogged: answers to its packets would only pile up, so its packets wait, and
since they keep their place in the quota the client cannot send more.

Tasks that wait are woken newest-first: the task that went idle last has the warmest caches, as with the threads of an
I/O completion port. One wake-up announces any number of packets; the woken task drains and passes the wake-up on.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from ..handles import EventFlag
from ..link import Waiter
from ._arrived import Arrived, arrived
from ._message import Completion, Message

if TYPE_CHECKING:
    from ..link import Loop
    from ._source import Source

__all__ = ["QUANTUM", "PacketQueue", "Seat"]

QUANTUM: Final = 16
"""Packets of one source that are handed out while other sources wait.

Small enough that a polite client waits for 16 short handlers at most per flooding one, large enough that the turn of
the ring costs a few nanoseconds per packet.
"""


COSTLY: Final = 4096
"""Bytes of a packet that count as much as another packet: about what copying and parsing them costs beside a call."""

CHECKS: Final = 32
"""Times that packets are appended between two looks at the bound; each time brings a receive buffer at most."""


class Seat(msgspec.Struct, eq=False):
    """Where a task waits for a packet.

    Attributes:
        waiter: what wakes the task.
        takes: a packet that finds nothing before it may be put here instead of into the queue.
        batch: that packet; it is handed out, and belongs to the task that waits here.
    """

    waiter: Waiter
    takes: bool
    batch: list[Message] | None = None


class PacketQueue:
    """Hands packets out to waiting tasks.

    Args:
        loop: the running loop.

    Attributes:
        turn: packets of one source in one turn; who takes them one by one may want shorter ones.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.ring: deque[Source] = deque()
        self.turn = QUANTUM
        self._quantum = QUANTUM
        self.seats: list[Seat] = []
        self.flag: EventFlag | None = None
        self._ended = False
        self.bounded = False
        self._max_messages = 0
        self._max_bytes = 0
        self._looks = 0
        self._throttled: set[Source] = set()

    def __len__(self) -> int:
        return sum(len(source.packets) for source in self.ring)

    @property
    def ready(self) -> bool:
        """Whether a packet can be taken now."""
        ring = self.ring
        while ring:
            source = ring[0]
            if source.packets and not source.held:
                return True
            ring.popleft()
            source.in_ring = False
            self._begin_turn()
        return False

    def lower_flag(self) -> None:
        """Let `fileno` be unreadable again when nothing can be taken."""
        if self.flag is not None and not self.ready:
            self.flag.set(self._ended)

    @property
    def waiting(self) -> int:
        """Tasks that wait for a packet."""
        return len(self.seats)

    def announce(self, source: Source) -> None:
        """Put a source that has packets into the ring, and wake one task.

        Args:
            source: the source.
        """
        if not source.in_ring:
            source.in_ring = True
            self.ring.append(source)
        if self.flag is not None:
            self.flag.set(True)
        self.wake_one()

    def forget(self, source: Source) -> None:
        """Take a source out of the ring."""
        source.in_ring = False
        self.ring.remove(source)
        self._throttled.discard(source)
        self._begin_turn()

    def take(self) -> Completion | None:
        """Return the next packet, or ``None`` when there is none."""
        ring = self.ring
        if not ring:
            return None
        source = ring[0]
        packets = source.packets
        if not packets or source.held:
            if not self.ready:
                return None
            source = ring[0]
            packets = source.packets
        packet = packets.popleft() if source.waiting is None and not source.datagrams else source.pop()
        if not packets:
            self._retire(source)
        elif len(ring) > 1:
            self._quantum -= 1 + packet.effort // COSTLY if isinstance(packet, Arrived) else 1
            if self._quantum <= 0:
                self._next_turn()
        if self.flag is not None:
            self.lower_flag()
        if self._throttled:
            self.relieve()
        return packet

    def _retire(self, source: Source) -> None:
        """Take the first source, which has nothing more, out of the ring."""
        self.ring.popleft()
        source.in_ring = False
        source.lends = False
        source.debt = 0
        self._begin_turn()

    def _next_turn(self) -> None:
        ring = self.ring
        ring[0].debt = -self._quantum
        ring.rotate(-1)
        self._begin_turn()

    def _begin_turn(self) -> None:
        ring = self.ring
        self._quantum = self.turn
        while ring:
            source = ring[0]
            share = self.turn * source.weight
            if source.debt < share:
                self._quantum = share - source.debt
                return
            source.debt -= share
            ring.rotate(-1)

    def take_batch(self, maximum: int) -> list[Completion]:
        """Return the next packets, up to ``maximum`` of them, in the order of `take`."""
        ring = self.ring
        if len(ring) == 1:
            source = ring[0]
            waiting = source.packets
            plain = not (source.held or source.datagrams or source.lends) and source.waiting is None
            if plain and 0 < len(waiting) <= maximum:
                batch = list(waiting)
                waiting.clear()
                ring.clear()
                source.in_ring = False
                source.debt = 0
                if self.flag is not None:
                    self.lower_flag()
                if self._throttled:
                    self.relieve()
                return batch
        return self._take_batch_in_turn(maximum)

    def _take_batch_in_turn(self, maximum: int) -> list[Completion]:
        batch: list[Completion] = []
        ring = self.ring
        room = maximum
        while room > 0 and self.ready:
            source = ring[0]
            alone = len(ring) == 1
            most = room if alone else max(1, min(room, self._quantum))
            taken = source.pop_many(most) if not source.lends else [source.pop()]
            batch += taken
            cost = len(taken)
            if source.lends or not alone:
                cost += sum(packet.effort // COSTLY for packet in taken if isinstance(packet, Arrived))
            # Whoever takes a batch lets nobody else in between, so memory that is lent shortens it.
            room -= cost if source.lends else len(taken)
            if not source.packets:
                self._retire(source)
            elif not alone:
                self._quantum -= cost
                if self._quantum <= 0:
                    self._next_turn()
        if self.seats and self.ready:
            self.wake_one()
        if self.flag is not None:
            self.lower_flag()
        if self._throttled:
            self.relieve()
        return batch

    # -- the bound -----------------------------------------------------------------------------------------------------

    def bound(self, max_messages: int, max_bytes: int) -> None:
        """Let senders wait instead of keeping more than so much.

        Args:
            max_messages: messages that may wait.
            max_bytes: their payloads, in bytes, those included that are being worked on.
        """
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self.bounded = True

    def look(self, source: Source) -> None:
        """Look from time to time whether too much waits; then stop the sources that have something waiting."""
        self._looks += 1
        if self._throttled:
            self._throttle(source)
        elif self._looks >= CHECKS or len(source.packets) >= self._max_messages:
            self._looks = 0
            if self._fullness() > 1:
                for filling in (*self.ring, source):
                    self._throttle(filling)

    def _throttle(self, source: Source) -> None:
        if source.throttle is not None and source not in self._throttled:
            self._throttled.add(source)
            source.throttle(True)

    def _fullness(self) -> float:
        sources = {*self.ring, *self._throttled}
        size = sum(source.in_flight() for source in sources if source.in_flight is not None)
        return max(sum(len(source.packets) for source in sources) / self._max_messages, size / self._max_bytes)

    def relieve(self) -> None:
        """Let throttled sources go on when half of the bound is free again."""
        if self._throttled and self._fullness() < 0.5:
            throttled, self._throttled = self._throttled, set()
            for source in throttled:
                if source.throttle is not None and source.queue is self:
                    source.throttle(False)

    @property
    def throttled(self) -> int:
        """Connections that read nothing because the queue is full."""
        return len(self._throttled)

    def age(self) -> float:
        """Return how long the oldest packet has waited, in seconds."""
        now = self.loop.time()
        return max((source.age(now) for source in self.ring), default=0.0)

    # -- waiting -------------------------------------------------------------------------------------------------------

    def wake_one(self) -> None:
        """Wake the task that went idle last, if any waits."""
        seats = self.seats
        while seats:
            waiter = seats.pop().waiter
            if not waiter.done():
                waiter.set_result(None)
                return

    def wake_all(self) -> None:
        """Wake every waiting task, to let it see that the queue has ended."""
        while self.seats:
            self.wake_one()

    async def wait(self) -> None:
        """Wait until `announce` or `end` wakes this task.

        Cancelling consumes nothing; a wake-up that came is passed on.
        """
        seat = self.take_seat(False)
        try:
            await seat.waiter
        except BaseException:
            self.leave_seat(seat)
            raise

    def take_seat(self, takes: bool) -> Seat:
        """Return a new place to wait at: await its ``waiter``, and call `leave_seat` when that raises.

        Args:
            takes: whether a packet may be put there.
        """
        create_waiter = self.loop.create_waiter
        seat = Seat(create_waiter(), takes)
        self.seats.append(seat)
        return seat

    def leave_seat(self, seat: Seat) -> None:
        """Give a place up without having been woken, and pass on what came to it meanwhile.

        Args:
            seat: the place.
        """
        if seat in self.seats:
            self.seats.remove(seat)
        elif seat.batch is not None:
            for packet in seat.batch:
                arrived(packet).channel.source.put_back(packet)
        elif self.ready:
            self.wake_one()

    def end(self) -> None:
        """Note that nothing more will come; waiting tasks wake up, and `fileno` stays readable."""
        self._ended = True
        if self.flag is not None:
            self.flag.set(True)
        self.wake_all()

    def fileno(self) -> int:
        """Return a descriptor that is readable while a packet can be taken; made when first asked for."""
        if self.flag is None:
            self.flag = EventFlag()
            self.flag.set(self.ready or self._ended)
        return self.flag.fileno()

    def close(self) -> None:
        """End, and give the descriptor of `fileno` back."""
        self.end()
        if self.flag is not None:
            self.flag.close()
