"""Open files and shared memory as arguments and results of typed calls."""

from __future__ import annotations

import argparse
import os
import tempfile

import anyio

import alpc_async as alpc

LIMITS = alpc.PortLimits(max_handles=1, handle_kinds=alpc.HandleKind.FILE)


class Reader(alpc.Interface, uuid="c1d0a3f4-5c3e-4d0b-8f4b-2d3b1f6a7e21"):
    """Reads what its caller may open."""

    async def first(self, file: alpc.Handle, size: int) -> bytes: ...

    async def total(self, data: alpc.View) -> int: ...


class ReaderServer(Reader):
    """Serves it."""

    async def first(self, file: alpc.Handle, size: int) -> bytes:
        with file:
            return os.pread(file.fileno(), size, 0)

    async def total(self, data: alpc.View) -> int:
        return sum(data.data)


async def main() -> None:
    """Pass a file and a view."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"hello, reader")
        file.flush()
        async with (
            alpc.serve("demo.reader", ReaderServer(), limits=LIMITS),
            alpc.connect("demo.reader", Reader, limits=LIMITS) as reader,
        ):
            print(await reader.first(alpc.Handle.open(file.name), 5))
            with await alpc.port_of(reader).allocate(1000) as view:
                view.data[:] = bytes([1]) * 1000
                print(await reader.total(view))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
