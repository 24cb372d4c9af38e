"""Broken on purpose: the server answers whatever it receives, and ends with its first client."""

from __future__ import annotations

import argparse

import anyio

import alpc_async as alpc


async def serve(port: alpc.ConnectionPort) -> None:
    """Answer everything, also the notice that a client has gone, which nobody can answer."""
    async for batch in port:
        for message in batch:
            message.reply(message.data)


async def main() -> None:
    """Connect twice in a row; the second client finds nobody."""
    async with alpc.listen("demo.broken") as server, anyio.create_task_group() as tasks:
        tasks.start_soon(serve, server)
        for client in ("first", "second"):
            async with alpc.connect("demo.broken") as port:
                print((await port.request(client.encode())).data.decode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
