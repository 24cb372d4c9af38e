"""What the benchmark measures: the floor, and the framework doing the same typed work in two ways.

Belongs here: a server and a client of each subject. Never here: load, processes, numbers.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import anyio

from ..completion import CompletionPort, WorkerPool
from ..port import Message, MessageType, connect, listen
from ._floor import Answer, Work, decode_answer, decode_work, encode, handle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from ..port import ConnectionPort
    from ._backends import BackendName

__all__ = ["FLOOR", "POOL", "PORT", "SUBJECTS", "SubjectName", "open_client", "open_server"]

SubjectName = Literal["floor", "port", "pool"]

FLOOR: Final = "floor"
PORT: Final = "port"
POOL: Final = "pool"

SUBJECTS: Final[tuple[SubjectName, ...]] = (FLOOR, PORT, POOL)
"""The bare loop; requests to a port that iterates over batches; requests to a port that a worker pool serves."""


def open_server(subject: SubjectName, backend: BackendName, place: str) -> AbstractAsyncContextManager[None]:
    """Return a server that runs inside its block.

    Args:
        subject: which of the three.
        backend: the event loop that is running.
        place: path of a socket for the floor; the framework takes its last part as the name of a port.
    """
    if subject == PORT:
        return _port_server(_port_name(place))
    if subject == POOL:
        return _pool_server(_port_name(place))
    if backend == "trio":
        from . import _floor_trio

        return _floor_trio.floor_server(place)
    from . import _floor_asyncio

    return _floor_asyncio.floor_server(place)


def open_client(
    subject: SubjectName, backend: BackendName, place: str
) -> AbstractAsyncContextManager[Callable[[Work], Awaitable[Answer]]]:
    """Return a connection to such a server; entering it gives the function that makes one request.

    Args:
        subject: which of the three.
        backend: the event loop that is running.
        place: that of the server.
    """
    if subject != FLOOR:
        return _port_client(_port_name(place))
    if backend == "trio":
        from . import _floor_trio

        return _floor_trio.floor_client(place)
    from . import _floor_asyncio

    return _floor_asyncio.floor_client(place)


def _port_name(place: str) -> str:
    return Path(place).name


async def _answer_batches(port: ConnectionPort) -> None:
    async for batch in port:
        for message in batch:
            if message.type is MessageType.REQUEST:
                message.reply(encode(await handle(decode_work(message.data))))


@asynccontextmanager
async def _port_server(name: str) -> AsyncGenerator[None]:
    async with listen(name) as port, anyio.create_task_group() as group:
        group.start_soon(_answer_batches, port)
        try:
            yield
        finally:
            group.cancel_scope.cancel()


async def _answer(message: Message) -> None:
    message.reply(encode(await handle(decode_work(message.data))))


@asynccontextmanager
async def _pool_server(name: str) -> AsyncGenerator[None]:
    async with (
        CompletionPort() as completion_port,
        listen(name, completion_port=completion_port),
        WorkerPool(completion_port, _answer),
    ):
        yield


@asynccontextmanager
async def _port_client(name: str) -> AsyncGenerator[Callable[[Work], Awaitable[Answer]]]:
    async with connect(name) as port:

        async def call(work: Work) -> Answer:
            reply = await port.request(encode(work))
            return decode_answer(reply.data)

        yield call
