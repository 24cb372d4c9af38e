"""Both ends of the ways of a port that ``alpc bench transfer`` measures.

Belongs here: the limits that force each way, what a sender does in it, and what the receiver does. Never here: timing.

Run as a program with the arguments PROCESSOR BACKEND NAME, it is the receiver, and ends when its standard input does. A
sender says by its connect data which way it takes.
"""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from .. import DirectBuffer, Handle, HandleKind, Message, MessageType, PortLimits, connect, listen
from . import _backends
from ._bench_transfer_data import FRAMEWORK, Payloads, Way, seen, stamp

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from .. import CommunicationPort, ConnectionPort

    Send = Callable[[int, int], Awaitable[bytes]]
    """Makes one transfer of a size and a turn, and returns the stamp that the receiver saw."""

__all__ = ["INLINE_LIMIT", "MODULE", "Senders"]

MODULE: Final = "alpc_async.tools._bench_transfer_port"
"""What to start."""

READY: Final = b"ready\n"

INLINE_LIMIT: Final = 16 * 1024 * 1024
"""Bytes that one inline message can have at most."""

_WIDE: Final = PortLimits(
    max_message_length=INLINE_LIMIT,
    max_pool_usage=4 * INLINE_LIMIT,
    high_water=4 * INLINE_LIMIT,
    max_unsent=8 * INLINE_LIMIT,
    max_handles=1,
    handle_kinds=HandleKind.FILE,
    direct=True,
    request_timeout=120.0,
)
_INLINE: Final = PortLimits(
    max_message_length=INLINE_LIMIT,
    max_pool_usage=4 * INLINE_LIMIT,
    view_threshold=INLINE_LIMIT,
    high_water=4 * INLINE_LIMIT,
    max_unsent=8 * INLINE_LIMIT,
    request_timeout=120.0,
)
_VIEW: Final = PortLimits(view_threshold=0, request_timeout=120.0)
LIMITS: Final[dict[Way, PortLimits]] = {
    "inline": _INLINE,
    "view": _VIEW,
    "copy": _VIEW,
    "place": PortLimits(request_timeout=120.0),
    "direct": PortLimits(direct=True, request_timeout=120.0),
    "handle": PortLimits(max_handles=1, request_timeout=120.0),
    "auto": PortLimits(request_timeout=120.0),
}
"""What each sender offers. ``auto`` is what a program gets that changes nothing."""


class Senders:
    """A connection for each way.

    Args:
        directory: where files for the way ``handle`` are made.
    """

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._ports: dict[Way, CommunicationPort] = {}
        self._payloads: dict[int, Payloads] = {}

    @asynccontextmanager
    async def connected(self, name: str) -> AsyncGenerator[None]:
        """Be connected for the time of the block."""
        async with AsyncExitStack() as stack:
            for way in FRAMEWORK:
                port = connect(name, data=way.encode(), limits=LIMITS[way])
                self._ports[way] = await stack.enter_async_context(port)
            yield

    def payloads(self, size: int) -> Payloads:
        """Return the payloads of a size; those of other sizes are forgotten."""
        if size not in self._payloads:
            self._payloads = {size: Payloads(size)}
        return self._payloads[size]

    async def empty(self) -> bytes:
        """Make a request of no bytes on the connection of the way ``place``."""
        return bytes((await self._ports["place"].request(b"")).data)

    @asynccontextmanager
    async def held(self, size: int) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
        """Give a function that sends one view, always the same, and waits for the answer.

        Args:
            size: of the view, in bytes.
        """
        port = self._ports["place"]
        with await port.allocate(size) as view:
            stamp(view.data, 1)

            async def request() -> None:
                (await port.request(view=view)).release()

            yield request

    async def send(self, way: Way, size: int, turn: int) -> bytes:
        """Make one transfer.

        Args:
            way: one of `FRAMEWORK`.
            size: bytes.
            turn: number of the transfer, which decides the stamp.

        Returns:
            The stamp that the receiver saw.
        """
        port = self._ports[way]
        data, number = self.payloads(size).take(turn)
        if way == "place":
            with await port.allocate(size) as view:
                stamp(view.data, number[0])
                with await port.request(view=view) as reply:
                    return bytes(reply.data)
        if way == "direct":
            return bytes((await port.request(direct=DirectBuffer(data))).data)
        if way == "handle":
            handle = Handle.open(self._file(size, turn, data))
            return bytes((await port.request(handles=[handle])).data)
        return bytes((await port.request(data)).data)

    def _file(self, size: int, turn: int, data: bytes) -> Path:
        path = self._directory / f"payload-{size}-{turn % 2}"
        if not path.exists():
            for old in self._directory.glob("payload-*"):
                if not old.name.startswith(f"payload-{size}-"):
                    old.unlink()
            path.write_bytes(data)
        return path


class _Receiver:
    """What the receiver keeps between messages: memory to read into, so that every way finds it warm."""

    def __init__(self) -> None:
        self._memory = bytearray()

    def _room(self, size: int) -> memoryview:
        if len(self._memory) < size:
            self._memory = bytearray(size)
        return memoryview(self._memory)[:size]

    async def take(self, message: Message) -> None:
        """Look at what came and answer what stamp it carries."""
        way = message.port.connect_data.decode()
        with message:
            if message.direct is not None:
                room = self._room(message.direct.length)
                await message.direct.read_into(0, room)
                message.reply(seen(room))
            elif message.handles:
                with message.take_handle() as handle:
                    room = self._room(os.fstat(handle.fileno()).st_size)
                    _fill(room, handle.fileno())
                message.reply(seen(room))
            elif way in {"view", "place"} and message.view is not None:
                message.reply(seen(message.view.data))
            else:
                message.reply(seen(message.data))


def _fill(room: memoryview, descriptor: int) -> None:
    position = 0
    while position < len(room):
        count = os.preadv(descriptor, [room[position:]], position)
        if not count:
            raise EOFError("the file is shorter than it was")
        position += count


async def _serve(port: ConnectionPort) -> None:
    receiver = _Receiver()
    async for batch in port:
        for message in batch:
            if message.type is MessageType.REQUEST:
                await receiver.take(message)


async def receive(name: str) -> None:
    """Be the receiver until the standard input ends.

    Args:
        name: of the port.
    """
    async with listen(name, limits=_WIDE) as port, anyio.create_task_group() as group:
        group.start_soon(_serve, port)
        sys.stdout.buffer.write(READY)
        sys.stdout.buffer.flush()
        await anyio.wait_readable(sys.stdin.fileno())
        group.cancel_scope.cancel()


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[1])})
    _backends.run(sys.argv[2], receive, sys.argv[3])
