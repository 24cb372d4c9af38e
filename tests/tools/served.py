"""Services that ``alpc serve`` runs in the tests, as ``tests.tools.served:name``.

Belongs here: factories. Never here: tests.
"""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import anyio

import alpc_async as alpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

NAME = "acme.served"


async def handle(message: alpc.Message) -> None:
    """Answer with the id of the process, after so many milliseconds as the payload says; with "die", die instead."""
    if message.data == b"die":
        os._exit(7)
    await anyio.sleep(int(message.data or b"0") / 1000)
    message.reply(b"%d" % os.getpid())


@asynccontextmanager
async def pids() -> AsyncGenerator[alpc.ConnectionPort]:
    """Run the service."""
    async with (
        alpc.CompletionPort() as completion_port,
        alpc.listen(NAME, completion_port=completion_port) as port,
        alpc.WorkerPool(completion_port, handle, maximum=64),
    ):
        yield port


class Patient(alpc.Interface, uuid="5d1f3c1e-6a0b-4f7e-9c52-0f6b7a3e2d11"):
    """Takes its time."""

    async def wait(self, milliseconds: int) -> int:
        """Return the id of the process, after a while."""
        raise NotImplementedError


class PatientServer(Patient):
    """Does."""

    async def wait(self, milliseconds: int) -> int:  # noqa: D102  # the interface says it
        await anyio.sleep(milliseconds / 1000)
        return os.getpid()


def typed() -> AbstractAsyncContextManager[alpc.ServicePort]:
    """Make a typed service."""
    return alpc.serve(NAME, PatientServer())


@asynccontextmanager
async def broken() -> AsyncGenerator[alpc.ConnectionPort]:
    """Fail when its port is opened."""
    async with alpc.listen("not a name") as port:
        yield port


def no_manager() -> int:
    """Return what is no context manager."""
    return 5
