"""Handles own a descriptor once, can be reduced, and go away without waiting; event flags show one bit."""

from __future__ import annotations

import os
import select
import threading
import time
import warnings
from typing import TYPE_CHECKING

import pytest

from alpc_async.handles import EventFlag, Handle, dispose
from alpc_async.memory_errors import UnsuitableHandle

if TYPE_CHECKING:
    from pathlib import Path


def is_open(descriptor: int) -> bool:
    """Return whether the process has the descriptor."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def opened() -> int:
    """Return a descriptor."""
    return os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC)


def test_closing_closes_once() -> None:
    """The descriptor is closed by the first call; a number that was taken again since is left alone."""
    handle = Handle(opened())
    number = handle.fileno()
    assert (handle.closed, repr(handle)) == (False, f"<Handle {number}>")
    handle.close()
    assert (handle.closed, handle.fileno(), repr(handle)) == (True, -1, "<Handle closed>")
    again = opened()
    assert again == number
    handle.close()
    assert is_open(again)
    os.close(again)


def test_the_end_of_the_block_closes() -> None:
    """A handle is closed with its block, also when the block fails."""
    with Handle(opened()) as handle:
        number = handle.fileno()
        assert is_open(number)
    assert not is_open(number)
    with pytest.raises(KeyError), Handle(opened()) as handle:
        raise KeyError
    assert handle.closed


def test_detaching_gives_the_descriptor_away() -> None:
    """A detached descriptor stays open and is not the handle's any more."""
    handle = Handle(opened())
    number = handle.detach()
    handle.close()
    assert is_open(number)
    assert handle.closed
    with pytest.raises(ValueError, match="already closed"):
        handle.detach()
    os.close(number)


def test_a_forgotten_handle_is_closed_and_said() -> None:
    """A handle that nobody closed is closed when it goes, with a warning that names it."""
    number = opened()
    handle = Handle(number)
    forget = [handle].clear
    del handle
    with pytest.warns(ResourceWarning, match=f"unclosed <Handle {number}>"):
        forget()
    assert not is_open(number)


def test_a_handle_that_was_never_made_is_no_leak() -> None:
    """Something that has no descriptor yet disappears silently."""
    handle = Handle.__new__(Handle)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del handle
    assert caught == []


def test_a_duplicate_lives_by_itself() -> None:
    """A duplicate is the same open file under a number of its own, and is not inherited."""
    with Handle.open("/dev/zero") as handle:
        second = handle.duplicate()
        assert second.fileno() != handle.fileno()
        assert os.path.sameopenfile(second.fileno(), handle.fileno())
    with second:
        assert not os.get_inheritable(second.fileno())
        assert os.read(second.fileno(), 1) == b"\0"


def test_opening_a_file(tmp_path: Path) -> None:
    """A file is opened as asked, created with modest permissions, and not inherited."""
    path = tmp_path / "file"
    with Handle.open(path, os.O_RDWR | os.O_CREAT) as handle:
        assert not os.get_inheritable(handle.fileno())
        assert path.stat().st_mode & 0o177 == 0
    with pytest.raises(FileNotFoundError):
        Handle.open(tmp_path / "none")


def test_a_file_is_reduced_to_reading(tmp_path: Path) -> None:
    """The reduced handle reads from where the first one stands, cannot write, and has its own position."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with Handle.open(path, os.O_RDWR) as handle:
        os.lseek(handle.fileno(), 4, os.SEEK_SET)
        with handle.read_only() as reduced:
            assert os.read(reduced.fileno(), 3) == b"456"
            assert os.lseek(handle.fileno(), 0, os.SEEK_CUR) == 4
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.write(reduced.fileno(), b"x")
            with reduced.read_only() as again:
                assert os.read(again.fileno(), 1) == b"7"


def test_what_reads_already_is_duplicated(tmp_path: Path) -> None:
    """Directories and the reading end of a pipe can only read anyway."""
    reading, writing = map(Handle, os.pipe())
    with reading, writing, Handle.open(tmp_path) as directory:
        for handle in (reading, directory):
            with handle.read_only() as reduced:
                assert os.path.sameopenfile(reduced.fileno(), handle.fileno())


def test_what_cannot_be_reduced_is_refused(tmp_path: Path) -> None:
    """A reduction that would not hold, or would give more than before, is refused with the reason."""
    reading, writing = map(Handle, os.pipe())
    with (
        reading,
        writing,
        Handle(os.memfd_create("x", os.MFD_CLOEXEC)) as memory,
        Handle.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT) as blind,
    ):
        for handle, kind, reason in (
            (memory, "MEMFD", "seal it"),
            (writing, "PIPE", "only files and directories"),
            (blind, "FILE", "writing only"),
        ):
            with pytest.raises(UnsuitableHandle, match=reason) as caught:
                handle.read_only()
            assert caught.value.kind == kind


def test_unwanted_handles_are_closed() -> None:
    """All kinds are closed: some at once, the others by a thread that does not keep the process from ending."""
    reading, writing = os.pipe()
    unwanted = [Handle(opened()), Handle(os.memfd_create("x", os.MFD_CLOEXEC)), Handle(reading)]
    numbers = [handle.fileno() for handle in unwanted]
    gone = Handle(opened())
    gone.close()
    dispose([*unwanted, gone])
    assert [handle.closed for handle in unwanted] == [True] * 3
    assert not is_open(numbers[1])
    while is_open(numbers[0]):
        time.sleep(0.001)
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"x")
    os.close(writing)


def test_a_close_that_hangs_hangs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a close does not return, ``dispose`` has returned, and the thread is a daemon."""
    handle = Handle(opened())
    number = handle.fileno()
    close, goes_on = os.close, threading.Event()
    threads: list[threading.Thread] = []

    def hang(fd: int) -> None:
        if fd == number:
            threads.append(threading.current_thread())
            goes_on.wait()
        close(fd)

    monkeypatch.setattr(os, "close", hang)
    dispose([handle])
    assert handle.closed
    assert is_open(number)
    goes_on.set()
    while is_open(number):
        time.sleep(0.001)
    assert [thread.daemon for thread in threads] == [True]


def readable(flag: EventFlag) -> bool:
    """Return whether somebody who waits for the flag would go on."""
    return bool(select.select([flag], [], [], 0)[0])


def test_the_flag_is_readable_while_it_is_up() -> None:
    """Putting it up or down twice changes nothing."""
    flag = EventFlag()
    assert not readable(flag)
    for up in (True, True, False, False, True):
        flag.set(up)
        assert readable(flag) is up
    flag.close()
    flag.close()
    assert flag.fileno() == -1
    flag.set(False)


def test_the_flag_is_not_inherited() -> None:
    """Programs that are started do not get the descriptor."""
    flag = EventFlag()
    assert not os.get_inheritable(flag.fileno())
    flag.close()
