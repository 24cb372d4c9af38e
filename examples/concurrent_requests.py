"""A hundred requests in flight on one connection, and how many of them each receive call of the server brought."""

from __future__ import annotations

import argparse

import anyio

import alpc_async as alpc

REQUESTS = 100


async def serve(port: alpc.ConnectionPort) -> None:
    """Answer every request with its number squared."""
    async for batch in port:
        for message in batch:
            if message.type is alpc.MessageType.REQUEST:
                message.reply(b"%d" % int(message.data) ** 2)


async def ask(port: alpc.CommunicationPort, number: int, answers: dict[int, int]) -> None:
    """Send one request; the others go on meanwhile."""
    reply = await port.request(b"%d" % number)
    answers[number] = int(reply.data)


async def main() -> None:
    """Start all requests at once, wait for all of them, and look at what the server counted."""
    answers: dict[int, int] = {}
    async with anyio.create_task_group() as tasks, alpc.listen("demo.squares") as server:
        tasks.start_soon(serve, server)
        async with alpc.connect("demo.squares") as port, anyio.create_task_group() as callers:
            for number in range(REQUESTS):
                callers.start_soon(ask, port, number, answers)
        counted = server.statistics()
        print(
            f"the server needed {counted.receives} receive calls, the largest brought {counted.largest_batch} messages"
        )
    correct = sum(answer == number**2 for number, answer in answers.items())
    print(f"{correct} of {REQUESTS} answers are correct")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
