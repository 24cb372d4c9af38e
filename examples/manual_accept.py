"""A server that looks at the connect data of each client before it lets the client in."""

from __future__ import annotations

import argparse

import anyio

import alpc_async as alpc


async def serve(port: alpc.ConnectionPort) -> None:
    """Let clients of version 2 in, and greet them by the name that they gave."""
    async for batch in port:
        for message in batch:
            if message.type is alpc.MessageType.CONNECTION_REQUEST:
                decide(message)
            elif message.type is alpc.MessageType.REQUEST:
                message.reply(f"hello {message.context}".encode())


def decide(message: alpc.Message) -> None:
    """Accept or refuse one client; the context comes back with every message of this client."""
    version, _, name = message.data.decode("utf-8", "replace").partition(" ")
    if version == "v2":
        message.accept(context=name, data=b"v2 it is")
    else:
        message.refuse(b"only v2 is spoken here", status=1000)


async def main() -> None:
    """Connect twice: once as the server wants it, and once not."""
    async with anyio.create_task_group() as tasks, alpc.listen("demo.greeter", accept="manual") as server:
        tasks.start_soon(serve, server)
        async with alpc.connect("demo.greeter", data=b"v2 alice") as port:
            print("the server said:", port.connect_data.decode())
            print((await port.request()).data.decode())
        try:
            await alpc.connect("demo.greeter", data=b"v1 bob")
        except alpc.ConnectionRefused as error:
            print(f"refused with status {error.status}: {error.data.decode()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
