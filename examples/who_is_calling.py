"""A port for members of one group, and what the kernel tells about each caller."""

from __future__ import annotations

import argparse
import os

import anyio

import alpc_async as alpc


async def serve(port: alpc.ConnectionPort) -> None:
    """Tell every caller who it is."""
    async for batch in port:
        for message in batch:
            if message.type is alpc.MessageType.REQUEST:
                sender = message.sender
                role = "root" if sender.is_user(0) else "a user"
                message.reply(f"{role}: uid {sender.uid}, gid {sender.gid}".encode())


async def main() -> None:
    """Open the port to our own group, check that the server is us, and ask."""
    group = alpc.require(group=os.getegid())
    ourselves = alpc.require(uid=os.geteuid())
    async with anyio.create_task_group() as tasks, alpc.listen("demo.whoami", security=group) as server:
        tasks.start_soon(serve, server)
        async with alpc.connect("demo.whoami", server=ourselves) as port:
            print((await port.request()).data.decode())
        try:
            await alpc.connect("demo.whoami", server=alpc.require(uid=os.geteuid() + 1))
        except alpc.ServerIdentityMismatch as error:
            print("not the server we wanted:", error.required)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
