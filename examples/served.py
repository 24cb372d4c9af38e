"""A service for ``alpc serve served:reverse --name acme.reverse --processes 2``: it answers with the data reversed."""

from __future__ import annotations

import argparse
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

import alpc_async as alpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


async def handle(message: alpc.Message) -> None:
    """Answer with the data reversed."""
    message.reply(message.data[::-1])


@asynccontextmanager
async def reverse(name: str = "acme.reverse") -> AsyncGenerator[alpc.ConnectionPort]:
    """Open the service, and give its port, so that it can be drained."""
    async with (
        alpc.CompletionPort() as completion_port,
        alpc.listen(name, completion_port=completion_port) as port,
        alpc.WorkerPool(completion_port, handle, maximum=16, grace=5),
    ):
        yield port


async def ask(data: bytes, name: str = "acme.reverse") -> bytes:
    """Ask the service, also while its processes are being replaced."""
    while True:
        async with alpc.connect(name) as port:
            try:
                return (await port.request(data)).data
            except alpc.RemoteFault as error:
                if error.status != alpc.Status.DRAINING:
                    raise
                # It has not been worked on; another process is there already.


async def main() -> None:
    """Run the service in this process, and ask it."""
    async with reverse("acme.reverse.alone"):
        print((await ask(b"alpc", "acme.reverse.alone")).decode())


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--backend", default="asyncio", choices=["asyncio", "trio"])
    anyio.run(main, backend=arguments.parse_args().backend)
