"""What the tests of ports share: waiting for conditions, answering servers, raw peers, cancelling stepwise.

Belongs here: helpers of more than one test module about ports, pools and faults. Never here: tests.
"""

from __future__ import annotations

import select
import socket
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import pytest

import alpc_async as alpc
from alpc_async.wire import HEADER_SIZE, Endpoint, FrameType, Role, Ticket, unpack_header

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
    from pathlib import Path

    from alpc_async.wire import Event

NAME = "acme.printer"
WAIT = 15.0
"""Seconds until something that should have happened counts as failed."""

T = TypeVar("T")


async def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Let the loop turn until a condition holds."""
    with anyio.move_on_after(WAIT):
        while not condition():  # noqa: ASYNC110  # conditions of all kinds, which nobody announces
            await anyio.sleep(0.001)
        return
    pytest.fail(f"{what} did not come about within {WAIT:g} s")


def readable(fd: int, seconds: float = 0.0) -> bool:
    """Return whether a descriptor is readable, waiting for it a while."""
    return bool(select.select([fd], [], [], seconds)[0])


def answer(message: alpc.Message) -> None:
    """Send a request's payload back."""
    if message.type is alpc.MessageType.REQUEST:
        message.reply(message.data)


async def serve(port: alpc.ConnectionPort | alpc.CommunicationPort) -> None:
    """Answer every request of a port with its payload, until the port ends."""
    async for batch in port:
        for message in batch:
            answer(message)


@asynccontextmanager
async def echo_server(name: str = NAME, **options: Any) -> AsyncGenerator[alpc.ConnectionPort]:
    """Run a named port that answers every request with its payload."""
    async with anyio.create_task_group() as tasks, alpc.listen(name, **options) as port:
        tasks.start_soon(serve, port)
        yield port


@asynccontextmanager
async def connected(
    *, limits: alpc.PortLimits | None = None, **options: Any
) -> AsyncGenerator[tuple[alpc.ConnectionPort, alpc.CommunicationPort]]:
    """Open a named port and one connection to it, both with the same limits."""
    async with alpc.listen(NAME, limits=limits, **options) as server, alpc.connect(NAME, limits=limits) as client:
        yield server, client


async def occupy(port: alpc.CommunicationPort, size: int) -> int:
    """Post until a peer that does not take has room for no more; return how many were posted."""
    count = 0
    while True:
        try:
            await port.post(bytes(size), timeout=0.02)
        except alpc.DeadlineExceeded:
            return count
        count += 1


class RawPeer:
    """The client's end of a connection, without anything that reads or answers by itself."""

    def __init__(self, path: Path, limits: alpc.PortLimits | None = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.setblocking(False)
        self.socket.connect(str(path))
        self.endpoint: Endpoint[Ticket] = Endpoint(Role.CLIENT, limits or alpc.PortLimits(), label="raw client")
        self.received = b""
        self.over = False

    async def say(self, data: bytes) -> None:
        """Send bytes as they are."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.socket.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self.socket)

    async def flush(self) -> None:
        """Send what the endpoint has to say."""
        await self.say(self.endpoint.data_to_send(1 << 30))

    async def hear(self) -> list[Event[Ticket]]:
        """Receive once, and return what the endpoint makes of it; nothing at the end of the connection."""
        await anyio.wait_readable(self.socket)
        try:
            data = self.socket.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        self.over = not data
        self.received += data
        return self.endpoint.receive_data(data)

    async def greet(self) -> None:
        """Finish the handshake."""
        self.endpoint.hello(b"")
        await self.flush()
        await self.hear()

    async def request(self, data: bytes, timeout: float | None = None) -> Ticket:
        """Send a request."""
        ticket = Ticket()
        self.endpoint.request(ticket, data, 0.0, timeout)
        await self.flush()
        return ticket

    async def hear_the_end(self) -> list[FrameType]:
        """Receive until the server ends the connection; return the types of all frames that ever came."""
        with anyio.fail_after(WAIT):
            while not self.over:
                await self.hear()
        return frame_types(self.received)


def frame_types(data: bytes) -> list[FrameType]:
    """Return the types of the whole frames in a run of bytes."""
    types: list[FrameType] = []
    position = 0
    while position + HEADER_SIZE <= len(data):
        length, kind, _, _ = unpack_header(data, position)
        types.append(FrameType(kind & 0xFF))
        position += HEADER_SIZE + length
    return types


@contextmanager
def raw_peer(directory: Path, name: str = NAME, limits: alpc.PortLimits | None = None) -> Generator[RawPeer]:
    """Connect to a port as a stranger would."""
    peer = RawPeer(directory / name, limits)
    with peer.socket:
        yield peer


class _Stepped(Generic[T]):
    """Runs a coroutine and cancels a scope when it suspends for the n-th time."""

    def __init__(self, work: Coroutine[Any, Any, T], step: int, scope: anyio.CancelScope) -> None:
        self.suspensions = 0
        self._work = work
        self._step = step
        self._scope = scope

    def __await__(self) -> Generator[Any, Any, T]:
        proceed: Callable[[Any], Any] = self._work.send
        value: Any = None
        while True:
            try:
                suspended_on = proceed(value)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # the value of the coroutine
            self.suspensions += 1
            if self.suspensions == self._step:
                self._scope.cancel()
            try:
                value = yield suspended_on
                proceed = self._work.send
            except BaseException as error:
                value = error
                proceed = self._work.throw


@dataclass
class Attempt(Generic[T]):
    """What became of a call that was cancelled at one of its suspensions.

    Attributes:
        finished: whether it returned all the same.
        value: what it returned.
        last: whether it suspended less often than the step, so that nothing was cancelled.
    """

    finished: bool
    value: T | None
    last: bool


async def cancelled_at(step: int, work: Coroutine[Any, Any, T]) -> Attempt[T]:
    """Run a coroutine and cancel it, through a real cancel scope, when it suspends for the n-th time."""
    with anyio.fail_after(WAIT), anyio.CancelScope() as scope:
        stepped = _Stepped(work, step, scope)
        value = await stepped
        return Attempt(True, value, stepped.suspensions < step)
    return Attempt(False, None, False)
