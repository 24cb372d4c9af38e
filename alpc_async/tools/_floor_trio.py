"""The floor on trio: what a request costs without any of our layers.

Belongs here: a bare server and client over one socket, written for speed alone. Never here: anything of the framework.
This module names trio, which otherwise only the adapter in ``link`` may do, because a floor that spoke through the
adapter would hide the adapter's cost from the comparison.

The server is one task per connection: it waits, makes one receive call, and answers everything in it with one send.
The client has a task that reads and one that sends; callers are parked directly in trio's scheduler, which costs a
fraction of an event per call, and the sending task joins what they queued during one turn.
"""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from outcome import Error, Value
from trio.lowlevel import Abort, current_task, reschedule, wait_readable, wait_task_rescheduled, wait_writable

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

    from trio.lowlevel import Task

__all__ = ["floor_client", "floor_server"]


async def _send(sock: socket.socket, data: bytes) -> None:
    unsent = memoryview(data)
    while True:
        try:
            sent = sock.send(unsent)
        except BlockingIOError:
            sent = 0
        if sent == len(unsent):
            return
        unsent = unsent[sent:]
        await wait_writable(sock)


def _receive(sock: socket.socket, view: memoryview, filled: int) -> int | None:
    """Receive once behind what is in the buffer; ``None`` when nothing was there after all, 0 at the end."""
    try:
        return sock.recv_into(view[filled:] if filled else view)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        return 0


async def _serve_one(sock: socket.socket) -> None:
    view = memoryview(bytearray(BUFFER_SIZE))
    filled = 0
    parts: list[bytes] = []
    with sock:
        while True:
            await wait_readable(sock)
            count = _receive(sock, view, filled)
            if count is None:
                continue
            if not count:
                return
            filled += count
            used = answer_all(view, filled, parts)
            left = filled - used
            if left and used:
                view[:left] = bytes(view[used:filled])
            filled = left
            if parts:
                data = b"".join(parts)
                parts.clear()
                try:
                    await _send(sock, data)
                except (BrokenPipeError, ConnectionResetError):
                    return


class _Client:
    """The client's end of one connection.

    Args:
        sock: connected, non-blocking; not owned.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._view = memoryview(bytearray(BUFFER_SIZE))
        self._parts: list[bytes] = []
        self._pending: dict[int, Task] = {}
        self._number = 0
        self._sender: Task | None = None
        self._ended = False

    async def call(self, work: Work) -> Answer:
        """Make a request. Cancelling leaves the answer unread."""
        if self._ended:
            raise ConnectionResetError("the floor's server went away")
        payload = encode(work)
        self._number = number = self._number + 1
        self._pending[number] = current_task()
        parts = self._parts
        parts.append(pack_header(len(payload), number))
        parts.append(payload)
        sender = self._sender
        if sender is not None:
            self._sender = None
            reschedule(sender)
        try:
            answer: Answer = await wait_task_rescheduled(_abort)
        except BaseException:
            self._pending.pop(number, None)
            raise
        return answer

    async def send(self) -> None:
        """Send what callers queue, until cancelled."""

        def abort(_raise_cancel: Callable[[], Any]) -> Abort:
            self._sender = None
            return Abort.SUCCEEDED

        while True:
            if not self._parts:
                self._sender = current_task()
                await wait_task_rescheduled(abort)
            data = b"".join(self._parts)
            self._parts.clear()
            try:
                await _send(self._socket, data)
            except (BrokenPipeError, ConnectionResetError):
                return

    async def receive(self) -> None:
        """Wake callers with their answers, until the server closes or the task is cancelled."""
        view = self._view
        filled = 0
        while True:
            await wait_readable(self._socket)
            count = _receive(self._socket, view, filled)
            if count is None:
                continue
            if not count:
                break
            filled += count
            used = self._take(filled)
            left = filled - used
            if left and used:
                view[:left] = bytes(view[used:filled])
            filled = left
        self._ended = True
        pending, self._pending = self._pending, {}
        for task in pending.values():
            reschedule(task, Error(ConnectionResetError("the floor's server went away")))

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
            task = pending.pop(number, None)
            if task is not None:
                reschedule(task, Value(decode_answer(view[start:end])))
            position = end
        return position


def _abort(_raise_cancel: Callable[[], Any]) -> Abort:
    return Abort.SUCCEEDED


@asynccontextmanager
async def floor_server(path: str) -> AsyncGenerator[None]:
    """Serve on a path of the file system while the block runs.

    Cancelling ends the block and the tasks behind it.

    Args:
        path: address of the listening socket; must not exist.

    Raises:
        OSError: the path cannot be bound.
    """

    async def accept() -> None:
        while True:
            await wait_readable(listener)
            sock, _ = listener.accept()
            sock.setblocking(False)
            nursery.start_soon(_serve_one, sock)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(path)
        listener.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def floor_client(path: str) -> AsyncGenerator[Callable[[Work], Awaitable[Answer]]]:
    """Connect to a `floor_server` and give the function that makes one request.

    Cancelling ends the block and the tasks behind it.

    Args:
        path: address of the server.

    Raises:
        OSError: nobody listens there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(path)
        sock.setblocking(False)
        client = _Client(sock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.receive)
            nursery.start_soon(client.send)
            try:
                yield client.call
            finally:
                nursery.cancel_scope.cancel()
