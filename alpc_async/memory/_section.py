"""Sections: shared memory that its receiver can trust to stay as long as it was, and mostly as it was.

Belongs here: mapping memfds, sealing them, lending ranges of them. Never here: the rules for those of strangers
(``_memfd``), and which part of one means what (`View`, the pool).

Two kinds exist. A *one-shot* section is sealed against all writing before anybody else sees it: its content never
changes again. A *live* section was mapped by its owner before writable mappings were forbidden for ever: the owner goes
on writing, nobody else can, and a reader treats the content as changing under its eyes.

A forked child inherits mappings, writable ones included, as it does all memory of its parent. Keeping it from that
(``MADV_DONTFORK``) would make a forgotten buffer a crash there, and its clean-up unmap what lies there by then.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import mmap
import os
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

from alpc_async.handles import Handle, dispose
from alpc_async.memory_errors import UnsafeSection, ViewInUse, ViewReleased

from ._memfd import LIVE, ONE_SHOT, SHARED, add_seals, allocated, checked, empty, no_room
from ._pinned import PinnedBuffer

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

__all__ = ["Section", "lent_memory"]

# Python 3.13 can map without keeping a second descriptor.
_UNTRACKED: Final[dict[str, Any]] = {"trackfd": False} if sys.version_info >= (3, 13) else {}


class Section:
    """A piece of shared memory. Made by `create`, `from_bytes` and `adopt`."""

    __slots__ = ("_address", "_closed", "_handle", "_map", "_memory", "_owner", "_sealed", "_shared", "_size")

    def __init__(self, handle: Handle, size: int, *, owner: bool, sealed: bool, shared: bool = False) -> None:
        self._handle = handle
        self._size = size
        self._owner = owner
        self._sealed = sealed
        self._shared = shared
        self._map: mmap.mmap | None = None
        self._memory: memoryview | None = None
        self._address = 0
        self._closed = False

    @classmethod
    def create(cls, size: int, *, live: bool = True, shared: bool = False) -> Section:
        """Make a section of which every byte is there from the start, zero, and writable for us.

        Args:
            size: its size in bytes.
            live: forbid all further writable mappings now, so that it can be passed on while we write. Otherwise it is
                ours alone until `seal`.
            shared: let whoever gets it write as well, for parties that trust each other.

        Returns:
            The section, mapped.

        Raises:
            OutOfSharedMemory: the system has no room, or the process no descriptor.
            ValueError: the size is not positive.
        """
        section = cls(allocated(size), size, owner=True, sealed=False, shared=shared)
        try:
            section._map_now()
            if shared:
                add_seals(section._handle, SHARED)
            elif live:
                add_seals(section._handle, LIVE)
        except BaseException as error:
            section.close()
            raise no_room(error, size) from None
        return section

    @classmethod
    def from_bytes(cls, data: Buffer) -> Section:
        """Make a one-shot section that holds a copy of the data and never changes.

        Args:
            data: at least one byte; contiguous.

        Returns:
            The section, not mapped until its memory is looked at.

        Raises:
            OutOfSharedMemory: the system has no room, or the process no descriptor.
            ValueError: the data is empty.
        """
        source = memoryview(data).cast("B")
        size = len(source)
        handle = empty(size)
        try:
            # Writing allocates and fills in one step; allocating first would cost a second pass over all pages.
            written = 0
            while written < size:
                written += os.pwrite(handle.fileno(), source[written:], written)
            add_seals(handle, ONE_SHOT)
        except BaseException as error:
            handle.close()
            raise no_room(error, size) from None
        return cls(handle, size, owner=True, sealed=True)

    @classmethod
    def adopt(cls, handle: Handle, *, max_size: int, shared: bool = False) -> Section:
        """Check a descriptor that a peer offers as a section, and map it for reading; where it is shared, for writing.

        The seals are looked at first, because that fails for everything but shared memory without consulting a file
        system that the peer may serve. The descriptor is not needed any more afterwards.

        Args:
            handle: the descriptor; consumed, whatever happens.
            max_size: largest size to take, in bytes.
            shared: map it for writing; it has to allow that.

        Returns:
            The section, mapped.

        Raises:
            UnsafeSection: a rule is broken.
            OutOfSharedMemory: the process cannot map so much.
        """
        try:
            size, sealed = checked(handle.fileno(), max_size, shared=shared)
            section = cls(handle, size, owner=False, sealed=sealed, shared=shared)
            section._map_now()
        except UnsafeSection:
            # What is no memory may take its sender's time to close.
            dispose([handle])
            raise
        except BaseException as error:
            handle.close()
            raise no_room(error, max_size) from None
        handle.close()
        return section

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self._size

    @property
    def sealed(self) -> bool:
        """Whether nobody can write any more, so that the content can be used in place."""
        return self._sealed

    @property
    def shared(self) -> bool:
        """Whether both sides can write."""
        return self._shared

    @property
    def owner(self) -> bool:
        """Whether this side made it."""
        return self._owner

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def fileno(self) -> int:
        """Return the descriptor of an owned section, or -1 after `close` and for one that a peer made."""
        return self._handle.fileno()

    @property
    def memory(self) -> memoryview:
        """The whole section as bytes, writable where we may write.

        Raises:
            ViewReleased: the section is closed.
            OutOfSharedMemory: the process cannot map so much.
        """
        if self._memory is None:
            if self._closed:
                raise ViewReleased(what="a section")
            try:
                self._map_now()
            except OSError as error:
                raise no_room(error, self._size) from None
        assert self._memory is not None  # noqa: S101  # the line above sets it
        return self._memory

    def duplicate(self) -> Handle:
        """Return another descriptor of an owned section, to be passed to a peer.

        Raises:
            OutOfSharedMemory: the process has no descriptor left.
            ViewReleased: the section is closed.
        """
        if self.closed:
            raise ViewReleased(what="a section")
        try:
            return self._handle.duplicate()
        except OSError as error:
            raise no_room(error, self._size) from None

    def seal(self) -> None:
        """Turn a section of ours that was made with ``live=False`` into a one-shot.

        Raises:
            ViewInUse: buffers of it are still held; the section stays as it is.
            ViewReleased: the section is closed.
            ValueError: it is live, and so can be written for ever, or not ours.
        """
        if self._sealed:
            return
        if self._closed:
            raise ViewReleased(what="a section")
        if not self._owner or fcntl.fcntl(self._handle.fileno(), fcntl.F_GET_SEALS) & fcntl.F_SEAL_SEAL:
            raise ValueError("only a section of ours that is not live can be sealed; create it with live=False")
        if self._map is not None:
            # A mapping that survives the loss of our own references is held by somebody else.
            survivor = weakref.ref(self._map)
            self._map = self._memory = None
            self._map = survivor()
            if self._map is not None:
                self._memory = memoryview(self._map)
                raise ViewInUse(what=f"a section of {self._size} bytes")
        try:
            add_seals(self._handle, ONE_SHOT)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # A forked child has inherited the mapping, or the kernel still works with the pages.
            raise ViewInUse(what=f"a section of {self._size} bytes") from None
        self._sealed = True

    def lend(
        self, offset: int, length: int, *, writable: bool, ended: Callable[[], None]
    ) -> tuple[memoryview, weakref.ref[Any]]:
        """Give out a range in such a way that the end of its last buffer is noticed.

        Args:
            offset: where it begins, in bytes.
            length: its length in bytes.
            writable: whether its memory can be written.
            ended: called once when no buffer, slice or array of it is left, in the thread that drops the last one.

        Returns:
            The memory, and a reference that is dead from the end on.

        Raises:
            UnsafeSection: the range is not inside the section.
            ValueError: the section cannot be written.
            ViewReleased: the section is closed.
        """
        memory = self._memory
        if memory is None:
            memory = self.memory
        if not 0 <= offset <= offset + length <= self._size:
            raise UnsafeSection(
                rule="a view lies inside its section", detail=f"{length} bytes at {offset} of {self._size}"
            )
        if writable and memory.readonly:
            raise ValueError("only the owner of a section that is not sealed can write")
        loan = _loan_type(max(length - 1, 0).bit_length()).from_address(self._address + offset)
        # The loan lives as long as anything that was made of its memory, and keeps the mapping for as long.
        loan.mapping = self._map
        loan.ended = ended
        return lent_memory(loan, length, writable=writable), weakref.ref(loan)

    def close(self) -> None:
        """Give the section up: the descriptor now, the mapping with the last buffer of it. May be repeated."""
        self._closed = True
        self._map = self._memory = None
        self._handle.close()

    def _map_now(self) -> None:
        writable = (self._owner or self._shared) and not self._sealed
        # Before Linux 6.7 only private mappings of memory that is sealed against writing were allowed.
        flags = mmap.MAP_PRIVATE if self._sealed else mmap.MAP_SHARED
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._map = mmap.mmap(self._handle.fileno(), self._size, flags=flags, prot=protection, **_UNTRACKED)
        self._memory = memoryview(self._map)
        with PinnedBuffer(self._memory) as pin:
            self._address = pin.address

    def __repr__(self) -> str:
        if self._closed:
            return "<Section closed>"
        kind = "sealed" if self._sealed else "live"
        return f"<Section of {self._size} bytes, {'own' if self._owner else 'foreign'}, {kind}>"


def lent_memory(loan: Any, length: int, *, writable: bool) -> memoryview:
    """Return the memory of a loan that `Section.lend` made.

    Args:
        loan: what its reference leads to.
        length: length of the range, in bytes.
        writable: as it was lent.
    """
    memory = memoryview(loan).cast("B")
    if len(memory) != length:
        memory = memory[:length]
    return memory if writable else memory.toreadonly()


def _end(loan: Any) -> None:
    loan.ended()


def _nothing() -> None:
    """Stand for what is called at the end of a loan until that is known."""


@functools.cache
def _loan_type(power: int) -> Any:
    """Return a type that exports two to the power of bytes; what is lent is cut to size from it.

    It is the exporter, not the mapping, that tells when a range is free again: it dies with the last buffer of its
    range. A type for each power of two, because a type for each length would take longer to make than the rest.
    """
    return type("Loan", (ctypes.c_ubyte * (1 << power),), {"__del__": _end, "ended": staticmethod(_nothing)})
