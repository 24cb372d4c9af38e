"""The allocator and the pool: blocks never overlap, freed ranges come back, and sections come and go as needed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpc_async.errors import MessageTooLong, QuotaExceeded
from alpc_async.memory import GRANULE, Block, Section, SectionPool
from alpc_async.memory._allocator import FreeRanges  # the numbers below the pool have promises of their own
from alpc_async.memory_errors import OutOfSharedMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1024 * 1024


@pytest.fixture
def pool() -> Iterator[SectionPool]:
    """A pool of up to 16 MiB."""
    pool = SectionPool(max_total=16 * MIB, max_section=8 * MIB, port="port 'p'")
    yield pool
    pool.close()


@given(st.lists(st.tuples(st.integers(1, 300), st.booleans(), st.randoms(use_true_random=False)), max_size=120))
def test_ranges_never_overlap_and_always_join(steps: list[tuple[int, bool, random.Random]]) -> None:
    """Taken ranges are disjoint and inside, and when all are given back there is one range again."""
    ranges = FreeRanges()
    ranges.give(1000, 4096)
    taken: dict[int, int] = {}
    for size, giving, choice in steps:
        if giving and taken:
            start = choice.choice(sorted(taken))
            ranges.give(start, taken.pop(start))
            continue
        start = ranges.take(size)
        if start < 0:
            continue
        assert start >= 1000
        assert start + size <= 5096
        assert all(start + size <= other or other + length <= start for other, length in taken.items())
        taken[start] = size
        assert ranges.free == 4096 - sum(taken.values())
    for start, size in taken.items():
        ranges.give(start, size)
    assert ranges.has(1000, 4096)
    assert ranges.take(4096) == 1000


@pytest.mark.parametrize("size", [1, 63, 64, 65, 100, 4095, 4096])
def test_the_last_fitting_range_is_found(size: int) -> None:
    """A range of exactly the wished size is found, also where its bin may hold smaller ones."""
    ranges = FreeRanges()
    ranges.give(0, size)
    assert ranges.take(size + 1) == -1
    assert ranges.take(size) == 0
    assert ranges.take(1) == -1
    assert ranges.free == 0


def test_a_block_is_memory(pool: SectionPool) -> None:
    """A block has exactly the length asked for, begins at a cache line, and shares none with another."""
    blocks = [pool.allocate(length) for length in (1, 63, 64, 65, 1000)]
    for number, block in enumerate(blocks):
        assert (block.memory.nbytes, block.length, block.offset % GRANULE) == (block.length, block.length, 0)
        block.memory[:] = bytes([number]) * block.length
    for number, block in enumerate(blocks):
        assert bytes(block.memory) == bytes([number]) * block.length
        assert bytes(block.section.memory[block.offset : block.offset + block.length]) == bytes(block.memory)
    assert pool.used == (1 + 1 + 1 + 2 + 16) * GRANULE
    for block in blocks:
        block.free()
    assert pool.used == 0


def test_freeing_twice(pool: SectionPool) -> None:
    """A block is freed once; freeing it again does not free what got its place."""
    first = pool.allocate(100)
    assert repr(first) == "<Block of 100 bytes at 0>"
    first.free()
    second = pool.allocate(100)
    assert second.offset == first.offset
    first.free()
    assert (first.freed, second.freed) == (True, False)
    assert repr(first).endswith("freed>")
    assert pool.used == 2 * GRANULE
    third = pool.allocate(100)
    assert third.offset != second.offset


@pytest.mark.parametrize("size", [0, -1])
def test_blocks_are_never_empty(pool: SectionPool, size: int) -> None:
    """A block of no bytes cannot be had."""
    with pytest.raises(ValueError, match="at least one byte"):
        pool.allocate(size)


def test_sections_grow_with_the_need() -> None:
    """The first section has 1 MiB, later ones as much as all before, or what is asked for; each is announced first."""
    announced: list[Section] = []
    pool = SectionPool(max_total=64 * MIB, on_new_section=announced.append)
    sizes: list[int] = []
    for length in (1, MIB, MIB, 3 * MIB + 1, MIB // 2):
        block = pool.allocate(length)
        assert block.section in announced
        sizes.append(pool.total)
    assert sizes == [MIB, 2 * MIB, 4 * MIB, 8 * MIB, 8 * MIB]
    big = pool.allocate(17 * MIB + 1)
    assert big.section.size == 17 * MIB + 4096
    assert announced == pool.sections
    pool.close()
    assert all(section.closed for section in announced)
    assert (pool.total, pool.used, pool.sections) == (0, 0, [])


def test_speculative_growth_is_bounded() -> None:
    """A large pool does not take more than 64 MiB at once that nobody asked for."""
    pool = SectionPool(max_total=1024 * MIB)
    pool.allocate(100 * MIB)
    pool.allocate(MIB)
    assert [section.size for section in pool.sections] == [100 * MIB, 64 * MIB]
    pool.close()


def test_the_quota(pool: SectionPool) -> None:
    """What does not fit the quota is refused with the setting, and goes once there is room again."""
    first, second = pool.allocate(8 * MIB), pool.allocate(8 * MIB)
    with pytest.raises(QuotaExceeded) as caught:
        pool.allocate(1)
    assert (caught.value.port, caught.value.setting) == ("port 'p'", "max_total_section_size")
    assert caught.value.limit == 16 * MIB
    with pytest.raises(MessageTooLong) as too_long:
        pool.allocate(8 * MIB + 1)
    assert (too_long.value.setting, too_long.value.limit) == ("max_section_size", 8 * MIB)
    first.free()
    pool.allocate(1).free()
    second.free()


def test_idle_small_sections_make_room() -> None:
    """Idle sections that are too small for a block are given up for one that is large enough."""
    gone: list[Section] = []
    pool = SectionPool(max_total=4 * MIB, on_section_gone=gone.append)
    small = [pool.allocate(MIB) for _ in range(3)]
    for block in small:
        block.free()
    block = pool.allocate(4 * MIB)
    assert [section.size for section in pool.sections] == [4 * MIB]
    assert len(gone) == 3
    assert all(section.closed for section in gone)
    block.free()
    pool.close()


def test_trimming() -> None:
    """Sections without blocks are given up, but for the smallest one; those with blocks stay."""
    gone: list[int] = []
    pool = SectionPool(max_total=64 * MIB, on_section_gone=lambda section: gone.append(section.size))
    blocks = [pool.allocate(size * MIB) for size in (1, 2, 4, 8)]
    assert pool.trim() == 0
    for block in (blocks[0], blocks[1], blocks[3]):
        block.free()
    assert pool.trim() == 10 * MIB
    assert sorted(gone) == [2 * MIB, 8 * MIB]
    assert pool.trim(spare=0) == MIB
    assert pool.total == 4 * MIB
    again = pool.allocate(5)
    again.memory[:] = b"again"
    blocks[2].free()
    again.free()
    assert pool.used == 0
    pool.close()


def test_less_than_wished(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system has no room for a generous section, one that just holds the block is tried."""
    create = Section.create

    def scarce(size: int) -> Section:
        if size > 4096:
            raise OutOfSharedMemory(size=size, reason="scarce")
        return create(size)

    monkeypatch.setattr(Section, "create", scarce)
    pool = SectionPool(max_total=64 * MIB)
    pool.allocate(4096)
    assert pool.total == 4096
    with pytest.raises(OutOfSharedMemory):
        pool.allocate(4097)
    assert pool.total == 4096
    pool.close()


def test_an_announcement_that_fails() -> None:
    """A section that could not be announced is closed and not used."""
    made: list[Section] = []

    def fail(section: Section) -> None:
        made.append(section)
        raise KeyError

    pool = SectionPool(max_total=64 * MIB, on_new_section=fail)
    with pytest.raises(KeyError):
        pool.allocate(1)
    assert (made[0].closed, pool.total, pool.sections) == (True, 0, [])


def churn(operations: int, max_total: int, seed: int) -> tuple[float, float, int]:
    """Allocate and free at random until so many calls were made.

    Returns:
        The share of the sections that blocks held when an allocation failed: the first time and the worst time; and
        how often that happened.
    """
    choice = random.Random(seed)
    pool = SectionPool(max_total=max_total)
    live: list[Block] = []
    held = failures = 0
    first = worst = 1.0
    for _ in range(operations):
        if not live or choice.random() < 0.55:
            size = choice.randint(1, 4 * MIB)
            try:
                block = pool.allocate(size)
            except QuotaExceeded:
                failures += 1
                worst = min(worst, held / pool.total)
                first = worst if failures == 1 else first
            else:
                live.append(block)
                held += size
                continue
        place = choice.randrange(len(live))
        live[place], live[-1] = live[-1], live[place]
        held -= live[-1].length
        live.pop().free()
    for block in live:
        block.free()
    assert pool.used == 0
    pool.trim(spare=0)
    assert pool.total == 0
    return first, worst, failures


@pytest.mark.timeout(300)
def test_random_use_does_not_fragment_to_death(record_property: Callable[[str, object], None]) -> None:
    """In a million random steps with blocks of 1 B to 4 MiB, 70 % of the sections are usable whenever one fails."""
    first, worst, failures = churn(1_000_000, 256 * MIB, seed=1)
    record_property("usable", f"{first:.3f} {worst:.3f}")
    assert failures > 10_000
    assert first >= 0.7
    assert worst >= 0.7
