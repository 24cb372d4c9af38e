"""Direct copies reach the right memory of the right process, or fail and say why."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from alpc_async.memory import Cookie, address_of, read_process, write_process
from alpc_async.memory import _direct as direct  # pyright: ignore[reportPrivateUsage]  # steps are made small below
from alpc_async.memory_errors import DirectDenied, DirectFailed
from tests.memory.processes import STRANGER, Owner, owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Operation = Callable[[int, Cookie, int], None]


def read(pid: int, cookie: Cookie, address: int) -> None:
    """Read a few bytes."""
    read_process(pid, cookie, address, bytearray(10))


def write(pid: int, cookie: Cookie, address: int) -> None:
    """Write a few bytes."""
    write_process(pid, cookie, address, b"x" * 10)


both = pytest.mark.parametrize("operation", [read, write])


@pytest.fixture
def other() -> Iterator[Owner]:
    """A process that offers its memory."""
    with owner() as process:
        yield process


def cookie_of(process: Owner) -> Cookie:
    """Return the cookie that the process told."""
    return Cookie.of_peer(process.cookie_address, process.cookie_value)


def test_reading_another_process(other: Owner) -> None:
    """The bytes of the other process arrive, also from the middle, into any writable buffer."""
    whole = bytearray(other.length)
    read_process(other.pid, cookie_of(other), other.address, whole)
    assert whole == b"0123456789" * 1000
    part = memoryview(bytearray(8))[2:6]
    read_process(other.pid, cookie_of(other), other.address + 5, part)
    assert bytes(part) == b"5678"
    read_process(other.pid, cookie_of(other), other.address, bytearray())
    with pytest.raises(TypeError, match="writable"):
        read_process(other.pid, cookie_of(other), other.address, b"constant")


def test_writing_another_process(other: Owner) -> None:
    """The bytes arrive in the other process, and only where they should."""
    write_process(other.pid, cookie_of(other), other.address + 2, memoryview(b"__ABC__")[2:5])
    write_process(other.pid, cookie_of(other), other.address, b"")
    other.say("show")
    assert other.hear() == "01ABC567890123456789"


def test_large_copies_in_steps(other: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one call cannot copy takes several, each of which checks the process again."""
    monkeypatch.setattr(direct, "STEP", 999)
    whole = bytearray(other.length)
    read_process(other.pid, cookie_of(other), other.address, whole)
    assert whole == b"0123456789" * 1000
    write_process(other.pid, cookie_of(other), other.address, b"x" * other.length)
    read_process(other.pid, cookie_of(other), other.address, whole)
    assert whole == b"x" * other.length


@both
def test_a_process_that_ended(operation: Operation) -> None:
    """A process that is gone is a failure that says so."""
    with owner() as process:
        cookie, address, pid = cookie_of(process), process.address, process.pid
    with pytest.raises(DirectFailed, match="gone") as caught:
        operation(pid, cookie, address)
    assert (caught.value.pid, caught.value.copied) == (pid, 0)


@both
def test_a_process_that_runs_another_program(other: Owner, operation: Operation) -> None:
    """After an exec the same pid is not the process that offered its memory."""
    operation(other.pid, cookie_of(other), other.address)
    other.say("exec")
    assert other.hear() == "another"
    with pytest.raises(DirectFailed):
        operation(other.pid, cookie_of(other), other.address)


@both
def test_another_process_in_its_place(other: Owner, operation: Operation) -> None:
    """A process with other bytes where the cookie should be is not taken for the one that offered its memory."""
    wrong = Cookie.of_peer(other.cookie_address, bytes(16))
    with pytest.raises(DirectFailed, match="another process or program"):
        operation(other.pid, wrong, other.address)
    other.say("show")
    assert other.hear() == "01234567890123456789"


@both
def test_memory_that_is_not_there(other: Owner, operation: Operation) -> None:
    """An address where the process has no memory is a failure, also that of the cookie."""
    for cookie, address in (
        (cookie_of(other), 16),
        (Cookie.of_peer(16, other.cookie_value), other.address),
    ):
        with pytest.raises(DirectFailed):
            operation(other.pid, cookie, address)


@both
@pytest.mark.parametrize("address", [0, -1, 2**63 - 5, 2**64 + 4096, 2**200])
def test_ranges_that_are_none(other: Owner, operation: Operation, address: int) -> None:
    """No address wraps around to another one."""
    with pytest.raises(DirectFailed, match="no range of memory"):
        operation(other.pid, cookie_of(other), address)


def mapped_then_hole() -> tuple[mmap.mmap, int]:
    """Return two pages of memory, of which the second one cannot be read."""
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages[: mmap.PAGESIZE] = b"p" * mmap.PAGESIZE
    with address_of(pages) as pin:
        address = pin.address
    libc = ctypes.CDLL(None)
    assert libc.mprotect(ctypes.c_void_p(address + mmap.PAGESIZE), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    return pages, address


def test_a_range_that_ends_too_early() -> None:
    """Where only a part of the range is there, the copy fails and tells how much was copied."""
    pages, address = mapped_then_hole()
    with pytest.raises(DirectFailed, match="not there") as caught:
        read_process(os.getpid(), Cookie(), address + mmap.PAGESIZE - 100, bytearray(200))
    assert caught.value.copied in {0, 100}
    pages.close()


def test_a_short_copy_is_continued(other: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system copies less than asked, the rest follows."""
    call = direct.readv  # the system call is made to copy less
    lengths: list[int] = []

    def short(pid: int, local: ctypes.Array[direct.Vector], remote: ctypes.Array[direct.Vector], done: int) -> int:
        local[1].length = remote[1].length = min(local[1].length, 3000)
        lengths.append(local[1].length)
        return call(pid, local, remote, done)

    monkeypatch.setattr(direct, "readv", short)
    whole = bytearray(other.length)
    read_process(other.pid, cookie_of(other), other.address, whole)
    assert whole == b"0123456789" * 1000
    assert lengths == [3000, 3000, 3000, 1000]


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
@both
def test_the_memory_of_another_user(operation: Operation) -> None:
    """The memory of root is not reached by another user, who is told that it is denied."""
    result, pid = os.pipe(), os.getpid()
    cookie, memory = Cookie(), bytearray(b"secret" * 10)
    with address_of(memory) as pin:
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setresuid(STRANGER, STRANGER, STRANGER)
            try:
                operation(pid, cookie, pin.address)
            except BaseException as error:
                os.write(result[1], type(error).__name__.encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(result[1])
    assert os.read(result[0], 100) == b"DirectDenied"
    os.close(result[0])
    assert memory == b"secret" * 10


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_system_that_forbids_it(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A filter that forbids the system call is a denial, with what the kernel said."""

    class Library:
        @staticmethod
        def process_vm_readv(*arguments: object) -> int:
            ctypes.set_errno(number)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library())  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]  # stands for the C library
    with pytest.raises(DirectDenied, match=os.strerror(number)) as caught:
        read(os.getpid(), Cookie(), 4096)
    assert caught.value.pid == os.getpid()


def test_a_process_that_dies_during_the_copy(other: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Death between two steps of a copy is a failure that tells how far it came."""
    monkeypatch.setattr(direct, "STEP", 1000)
    call, steps = direct.readv, list[int]()  # likewise

    def step(pid: int, local: ctypes.Array[direct.Vector], remote: ctypes.Array[direct.Vector], done: int) -> int:
        steps.append(done)
        if len(steps) == 3:
            other.process.kill()
            other.process.wait()
        return call(pid, local, remote, done)

    monkeypatch.setattr(direct, "readv", step)
    with pytest.raises(DirectFailed, match="gone") as caught:
        read_process(other.pid, cookie_of(other), other.address, bytearray(other.length))
    assert caught.value.copied == 2000


def test_a_process_that_dies_while_it_is_written(other: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing ends with a failure when the address space goes away under it; nothing else gets its bytes."""
    monkeypatch.setattr(direct, "STEP", 1000)
    write_at, steps = os.pwrite, list[int]()

    def step(fd: int, data: memoryview, offset: int) -> int:
        steps.append(offset)
        if len(steps) == 3:
            os.kill(other.pid, signal.SIGKILL)
            other.process.wait()
        return write_at(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", step)
    with pytest.raises(DirectFailed, match="gone") as caught:
        write_process(other.pid, cookie_of(other), other.address, bytes(other.length))
    assert caught.value.copied == 2000


def test_large_copies_let_other_threads_run(other: Owner) -> None:
    """While a thread copies, others run: the copy happens outside of the interpreter's lock."""
    size = 256 * 1024 * 1024
    source, target = (mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(2))
    with address_of(source) as pin:
        thread = threading.Thread(target=read_process, args=(os.getpid(), Cookie(), pin.address, target))
        turns = 0
        thread.start()
        while thread.is_alive():
            turns += 1
    assert turns > 100
    source.close()
    target.close()


def test_cookies() -> None:
    """A cookie is where it says and unlike any other; what a peer tells must have its form."""
    first, second = Cookie(), Cookie()
    assert len(first.value) == 16
    assert first.value != second.value
    assert ctypes.string_at(first.address, 16) == first.value
    for address, value in ((0, bytes(16)), (1, bytes(15)), (1, bytes(17)), (-1, bytes(16)), (2**63 - 1, bytes(16))):
        with pytest.raises(ValueError, match="a cookie is 16 bytes"):
            Cookie.of_peer(address, value)


def test_pinned_buffers() -> None:
    """A pin tells address and length, of read-only buffers too, and keeps the buffer where it is until released."""
    data = bytearray(b"data")
    pin = address_of(data)
    assert (ctypes.string_at(pin.address, pin.length), pin.length) == (b"data", 4)
    with pytest.raises(BufferError):
        data.append(0)
    pin.release()
    pin.release()
    data.append(0)
    constant = b"constant"
    with address_of(memoryview(constant)[2:]) as pin:
        assert ctypes.string_at(pin.address, pin.length) == b"nstant"
    with pytest.raises(BufferError):
        address_of(memoryview(data)[::2])
