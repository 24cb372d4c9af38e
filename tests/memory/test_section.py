"""Sections: what their owner may do, what a receiver takes, and that nothing of them is left."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import socket
from typing import TYPE_CHECKING

import pytest

from alpc_async.handles import Handle
from alpc_async.memory import Section
from alpc_async.memory_errors import OutOfSharedMemory, UnsafeSection, ViewInUse, ViewReleased
from alpc_async.testing import LeakCounter
from tests.memory.processes import in_another_process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGE = mmap.PAGESIZE
FUTURE_WRITE = 0x10
SIZE_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
SAFE = SIZE_SEALS | fcntl.F_SEAL_WRITE


def passed(section: Section) -> Handle:
    """Return what a peer gets of a section: a descriptor of its own."""
    return Handle(os.dup(section.fileno()))


def memory(size: int = PAGE, *, content: int | None = None, seals: int = SAFE, flags: int = 0) -> Handle:
    """Return a memfd such as a peer could make it: so many bytes, of which the first ones are there, sealed."""
    handle = Handle(os.memfd_create("peer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags))
    os.ftruncate(handle.fileno(), size)
    os.pwrite(handle.fileno(), b"x" * (size if content is None else content), 0)
    if seals:
        fcntl.fcntl(handle.fileno(), fcntl.F_ADD_SEALS, seals)
    return handle


def test_a_live_section_has_one_writer() -> None:
    """The owner goes on writing; nobody else can write, map for writing, shrink, grow or punch holes."""
    section = Section.create(3 * PAGE)
    assert (section.owner, section.sealed, section.size, bytes(section.memory[:2])) == (True, False, 3 * PAGE, b"\0\0")
    section.memory[:5] = b"first"
    reader = Section.adopt(passed(section), max_size=3 * PAGE)
    assert (reader.owner, reader.sealed, reader.size, reader.fileno()) == (False, False, 3 * PAGE, -1)
    assert bytes(reader.memory[:5]) == b"first"
    section.memory[:5] = b"later"
    assert bytes(reader.memory[:5]) == b"later"
    assert reader.memory.readonly
    attempts: list[Callable[[int], object]] = [
        lambda fd: os.pwrite(fd, b"x", 0),
        lambda fd: mmap.mmap(fd, PAGE),
        lambda fd: os.ftruncate(fd, PAGE),
        lambda fd: os.ftruncate(fd, 4 * PAGE),
        lambda fd: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
    ]
    for attempt in attempts:
        with pytest.raises(PermissionError):
            attempt(section.fileno())
    libc = ctypes.CDLL(None, use_errno=True)
    punch = ctypes.c_int(section.fileno()), 0x3, ctypes.c_long(0), ctypes.c_long(PAGE)
    assert (libc.fallocate(*punch), ctypes.get_errno()) == (-1, errno.EPERM)
    section.close()
    reader.close()


def test_a_peer_cannot_shrink_what_it_sent_or_got() -> None:
    """Another process that holds the descriptor fails to shrink it, opened again or not, and reading goes on."""
    script = """
import errno, os, sys
descriptor = int(sys.argv[1])
for target in (descriptor, os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)):
    try:
        os.ftruncate(target, 0)
    except OSError as error:
        print(errno.errorcode[error.errno])
"""
    for section in (Section.create(PAGE), Section.from_bytes(b"data")):
        with passed(section) as descriptor:
            reader = Section.adopt(descriptor.duplicate(), max_size=PAGE)
            assert in_another_process(script, descriptor.fileno()) == "EPERM\nEPERM\n"
        assert len(bytes(reader.memory)) == section.size
        reader.close()
        section.close()


@pytest.mark.parametrize("size", [1, PAGE - 1, PAGE, 3 * PAGE + 5])
def test_a_one_shot_is_never_written_again(size: int) -> None:
    """A sealed copy has the content, of exactly that size, and nobody can write it, its maker included."""
    data = os.urandom(size)
    section = Section.from_bytes(memoryview(bytearray(data)))
    assert (section.owner, section.sealed, section.size) == (True, True, size)
    reader = Section.adopt(passed(section), max_size=size)
    assert reader.sealed
    for side in (section, reader):
        assert side.memory == data
        assert side.memory.readonly
        with pytest.raises(ValueError, match="not sealed can write"):
            side.lend(0, 1, writable=True, ended=lambda: None)
    with pytest.raises(PermissionError):
        os.pwrite(section.fileno(), b"x", 0)
    section.seal()
    section.close()
    reader.close()


def test_a_section_is_filled_and_then_sealed() -> None:
    """What was made without being live is refused by receivers, until it is sealed; then nobody can write."""
    section = Section.create(PAGE, live=False)
    section.memory[:4] = b"fill"
    with pytest.raises(UnsafeSection, match="sealed against shrinking"):
        Section.adopt(passed(section), max_size=PAGE)
    section.seal()
    assert section.sealed
    assert bytes(section.memory[:4]) == b"fill"
    assert section.memory.readonly
    reader = Section.adopt(passed(section), max_size=PAGE)
    assert reader.sealed
    reader.close()
    section.close()


@pytest.mark.parametrize("part", [slice(None), slice(1)], ids=["whole", "slice"])
def test_sealing_with_buffers_in_use(part: slice) -> None:
    """While a buffer or a slice of it is held, a section stays writable and says why."""
    section = Section.create(PAGE, live=False)
    held = section.memory[part]
    with pytest.raises(ViewInUse, match=f"section of {PAGE} bytes is still used"):
        section.seal()
    section.memory[0] = 7
    assert held[0] == 7
    del held
    section.seal()
    assert section.memory[0] == 7
    section.close()


def test_sealing_while_a_child_has_it_mapped() -> None:
    """A forked child that inherited the writable mapping keeps a section from being sealed until it ends."""
    section = Section.create(PAGE, live=False)
    section.memory[:2] = b"ab"
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    with pytest.raises(ViewInUse):
        section.seal()
    assert not section.sealed
    section.memory[:2] = b"cd"
    os.close(writing)
    os.waitpid(child, 0)
    section.seal()
    assert bytes(section.memory[:2]) == b"cd"
    section.close()


def test_what_cannot_be_sealed() -> None:
    """A live section can be written for ever, a foreign one is not ours, a closed one is gone."""
    section = Section.create(PAGE)
    reader = Section.adopt(passed(section), max_size=PAGE)
    for side in (section, reader):
        with pytest.raises(ValueError, match="live=False"):
            side.seal()
        side.close()
        with pytest.raises(ViewReleased):
            side.seal()


REFUSED: dict[str, tuple[Callable[[Path], Handle], str]] = {
    "a file": (lambda path: Handle.open(path / "file", os.O_RDWR | os.O_CREAT), "anonymous shared memory"),
    "a socket": (lambda _: Handle(socket.socket().detach()), "anonymous shared memory"),
    "no seal allowed": (lambda _: Handle(os.memfd_create("x", os.MFD_CLOEXEC)), "sealed against shrinking"),
    "no seal": (lambda _: memory(seals=0), "sealed against shrinking"),
    "can shrink": (lambda _: memory(seals=SAFE & ~fcntl.F_SEAL_SHRINK), "sealed against shrinking"),
    "can grow": (lambda _: memory(seals=SAFE & ~fcntl.F_SEAL_GROW), "sealed against shrinking"),
    "can be sealed": (lambda _: memory(seals=SAFE & ~fcntl.F_SEAL_SEAL), "sealed against shrinking"),
    "can be written": (lambda _: memory(seals=SIZE_SEALS), "sealed against writing"),
    "empty": (lambda _: memory(0), "not empty and not larger"),
    "too large": (lambda _: memory(PAGE * 16 + 1), "not empty and not larger"),
    "sparse": (lambda _: memory(3 * PAGE, content=2 * PAGE), "no holes"),
    "sparse at the end": (lambda _: memory(2 * PAGE + 1, content=2 * PAGE), "no holes"),
    "all hole": (lambda _: memory(PAGE, content=0), "no holes"),
}


@pytest.mark.parametrize(("offer", "rule"), REFUSED.values(), ids=REFUSED)
def test_what_a_receiver_refuses(offer: Callable[[Path], Handle], rule: str, tmp_path: Path) -> None:
    """What could change under the reader or kill it is refused by the rule it breaks, and its descriptor closed."""
    handle = offer(tmp_path)
    with pytest.raises(UnsafeSection, match=rule) as caught:
        Section.adopt(handle, max_size=PAGE * 16)
    assert rule in caught.value.rule
    assert handle.closed


@pytest.mark.parametrize("seals", [SAFE, SIZE_SEALS | FUTURE_WRITE])
def test_what_a_receiver_takes(seals: int) -> None:
    """Safe memory of any maker is taken, up to exactly the agreed size."""
    section = Section.adopt(memory(PAGE * 16, seals=seals), max_size=PAGE * 16)
    assert section.memory[-1] == ord("x")
    assert section.sealed is bool(seals & fcntl.F_SEAL_WRITE)
    section.close()


def test_pages_beyond_the_end_hide_no_hole() -> None:
    """Where pages beyond the end make up for missing ones in the count, the missing ones are there before mapping."""
    handle = memory(4 * PAGE, content=0, seals=0)
    libc = ctypes.CDLL(None)
    keep_size = 0x1
    assert libc.fallocate(handle.fileno(), keep_size, ctypes.c_long(4 * PAGE), ctypes.c_long(4 * PAGE)) == 0
    fcntl.fcntl(handle.fileno(), fcntl.F_ADD_SEALS, SAFE)
    with handle.duplicate() as watched:
        assert os.fstat(watched.fileno()).st_blocks * 512 == 4 * PAGE
        section = Section.adopt(handle, max_size=4 * PAGE)
        assert os.fstat(watched.fileno()).st_blocks * 512 == 8 * PAGE
    assert bytes(section.memory) == bytes(4 * PAGE)
    section.close()


def test_a_descriptor_that_cannot_be_checked() -> None:
    """A descriptor opened for reading only does not let holes be filled, so it is refused."""
    with memory() as handle:
        offered = Handle(os.open(f"/proc/self/fd/{handle.fileno()}", os.O_RDONLY | os.O_CLOEXEC))
    with pytest.raises(UnsafeSection, match="checked for holes"):
        Section.adopt(offered, max_size=PAGE)


def test_huge_pages_are_refused() -> None:
    """Memory of huge pages, of which a missing one kills its reader, is refused."""
    try:
        handle = Handle(os.memfd_create("x", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | os.MFD_HUGETLB))
        os.ftruncate(handle.fileno(), 2 << 20)
    except OSError as error:
        pytest.skip(f"no memory of huge pages here: {error}")
    fcntl.fcntl(handle.fileno(), fcntl.F_ADD_SEALS, SAFE)
    with pytest.raises(UnsafeSection, match="ordinary pages"):
        Section.adopt(handle, max_size=2 << 20)


def test_sections_are_never_empty() -> None:
    """A section of no bytes cannot be made."""
    for size in (0, -1):
        with pytest.raises(ValueError, match="at least one byte"):
            Section.create(size)
    with pytest.raises(ValueError, match="at least one byte"):
        Section.from_bytes(b"")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM])
def test_no_memory(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A shortage is told with its size and reason, and leaves nothing open, on either side."""

    def fail(*args: object) -> int:
        raise OSError(number, os.strerror(number))

    offered = memory()
    monkeypatch.setattr(os, "posix_fallocate", fail)
    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OutOfSharedMemory, match=f"9 bytes: {os.strerror(number)}") as caught:
        Section.create(9)
    assert caught.value.size == 9
    with pytest.raises(OutOfSharedMemory):
        Section.from_bytes(b"x" * 9)
    with pytest.raises(OutOfSharedMemory):
        Section.adopt(offered, max_size=PAGE)
    assert offered.closed


def test_no_descriptor() -> None:
    """A process without a free descriptor is told that this is what it lacks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OutOfSharedMemory, match="Too many open files"):
            Section.create(9)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_kernel_that_does_not_know_the_flag_against_execution(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux before 6.3 a section is made without the flag; other failures are told."""
    create, asked = os.memfd_create, list[int]()

    def old(name: str, flags: int) -> int:
        asked.append(flags)
        if flags & 0x8:
            raise OSError(errno.EINVAL, "no such flag")
        if len(asked) > 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return create(name, flags)

    monkeypatch.setattr(os, "memfd_create", old)
    Section.create(9).close()
    with pytest.raises(OutOfSharedMemory):
        Section.create(9)


def test_a_section_cannot_be_executed() -> None:
    """The memory has no right of execution, and the kernel keeps it so where it knows how."""
    section = Section.create(9)
    assert os.fstat(section.fileno()).st_mode & 0o111 == 0 or not _knows_noexec()
    section.close()


def _knows_noexec() -> bool:
    try:
        os.close(os.memfd_create("x", 0x8))
    except OSError:
        return False
    return True


def test_using_a_closed_section() -> None:
    """After closing there is no memory and no descriptor; closing again does nothing."""
    section = Section.create(9)
    assert "own, live" in repr(section)
    section.close()
    section.close()
    assert (section.closed, section.fileno(), repr(section)) == (True, -1, "<Section closed>")
    with pytest.raises(ViewReleased):
        _ = section.memory


def test_memory_outlives_the_section() -> None:
    """What was taken of a closed section stays readable, and the mapping goes with it."""
    counter = LeakCounter()
    section = Section.create(PAGE)
    section.memory[:3] = b"abc"
    part = section.memory[1:3]
    section.close()
    assert bytes(part) == b"bc"
    assert len([line for line in counter.left() if "mapping" in line]) == 1
    del part
    assert counter.left() == []


def test_a_range_outside_is_refused() -> None:
    """No offset and no length leads outside of a section, however they combine."""
    section = Section.create(100)
    for offset, length in ((0, 101), (100, 1), (101, 0), (-1, 5), (5, -1), (2**64, 1), (1, 2**64), (99, 2)):
        with pytest.raises(UnsafeSection, match="inside its section"):
            section.lend(offset, length, writable=False, ended=lambda: None)
    for offset, length in ((0, 100), (100, 0), (99, 1)):
        lent, _ = section.lend(offset, length, writable=True, ended=lambda: None)
        assert lent.nbytes == length
        del lent
    section.close()


def test_ten_thousand_sections_leave_nothing() -> None:
    """After 10,000 sections made, passed, mapped and closed, as many descriptors and mappings are there as before."""
    counter = LeakCounter()
    for number in range(10_000):
        section = Section.create(64) if number % 2 else Section.from_bytes(b"x" * 64)
        reader = Section.adopt(passed(section), max_size=64)
        assert reader.memory.nbytes == 64
        reader.close()
        section.close()
    now = LeakCounter()
    assert (now.descriptors, now.sections) == (counter.descriptors, counter.sections)


def test_few_descriptors() -> None:
    """A receiver holds at most one descriptor for a section, an owner at most two, and none once it is closed."""
    before = LeakCounter().descriptors
    section = Section.create(64)
    assert LeakCounter().descriptors - before <= 2
    held = LeakCounter().descriptors
    reader = Section.adopt(passed(section), max_size=64)
    assert LeakCounter().descriptors - held <= 1
    reader.close()
    section.close()
    assert LeakCounter().descriptors == before
