"""Messages that come alone: the short ways of an endpoint do what its long way does.

Belongs here: the sentence of invariant, building receives out of bytes, inputs to begin with. Never here: how inputs
are made (`mutation`), the long way by itself (`targets`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alpc_async.handles import Handle
from alpc_async.wire import Endpoint, FrameType, Role, Ticket, ViewRecord, pack
from tests.wire.endpoints import ALL, SMALL, all_described

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alpc_async.wire import Event

__all__ = ["ALONE_SEEDS", "check_alone"]

RECORD = 12
"""Bytes of input that make one frame."""

LEASES = 3
"""Ranges that both endpoints have lent when an input begins."""

VIEW = 0x40


def check_alone(data: bytes) -> None:
    """Receives of one or two frames give the same events and leave the same state, whichever way they take."""
    for role in (Role.SERVER, Role.CLIENT):
        short, long = opened(role), opened(role)
        for piece in receives(data):
            assert all_described(take(short, piece)) == all_described(long.receive_data(piece))
            assert told(short) == told(long)


def opened(role: Role) -> Endpoint[Ticket]:
    """Return an open endpoint with two requests in flight, some ranges lent, and one section of the other side."""
    made: Endpoint[Ticket] = Endpoint(role, SMALL)
    made.open_pair(SMALL)
    for _ in range(2):
        made.request(Ticket(), b"12345", 0.0, None)
    for number in range(LEASES):
        made.lend(number)
    made.receive_handles([Handle(-1)], False)
    made.receive_data(pack(FrameType.SECTION | 1 << 16, 1, 1))
    made.data_to_send(ALL)
    return made


def take(receiver: Endpoint[Ticket], piece: bytes) -> list[Event[Ticket]]:
    """Give a piece to an endpoint as the driver of a connection does."""
    event = receiver.receive_single(piece)
    if event is not None:
        return [event]
    pair = receiver.receive_pair(piece)
    return list(pair) if pair is not None else receiver.receive_data(piece)


def told(receiver: Endpoint[Ticket]) -> tuple[object, ...]:
    """Return what decides about all that follows, in a form that compares."""
    inflow, outflow = receiver.inflow, receiver.outflow
    return (
        receiver.state, receiver.partial, receiver.leases, receiver.shared_numbers, receiver.shares,
        receiver.borrows, inflow.passed,
        inflow.free_messages, inflow.free_bytes, list(inflow.owed), outflow.free_messages, outflow.free_bytes,
        list(outflow.pending), receiver.data_to_send(ALL),
    )  # fmt: skip


def receives(data: bytes) -> Iterator[bytes]:
    """Yield what single receive calls bring: whole frames, sometimes two of them, and sometimes a byte too little."""
    piece = b""
    for at in range(0, len(data) - RECORD + 1, RECORD):
        form, kind, flags, handles, number, value, size, *view = data[at : at + RECORD]
        payload = bytes(size & 0x7F)
        if flags & VIEW:
            payload = ViewRecord(*view).encode() + payload
        piece += pack(kind | flags << 8 | (handles & 1) << 16, number, value, payload)
        if form & 3 == 1:
            continue
        yield piece[: len(piece) - (form & 3 == 3)]
        piece = b""
    if piece:
        yield piece


def record(kind: FrameType, number: int, *, flags: int = 0, lease: int = 0) -> bytes:
    """Return the input of one message."""
    return bytes([0, kind, flags, 0, number, 0, 9, 1, 0, lease, 0, 1])


def bare(kind: FrameType, number: int, *, joined: bool = False) -> bytes:
    """Return the input of one frame without a payload."""
    return bytes([joined, kind, 0, 0, number]) + bytes(RECORD - 5)


ALONE_SEEDS: tuple[bytes, ...] = (
    record(FrameType.REQUEST, 1) + record(FrameType.REPLY, 1),
    record(FrameType.REQUEST, 1, flags=VIEW, lease=1) + record(FrameType.REQUEST, 2, flags=VIEW, lease=2),
    bare(FrameType.RELEASE, 2, joined=True) + record(FrameType.REQUEST, 1, flags=VIEW, lease=7),
    bare(FrameType.RELEASE, 1, joined=True) + record(FrameType.REPLY, 2),
    bare(FrameType.RELEASE, 3) + bare(FrameType.CANCEL, 1) + bare(FrameType.SECTION_GONE, 1),
)
"""Inputs to begin with: each short way is taken by one of them."""
