"""Counting what a process holds open: descriptors and mapped shared sections.

Belongs here: taking a count, comparing two, and the sentence about the difference. Never here: closing anything.

The counts are read from the kernel's own listing in ``/proc/self``, so nothing has to be registered and nothing can be
missed. Everything that the process opens counts, also what other threads open meanwhile.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["LeakCounter", "assert_no_leaks"]


class LeakCounter:
    """Remembers what was open when it was made.

    ::

        counter = LeakCounter()
        ...
        assert counter.left() == []

    Attributes:
        descriptors: open descriptors at the time of making.
        sections: mapped shared sections at the time of making.
    """

    def __init__(self) -> None:
        self._descriptors = _open_descriptors()
        self._sections = _mapped_sections()
        self.descriptors = len(self._descriptors)
        self.sections = len(self._sections)

    def left(self) -> list[str]:
        """Return a line for each descriptor and section that is open now and was not when the counter was made.

        A descriptor that was closed and opened again as the same file under the same number is not seen.
        """
        found = self._new()
        if found:
            # What only a reference cycle holds is closed by its finalizer, which warns about it in its own way.
            gc.collect()
            found = self._new()
        return sorted(found)

    def _new(self) -> set[str]:
        return (_open_descriptors() - self._descriptors) | (_mapped_sections() - self._sections)


@contextmanager
def assert_no_leaks() -> Generator[LeakCounter]:
    """Check that a block leaves no descriptor open and no shared section mapped.

    An event loop that starts or first uses a facility inside the block opens descriptors of its own, so put the block
    around the whole run of a loop, or inside a loop that has already worked.

    Yields:
        The counter, which knows what was open when the block began.

    Raises:
        AssertionError: the block ended normally and left something open; an error of the block goes first.
    """
    counter = LeakCounter()
    yield counter
    left = counter.left()
    if left:
        raise AssertionError("left open: " + "; ".join(left))


def _open_descriptors() -> set[str]:
    found: set[str] = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"descriptor {entry.name} -> {entry.readlink()}")
        except FileNotFoundError:  # the listing's own descriptor is closed by now
            continue
    return found


def _mapped_sections() -> set[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {f"mapping {line.split()[0]} of {line.split(maxsplit=5)[5]}" for line in lines if "/memfd:" in line}
