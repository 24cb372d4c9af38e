"""Private copies do not change with what they were made of, whatever their size."""

from __future__ import annotations

import mmap
import os

import pytest

from alpc_async.memory import HUGE_COPY_THRESHOLD, Section, copy_out
from alpc_async.testing import LeakCounter


@pytest.mark.parametrize("size", [1, 4096, HUGE_COPY_THRESHOLD - 1, HUGE_COPY_THRESHOLD, HUGE_COPY_THRESHOLD + 1])
def test_a_copy_is_private(size: int) -> None:
    """A copy keeps what it had when the original changes, and cannot be written."""
    section = Section.create(size)
    section.memory[:] = data = os.urandom(size)
    copy = copy_out(section.memory)
    section.memory[:] = bytes(size)
    section.close()
    assert copy == data
    assert type(copy) is bytes
    assert memoryview(copy).readonly


def test_nothing_to_copy() -> None:
    """An empty range gives an empty copy."""
    assert copy_out(b"") == b""


def test_many_large_copies_leave_nothing() -> None:
    """The memory of a large copy goes with it."""
    with open("/proc/self/maps") as maps:
        before = len(maps.readlines())
    counter = LeakCounter()
    for _ in range(50):
        copy_out(bytes(HUGE_COPY_THRESHOLD))
    assert counter.left() == []
    with open("/proc/self/maps") as maps:
        assert len(maps.readlines()) - before < 20


def test_a_kernel_without_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no huge pages, ordinary bytes come out."""

    class Plain(mmap.mmap):
        def madvise(self, option: int, start: int = 0, length: int = 0) -> None:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Plain)
    assert copy_out(bytes(HUGE_COPY_THRESHOLD)) == bytes(HUGE_COPY_THRESHOLD)
    assert isinstance(copy_out(bytes(HUGE_COPY_THRESHOLD)), bytes)
