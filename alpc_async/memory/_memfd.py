"""Making anonymous shared memory, and checking what a stranger offers as such.

Belongs here: memfds, their seals and the facts that the kernel knows about them. Never here: mappings.

A reader can only be killed by a mapping (``SIGBUS``) where a page cannot be had: beyond the end of the file, which the
seals against shrinking rule out, or in a hole when memory has run out. Holes are ruled out by having the kernel
allocate every page again before the section is mapped, which costs little where the owner did so already; later ones
cannot be made, because the seals against writing forbid punching holes as well. What remains is what kills any
process: memory that fails, and a swap device that does.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from typing import Final

from alpc_async.handles import Handle
from alpc_async.memory_errors import OutOfSharedMemory, UnsafeSection

__all__ = ["LIVE", "ONE_SHOT", "SHARED", "add_seals", "allocated", "checked", "empty", "no_room"]

# linux/memfd.h and linux/fcntl.h; the names are not in CPython 3.11.
_MFD_NOEXEC_SEAL: Final = 0x8
_F_SEAL_FUTURE_WRITE: Final = 0x10
_SIZE_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
ONE_SHOT: Final = _SIZE_SEALS | fcntl.F_SEAL_WRITE
LIVE: Final = _SIZE_SEALS | _F_SEAL_FUTURE_WRITE
SHARED: Final = _SIZE_SEALS

# The kernel gives up an allocation as a whole when a signal arrives; parts of this size always get done. In bytes.
_ALLOCATION_STEP: Final = 32 * 1024 * 1024
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EFBIG, errno.EDQUOT})


def empty(size: int) -> Handle:
    """Return a new memfd without content that can be sealed and, where the kernel knows about it, not be executed."""
    if size <= 0:
        raise ValueError("a section holds at least one byte")
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return Handle(os.memfd_create("alpc", flags | _MFD_NOEXEC_SEAL))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise no_room(error, size) from None
    # Linux before 6.3 does not know the flag.
    try:
        return Handle(os.memfd_create("alpc", flags))
    except OSError as error:
        raise no_room(error, size) from None


def allocated(size: int) -> Handle:
    """Return a new memfd of which every page is there."""
    handle = empty(size)
    try:
        _allocate(handle.fileno(), size)
    except BaseException as error:
        handle.close()
        raise no_room(error, size) from None
    return handle


def _allocate(fd: int, size: int) -> None:
    for begin in range(0, size, _ALLOCATION_STEP):
        os.posix_fallocate(fd, begin, min(_ALLOCATION_STEP, size - begin))


def add_seals(handle: Handle, seals: int) -> None:
    """Add seals; ``EBUSY`` when writing is to be forbidden while somebody has it mapped for writing."""
    fcntl.fcntl(handle.fileno(), fcntl.F_ADD_SEALS, seals)


def no_room(error: BaseException, size: int) -> BaseException:
    """Return the error that tells of a shortage, or the error itself when it is another one."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return OutOfSharedMemory(size=size, reason=str(error.strerror))
    return error


def checked(fd: int, max_size: int, *, shared: bool = False) -> tuple[int, bool]:
    """Return the size of a stranger's section and whether nobody can write it, once it is found to be safe.

    Args:
        fd: the descriptor.
        max_size: largest size to take, in bytes.
        shared: both sides shall be able to write.
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise UnsafeSection(rule="a section is anonymous shared memory", detail=str(error.strerror)) from None
    if seals & _SIZE_SEALS != _SIZE_SEALS:
        raise UnsafeSection(rule="a section is sealed against shrinking, growing and more seals", detail=f"{seals:#x}")
    if shared:
        if seals & (fcntl.F_SEAL_WRITE | _F_SEAL_FUTURE_WRITE):
            raise UnsafeSection(rule="a shared section can be written by both sides", detail=f"{seals:#x}")
    elif not seals & (fcntl.F_SEAL_WRITE | _F_SEAL_FUTURE_WRITE):
        raise UnsafeSection(rule="a section is sealed against writing by others than its owner", detail=f"{seals:#x}")
    facts = os.fstat(fd)
    if not 0 < facts.st_size <= max_size:
        raise UnsafeSection(
            rule="a section is not empty and not larger than agreed", detail=f"{facts.st_size} of {max_size} bytes"
        )
    if os.fstatvfs(fd).f_bsize != mmap.PAGESIZE:
        raise UnsafeSection(rule="a section consists of ordinary pages", detail="huge pages may be missing when read")
    if facts.st_blocks * 512 < facts.st_size:
        raise UnsafeSection(
            rule="a section has no holes", detail=f"{facts.st_blocks * 512} of {facts.st_size} bytes are there"
        )
    # Pages beyond the end count as well, so that they could hide holes; asking for all pages once more fills those.
    try:
        _allocate(fd, facts.st_size)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise
        raise UnsafeSection(rule="a section can be checked for holes", detail=str(error.strerror)) from None
    return facts.st_size, bool(seals & fcntl.F_SEAL_WRITE)
