"""A completion port without a pool: two tasks share the packets, and a third one ends them."""

from __future__ import annotations

import argparse

import anyio

import alpc_async as alpc


async def work(completion_port: alpc.CompletionPort, answered: dict[object, int]) -> None:
    """Handle batches until the completion port is closed."""
    async for batch in completion_port:
        for completion in batch:
            message = completion.message
            if message is not None and message.type is alpc.MessageType.REQUEST:
                answered[completion.key] = answered.get(completion.key, 0) + 1
                message.reply(message.data)


async def main() -> None:
    """Let two tasks serve two ports, with at most one batch in the hands of either."""
    answered: dict[object, int] = {}
    async with (
        alpc.CompletionPort(concurrency=2) as completion_port,
        alpc.listen("demo.left", completion_port=completion_port, key="left"),
        alpc.listen("demo.right", completion_port=completion_port, key="right"),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(work, completion_port, answered)
        tasks.start_soon(work, completion_port, answered)
        for name in ("demo.left", "demo.right", "demo.right"):
            async with alpc.connect(name) as port:
                await port.request(b"ping")
        completion_port.close()
    print(answered)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
