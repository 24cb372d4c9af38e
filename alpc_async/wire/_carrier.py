"""Frames that carry descriptors.

Belongs here: `Carrier`. Never here: sending one (link), or what the descriptors are for.

The kernel hands descriptors over with the first byte of the send that carries them, so a carrier begins a send of its
own. When the kernel does not take the descriptors, the frame still has to arrive, since the other side counts on it:
then it says that they were lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._frames import pack_header, unpack_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..handles import Handle

__all__ = ["Carrier"]


class Carrier(bytes):
    """One frame, as bytes, and the descriptors that must leave with it; it owns them.

    Attributes:
        handles: the descriptors, at most `MAX_HANDLES_PER_FRAME`.
    """

    handles: Sequence[Handle]

    @classmethod
    def of(cls, kind: int, message_id: int, value: int, handles: Sequence[Handle]) -> Carrier:
        """Make the frame of a type without payload.

        Args:
            kind: its type.
            message_id: for the header.
            value: for the header.
            handles: the descriptors; from now on they belong to the frame.
        """
        carrier = cls(pack_header(0, kind | len(handles) << 16, message_id, value))
        carrier.handles = handles
        return carrier

    def without_handles(self, error: int) -> bytes:
        """Return the frame that says that the descriptors were lost.

        Args:
            error: the error number, for the other side to show.
        """
        length, kind, message_id, _ = unpack_header(self)
        return pack_header(length, kind & 0xFF, message_id, error)
