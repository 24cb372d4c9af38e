"""The interfaces that the tests of services share, and servers of them.

Belongs here: interfaces and implementations of more than one test module. Never here: tests.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator  # noqa: TC003  # contracts are read at run time
from dataclasses import dataclass
from typing import Any

import anyio
import msgspec

import alpc_async as alpc

NAME = "acme.files"


class Color(enum.Enum):
    """Some of each kind of type that can cross."""

    RED = "red"
    BLUE = "blue"


class Entry(msgspec.Struct):
    """A record."""

    name: str
    size: int = 0


@dataclass
class Point:
    """A data class."""

    x: float
    y: float


class NoSuchEntry(alpc.Fault):
    """A declared fault."""

    path: str
    tried: int = 1


class NotDeclared(alpc.Fault):
    """A fault that no method declares."""

    why: str


class Counter(alpc.Interface, uuid="0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c02"):
    """An object that is passed by reference."""

    async def add(self, number: int) -> int: ...


class Files(alpc.Interface, uuid="0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c01", version=(1, 2)):
    """A service with one method of each kind."""

    async def size(self, data: alpc.Buffer) -> int:
        """Return the length of something."""
        raise NotImplementedError

    async def echo(self, entry: Entry, *, color: Color = Color.RED, point: Point | None = None) -> Entry: ...

    @alpc.raises(NoSuchEntry)
    async def fail(self, how: str) -> int: ...

    @alpc.oneway
    async def note(self, text: str) -> None: ...

    async def sleep(self, seconds: float) -> None: ...

    @alpc.raises(NoSuchEntry)
    def walk(self, count: int, end: str = "") -> AsyncIterator[Entry]: ...

    async def total(self, numbers: AsyncIterator[int]) -> int: ...

    def double(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]: ...

    async def open(self, start: int = 0) -> Counter: ...

    async def use(self, counter: Counter, number: int) -> int: ...

    async def keep(self, counter: Counter) -> None: ...

    async def same(self, counter: Counter) -> bool: ...

    async def many(self, count: int) -> list[Counter]: ...


class CounterServer(Counter):
    """Counts, and tells when it is run down."""

    def __init__(self, number: int = 0, run_down: list[int] | None = None) -> None:
        self.number = number
        self.run_down = run_down

    async def add(self, number: int) -> int:
        self.number += number
        return self.number

    async def rundown(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.run_down is not None:
            self.run_down.append(self.number)


class FilesServer(Files):
    """Serves `Files`, and records what happens to it."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.calls: list[Any] = []
        self.started = 0
        self.cancelled = 0
        self.produced = 0
        self.opened_streams = 0
        self.closed_streams = 0
        self.run_down: list[int] = []
        self.kept: list[Counter] = []
        self.opened: list[CounterServer] = []

    async def size(self, data: alpc.Buffer) -> int:
        self.calls.append(alpc.current_call())
        return len(data)

    async def echo(self, entry: Entry, *, color: Color = Color.RED, point: Point | None = None) -> Entry:
        self.calls.append((color, point))
        return entry

    async def fail(self, how: str) -> int:
        if how == "declared":
            raise NoSuchEntry(path="/x", tried=3)
        if how == "undeclared":
            raise NotDeclared(why="secret")
        if how == "type":
            return "not a number"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  # the mistake
        if how == "status":
            raise alpc.RemoteFault(status=1234, reason="on purpose")
        if how == "denied":
            raise alpc.AccessDenied(what="fail", reason="not you")
        raise ValueError("secret")

    async def note(self, text: str) -> None:
        if text == "fail":
            raise ValueError(text)
        self.notes.append(text)

    async def sleep(self, seconds: float) -> None:
        self.started += 1
        try:
            await anyio.sleep(seconds)
        except BaseException:
            self.cancelled += 1
            raise

    async def walk(self, count: int, end: str = "") -> AsyncIterator[Entry]:
        self.opened_streams += 1
        try:
            for number in range(count):
                self.produced += 1
                yield Entry(f"entry {number}", number)
            if end == "declared":
                raise NoSuchEntry(path="/end")
            if end == "undeclared":
                raise ValueError("secret")
            if end == "wait":
                await anyio.sleep_forever()
            if end == "type":
                yield "no entry"  # type: ignore[misc]  # pyright: ignore[reportReturnType]  # the mistake
        finally:
            self.closed_streams += 1

    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    async def double(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        self.opened_streams += 1
        try:
            async for number in numbers:
                yield 2 * number
        finally:
            self.closed_streams += 1

    async def open(self, start: int = 0) -> Counter:
        counter = CounterServer(start, self.run_down)
        self.opened.append(counter)
        return counter

    async def use(self, counter: Counter, number: int) -> int:
        await counter.add(number)
        return await counter.add(number)

    async def keep(self, counter: Counter) -> None:
        self.kept.append(counter)

    async def same(self, counter: Counter) -> bool:
        return any(counter is opened for opened in self.opened)

    async def many(self, count: int) -> list[Counter]:
        return [CounterServer(number, self.run_down) for number in range(count)]


async def numbers(count: int) -> AsyncIterator[int]:
    """Give the numbers from 0 on."""
    for number in range(count):
        yield number
