"""What both directions of shared memory keep records of: ranges that are lent, and sections that are borrowed.

Belongs here: counting who still uses them. Never here: the tables of a connection (`_sharing`), mappings (memory).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..memory import Section
    from ..wire import SectionKind

__all__ = ["Borrowed", "LostSection", "Range"]


class LostSection(Exception):
    """The descriptor of a section was lost on its way, so views of it cannot be used."""


class Range:
    """Bytes of a section of ours, and how many still use them.

    Args:
        section: where they are.
        offset: the first of them.
        length: how many.
        kind: who may write to the section.
        free: called once when nobody uses them any more.
    """

    __slots__ = ("_free", "kind", "length", "number", "offset", "section", "users")

    def __init__(self, section: Section, offset: int, length: int, kind: SectionKind, free: Callable[[], None]) -> None:
        self.section = section
        self.offset = offset
        self.length = length
        self.kind = kind
        self.number = 0
        """Number of the section when the range was lent last."""
        self._free = free
        self.users = 1
        """How many still use it; only `drop` takes one away."""

    def keep(self) -> None:
        """Note one more user."""
        self.users += 1

    def fill(self, data: bytes | memoryview) -> None:
        """Copy data of the same length into the range."""
        self.section.memory[self.offset : self.offset + self.length] = data

    def drop(self) -> bool:
        """Note that a user let go; return whether it was the last one."""
        self.users -= 1
        if self.users:
            return False
        self._free()
        return True


class Borrowed:
    """A section of the other side, and how many views of it are held.

    Args:
        section: the section.
    """

    __slots__ = ("alone", "gone", "section", "size", "views")

    def __init__(self, section: Section) -> None:
        self.section = section
        self.size = section.size
        self.alone = section.sealed or section.shared
        """Whether it was made for one range."""
        self.views = 0
        self.gone = False
