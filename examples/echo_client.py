"""Sends one request to the echo server and prints who answered what."""

import anyio

import alpc_async as alpc


async def main() -> None:
    """Connect, ask once, and disconnect."""
    async with alpc.connect("demo.echo") as port:
        reply = await port.request(b"hello")
        print(f"{reply.data.decode()!r} from {port.peer}")


if __name__ == "__main__":
    anyio.run(main)
