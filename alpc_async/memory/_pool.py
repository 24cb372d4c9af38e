"""The sections of one side of one connection, and the blocks that are allocated inside them.

Belongs here: when a section is made and given up, and where a block lies. Never here: which message a block belongs to.

A pool serves one connection only. The other side maps its sections whole, so it can read whatever was ever written
into one of them: sharing them between peers would show each the messages of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from alpc_async.errors import MessageTooLong, QuotaExceeded
from alpc_async.memory_errors import OutOfSharedMemory

from ._allocator import GRANULE, FreeRanges
from ._section import Section

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Block", "SectionPool"]

MIN_SECTION: Final = 1024 * 1024
"""Bytes of the first section; each further one is as large as all before it together, up to `MAX_STEP`."""

MAX_STEP: Final = 64 * 1024 * 1024
"""Most bytes of a section beyond what is asked for: making one takes about 0.2 ms for each MiB, and a loop waits."""

_PAGE: Final = 4096
# A granule's number: which section, and which granule of it. Sections are far apart, so their ranges never join.
_SECTION_SHIFT: Final = 40
_GRANULE_MASK: Final = (1 << _SECTION_SHIFT) - 1


def _nothing(section: Section) -> None:
    """Do nothing: nobody wants to know."""


class Block:
    """A range of a section of ours, until `free`.

    Attributes:
        section: the section that holds it.
        offset: where it begins there, in bytes.
        length: its length in bytes.
    """

    __slots__ = ("_free", "_start", "length", "offset", "section")

    def __init__(self, free: FreeRanges, section: Section, start: int, length: int) -> None:
        self._free: FreeRanges | None = free
        self._start = start
        self.section = section
        self.offset = (start & _GRANULE_MASK) * GRANULE
        self.length = length

    @property
    def memory(self) -> memoryview:
        """The block as writable bytes, for the framework; what users may hold is made by `View`."""
        return self.section.memory[self.offset : self.offset + self.length]

    @property
    def freed(self) -> bool:
        """Whether `free` was called."""
        return self._free is None

    def free(self) -> None:
        """Give the range back. Doing so again does nothing."""
        free, self._free = self._free, None
        if free is not None:
            free.give(self._start, -(-self.length // GRANULE))

    def __repr__(self) -> str:
        return f"<Block of {self.length} bytes at {self.offset}{', freed' if self.freed else ''}>"


class SectionPool:
    """Allocates blocks inside live sections, which it makes as needed.

    It is not locked: use it from one thread.

    Args:
        max_total: most bytes of all its sections together.
        max_section: most bytes of one section; as many as ``max_total`` by default.
        port: what the port calls itself, for errors.
        on_new_section: called with each new section before a block of it is handed out.
        on_section_gone: called with each section that is about to be closed because it is not needed.
    """

    def __init__(
        self,
        *,
        max_total: int,
        max_section: int | None = None,
        port: str = "this port",
        on_new_section: Callable[[Section], None] = _nothing,
        on_section_gone: Callable[[Section], None] = _nothing,
    ) -> None:
        self._max_total = max_total
        self._max_section = max_total if max_section is None else min(max_section, max_total)
        self._port = port
        self._on_new_section = on_new_section
        self._on_section_gone = on_section_gone
        self._free = FreeRanges()
        self._sections: dict[int, Section] = {}
        self._next = 0
        self._total = 0
        self.elsewhere = 0
        """Bytes of ``max_total`` that are used by sections outside of the pool."""

    @property
    def total(self) -> int:
        """Bytes of all sections."""
        return self._total

    @property
    def used(self) -> int:
        """Bytes of all blocks, each rounded up to whole granules."""
        return self._total - self._free.free * GRANULE

    @property
    def sections(self) -> list[Section]:
        """The sections, oldest first."""
        return list(self._sections.values())

    def allocate(self, size: int) -> Block:
        """Return a block; its content is whatever was there before.

        Args:
            size: its length in bytes, at least 1.

        Raises:
            QuotaExceeded: the sections would have to be larger than ``max_total`` allows.
            MessageTooLong: no section may be that large.
            OutOfSharedMemory: the system has no room for another section.
            ValueError: the size is not positive.
        """
        granules = -(-size // GRANULE)
        start = self._free.take(granules) if granules > 0 else -1
        if start < 0:
            self._grow(size)
            start = self._free.take(granules)
        return Block(self._free, self._sections[start >> _SECTION_SHIFT], start, size)

    def trim(self, spare: int = 1) -> int:
        """Close sections that hold no block.

        Args:
            spare: how many of them to keep, the smallest ones.

        Returns:
            Bytes that were given back to the system.
        """
        idle = [(section.size, number) for number, section in self._sections.items() if self._is_idle(number)]
        before = self._total
        for _, number in sorted(idle)[spare:]:
            section = self._sections[number]
            self._on_section_gone(section)
            self._free.withdraw(number << _SECTION_SHIFT, section.size // GRANULE)
            del self._sections[number]
            self._total -= section.size
            section.close()
        return before - self._total

    def close(self) -> None:
        """Close all sections. Blocks that were not freed are gone; memory that is still held stays until it is not."""
        for section in self._sections.values():
            section.close()
        self._sections.clear()
        self._free = FreeRanges()
        self._total = 0

    def _is_idle(self, number: int) -> bool:
        return self._free.has(number << _SECTION_SHIFT, self._sections[number].size // GRANULE)

    def _grow(self, size: int) -> None:
        if size <= 0:
            raise ValueError("a block holds at least one byte")
        needed = -(-size // _PAGE) * _PAGE
        if needed > self._max_section:
            raise MessageTooLong(port=self._port, size=size, limit=self._max_section, setting="max_section_size")
        most = self._max_total - self.elsewhere
        if needed > most - self._total:
            # What lies idle in pieces that are too small makes room for one that is large enough.
            self.trim(spare=0)
        room = min(self._max_section, (most - self._total) // _PAGE * _PAGE)
        if needed > room:
            raise QuotaExceeded(port=self._port, setting="max_total_section_size", limit=self._max_total)
        wished = min(max(needed, min(self._total, MAX_STEP), MIN_SECTION), room)
        try:
            section = Section.create(wished)
        except OutOfSharedMemory:
            if wished == needed:
                raise
            section = Section.create(needed)
        try:
            self._on_new_section(section)
        except BaseException:
            section.close()
            raise
        number = self._next
        self._next += 1
        self._sections[number] = section
        self._total += section.size
        self._free.give(number << _SECTION_SHIFT, section.size // GRANULE)
