"""Objects that cross: a session kept by the server, a callback to the client, and what happens on their release."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator  # noqa: TC003  # the annotations of an interface are its contract

import anyio

import alpc_async as alpc


class Progress(alpc.Interface, uuid="c1d0a3f4-5c3e-4d0b-8f4b-2d3b1f6a7e01"):
    """What the client lets the server call."""

    async def done(self, percent: int) -> None: ...


class Upload(alpc.Interface, uuid="c1d0a3f4-5c3e-4d0b-8f4b-2d3b1f6a7e02"):
    """One upload, kept by the server for as long as the client holds it."""

    async def write(self, pieces: AsyncIterator[bytes], progress: Progress) -> int: ...


class Store(alpc.Interface, uuid="c1d0a3f4-5c3e-4d0b-8f4b-2d3b1f6a7e03"):
    """Where uploads begin."""

    async def begin(self, name: str) -> Upload: ...


class UploadServer(Upload):
    """An upload that says when nobody holds it any more."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.size = 0

    async def write(self, pieces: AsyncIterator[bytes], progress: Progress) -> int:
        async for piece in pieces:
            self.size += len(piece)
            await progress.done(self.size * 100 // 300)
        return self.size

    async def rundown(self) -> None:
        print(f"{self.name}: {self.size} bytes, and nobody holds it any more")


class StoreServer(Store):
    """Begins uploads."""

    async def begin(self, name: str) -> Upload:
        return UploadServer(name)


class Printer(Progress):
    """Prints progress."""

    async def done(self, percent: int) -> None:
        print(f"{percent} %")


async def pieces() -> AsyncIterator[bytes]:
    """Give the content piece by piece."""
    for _ in range(3):
        yield bytes(100)


async def main() -> None:
    """Upload something."""
    async with alpc.serve("demo.store", StoreServer()), alpc.connect("demo.store", Store) as store:
        async with await store.begin("report") as upload:
            print("written:", await upload.write(pieces(), Printer()))
        await anyio.sleep(0.1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
