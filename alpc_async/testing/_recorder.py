"""An owner of a link that writes down what happens to it.

Belongs here: `Recorder`. Never here: what should have happened (`_check_link`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from ..link import current_loop
from ..wire import Carrier, FrameType, pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..handles import Handle
    from ..link import Waiter

__all__ = ["Recorder"]

PATIENCE: Final = 20.0
"""Seconds until `Recorder.until` gives up; a busy machine needs one at most."""


class Recorder:
    """Owns a link for a test: sends what it is told and remembers what it got.

    Attributes:
        received: all bytes that arrived.
        calls: what the link reported, in order: ``"data"``, ``"drained"``, ``"flushed"`` and ``"ended"``.
        error: what the link ended with.
        queued: frames that wait to be sent.
        handles: descriptors that arrived; they belong to whoever made the recorder.
        processes: pidfds of senders, likewise.
        senders: (pid, uid, gid) of each change of sender.
    """

    def __init__(self) -> None:
        self.received = bytearray()
        self.calls: list[str] = []
        self.error: OSError | None = None
        self.queued: list[bytes] = []
        self.handles: list[Handle] = []
        self.senders: list[tuple[int, int, int]] = []
        self.processes: list[Handle] = []
        self._waiter: Waiter | None = None

    def queue(self, payload: bytes) -> bytes:
        """Make a frame wait to be sent.

        Args:
            payload: what is in it.

        Returns:
            The frame.
        """
        frame = pack(FrameType.DATAGRAM, 0, 0, payload)
        self.queued.append(frame)
        return frame

    @property
    def ended(self) -> bool:
        """Whether the link has ended."""
        return "ended" in self.calls

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds, looking at it whenever the link reports something.

        Cancelling stops the wait and nothing else.

        Args:
            condition: looked at first now.
            what: what is waited for, for the error.

        Raises:
            AssertionError: it did not come about.
        """
        with anyio.move_on_after(PATIENCE):
            while not condition():
                self._waiter = current_loop().create_waiter()
                await self._waiter
            return
        raise AssertionError(f"waited {PATIENCE:g} s in vain until {what}; the link reported {self.calls[-20:]}")

    def _note(self, call: str) -> None:
        self.calls.append(call)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def sender_changed(self, pid: int, uid: int, gid: int, process: Handle | None = None, /) -> None:
        """Note it and who it is."""
        self.senders.append((pid, uid, gid))
        if process is not None:
            self.processes.append(process)
        self._note("sender")

    def handles_received(self, handles: list[Handle], lost: bool, /) -> None:
        """Keep the descriptors; whoever made the recorder closes them."""
        self.handles += handles
        self._note("lost handles" if lost else "handles")

    def data_received(self, data: bytes | memoryview, /) -> None:
        """Remember what arrived."""
        self.received += data
        self._note("data")

    def data_to_send(self, limit: int, /) -> bytes:
        """Give queued frames, as many as fit the limit, and at least one."""
        if self.queued and isinstance(self.queued[0], Carrier):
            return self.queued.pop(0)
        count = size = 0
        while count < len(self.queued) and (not count or size + len(self.queued[count]) <= limit):
            if isinstance(self.queued[count], Carrier):
                break
            size += len(self.queued[count])
            count += 1
        data = b"".join(self.queued[:count])
        del self.queued[:count]
        return data

    def unsent_output(self) -> int:
        """Return the bytes that wait."""
        return sum(map(len, self.queued))

    def link_drained(self) -> None:
        """Note it."""
        self._note("drained")

    def link_flushed(self) -> None:
        """Note it."""
        self._note("flushed")

    def link_ended(self, error: OSError | None, /) -> None:
        """Note it and the error."""
        self.error = error
        self._note("ended")
