"""The broken server beside this file, mended: it looks at the type of each message first."""

from __future__ import annotations

import argparse

import anyio

import alpc_async as alpc


async def serve(port: alpc.ConnectionPort) -> None:
    """Answer requests, and note that a client has gone."""
    async for batch in port:
        for message in batch:
            if message.type is alpc.MessageType.REQUEST:
                message.reply(message.data)
            elif message.type in (alpc.MessageType.PORT_CLOSED, alpc.MessageType.CLIENT_DIED):
                print("gone:", message.data.decode())


async def main() -> None:
    """Connect twice in a row; both clients are served."""
    async with anyio.create_task_group() as tasks, alpc.listen("demo.fixed") as server:
        tasks.start_soon(serve, server)
        for client in ("first", "second"):
            async with alpc.connect("demo.fixed") as port:
                print((await port.request(client.encode())).data.decode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
