"""An access list: who may connect, who may send, and why somebody was refused."""

from __future__ import annotations

import argparse
import logging
import os

import anyio

import alpc_async as alpc


async def serve(port: alpc.ConnectionPort) -> None:
    """Answer every request."""
    async for batch in port:
        for message in batch:
            if message.type is alpc.MessageType.REQUEST:
                message.reply(b"printed")


def note(record: alpc.AuditRecord) -> None:
    """Print what was refused, and which rule decided."""
    print(f"refused {record.what}: {record.rule}")


async def main() -> None:
    """Admit ourselves, then ourselves without the right to send, then nobody."""
    # The records come to our function; the logger would print them as well.
    logging.getLogger("alpc_async.audit").addHandler(logging.NullHandler())
    us = f"user:{os.geteuid()}"
    lists = [
        alpc.SecurityDescriptor([alpc.deny("group:4000000000"), alpc.allow(us, alpc.Access.CONNECT)]),
        alpc.SecurityDescriptor.from_text(f"deny {us} send; allow {us}"),
        alpc.SecurityDescriptor([alpc.deny(us), alpc.allow("everyone")]),
    ]
    for descriptor in lists:
        listening = alpc.listen("demo.printer", security=descriptor, audit=note)
        async with anyio.create_task_group() as tasks, listening as port:
            tasks.start_soon(serve, port)
            try:
                async with alpc.connect("demo.printer") as client:
                    print((await client.request(b"page")).data.decode())
                    print(descriptor.explain(client.peer, alpc.Access.CONTROL).reason.partition(" to ")[0])
            except (alpc.AccessDenied, alpc.RemoteFault) as error:
                print(type(error).__name__)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
