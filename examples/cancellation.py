"""Four ways in which a request ends without a reply, and what the handler on the other side sees of each."""

from __future__ import annotations

import argparse

import anyio

import alpc_async as alpc


class SlowService:
    """Works for as long as each request says, unless nobody waits for the outcome any more."""

    def __init__(self) -> None:
        self.began = anyio.Event()

    async def handle(self, message: alpc.Message) -> None:
        """Work, and answer."""
        self.began.set()
        try:
            await anyio.sleep(float(message.data))
            message.reply(b"done")
        except anyio.get_cancelled_exc_class():
            print(f"   the handler of request {message.id} was cancelled")
            raise


async def main() -> None:
    """Let a request run out of time, cancel two in different ways, and come too late with a third."""
    service = SlowService()
    async with (
        alpc.CompletionPort() as completion_port,
        alpc.listen("demo.slow", completion_port=completion_port),
        alpc.WorkerPool(completion_port, service.handle) as pool,
        alpc.connect("demo.slow") as port,
    ):
        try:
            await port.request(b"60", timeout=0.05)
        except alpc.DeadlineExceeded as error:
            print(f"1: {type(error).__name__} after {error.timeout:g} s")
        await pool.wait_idle()

        with anyio.move_on_after(0.05):
            await port.request(b"60")
        print("2: the scope around the request ended it")
        await pool.wait_idle()

        service.began = anyio.Event()
        pending = port.start_request(b"60")
        await service.began.wait()
        print("3:", pending.cancel().name)
        try:
            await pending
        except alpc.RequestCancelled as error:
            print(f"   {type(error).__name__}")
        await pool.wait_idle()

        pending = port.start_request(b"0")
        reply = await pending
        print(f"4: {pending.cancel().name}, the reply was {reply.data.decode()!r}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
