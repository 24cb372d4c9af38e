"""What an open descriptor refers to, found out without asking the file system that it came from.

Belongs here: `HandleKind` and `kind_of`. Never here: owning a descriptor (``handles``), or deciding which kinds are
welcome (limits and port).

A descriptor that a peer sent may refer to a file of a file system that the peer itself serves (FUSE) or that hangs
(NFS): every call that consults the file system, ``fstat`` included, can then take as long as the peer likes, and the
event loop with it. So the kind is read where only the kernel's own memory is looked at: the name of the descriptor in
``/proc/self/fd``, the seals of a memfd, and ``statx`` with the flag that forbids asking the file system.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import fcntl
import os
import stat
from typing import Final

__all__ = ["HandleKind", "kind_of"]


class HandleKind(enum.Flag):
    """Kinds of descriptors, as a set: which ones a port accepts, or the one that a descriptor is of."""

    FILE = enum.auto()
    """A regular file of any file system."""
    DIRECTORY = enum.auto()
    """An open directory; its holder can reach what lies below it."""
    PIPE = enum.auto()
    """An end of a pipe, with or without a name."""
    SOCKET = enum.auto()
    """A socket of any family; one of the family of this package may carry further descriptors."""
    MEMFD = enum.auto()
    """Anonymous shared memory."""
    PIDFD = enum.auto()
    """A process."""
    EVENTFD = enum.auto()
    """A counter to wait for."""
    CHARACTER_DEVICE = enum.auto()
    """A device such as a terminal."""
    BLOCK_DEVICE = enum.auto()
    """A device such as a disk."""
    PATH = enum.auto()
    """A place in a file system that was not opened (``O_PATH``)."""
    OTHER = enum.auto()
    """Anything else: epoll sets, timers, what later kernels bring."""


_NAMED: Final = {
    "socket:": HandleKind.SOCKET,
    "pipe:": HandleKind.PIPE,
    "pidfd:": HandleKind.PIDFD,
    "anon_inode:[pidfd]": HandleKind.PIDFD,
    "anon_inode:[eventfd]": HandleKind.EVENTFD,
}
_TYPES: Final = {
    stat.S_IFREG: HandleKind.FILE,
    stat.S_IFDIR: HandleKind.DIRECTORY,
    stat.S_IFIFO: HandleKind.PIPE,
    stat.S_IFSOCK: HandleKind.SOCKET,
    stat.S_IFCHR: HandleKind.CHARACTER_DEVICE,
    stat.S_IFBLK: HandleKind.BLOCK_DEVICE,
}

# linux/fcntl.h and linux/stat.h; the layout of struct statx is the same on every architecture.
_AT_EMPTY_PATH: Final = 0x1000
_AT_STATX_DONT_SYNC: Final = 0x4000
_STATX_TYPE: Final = 0x1
_STATX_SIZE: Final = 256
_MODE_OFFSET: Final = 28


def kind_of(fd: int) -> HandleKind:
    """Tell what a descriptor refers to; never waits for a file system, so it is safe for descriptors of strangers.

    Args:
        fd: an open descriptor.

    Returns:
        Exactly one kind; ``OTHER`` for what has no kind of its own or cannot be told.

    Raises:
        OSError: ``EBADF`` when the descriptor is not open.
    """
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
        return HandleKind.PATH
    try:
        name = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return _kind_by_type(fd)
    # Names of files begin with a slash, so that no file can pass for one of these.
    if not name.startswith("/"):
        return _NAMED.get(name) or _NAMED.get(name.partition("[")[0]) or HandleKind.OTHER
    # A file can be called "memfd:", but then it has no seals, or only the one that files of a tmpfs have.
    if name.startswith("/memfd:") and _has_seals(fd):
        return HandleKind.MEMFD
    return _kind_by_type(fd)


def _has_seals(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def _kind_by_type(fd: int) -> HandleKind:
    statx = getattr(ctypes.CDLL(None), "statx", None)
    if statx is None:  # C libraries older than the kernels that this package needs
        return HandleKind.OTHER
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    arguments = ctypes.c_int(fd), b"", ctypes.c_int(_AT_EMPTY_PATH | _AT_STATX_DONT_SYNC), ctypes.c_uint(_STATX_TYPE)
    if statx(*arguments, buffer) != 0:
        return HandleKind.OTHER
    mode = ctypes.c_uint16.from_buffer(buffer, _MODE_OFFSET).value
    return _TYPES.get(stat.S_IFMT(mode), HandleKind.OTHER)
