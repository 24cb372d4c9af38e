"""The floor on asyncio and uvloop: what a request costs without any of our layers.

Belongs here: a bare server and client over one socket, written for speed alone. Never here: anything of the framework.
This module names asyncio, which otherwise only the adapter in ``link`` may do, because a floor that spoke through the
adapter would hide the adapter's cost from the comparison.

Both sides register the socket once and make one receive call per readiness. The server answers all requests of one
receive with one send from inside the callback; the client joins what its callers queued during one turn of the loop.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from ._floor import (
    BUFFER_SIZE,
    HEADER_SIZE,
    Answer,
    Work,
    answer_all,
    decode_answer,
    encode,
    pack_header,
    unpack_header,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

__all__ = ["floor_client", "floor_server"]


class _Stream:
    """A registered socket: one receive per readiness, one send per batch.

    Args:
        sock: connected, non-blocking; owned from now on.
        loop: the running loop.
    """

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._socket = sock
        self._view = memoryview(bytearray(BUFFER_SIZE))
        self._filled = 0
        self._parts: list[bytes] = []
        self._unsent = memoryview(b"")
        loop.add_reader(sock.fileno(), self._readable)

    def _readable(self) -> None:
        view = self._view
        filled = self._filled
        try:
            count = self._socket.recv_into(view[filled:] if filled else view)
        except BlockingIOError:
            return
        except ConnectionResetError:
            count = 0
        if not count:
            self.close()
            return
        filled += count
        used = self._take(filled)
        self._filled = left = filled - used
        if left and used:
            view[:left] = bytes(view[used:filled])

    def _take(self, filled: int) -> int:
        raise NotImplementedError

    def _flush(self) -> None:
        if self._unsent:
            return
        data = b"".join(self._parts)
        self._parts.clear()
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            self._unsent = memoryview(data)[sent:]
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._loop.remove_writer(self._socket.fileno())
            if self._parts:
                self._flush()

    def close(self) -> None:
        """Give the socket back; closing twice is fine."""
        fd = self._socket.fileno()
        if fd >= 0:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
            self._socket.close()


class _Server(_Stream):
    """The server's end of one connection."""

    def _take(self, filled: int) -> int:
        used = answer_all(self._view, filled, self._parts)
        if self._parts:
            self._flush()
        return used


class _Client(_Stream):
    """The client's end of one connection."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(sock, loop)
        self._pending: dict[int, asyncio.Future[Answer]] = {}
        self._number = 0
        self._create_future: Callable[[], asyncio.Future[Answer]] = (
            partial(asyncio.Future[Answer], loop=loop)
            if isinstance(loop, asyncio.BaseEventLoop)
            else loop.create_future
        )

    def call(self, work: Work) -> Awaitable[Answer]:
        """Queue a request; the result is to be awaited. Cancelling leaves the answer unread."""
        payload = encode(work)
        self._number = number = self._number + 1
        self._pending[number] = future = self._create_future()
        parts = self._parts
        if not parts:
            self._loop.call_soon(self._flush)
        parts.append(pack_header(len(payload), number))
        parts.append(payload)
        return future

    def _take(self, filled: int) -> int:
        view = self._view
        pending = self._pending
        position = 0
        while filled - position >= HEADER_SIZE:
            length, number = unpack_header(view, position)
            start = position + HEADER_SIZE
            end = start + length
            if end > filled:
                break
            future = pending.pop(number)
            if not future.done():
                future.set_result(decode_answer(view[start:end]))
            position = end
        return position

    def close(self) -> None:
        super().close()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(ConnectionResetError("the floor's server went away"))
        self._pending.clear()


@asynccontextmanager
async def floor_server(path: str) -> AsyncGenerator[None]:
    """Serve on a path of the file system while the block runs.

    Entering does not suspend, so cancelling cannot reach it.

    Args:
        path: address of the listening socket; must not exist.

    Raises:
        OSError: the path cannot be bound.
    """
    loop = asyncio.get_running_loop()
    streams: list[_Server] = []

    def accept() -> None:
        sock, _ = listener.accept()
        sock.setblocking(False)
        streams.append(_Server(sock, loop))

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(path)
        listener.listen()
        loop.add_reader(listener.fileno(), accept)
        try:
            yield
        finally:
            loop.remove_reader(listener.fileno())
            for stream in streams:
                stream.close()


@asynccontextmanager
async def floor_client(path: str) -> AsyncGenerator[Callable[[Work], Awaitable[Answer]]]:
    """Connect to a `floor_server` and give the function that makes one request.

    Entering does not suspend, so cancelling cannot reach it.

    Args:
        path: address of the server.

    Raises:
        OSError: nobody listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    client = _Client(sock, asyncio.get_running_loop())
    try:
        yield client.call
    finally:
        client.close()
