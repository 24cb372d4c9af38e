"""Kinds of descriptors are told apart, and telling them never waits for a file system that does not answer."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from alpc_async.handles import Handle, HandleKind, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path


def fifo(path: Path) -> int:
    """Return a descriptor of a pipe with a name."""
    os.mkfifo(path / "fifo")
    return os.open(path / "fifo", os.O_RDWR | os.O_CLOEXEC)


def epoll(path: Path) -> int:
    """Return a descriptor of a set of descriptors to wait for."""
    with select.epoll() as owner:
        return os.dup(owner.fileno())


CASES: list[tuple[HandleKind, Callable[[Path], int]]] = [
    (HandleKind.FILE, lambda path: os.open(path / "file", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)),
    (HandleKind.FILE, lambda path: os.open(path / "memfd:x (deleted)", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)),
    (HandleKind.DIRECTORY, lambda path: os.open(path, os.O_RDONLY | os.O_CLOEXEC)),
    (HandleKind.PIPE, fifo),
    (HandleKind.SOCKET, lambda _: socket.socket(socket.AF_UNIX).detach()),
    (HandleKind.SOCKET, lambda _: socket.socket(socket.AF_INET).detach()),
    (HandleKind.MEMFD, lambda _: os.memfd_create("x", os.MFD_CLOEXEC)),
    (HandleKind.MEMFD, lambda _: os.memfd_create("x", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)),
    (HandleKind.PIDFD, lambda _: os.pidfd_open(os.getpid())),
    (HandleKind.EVENTFD, lambda _: os.eventfd(0, os.EFD_CLOEXEC)),
    (HandleKind.CHARACTER_DEVICE, lambda _: os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)),
    (HandleKind.PATH, lambda path: os.open(path, os.O_PATH | os.O_CLOEXEC)),
    (HandleKind.OTHER, epoll),
]


@pytest.mark.parametrize(("kind", "make"), CASES, ids=[f"{n}-{case[0].name}" for n, case in enumerate(CASES)])
@pytest.mark.parametrize("proc", [True, False], ids=["proc", "no-proc"])
def test_kinds(
    kind: HandleKind, make: Callable[[Path], int], proc: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each descriptor is of exactly one kind; where /proc is missing, what has no type of its own is OTHER."""
    without_proc = {HandleKind.MEMFD: HandleKind.FILE, HandleKind.PIDFD: None, HandleKind.EVENTFD: HandleKind.OTHER}

    def no_link(path: str) -> str:
        raise FileNotFoundError(path)

    with Handle(make(tmp_path)) as handle:
        if not proc:
            monkeypatch.setattr(os, "readlink", no_link)
            kind = without_proc.get(kind, kind) or handle.kind
        assert kind_of(handle.fileno()) is kind
        assert handle.kind is kind


def test_pipes_without_names() -> None:
    """Both ends of a pipe are pipes."""
    for descriptor in os.pipe():
        with Handle(descriptor) as handle:
            assert handle.kind is HandleKind.PIPE


def test_a_closed_descriptor_has_no_kind() -> None:
    """Asking about a descriptor that is not open is an error."""
    handle = Handle.open("/dev/null")
    handle.close()
    with pytest.raises((OSError, ValueError)):
        kind_of(handle.fileno())


def test_a_c_library_without_statx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the C library cannot ask for without waiting is of no known kind."""

    def old(name: object) -> object:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", old)
    with Handle.open(tmp_path) as handle:
        assert handle.kind is HandleKind.OTHER


# ------------------------------------------------------------------------------------------- a file system that hangs

_OPCODES = {"LOOKUP": 1, "GETATTR": 3, "OPEN": 14, "INIT": 26, "OPENDIR": 27}
_HEADER = struct.Struct("=IIQQIIIHH")
_STAT = "import os, sys; os.fstat(int(sys.argv[1]))"


def serve(device: int, asked: list[int]) -> None:
    """Answer as a file system that opens its root and afterwards does not answer any more."""
    while True:
        try:
            request = os.read(device, 1 << 17)
        except OSError:
            return
        _, opcode, unique, *_ = _HEADER.unpack_from(request)
        asked.append(opcode)
        answers = {
            _OPCODES["INIT"]: struct.pack("=IIIIHHI32x8x", 7, 31, 65536, 0, 16, 12, 65536)[:64],
            _OPCODES["OPENDIR"]: struct.pack("=QII", 1, 0, 0),
        }
        if opcode in answers:
            body = answers[opcode].ljust(64, b"\0") if opcode == _OPCODES["INIT"] else answers[opcode]
            os.write(device, struct.pack("=IiQ", 16 + len(body), 0, unique) + body)


@contextmanager
def hanging_file_system(path: Path) -> Generator[tuple[int, list[int]]]:
    """Mount a file system in this process that does not answer; give its open root and the requests that it got."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"a file system that does not answer needs /dev/fuse: {error}")
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"alpc-test", os.fsencode(path), b"fuse", 0, options) != 0:
        os.close(device)
        pytest.skip(f"a file system that does not answer must be mounted: {os.strerror(ctypes.get_errno())}")
    asked: list[int] = []
    server = threading.Thread(target=serve, args=(device, asked), daemon=True)
    server.start()
    root = -1
    try:
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        yield root, asked
    finally:
        # Forced and detached: whoever waits for an answer gets an error instead.
        libc.umount2(os.fsencode(path), 0x1 | 0x2)
        if root >= 0:
            os.close(root)
        server.join()
        os.close(device)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")
def test_a_file_system_that_does_not_answer_is_not_asked(tmp_path: Path) -> None:
    """The kind of a directory is told while an ordinary look at it waits for a file system that hangs."""
    command = [sys.executable, "-I", "-S", "-c", _STAT]
    with hanging_file_system(tmp_path) as (root, asked):
        process = subprocess.Popen([*command, str(root)], pass_fds=[root])
        while _OPCODES["GETATTR"] not in asked:
            assert process.poll() is None
        before = list(asked)
        assert kind_of(root) is HandleKind.DIRECTORY
        assert asked == before
        assert process.poll() is None
    # Not even SIGKILL ends a process that waits for such a file system, so the file system had to go first.
    process.wait()
