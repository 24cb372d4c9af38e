"""A link that exists in memory only: two ends in one event loop, without a socket.

Belongs here: `MemoryLink` and the making of a pair. Never here: faults (`_faulty`), ports (`_pair`).

Each direction is a pipe of bounded capacity, filled by one end and emptied by the other in a later turn of the loop, so
everything that a socket makes happen happens here too: partial writes, unsent bytes, clogging, data that is still
received after the other side closed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from ..handles import close_all
from ..limits import PortLimits
from ..link import SendingLink, current_loop
from ..wire import Carrier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..handles import Handle
    from ..link import Link, LinkOwner, Loop

__all__ = ["LinkPair", "MemoryLink", "memory_link_pair"]

CAPACITY: Final = 208 * 1024
"""Bytes that one direction holds: what a socket of the kernel takes by default."""

SEND_GROUP: Final = 256 * 1024
"""Bytes asked of the owner at a time: more than the capacity, so that partial writes are the rule under load."""


class LinkPair(NamedTuple):
    """Two connected links that nobody has started yet."""

    left: Link
    right: Link


class MemoryLink(SendingLink):
    """One end of a link in memory; made by `memory_link_pair`. It behaves as `alpc_async.link.Link` says.

    Args:
        loop: the running loop.
        high_water: unsent bytes above which the link is clogged.
        low_water: unsent bytes at which it is free again.
        capacity: bytes that wait at this end to be received before the other end cannot send more.
    """

    def __init__(self, loop: Loop, *, high_water: int, low_water: int, capacity: int) -> None:
        super().__init__(loop, high_water=high_water, low_water=low_water)
        self._capacity = capacity
        self._peer: MemoryLink | None = None
        # In pieces: bytes that came with descriptors end a receive, as a socket does it.
        self._arrived: deque[tuple[bytearray, Sequence[Handle]]] = deque()
        self._arrived_size = 0
        self._peer_closed = False
        self._receive_scheduled = False

    def join(self, peer: MemoryLink) -> None:
        """Connect this end to another one; `memory_link_pair` does it for both.

        Args:
            peer: the other end.
        """
        self._peer = peer

    def start(self, owner: LinkOwner, /) -> None:
        """Begin to receive for the owner, what has arrived already included."""
        self._owner = owner
        self._schedule_receive()

    def fileno(self) -> int:
        """Return -1: there is no descriptor."""
        return -1

    # -- receiving ---------------------------------------------------------------------------------------------------

    def _schedule_receive(self) -> None:
        # An end that nobody owns yet lets its pipe fill up, as a socket does that nobody reads.
        if self._owner is not None and not self._receive_scheduled and (self._arrived or self._peer_closed):
            self._receive_scheduled = True
            self._loop.call_soon(self._receive_in_turn)

    def _receive_in_turn(self) -> None:
        self._receive_scheduled = False
        self._receive()

    def _receive(self) -> None:
        owner = self._owner
        if owner is None:
            return
        if self._arrived:
            data, handles = self._arrived.popleft()
            self._arrived_size -= len(data)
            self._receives += 1
            self._bytes_received += len(data)
            if self._peer is not None:
                self._peer.pipe_has_room()
            if handles:
                owner.handles_received(list(handles), False)
            owner.data_received(bytes(data))
            self._schedule_receive()
        elif self._peer_closed:
            self.close()
            owner.link_ended(None)

    def allow_handles(self) -> None:
        """Do nothing: descriptors are always taken."""

    def receive_rest(self) -> None:
        """Receive what has already arrived, then end the link."""
        while self._arrived and self._owner is not None:
            self._receive()
        self._peer_closed = True
        self._receive()

    def pipe_closed(self) -> None:
        """Note that the other end is closed, after what it sent before."""
        self._peer_closed = True
        self._peer = None
        self._schedule_receive()

    def take(self, data: memoryview, handles: Sequence[Handle] = ()) -> int:
        """Let as many bytes of the other end in as there is room for, and return their number.

        Args:
            data: the bytes that the other end wants to send.
            handles: descriptors that go with the first of them; they belong to this end once it took a byte.
        """
        taken = min(len(data), self._capacity - self._arrived_size)
        if taken:
            if handles or not self._arrived or self._arrived[-1][1]:
                self._arrived.append((bytearray(), handles))
            self._arrived[-1][0].extend(data[:taken])
            self._arrived_size += taken
            self._schedule_receive()
        return taken

    # -- sending -----------------------------------------------------------------------------------------------------

    def pipe_has_room(self) -> None:
        """Note that the other end emptied its pipe."""
        if self._waits_for_room:
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        owner = self._owner
        if owner is None or self._peer is None:
            return
        while True:
            if self._group_sent == len(self._group):
                self._group, self._group_sent = owner.data_to_send(SEND_GROUP), 0
                if not self._group:
                    break
            handles = self._group.handles if isinstance(self._group, Carrier) else ()
            taken = self._peer.take(memoryview(self._group)[self._group_sent :], handles)
            if taken and handles:
                self._group = bytes(self._group)
            if not taken:
                self._waits_for_room = True
                self._check_drained()
                return
            self._sends += 1
            self._bytes_sent += taken
            self._group_sent += taken
        if self._waits_for_room:
            self._waits_for_room = False
            owner.link_flushed()
        self._check_drained()

    def close(self) -> None:
        """End the link from this side without telling the owner. Closing again does nothing."""
        self._owner = None
        for _, handles in self._arrived:
            close_all(handles)
        self._arrived.clear()
        self._arrived_size = 0
        self._drop_carrier()
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.pipe_closed()


def memory_link_pair(
    loop: Loop | None = None,
    *,
    high_water: int | None = None,
    low_water: int | None = None,
    capacity: int = CAPACITY,
) -> LinkPair:
    """Make two connected links without a socket.

    Args:
        loop: the running loop; found when it is not given.
        high_water: unsent bytes above which a link is clogged; by default that of `alpc_async.PortLimits`.
        low_water: unsent bytes at which it is free again; by default that of `alpc_async.PortLimits`.
        capacity: bytes that each direction holds before its sender has to wait.

    Returns:
        Both ends, to be started and closed by the caller.

    Raises:
        ValueError: the capacity is not positive.
        RuntimeError: no event loop runs here.
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least one byte, not {capacity}")
    loop = current_loop() if loop is None else loop
    limits = PortLimits()
    high = limits.high_water if high_water is None else high_water
    low = min(limits.low_water, high) if low_water is None else low_water
    left = MemoryLink(loop, high_water=high, low_water=low, capacity=capacity)
    right = MemoryLink(loop, high_water=high, low_water=low, capacity=capacity)
    left.join(right)
    right.join(left)
    return LinkPair(left, right)
