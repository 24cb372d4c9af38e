"""A link around another one, on which things go wrong as planned.

Belongs here: carrying out a plan. Never here: what can go wrong (`_plan`).

The faults lie in the direction towards the owner of the faulty link. For the other direction, wrap the other end. They
come in this order: lost frames, lost and changed bytes, the end of the stream, splitting, delay; each counts what the
one before it left.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from ..handles import dispose
from ..link import current_loop
from ..wire import HEADER_SIZE, unpack_header
from ._plan import Corrupt, Delay, Disconnect, Drop, DropFrame, Silence, Split

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..handles import Handle
    from ..link import Link, LinkOwner, LinkStatistics, Loop
    from ._plan import Fault

__all__ = ["FaultyLink"]


class Ended(NamedTuple):
    """Stands behind the last piece that is handed over."""

    error: OSError | None


class Attached(NamedTuple):
    """Stands before the piece that descriptors came with."""

    handles: list[Handle]
    lost: bool


class FaultyLink:
    """A link on which things go wrong as planned; it owns the link that it wraps.

    Args:
        link: the link underneath, not started yet.
        plan: what goes wrong.
        loop: the running loop; found when it is not given.

    Raises:
        RuntimeError: no event loop runs here.
    """

    _owner: LinkOwner

    def __init__(self, link: Link, plan: Sequence[Fault], loop: Loop | None = None) -> None:
        self.prompt = False
        self._link = link
        self._loop = current_loop() if loop is None else loop
        self._resting = False
        self._line: deque[bytes | Ended | Attached] = deque()
        self._waiting = False
        self._lost_frames = {fault.index for fault in plan if isinstance(fault, DropFrame)}
        self._frame_index = 0
        self._frame_rest = bytearray()
        self._lost = _merged((fault.offset, fault.offset + fault.length) for fault in plan if isinstance(fault, Drop))
        self._changed = [fault for fault in plan if isinstance(fault, Corrupt)]
        self._position = 0
        ends = [fault for fault in plan if isinstance(fault, Silence | Disconnect)]
        self._end = min(ends, key=lambda fault: fault.offset, default=None)
        self._over = False
        self._arrived = 0
        self._size = min((fault.size for fault in plan if isinstance(fault, Split)), default=0)
        self._turns = sum(fault.turns for fault in plan if isinstance(fault, Delay))

    # -- the owner's side ----------------------------------------------------------------------------------------------

    def start(self, owner: LinkOwner, /) -> None:
        """Begin to receive for the owner."""
        self._owner = owner
        self._link.start(self)
        if self._end is not None and not self._end.offset:
            self._loop.call_soon(lambda: self._pass_on(b""))

    def request_flush(self) -> None:
        """Send what the owner has, once, at the end of this turn of the loop (or now, when `prompt` is set)."""
        self._link.prompt = self.prompt
        self._link.request_flush()
        self.prompt = self._link.prompt

    def send_now(self) -> None:
        """Send what the owner has, and end `prompt`."""
        self.prompt = False
        self._link.send_now()

    def send_frame(self, _frame: bytes, /) -> bool:
        """Take nothing past the owner, since the link underneath asks this one for everything."""
        return False

    def flush(self) -> None:
        """Send what the owner has now; the rest follows by itself."""
        self._link.flush()

    def unsent(self) -> int:
        """Return the bytes that have not left, those still with the owner included."""
        return self._link.unsent()

    def clogged(self) -> bool:
        """Return whether unsent bytes went over the high-water mark and have not fallen to the low one since."""
        return self._link.clogged()

    def unsent_frames(self) -> tuple[bytes, int]:
        """Return the run of frames that is being sent, and how many of its bytes have left."""
        return self._link.unsent_frames()

    def allow_handles(self) -> None:
        """Take descriptors from now on."""
        self._link.allow_handles()

    def receive_rest(self) -> None:
        """Receive what has already arrived and what is delayed, then end the link, also when it is silent."""
        self._resting = True
        self._turns = 0
        self._link.receive_rest()
        self._hand_over()

    def close(self) -> None:
        """End the link from this side without telling the owner. Closing again does nothing."""
        for item in self._line:
            if isinstance(item, Attached):
                dispose(item.handles)
        self._line.clear()
        self._link.close()

    def fileno(self) -> int:
        """Return the descriptor of the link underneath."""
        return self._link.fileno()

    def statistics(self) -> LinkStatistics:
        """Return what the link underneath has done so far, faults not considered."""
        return self._link.statistics()

    # -- the side of the link underneath -------------------------------------------------------------------------------

    def data_to_send(self, limit: int, /) -> bytes:
        """Pass the owner's frames on."""
        return self._owner.data_to_send(limit)

    def unsent_output(self) -> int:
        """Pass the owner's number on."""
        return self._owner.unsent_output()

    def link_drained(self) -> None:
        """Tell the owner."""
        self._owner.link_drained()

    def link_flushed(self) -> None:
        """Tell the owner."""
        self._owner.link_flushed()

    def sender_changed(self, pid: int, uid: int, gid: int, process: Handle | None = None, /) -> None:
        """Tell the owner."""
        self._owner.sender_changed(pid, uid, gid, process)

    def handles_received(self, handles: list[Handle], lost: bool, /) -> None:
        """Keep descriptors in line with the bytes that they came with."""
        if self._over:
            dispose(handles)
        else:
            self._line.append(Attached(handles, lost))

    def data_received(self, data: bytes | memoryview, /) -> None:
        """Let what arrived go through the plan."""
        arrived = bytes(data)
        self._pass_on(self._edited(self._kept_frames(arrived) if self._lost_frames else arrived))

    def link_ended(self, error: OSError | None, /) -> None:
        """Tell the owner after everything that is still on its way, unless the plan has ended the stream already."""
        if not self._over or (self._resting and isinstance(self._end, Silence)):
            self._line.append(Ended(error))
            self._hand_over()

    # -- the plan ------------------------------------------------------------------------------------------------------

    def _kept_frames(self, data: bytes) -> bytes:
        rest = self._frame_rest
        rest += data
        kept = bytearray()
        while len(rest) >= HEADER_SIZE:
            size = HEADER_SIZE + unpack_header(rest)[0]
            if len(rest) < size:
                break
            if self._frame_index not in self._lost_frames:
                kept += rest[:size]
            del rest[:size]
            self._frame_index += 1
        return bytes(kept)

    def _edited(self, data: bytes) -> bytes:
        begin = self._position
        self._position += len(data)
        edited = bytearray(data)
        for fault in self._changed:
            if begin <= fault.offset < self._position:
                edited[fault.offset - begin] ^= fault.mask
        for start, stop in reversed(self._lost):
            del edited[max(0, start - begin) : max(0, stop - begin)]
        return bytes(edited)

    def _pass_on(self, data: bytes) -> None:
        if self._over:
            return
        end = self._end
        if end is not None and self._arrived + len(data) >= end.offset:
            data = data[: end.offset - self._arrived]
            self._over = True
        self._arrived += len(data)
        step = self._size or len(data) or 1
        self._line += [data[begin : begin + step] for begin in range(0, len(data), step)]
        if self._over and isinstance(end, Disconnect):
            self._line.append(Ended(OSError(end.code, f"planned fault {end.code}") if end.code else None))
        self._hand_over()

    def _hand_over(self) -> None:
        if not self._turns:
            while self._line:
                self._hand_over_one()
        elif self._line and not self._waiting:
            self._waiting = True
            self._wait(self._turns)

    def _wait(self, turns: int) -> None:
        if turns:
            self._loop.call_soon(lambda: self._wait(turns - 1))
            return
        self._waiting = False
        if self._line:
            self._hand_over_one()
        self._hand_over()

    def _hand_over_one(self) -> None:
        item = self._line.popleft()
        if isinstance(item, Ended):
            self.close()
            self._owner.link_ended(item.error)
        elif isinstance(item, Attached):
            self._owner.handles_received(item.handles, item.lost)
        else:
            self._owner.data_received(item)


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return merged
