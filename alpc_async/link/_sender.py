"""What every kind of link does in the same way: one flush per turn, partial writes, water marks, and counting.

Belongs here: the state of the sending half, whatever takes the bytes. Never here: sockets (`_stream`) or pipes in
memory (testing); each of them is a subclass that says how bytes leave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..handles import close_all
from ..wire import Carrier
from ._link import LinkStatistics

if TYPE_CHECKING:
    from ._link import LinkOwner
    from ._loop import Loop

__all__ = ["SendingLink"]


class SendingLink:
    """The sending half of a link.

    Args:
        loop: the running loop.
        high_water: unsent bytes above which the link is clogged.
        low_water: unsent bytes at which it is free again.
    """

    def __init__(self, loop: Loop, *, high_water: int, low_water: int) -> None:
        self.prompt = False
        self._loop = loop
        self._high_water = high_water
        self._low_water = low_water
        self._owner: LinkOwner | None = None
        self._group = b""
        self._group_sent = 0
        self._flush_scheduled = False
        self._waits_for_room = False
        self._clogged = False
        self._receives = 0
        self._sends = 0
        self._bytes_received = 0
        self._bytes_sent = 0

    def statistics(self) -> LinkStatistics:
        """Return what the link has done so far."""
        return LinkStatistics(self._receives, self._sends, self._bytes_received, self._bytes_sent)

    def unsent(self) -> int:
        """Return the bytes that have not left yet, those still with the owner included."""
        owner = self._owner
        return len(self._group) - self._group_sent + (owner.unsent_output() if owner is not None else 0)

    def unsent_frames(self) -> tuple[bytes, int]:
        """Return the run of frames that is being sent, and how many of its bytes have left."""
        return self._group, self._group_sent

    def clogged(self) -> bool:
        """Return whether unsent bytes went over the high-water mark and have not fallen to the low one since."""
        if not self._clogged and self.unsent() > self._high_water:
            self.flush()
            self._clogged = self._owner is not None and self.unsent() > self._high_water
        return self._clogged

    def request_flush(self) -> None:
        """Send what the owner has, once, at the end of this turn of the loop (or now, when `prompt` is set)."""
        if self._flush_scheduled:
            return
        if self.prompt:
            self.send_now()
            return
        self._flush_scheduled = True
        self._loop.call_soon(self._flush_at_turn_end)

    def _flush_at_turn_end(self) -> None:
        self._flush_scheduled = False
        self.flush()

    def flush(self) -> None:
        """Send what the owner has now, as far as there is room for it; the rest follows by itself."""
        if not self._waits_for_room and self._owner is not None:
            self._send()

    def send_now(self) -> None:
        """Send what is most likely one frame, and end `prompt`; a subclass may have a shorter way than `flush`."""
        self.prompt = False
        self.flush()

    def send_frame(self, _frame: bytes, /) -> bool:
        """Send one frame past the owner, who has nothing to send before it, and end `prompt`.

        Returns:
            Whether it was taken; a subclass may have a way for that.
        """
        return False

    def _send(self) -> None:
        """Send until everything has left or there is no room; then wait for room."""
        raise NotImplementedError

    def _check_drained(self) -> None:
        if self._clogged and self._owner is not None and self.unsent() <= self._low_water:
            self._clogged = False
            self._owner.link_drained()

    def _drop_carrier(self) -> None:
        # At the end: what has not left keeps its bytes, which tell what was lost, and gives its descriptors back.
        if isinstance(self._group, Carrier):
            close_all(self._group.handles)
            self._group = bytes(self._group)
