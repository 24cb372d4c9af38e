"""A service and a client of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

import alpc_async as alpc
from tests.service.contracts import NAME, Files, FilesServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Served(NamedTuple):
    """A server, its port, and a proxy that is connected to it."""

    server: FilesServer
    port: alpc.ServicePort
    client: Files


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A served `FilesServer` with one client."""
    server = FilesServer()
    async with alpc.serve(NAME, server) as port, alpc.connect(NAME, Files) as client:
        yield Served(server, port, client)
