"""Views that belong to a connection.

Belongs here: `PortView`, what a user holds of a range that was allocated or received. Never here: what follows when it
is given back (`_sharing`), the memory itself (memory).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..memory import View

if TYPE_CHECKING:
    from ..wire import ViewRecord
    from ._ranges import Range
    from ._sharing import Sharing

__all__ = ["PortView"]


class PortView(View):
    """A view that belongs to a connection: allocated to be sent, or received."""

    __slots__ = ("kept", "range", "record", "sharing")

    _warns = False

    sharing: Sharing
    range: Range | None
    """What it shows, when this side owns it."""
    record: ViewRecord | None
    """What it shows, when the other side owns it."""
    kept: bool
    """Whether it was sealed to be sent and has not been sent yet: then it still holds its range."""

    def sent(self) -> None:
        """Note that a message that lends it is under way."""
        if self.kept and self.range is not None:
            self.kept = False
            self.range.drop()

    def release(self) -> None:
        """Give the view back. Calling again does nothing.

        Raises:
            ViewInUse: arrays, slices or other buffers made of it are still held; it stays valid.
        """
        sharing = self.sharing
        before, sharing.explicit = sharing.explicit, True
        try:
            super().release()
        finally:
            sharing.explicit = before

    def __del__(self) -> None:
        # Forgetting it is a way of giving it back, so there is nothing to warn of.
        try:
            kept = self.kept
        except AttributeError:
            return  # it could not be made
        if kept and self.range is not None:
            self.kept = False
            self.sharing.drop_later(self.range)
