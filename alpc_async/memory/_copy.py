"""Private copies of shared memory.

Belongs here: where a copy is put so that making it is cheap. Never here: whether a copy is needed.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["HUGE_COPY_THRESHOLD", "copy_out"]

HUGE_COPY_THRESHOLD: Final = 4 * 1024 * 1024
"""Bytes from which a copy is put into huge pages; decision record 12 has the measurement."""


def copy_out(memory: Buffer) -> bytes | memoryview:
    """Copy memory that others can change, so that it can be judged and used at leisure.

    Args:
        memory: any contiguous buffer.

    Returns:
        ``bytes``; from `HUGE_COPY_THRESHOLD` bytes on a read-only ``memoryview`` over memory of this process alone,
        which goes with it.
    """
    source = memoryview(memory)
    if source.nbytes < HUGE_COPY_THRESHOLD:
        return bytes(source)
    copy = mmap.mmap(-1, source.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        # Pages of 2 MiB where the system has them: one page fault instead of 512.
        copy.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel that was built without them
        return bytes(source)
    copy[:] = source
    return memoryview(copy).toreadonly()
