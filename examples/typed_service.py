"""A typed service and a client of it: a call, a stream, a fault with fields, and a mistake that is found at once."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import AsyncIterator  # noqa: TC003  # the annotations of an interface are its contract

import anyio

import alpc_async as alpc


class NoSuchBook(alpc.Fault):
    """There is no book of that title."""

    title: str


class Library(alpc.Interface, uuid="2b1d9f0e-6a43-4c3b-9d55-0f6f3a1c7e21", version=(1, 0)):
    """What the server promises and the client sees."""

    async def sha256(self, data: alpc.Buffer) -> bytes: ...

    @alpc.raises(NoSuchBook)
    async def find(self, title: str) -> str: ...

    @alpc.raises(NoSuchBook)
    def words(self, title: str, *, most: int = 100) -> AsyncIterator[str]: ...


class LibraryServer(Library):
    """Keeps the promise."""

    def __init__(self) -> None:
        self.books = {"Alphabet": "alpha beta gamma delta"}

    async def sha256(self, data: alpc.Buffer) -> bytes:
        """Return the digest of any bytes."""
        return hashlib.sha256(data).digest()

    async def find(self, title: str) -> str:
        """Return the text of a book."""
        if title not in self.books:
            raise NoSuchBook(title=title)
        return self.books[title]

    async def words(self, title: str, *, most: int = 100) -> AsyncIterator[str]:
        """Give the words of a book one by one."""
        for word in (await self.find(title)).split()[:most]:
            yield word


async def main() -> None:
    """Serve, and be a client."""
    async with alpc.serve("demo.library", LibraryServer()), alpc.connect("demo.library", Library) as library:
        print("sha256:", (await library.sha256(b"hello")).hex()[:16])
        print("first words:", " ".join([word async for word in library.words("Alphabet", most=3)]))
        try:
            await library.find("Ulysses")
        except NoSuchBook as fault:
            print("no such book:", fault.title)
        try:
            await library.find(42)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the mistake
        except alpc.TypeMismatch as error:
            print("TypeMismatch:", error)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
