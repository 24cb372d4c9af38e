"""Answers every request with the data that came with it."""

import anyio

import alpc_async as alpc


async def main() -> None:
    """Serve until the process is interrupted."""
    async with alpc.listen("demo.echo") as port:
        async for batch in port:
            for message in batch:
                if message.type is alpc.MessageType.REQUEST:
                    message.reply(message.data)


if __name__ == "__main__":
    anyio.run(main)
