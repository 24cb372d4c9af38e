"""Which files the demo reads, and how.

Belongs here: walking trees and reading regular files. Never here: what is done with the content.

Paths are bytes, because that is what they are to the system; not every one of them is text.
"""

from __future__ import annotations

import os
import stat
import sysconfig
from typing import TYPE_CHECKING, Final

import anyio.lowlevel
import msgspec

from ..handles import Handle
from ._demo_messages import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

__all__ = ["FoundFiles", "RegularFile", "find_files", "printable", "standard_library"]

_ENTRIES_PER_TURN: Final = 256
"""Directory entries after which the event loop turns, so that Ctrl-C works while a large tree is walked."""

_NOT_STANDARD: Final = frozenset({b"__pycache__", b"dist-packages", b"site-packages"})


class FoundFiles(msgspec.Struct):
    """What was found under some paths.

    Attributes:
        paths: regular files, in the order of a sorted walk.
        unreadable: directories and links that could not be followed.
        skipped: entries that are no files: sockets, pipes and devices.
    """

    paths: list[bytes] = []
    unreadable: list[Trouble] = []
    skipped: int = 0


def standard_library() -> bytes:
    """Return the directory of the standard library of the running Python."""
    return os.fsencode(sysconfig.get_path("stdlib"))


async def find_files(paths: list[bytes]) -> FoundFiles:
    """Find every regular file under some paths. Cancelling stops the walk.

    A symbolic link to a file counts as the file; a link to a directory is not followed, because it may lead in circles.
    Of the standard library, what is installed beside it and compiled caches are left out; anywhere else nothing is.

    Args:
        paths: files and directories; none for the standard library of the running Python.
    """
    found = FoundFiles()
    left_out = frozenset[bytes]() if paths else _NOT_STANDARD
    for number, _ in enumerate(_walk(paths or [standard_library()], left_out, found)):
        if number % _ENTRIES_PER_TURN == 0:
            await anyio.lowlevel.checkpoint()
    return found


def _walk(paths: list[bytes], left_out: frozenset[bytes], found: FoundFiles) -> Iterator[None]:
    waiting = list(reversed(paths))
    while waiting:
        path = waiting.pop()
        yield
        try:
            mode = os.stat(path).st_mode
            if stat.S_ISDIR(mode):
                waiting.extend(_inside(path, left_out))
            elif stat.S_ISREG(mode):
                found.paths.append(path)
            else:
                found.skipped += 1
        except OSError as error:
            found.unreadable.append(Trouble(path, error.strerror or str(error)))


def _inside(directory: bytes, left_out: frozenset[bytes]) -> list[bytes]:
    with os.scandir(directory) as entries:
        inside = [
            entry.path
            for entry in entries
            if entry.name not in left_out and not (entry.is_symlink() and entry.is_dir())
        ]
    return sorted(inside, reverse=True)


class RegularFile:
    """A regular file that is open for reading; leave its ``with`` block to close it.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be opened, or is not a regular file (any more).
    """

    __slots__ = ("_descriptor", "_left")

    def __init__(self, path: bytes) -> None:
        # Opening a pipe that has taken the place of the file must not wait for somebody to write to it.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        facts = os.fstat(self._descriptor)
        if not stat.S_ISREG(facts.st_mode):
            os.close(self._descriptor)
            raise OSError("it is not a regular file")
        self._left = facts.st_size

    @property
    def left(self) -> int:
        """Bytes that are left to be read, going by the size that the file had when it was opened."""
        return max(0, self._left)

    def read(self, size: int) -> bytes:
        """Return the next bytes of the content; fewer than asked for only at its end.

        Args:
            size: how many, in bytes.

        Raises:
            OSError: the content cannot be read.
        """
        data = os.read(self._descriptor, size)
        while 0 < len(data) < size and (more := os.read(self._descriptor, size - len(data))):
            data += more
        self._left -= len(data)
        return data

    def read_into(self, memory: memoryview) -> int:
        """Read the next bytes of the content into memory; fewer than it holds only at the end.

        Args:
            memory: writable bytes.

        Returns:
            How many were read.

        Raises:
            OSError: the content cannot be read.
        """
        size = 0
        while size < len(memory) and (count := os.readv(self._descriptor, [memory[size:]])):
            size += count
        self._left -= size
        return size

    def handle(self) -> Handle:
        """Return a handle of the open file, for somebody else."""
        return Handle(os.dup(self._descriptor))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def printable(path: bytes) -> str:
    """Return a path in a form that can be printed: what is not printable text is escaped.

    Args:
        path: the path, as the system names it.
    """
    text = path.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
