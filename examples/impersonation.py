"""A server that makes a file as whoever asked for it.

As root it acts as its client; any other user is told which privilege is missing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import anyio

import alpc_async as alpc

ALLOW = alpc.SecurityQos("impersonate")


async def serve(port: alpc.ConnectionPort) -> None:
    """Answer each request with the owner of a file that was made for it."""
    async for batch in port:
        for message in batch:
            if message.type is alpc.MessageType.REQUEST:
                with message:
                    try:
                        async with message.impersonate() as caller:
                            owner = await caller.run(make_file, bytes(message.data).decode())
                            message.reply(f"made by uid {owner}".encode())
                    except alpc.AccessDenied as error:
                        message.fail(1000, error.reason)


def make_file(path: str) -> int:
    """Make a file and return its owner."""
    Path(path).write_text("printed")
    return os.stat(path).st_uid


async def main() -> None:
    """Ask once with permission and once without."""
    with tempfile.TemporaryDirectory() as directory:
        async with anyio.create_task_group() as tasks, alpc.listen("demo.files") as server:
            tasks.start_soon(serve, server)
            for qos in (ALLOW, None):
                async with alpc.connect("demo.files", qos=qos) as client:
                    try:
                        print(bytes((await client.request(f"{directory}/page".encode())).data).decode())
                    except alpc.RemoteFault as fault:
                        print(fault.reason)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
