"""A server that is asked to stop while it has work, finishes that work, and turns new work away."""

from __future__ import annotations

import argparse

import anyio

import alpc_async as alpc


class Service:
    """Takes a moment for each request."""

    def __init__(self) -> None:
        self.ready = anyio.Event()
        self.busy = anyio.Event()
        self.stop = anyio.Event()

    async def handle(self, message: alpc.Message) -> None:
        """Work, and answer."""
        self.busy.set()
        await anyio.sleep(0.05)
        message.reply(b"finished " + message.data)

    async def serve(self, name: str) -> None:
        """Serve until `stop` is set, then end without losing a request that was received."""
        async with (
            alpc.CompletionPort() as completion_port,
            alpc.listen(name, completion_port=completion_port) as port,
            alpc.WorkerPool(completion_port, self.handle),
        ):
            self.ready.set()
            await self.stop.wait()
            try:
                await port.drain(timeout=10.0)
            except alpc.DeadlineExceeded as error:
                print("closing all the same:", error)


async def main() -> None:
    """Stop the server while it handles a request."""
    service = Service()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.serve, "demo.drain")
        await service.ready.wait()
        async with alpc.connect("demo.drain") as port:
            early = port.start_request(b"early")
            await service.busy.wait()
            service.stop.set()
            print("the one that was received:", (await early).data.decode())
        try:
            await alpc.connect("demo.drain")
        except alpc.NameNotFound as error:
            print("a new client:", type(error).__name__)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
