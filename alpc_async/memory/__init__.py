"""Sharing memory between processes: sections, views, the allocator inside sections, private copies, direct access.

Belongs here: memfds, seals, mappings, ``process_vm_readv``. Never here: a port, an event loop, the protocol; who may do
what is decided above.
"""

from __future__ import annotations

from ._allocator import GRANULE as GRANULE
from ._copy import HUGE_COPY_THRESHOLD as HUGE_COPY_THRESHOLD
from ._copy import copy_out as copy_out
from ._copy import make_bytes as make_bytes
from ._direct import Cookie as Cookie
from ._direct import may_hold_up as may_hold_up
from ._direct import may_reach as may_reach
from ._direct import read_process as read_process
from ._direct import write_process as write_process
from ._pinned import PinnedBuffer as PinnedBuffer
from ._pinned import address_of as address_of
from ._pool import Block as Block
from ._pool import SectionPool as SectionPool
from ._section import Section as Section
from ._view import View as View

__all__ = [
    "GRANULE",
    "HUGE_COPY_THRESHOLD",
    "Block",
    "Cookie",
    "PinnedBuffer",
    "Section",
    "SectionPool",
    "View",
    "address_of",
    "copy_out",
    "make_bytes",
    "may_hold_up",
    "may_reach",
    "read_process",
    "write_process",
]
