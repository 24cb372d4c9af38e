"""A server that asks its client something while it works on the request of that client."""

from __future__ import annotations

import argparse

import anyio

import alpc_async as alpc


async def serve(port: alpc.ConnectionPort) -> None:
    """Ask back through the port of the client before answering."""
    async with anyio.create_task_group() as tasks:
        async for batch in port:
            for message in batch:
                if message.type is alpc.MessageType.REQUEST:
                    # Waiting for the client here would keep this loop from receiving for everybody else.
                    tasks.start_soon(answer, message)


async def answer(message: alpc.Message) -> None:
    """Ask the sender of the request how it wants its answer, and give it."""
    preference = await message.port.request(b"which case?")
    message.reply(message.data.upper() if preference.data == b"upper" else message.data.lower())


async def tell(port: alpc.CommunicationPort) -> None:
    """Answer what the server asks us."""
    async for batch in port:
        for message in batch:
            if message.type is alpc.MessageType.REQUEST:
                print("the server asks:", message.data.decode())
                message.reply(b"upper")


async def main() -> None:
    """Send a request, and answer the one that comes back before its reply."""
    async with anyio.create_task_group() as tasks, alpc.listen("demo.convert") as server:
        tasks.start_soon(serve, server)
        async with anyio.create_task_group() as ours, alpc.connect("demo.convert") as port:
            ours.start_soon(tell, port)
            reply = await port.request(b"Full Duplex")
            print("the reply:", reply.data.decode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
