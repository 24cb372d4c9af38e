"""Large data: by itself, filled in place, read from the sender's memory, and as an open file."""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile

import anyio
import anyio.to_thread

import alpc_async as alpc

SIZE = 8 * 1024 * 1024
LIMITS = alpc.PortLimits(direct=True, max_handles=1, handle_kinds=alpc.HandleKind.FILE)


class Digests:
    """A server that hashes what it is given, in whichever way it comes."""

    async def serve(self, port: alpc.ConnectionPort) -> None:
        """Answer requests until the port is closed."""
        async for batch in port:
            for message in batch:
                if message.type is alpc.MessageType.REQUEST:
                    with message:
                        message.reply(await self.digest(message))

    async def digest(self, message: alpc.Message) -> bytes:
        """Return how the data came, and its digest."""
        if message.direct is not None:
            memory = bytearray(message.direct.length)
            await message.direct.read_into(0, memory)
            return self.answer(message, memory)
        if message.handles:
            with message.take_handle() as handle:
                content = await anyio.to_thread.run_sync(os.pread, handle.fileno(), SIZE, 0)
            return self.answer(message, content)
        return self.answer(message, message.data)

    def answer(self, message: alpc.Message, data: bytes | bytearray | memoryview) -> bytes:
        """Return the text of an answer."""
        how = "handle" if message.handles else message.transfer.value
        return f"{how} {hashlib.sha256(data).hexdigest()[:8]}".encode()


async def as_it_is(port: alpc.CommunicationPort, data: bytes) -> alpc.Message:
    """Send bytes, and leave the way to the framework."""
    return await port.request(data)


async def in_place(port: alpc.CommunicationPort, size: int) -> alpc.Message:
    """Make the data where the other side will read it."""
    with await port.allocate(size) as view:
        for offset in range(0, size, 4096):
            view.data[offset] = offset // 4096 % 256
        return await port.request(view=view)


async def directly(port: alpc.CommunicationPort, data: bytes) -> alpc.Message:
    """Let the other side read this process's memory for as long as the request is open."""
    return await port.request(direct=alpc.DirectBuffer(data))


async def as_a_file(port: alpc.CommunicationPort, path: str) -> alpc.Message:
    """Hand the open file over; the handle is consumed."""
    return await port.request(handles=[alpc.Handle.open(path)])


async def main() -> None:
    """Send the same bytes in four ways."""
    pattern = bytearray(SIZE)
    pattern[::4096] = bytes(number % 256 for number in range(SIZE // 4096))
    data = bytes(pattern)
    async with (
        anyio.create_task_group() as group,
        alpc.listen("demo.digests", limits=LIMITS) as server,
        alpc.connect("demo.digests", limits=LIMITS) as port,
    ):
        group.start_soon(Digests().serve, server)
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            for reply in (
                await as_it_is(port, data),
                await in_place(port, SIZE),
                await directly(port, data),
                await as_a_file(port, file.name),
            ):
                print(bytes(reply.data).decode())
        group.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
