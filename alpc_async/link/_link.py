"""What a link is: a two-way stream of bytes with one owner, persistent readiness and one flush per turn of the loop.

Belongs here: the interfaces between a link and its owner, and what a link counts. Never here: sockets (`_stream`),
frames (wire) or messages (port).

The owner produces bytes on demand (`LinkOwner.data_to_send`), so there is one outgoing queue per connection and a frame
that was not sent yet is still a frame. A link ends exactly once, with `LinkOwner.link_ended`, after everything that was
received before has been handed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from ..handles import Handle

__all__ = ["Link", "LinkOwner", "LinkStatistics"]


class LinkStatistics(msgspec.Struct, frozen=True):
    """What a link has done so far.

    Attributes:
        receives: receive calls that brought data.
        sends: send calls that took data.
        bytes_received: bytes that arrived.
        bytes_sent: bytes that the kernel took.
    """

    receives: int
    sends: int
    bytes_received: int
    bytes_sent: int


class LinkOwner(Protocol):
    """Whom a link serves. No method may raise, block or await."""

    def sender_changed(self, pid: int, uid: int, gid: int, process: Handle | None = None, /) -> None:
        """Note who sent the bytes that follow, as the kernel says; called first for the first bytes.

        Never called by links that do not ask the kernel. The owner may close the link from here; then the bytes are
        dropped.

        Args:
            pid: process id, for people to read.
            uid: real user id.
            gid: real group id.
            process: a pidfd of the process, where the link asks for one; it belongs to the owner from now on.
        """
        ...

    def handles_received(self, handles: list[Handle], lost: bool, /) -> None:
        """Take descriptors that came with the bytes that follow.

        Args:
            handles: the descriptors, which belong to the owner from now on.
            lost: the kernel dropped some, because this process has no room for them.
        """
        ...

    def data_received(self, data: bytes | memoryview, /) -> None:
        """Take what one receive call brought; never empty. A view is valid until this returns."""
        ...

    def data_to_send(self, limit: int, /) -> bytes:
        """Give up to about ``limit`` bytes of whole frames, or ``b""`` when there is nothing to send.

        A frame that carries descriptors comes alone, as a ``Carrier`` of the wire layer.
        The first frame is given even when it alone is longer than the limit.
        """
        ...

    def unsent_output(self) -> int:
        """Return the bytes that `data_to_send` would still give."""
        ...

    def link_drained(self) -> None:
        """Note that the unsent bytes fell to the low-water mark after they had been over the high one."""
        ...

    def link_flushed(self) -> None:
        """Note that the kernel took everything there was to send, after it had not taken all at once."""
        ...

    def link_ended(self, error: OSError | None, /) -> None:
        """Note that nothing will be received or sent any more.

        Args:
            error: what broke the link, or ``None`` when the other side closed it in order.
        """
        ...


class Link(Protocol):
    """One end of a stream of bytes."""

    prompt: bool
    """Send the next frame at once instead of at the end of the turn; falls back to ``False`` when that was done.

    The owner sets it after a receive that brought a single message: the answer to it is most likely the only frame of
    this turn, and waiting for the turn's end would cost one more pass of the event loop on every serial round trip.
    """

    def start(self, owner: LinkOwner, /) -> None:
        """Begin to receive for the owner."""
        ...

    def request_flush(self) -> None:
        """Send what the owner has, once, at the end of this turn of the loop (or now, see `prompt`)."""
        ...

    def send_now(self) -> None:
        """Send what the owner has, most likely one frame, and end `prompt`; `request_flush` does it when it is set."""
        ...

    def send_frame(self, frame: bytes, /) -> bool:
        """Send one frame past the owner, who has nothing to send before it, and end `prompt`.

        Returns:
            Whether the link took it, and sends what the kernel did not take by itself; ``False``: nothing was done.
        """
        ...

    def flush(self) -> None:
        """Send what the owner has now, as far as the kernel takes it; the rest follows by itself."""
        ...

    def unsent(self) -> int:
        """Return the bytes that the kernel has not taken yet, those still with the owner included."""
        ...

    def clogged(self) -> bool:
        """Return whether unsent bytes went over the high-water mark and have not fallen to the low one since."""
        ...

    def unsent_frames(self) -> tuple[bytes, int]:
        """Return the run of frames that is being sent, and how many of its bytes the kernel has taken."""
        ...

    def allow_handles(self) -> None:
        """Take descriptors from the other side from now on; until then the kernel turns them away where it can."""
        ...

    def receive_rest(self) -> None:
        """Receive what has already arrived, then end the link; used when the peer process is known to be dead."""
        ...

    def close(self) -> None:
        """End the link from this side without telling the owner. Closing again does nothing."""
        ...

    def fileno(self) -> int:
        """Return the descriptor of the link, or -1 when it is closed or has none."""
        ...

    def statistics(self) -> LinkStatistics:
        """Return what the link has done so far."""
        ...
