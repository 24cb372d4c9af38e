"""Descriptors that one user has here: those that came with its messages, until they are closed or taken.

Belongs here: `HandleTally`, and `CountedHandle`, which tells it. Never here: what else a user holds (`_users`).

A handle can be closed by any thread, and by the garbage collector in the middle of anything. So giving one back is a
single append, and only the loop's thread, which takes, does arithmetic.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ..handles import Handle, ReceivedHandle

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HandleTally"]


class HandleTally:
    """Counts the received handles of one user.

    Args:
        limit: most of them at once.

    Attributes:
        limit: the same.
    """

    __slots__ = ("_returned", "_taken", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._taken = 0
        self._returned: deque[None] = deque()

    @property
    def held(self) -> int:
        """Handles that are neither closed nor taken."""
        return self._taken - len(self._returned)

    def take(self, handles: Sequence[Handle]) -> list[Handle] | None:
        """Count handles that arrived; only in the thread of the loop.

        Args:
            handles: all that came with one message.

        Returns:
            Handles that own the descriptors from now on and count until they are closed or detached, or ``None`` when
            these would be too many; then nothing has changed.
        """
        return self.add(handles) if self.held + len(handles) <= self.limit else None

    def add(self, handles: Sequence[Handle]) -> list[Handle]:
        """Count handles that have arrived, whether there is room for them or not; only in the thread of the loop.

        Args:
            handles: all that came with one receive.

        Returns:
            Handles that own the descriptors from now on and count until they are closed or detached.
        """
        while self._returned:
            self._returned.pop()
            self._taken -= 1
        self._taken += len(handles)
        return [CountedHandle(handle.detach(), self) for handle in handles]

    def give_back(self) -> None:
        """Note that one handle was closed or taken; from any thread."""
        self._returned.append(None)


class CountedHandle(ReceivedHandle):
    """A received handle that counts for the user who sent it.

    Args:
        fd: the descriptor; from now on it belongs to this handle.
        tally: counts it already.
    """

    __slots__ = ("_tally",)

    def __init__(self, fd: int, tally: HandleTally) -> None:
        super().__init__(fd)
        self._tally = tally

    def detach(self) -> int:
        fd = super().detach()
        self._tally.give_back()
        return fd

    def moved(self) -> CountedHandle:
        """Return a handle that owns the descriptor instead of this one, and counts for the same user."""
        fd = Handle.detach(self)
        return CountedHandle(fd, self._tally)

    def close(self) -> None:
        if self.closed:
            return
        try:
            super().close()
        finally:
            # Closing may take as long as the sender likes, and until then the descriptor is here.
            self._tally.give_back()
