"""Owning file descriptors: exactly one owner, closed exactly once, -1 afterwards.

Belongs here: `Handle`, `EventFlag`. Never here: what a descriptor is used for.

The number is overwritten with -1 when the handle is closed, so that a stale use fails with ``EBADF`` instead of
reaching whatever the kernel opened under the same number since.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["EventFlag", "Handle"]


class Handle:
    """Owns one file descriptor.

    Args:
        fd: the descriptor; from now on it belongs to this handle.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """Return the descriptor, or -1 after `close` or `detach`."""
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether the descriptor is no longer owned."""
        return self._fd < 0

    def detach(self) -> int:
        """Give the descriptor up to the caller, who must close it from now on.

        Returns:
            The descriptor.

        Raises:
            ValueError: the handle is already closed.
        """
        if self._fd < 0:
            raise ValueError("the handle is already closed")
        fd, self._fd = self._fd, -1
        return fd

    def close(self) -> None:
        """Close the descriptor. Closing again does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Handle {self._fd}>" if self._fd >= 0 else "<Handle closed>"

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()


class EventFlag:
    """A descriptor that is readable while the flag is up, for waiting with ``select`` and the like (``eventfd``)."""

    __slots__ = ("_handle", "_up")

    def __init__(self) -> None:
        self._handle = Handle(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self._up = False

    def fileno(self) -> int:
        """Return the descriptor, or -1 after `close`."""
        return self._handle.fileno()

    def set(self, up: bool) -> None:
        """Put the flag up or down; does nothing when it is there already, or closed.

        Args:
            up: ``True`` makes the descriptor readable.
        """
        if up == self._up or self._handle.closed:
            return
        self._up = up
        if up:
            os.eventfd_write(self._handle.fileno(), 1)
        else:
            os.eventfd_read(self._handle.fileno())

    def close(self) -> None:
        """Close the descriptor. Closing again does nothing."""
        self._handle.close()
