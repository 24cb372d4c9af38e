"""Copying between the memory of this process and that of another one, which has said where.

Belongs here: the system calls, and making sure that it is the memory of the right process. Never here: which ranges
may be touched and when; the port knows what a request declared.

A pid says little about who has it: the process may have ended and the number be in use again, or it may run another
program by now. So each process that offers its memory keeps a *cookie*, random bytes at an address that it tells.

Reading takes the cookie and the data in one call of ``process_vm_readv``, which works on one address space from
beginning to end: when the cookie is right, so is the data. Writing must know before it writes, and no call checks and
writes at once. But ``/proc/<pid>/mem`` stays with the address space that it was opened for and fails when that is
gone, so the cookie is read and the data written through one such descriptor; that is some 1.5 times slower.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
from typing import TYPE_CHECKING, ClassVar, Final

from alpc_async.memory_errors import DirectDenied, DirectFailed

from ._pinned import PinnedBuffer

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["COOKIE_SIZE", "Cookie", "may_hold_up", "may_reach", "read_process", "write_process"]

COOKIE_SIZE: Final = 16
"""Bytes of a cookie: nobody guesses 128 random bits."""

# One call copies at most 2 GiB less a page; a round number below that, in bytes.
STEP: Final = 1024 * 1024 * 1024
# Offsets in a file are signed; addresses of programs are far below on every architecture.
_ADDRESS_END: Final = 2**63
_DENIED: Final = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS})
_MEANINGS: Final = {
    errno.ESRCH: "the process is gone",
    errno.ENOENT: "the process is gone",
    errno.EFAULT: "the declared memory is not there",
    errno.EIO: "the declared memory is not there",
}


class Vector(ctypes.Structure):
    """``struct iovec``."""

    _fields_: ClassVar = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Cookie:
    """Random bytes at a fixed address of a process, by which its address space is recognised.

    ``Cookie()`` makes one in this process, where it must be kept for as long as it is to be found; `of_peer` is what
    another process told about its own.

    Attributes:
        address: where it lies in the memory of its process.
        value: its bytes.
    """

    __slots__ = ("_place", "address", "value")

    def __init__(self) -> None:
        self.value = secrets.token_bytes(COOKIE_SIZE)
        self._place: ctypes.Array[ctypes.c_char] | None = ctypes.create_string_buffer(self.value, COOKIE_SIZE)
        self.address = ctypes.addressof(self._place)

    @classmethod
    def of_peer(cls, address: int, value: bytes) -> Cookie:
        """Return the cookie of another process.

        Args:
            address: where it says that its cookie lies.
            value: what it says that its cookie is.

        Raises:
            ValueError: it is no cookie.
        """
        if len(value) != COOKIE_SIZE or not 0 < address <= _ADDRESS_END - COOKIE_SIZE:
            raise ValueError(f"a cookie is {COOKIE_SIZE} bytes at an address, not {len(value)} bytes at {address}")
        cookie = cls.__new__(cls)
        cookie.address = address
        cookie.value = value
        cookie._place = None
        return cookie


def may_hold_up(uid: int | None) -> bool:
    """Return whether processes of a user can stop this one in any case, so that a copy may as well wait for them.

    Args:
        uid: the user; ``None`` when it is not known.
    """
    return uid in (0, os.geteuid())


def may_reach(pid: int) -> bool:
    """Return whether the system lets this process reach the memory of another one; touches none of it.

    Args:
        pid: the process.
    """
    try:
        os.close(os.open(f"/proc/{pid:d}/mem", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def read_process(pid: int, cookie: Cookie, address: int, into: Buffer) -> None:
    """Copy memory of another process into a buffer. Blocks for as long as that takes; cannot be interrupted.

    Args:
        pid: the process.
        cookie: its cookie.
        address: where to begin in its memory.
        into: a writable contiguous buffer, which says how much to copy, in bytes.

    Raises:
        DirectDenied: the system does not allow it.
        DirectFailed: the process is gone or runs another program, or there is no such memory; what the buffer holds
            then is worth nothing.
    """
    view = memoryview(into)
    if view.readonly:
        raise TypeError("a copy needs a writable buffer")
    with PinnedBuffer(view) as target:
        _check_range(pid, address, target.length)
        done = 0
        found = ctypes.create_string_buffer(COOKIE_SIZE)
        while True:
            part = min(target.length - done, STEP)
            local = _vectors(ctypes.addressof(found), target.address + done, part)
            remote = _vectors(cookie.address, address + done, part)
            copied = readv(pid, local, remote, done) - COOKIE_SIZE
            if found.raw != cookie.value:
                raise DirectFailed(pid=pid, reason="another process or program has its place", copied=done)
            if copied < part and copied <= 0:
                raise DirectFailed(pid=pid, reason=_MEANINGS[errno.EFAULT], copied=done)
            done += copied
            if done == target.length:
                return


def write_process(pid: int, cookie: Cookie, address: int, data: Buffer) -> None:
    """Copy a buffer into the memory of another process. Blocks for as long as that takes; cannot be interrupted.

    Args:
        pid: the process.
        cookie: its cookie.
        address: where to begin in its memory.
        data: what to copy; contiguous.

    Raises:
        DirectDenied: the system does not allow it.
        DirectFailed: the process is gone or runs another program, or there is no such memory.
    """
    source = memoryview(data).cast("B")
    _check_range(pid, address, len(source))
    done = 0
    try:
        memory = os.open(f"/proc/{pid:d}/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.pread(memory, COOKIE_SIZE, cookie.address) != cookie.value:
                raise DirectFailed(pid=pid, reason="another process or program has its place")
            while done < len(source):
                copied = os.pwrite(memory, source[done : done + STEP], address + done)
                if copied == 0:
                    raise DirectFailed(pid=pid, reason=_MEANINGS[errno.ESRCH], copied=done)
                done += copied
        finally:
            os.close(memory)
    except OSError as error:
        if isinstance(error, DirectFailed):
            raise
        raise _failure(pid, error.errno or errno.EIO, done) from None


def _vectors(cookie: int, data: int, length: int) -> ctypes.Array[Vector]:
    return (Vector * 2)(Vector(cookie, COOKIE_SIZE), Vector(data, length))


def _check_range(pid: int, address: int, length: int) -> None:
    # The C types cut off what does not fit; a range that wraps around must not become another one.
    if not 0 < address <= _ADDRESS_END - length:
        raise DirectFailed(pid=pid, reason=f"{length} bytes at {address} are no range of memory")


def readv(pid: int, local: ctypes.Array[Vector], remote: ctypes.Array[Vector], done: int) -> int:
    """Call ``process_vm_readv``.

    Args:
        pid: the process.
        local: where to.
        remote: where from.
        done: bytes that were copied before, for the error.

    Returns:
        Bytes copied now.
    """
    # musl and glibc have both had it since 2012; the call lets other threads run.
    call = ctypes.CDLL(None, use_errno=True).process_vm_readv
    call.restype = ctypes.c_ssize_t
    copied: int = call(
        ctypes.c_int(pid), local, ctypes.c_ulong(len(local)), remote, ctypes.c_ulong(len(remote)), ctypes.c_ulong(0)
    )
    if copied < 0:
        raise _failure(pid, ctypes.get_errno(), done)
    return copied


def _failure(pid: int, number: int, done: int) -> DirectDenied | DirectFailed:
    if number in _DENIED:
        return DirectDenied(pid=pid, reason=os.strerror(number))
    return DirectFailed(pid=pid, reason=_MEANINGS.get(number, os.strerror(number)), copied=done)
