"""Private copies of shared memory.

Belongs here: where a copy is put so that making it is cheap. Never here: whether a copy is needed.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
from typing import TYPE_CHECKING, Any, Final

from ._pinned import PinnedBuffer

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

__all__ = ["HUGE_COPY_THRESHOLD", "copy_out", "make_bytes"]

HUGE_COPY_THRESHOLD: Final = 4 * 1024 * 1024
"""Bytes from which a copy is put into huge pages; decision record 12 has the measurement."""

_HUGE_PAGE: Final = 2 * 1024 * 1024


def copy_out(memory: Buffer) -> bytes:
    """Copy memory that others can change, so that it can be judged and used at leisure.

    Args:
        memory: any contiguous buffer.

    Returns:
        The copy. From `HUGE_COPY_THRESHOLD` bytes on its pages are huge ones where the system has them: one page fault
        for 2 MiB instead of 512.
    """
    source = memoryview(memory)
    size = source.nbytes
    if size < HUGE_COPY_THRESHOLD:
        return bytes(source)
    with PinnedBuffer(source) as origin:
        address = origin.address

        def copy(target: memoryview) -> None:
            with PinnedBuffer(target) as pinned:
                ctypes.memmove(pinned.address, address, size)

        return make_bytes(size, copy)


def make_bytes(size: int, fill: Callable[[memoryview], None]) -> bytes:
    """Make bytes that are filled in place, in huge pages like a long copy.

    Args:
        size: how many.
        fill: called once with writable memory of that size, which it must not keep.
    """
    # The interpreter's own way of making bytes that are filled afterwards: nobody else has seen the object yet.
    made: bytes = _new_bytes()(None, size)
    with PinnedBuffer(made) as target:
        if size >= HUGE_COPY_THRESHOLD:
            begin = -(-target.address // _HUGE_PAGE) * _HUGE_PAGE
            end = (target.address + size) // _HUGE_PAGE * _HUGE_PAGE
            if begin < end:
                _advise()(begin, end - begin, mmap.MADV_HUGEPAGE)
        memory = memoryview((ctypes.c_ubyte * size).from_address(target.address)).cast("B")
        try:
            fill(memory)
        finally:
            memory.release()
    return made


@functools.cache
def _new_bytes() -> Any:
    function = ctypes.PyDLL(None).PyBytes_FromStringAndSize
    function.restype = ctypes.py_object
    function.argtypes = (ctypes.c_char_p, ctypes.c_ssize_t)
    return function


@functools.cache
def _advise() -> Any:
    # An error means a kernel without huge pages: then the copy has ordinary ones.
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    function.restype = ctypes.c_int
    return function
