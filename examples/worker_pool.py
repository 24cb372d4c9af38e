"""Two ports and one timer, served by a pool of workers behind one completion port."""

from __future__ import annotations

import argparse

import anyio

import alpc_async as alpc


async def handle(packet: alpc.Completion) -> None:
    """Work on one packet; up to four of these run at the same time."""
    message = packet.message
    if message is None:
        print(f"posted: {packet.key} {packet.value}")
    elif message.type is alpc.MessageType.REQUEST:
        await anyio.sleep(0.01)
        text = message.data.decode()
        message.reply((text.upper() if packet.key == "upper" else text[::-1]).encode())


async def ask(name: str, texts: list[str]) -> None:
    """Send each text to one of the ports, all at once, and print the answers in order."""
    async with alpc.connect(name) as port:
        pending = [port.start_request(text.encode()) for text in texts]
        replies = [(await request).data.decode() for request in pending]
        print(name, " ".join(replies))


async def main() -> None:
    """Put both ports behind the completion port, and ask them from two clients."""
    async with (
        alpc.CompletionPort() as completion_port,
        alpc.listen("demo.upper", completion_port=completion_port, key="upper"),
        alpc.listen("demo.reverse", completion_port=completion_port, key="reverse"),
        alpc.WorkerPool(completion_port, handle, maximum=4) as pool,
    ):
        await ask("demo.upper", ["alpha", "beta", "gamma"])
        await ask("demo.reverse", ["alpha", "beta", "gamma"])
        completion_port.post("timer", "tick")
        await pool.wait_idle()
        print(f"{pool.statistics().handled} packets handled by at most {pool.statistics().largest_size} workers")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
