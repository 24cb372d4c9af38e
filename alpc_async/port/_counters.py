"""What ports count, and the frozen values in which they tell it.

Belongs here: counters and statistics. Never here: decisions that depend on them.
"""

from __future__ import annotations

import msgspec

__all__ = ["ConnectionPortStatistics", "Counters", "PortStatistics"]


class Counters:
    """Counters of one connection, changed in place. Not a structure of msgspec, which CPython changes more slowly."""

    __slots__ = (
        "cancelled",
        "cut",
        "dropped_datagrams",
        "dropped_notices",
        "dropped_replies",
        "events",
        "expired",
        "largest_batch",
        "sender_changes",
        "violations",
        "waits",
    )

    def __init__(self) -> None:
        self.events = 0
        self.largest_batch = 0
        self.waits = 0
        self.cancelled = 0
        self.expired = 0
        self.dropped_replies = 0
        self.dropped_notices = 0
        self.dropped_datagrams = 0
        self.violations = 0
        self.sender_changes = 0
        self.cut = 0

    @property
    def largest(self) -> int:
        """Most frames in one receive; a frame that came alone is counted as an event only."""
        return max(self.largest_batch, min(self.events, 1))


class PortStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection has done so far.

    Attributes:
        receives: receive calls that brought data.
        messages_received: frames that came with them and meant something.
        largest_batch: most of them in one receive call.
        sends: send calls that took data.
        bytes_received: bytes that arrived, headers included.
        bytes_sent: bytes that the kernel took, headers included.
        unsent: bytes that the kernel has not taken yet.
        pending: requests of ours that wait for a reply.
        owed: requests of the other side that were not answered.
        queued: received messages that were not taken.
        waits: sends that had to wait for room.
        cancelled: requests of ours that were cancelled.
        expired: requests of ours that ran out of time.
        dropped_replies: answers of ours to requests that had been cancelled.
        dropped_notices: notices that were dropped because too many were waiting to be received.
        lent: ranges of our shared memory that the other side holds.
        shared: bytes of our shared sections.
        sender_changes: times that bytes came from another process or user than those before.
    """

    receives: int
    messages_received: int
    largest_batch: int
    sends: int
    bytes_received: int
    bytes_sent: int
    unsent: int
    pending: int
    owed: int
    queued: int
    waits: int
    cancelled: int
    expired: int
    dropped_replies: int
    dropped_notices: int
    lent: int
    shared: int
    sender_changes: int


class ConnectionPortStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection port has done so far; the sums include connections that have ended.

    Attributes:
        connections: connections now, unfinished handshakes included.
        accepted: connections that became usable.
        refused: clients that were turned away, by policy, by limit or by the application.
        refusals: everything that was refused to clients and is audited, also within a connection.
        violations: connections that ended because the client broke the protocol, or did not finish the handshake.
        accept_pauses: times that accepting paused because descriptors or memory ran out.
        receives: receive calls that brought data.
        messages_received: frames that came with them and meant something.
        largest_batch: most of them in one receive call.
        sends: send calls that took data.
        bytes_received: bytes that arrived, headers included.
        bytes_sent: bytes that the kernel took, headers included.
        queued: received messages that were not taken.
    """

    connections: int
    accepted: int
    refused: int
    refusals: int
    violations: int
    accept_pauses: int
    receives: int
    messages_received: int
    largest_batch: int
    sends: int
    bytes_received: int
    bytes_sent: int
    queued: int
