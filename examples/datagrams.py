"""Messages that want no answer: one by one, and many at a time."""

from __future__ import annotations

import argparse

import anyio

import alpc_async as alpc


async def collect(port: alpc.ConnectionPort) -> None:
    """Print what arrives, until the only client has gone."""
    total = 0
    async for batch in port:
        for message in batch:
            if message.type is alpc.MessageType.DATAGRAM:
                total += len(message.data)
            elif message.type is alpc.MessageType.PORT_CLOSED:
                print(f"{total} bytes of log lines; then: {message.data.decode()}")
                return


async def main() -> None:
    """Send log lines, close, and let the receiver tell what it got."""
    async with alpc.listen("demo.log") as server, anyio.create_task_group() as tasks:
        tasks.start_soon(collect, server)
        async with alpc.connect("demo.log") as port:
            await port.post(b"started\n")
            await port.post_batch([b"line %04d\n" % number for number in range(1000)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
