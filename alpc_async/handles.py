"""Owning file descriptors: exactly one owner, closed exactly once, -1 afterwards.

Belongs here: `Handle`, `EventFlag`, and how unwanted descriptors are closed. Never here: what a descriptor is used for;
what it refers to is found out in ``kinds``.

The number is overwritten with -1 when the handle is closed, so that a stale use fails with ``EBADF`` instead of
reaching whatever the kernel opened under the same number since.
"""

from __future__ import annotations

import fcntl
import os
import resource
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Final

from .kinds import HandleKind as HandleKind
from .kinds import kind_of as kind_of
from .memory_errors import UnsuitableHandle

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

__all__ = [
    "EventFlag",
    "Handle",
    "HandleKind",
    "ReceivedHandle",
    "close_all",
    "descriptor_limit",
    "dispose",
    "kind_of",
]

_CLOSED_AT_ONCE: Final = HandleKind.MEMFD | HandleKind.PIDFD | HandleKind.EVENTFD | HandleKind.PIPE | HandleKind.PATH


class Handle:
    """Owns one file descriptor.

    Passing a handle to a peer consumes it, whether that succeeds or fails; pass a `duplicate` to keep one.

    Args:
        fd: the descriptor; from now on it belongs to this handle.
    """

    __slots__ = ("_fd",)

    state: bytes = b""
    """What travels beside the descriptor when it is passed; only connections that are passed on have any."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def open(cls, path: str | os.PathLike[str], flags: int = os.O_RDONLY, mode: int = 0o600) -> Handle:
        """Open a file; it is not inherited by programs and does not become the controlling terminal.

        Args:
            path: the file.
            flags: as for ``os.open``.
            mode: permissions of a file that is created.

        Returns:
            The handle of the open file.

        Raises:
            OSError: the file cannot be opened.
        """
        return cls(os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY, mode))

    def fileno(self) -> int:
        """Return the descriptor, or -1 after `close` or `detach`."""
        return self._fd

    @property
    def kind(self) -> HandleKind:
        """What the descriptor refers to; never waits for a file system."""
        return kind_of(self._fd)

    def duplicate(self) -> Handle:
        """Return a second handle of the same open file; position and status flags are shared.

        Returns:
            A handle with a descriptor of its own.

        Raises:
            OSError: this handle is closed, or no descriptor is free.
        """
        return Handle(os.dup(self._fd))

    def read_only(self) -> Handle:
        """Return a second handle that can only read, with a position of its own that begins where this one stands.

        This reduces what the *descriptor* can do. A receiver that may open the file itself can still do so.

        Returns:
            A handle with a descriptor of its own.

        Raises:
            UnsuitableHandle: the kind cannot be reduced, or the handle cannot read in the first place.
            OSError: this handle is closed, its file may not be opened, or no descriptor is free.
        """
        kind = self.kind
        reading = fcntl.fcntl(self._fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        if kind is HandleKind.MEMFD:
            # Whoever holds a memfd can open it for writing again through /proc, whatever the mode of the descriptor.
            raise UnsuitableHandle(kind="MEMFD", reason="it could be opened for writing again; seal it instead")
        if kind is HandleKind.DIRECTORY or (reading and kind in HandleKind.FILE | HandleKind.PIPE):
            return self.duplicate()
        if kind is not HandleKind.FILE:
            # Opening the writing end of a pipe again would give its reading end, and opening a device does things.
            raise UnsuitableHandle(kind=kind.name or "OTHER", reason="only files and directories can be reduced")
        if fcntl.fcntl(self._fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
            raise UnsuitableHandle(kind="FILE", reason="it was opened for writing only; open it for reading")
        reduced = Handle.open(f"/proc/self/fd/{self._fd}")
        try:
            os.lseek(reduced.fileno(), os.lseek(self._fd, 0, os.SEEK_CUR), os.SEEK_SET)
        except BaseException:
            reduced.close()
            raise
        return reduced

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

    def moved(self) -> Handle:
        """Return a handle that owns the descriptor instead of this one.

        Raises:
            ValueError: the handle is already closed.
        """
        return Handle(self.detach())

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


class ReceivedHandle(Handle):
    """A handle that came with a message: closed without a word when nobody refers to it any more."""

    __slots__ = ()

    def __del__(self) -> None:
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


def descriptor_limit() -> int:
    """Return how many descriptors this process may have open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def close_all(handles: Iterable[Handle]) -> None:
    """Close descriptors of our own.

    Args:
        handles: the descriptors; those that are closed already are passed over.
    """
    for handle in handles:
        handle.close()


def dispose(handles: Iterable[Handle]) -> None:
    """Close handles that a stranger sent and nobody wants, without waiting.

    Closing may take as long as the sender likes: a file of a file system that the sender serves is flushed to it, and a
    socket may linger. What cannot do that is closed at once, the rest in a thread of its own, which a hanging ``close``
    holds until the sender goes; so whoever sends unwanted descriptors again and again is to be cut off.

    Args:
        handles: the handles; all of them are closed for the caller when this returns.
    """
    slow: list[Handle] = []
    for handle in handles:
        if handle.closed:
            continue
        if handle.kind in _CLOSED_AT_ONCE:
            handle.close()
        else:
            slow.append(handle.moved())
    if slow:
        # A daemon, so that a close that never returns does not keep the process from ending.
        try:
            threading.Thread(target=_close_slowly, args=(slow,), name="alpc-dispose", daemon=True).start()
        except RuntimeError:
            # No thread can be had; a delay is better than a leak.
            _close_slowly(slow)


def _close_slowly(handles: list[Handle]) -> None:
    for handle in handles:
        try:
            handle.close()
        except OSError:
            # The descriptor is gone whatever close reports: a failed flush is the sender's loss.
            continue
