"""Leak counters: what is left open is named, what was open before is not."""

from __future__ import annotations

import mmap
import os

import pytest

from alpc_async.testing import LeakCounter, assert_no_leaks


def test_descriptors_are_counted() -> None:
    """A descriptor that was opened since is named until it is closed."""
    before = LeakCounter()
    descriptor = os.open("/dev/zero", os.O_RDONLY)
    assert before.left() == [f"descriptor {descriptor} -> /dev/zero"]
    assert LeakCounter().left() == []
    assert LeakCounter().descriptors == before.descriptors + 1
    os.close(descriptor)
    assert before.left() == []


def test_sections_are_counted() -> None:
    """A shared section that was mapped since is named until it is unmapped, also without its descriptor."""
    before = LeakCounter()
    section = os.memfd_create("of-a-test")
    os.ftruncate(section, mmap.PAGESIZE)
    mapping = mmap.mmap(section, mmap.PAGESIZE)
    os.close(section)
    assert any("/memfd:of-a-test" in line and line.startswith("mapping ") for line in before.left())
    assert LeakCounter().sections == before.sections + 1
    mapping.close()
    assert before.left() == []


def test_a_block_that_leaks_fails() -> None:
    """The end of the block names what is still open."""
    left: list[int] = []
    with pytest.raises(AssertionError, match=r"left open: descriptor \d+ -> /dev/zero"), assert_no_leaks():
        left.append(os.open("/dev/zero", os.O_RDONLY))
    os.close(left[0])


def test_a_block_that_closes_everything_passes() -> None:
    """Nothing is said about what was open only inside the block."""
    with assert_no_leaks() as counter:
        descriptor = os.open("/dev/zero", os.O_RDONLY)
        assert counter.left() != []
        os.close(descriptor)


def test_an_error_of_the_block_goes_first() -> None:
    """A leak does not hide the error that led to it."""
    left: list[int] = []

    def fail() -> None:
        left.append(os.open("/dev/zero", os.O_RDONLY))
        raise KeyError

    with pytest.raises(KeyError), assert_no_leaks():
        fail()
    os.close(left[0])


def test_cycles_are_collected_first() -> None:
    """What only a reference cycle keeps open is not a leak."""

    class Holder:
        def __init__(self) -> None:
            self.itself = self
            self.descriptor = os.open("/dev/zero", os.O_RDONLY)

        def __del__(self) -> None:
            os.close(self.descriptor)

    with assert_no_leaks():
        Holder()
