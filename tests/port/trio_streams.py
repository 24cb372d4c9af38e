"""A byte stream over a port, as a stream of trio.

Belongs here: the translation that trio's check needs. Never here: tests.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import trio

import alpc_async as alpc

if TYPE_CHECKING:
    from collections.abc import Generator


@contextmanager
def translated() -> Generator[None]:
    """Turn errors of anyio into those of trio."""
    try:
        yield
    except anyio.ClosedResourceError as error:
        raise trio.ClosedResourceError from error
    except anyio.BrokenResourceError as error:
        raise trio.BrokenResourceError from error
    except anyio.BusyResourceError as error:
        raise trio.BusyResourceError from error


class TrioStream(trio.abc.HalfCloseableStream):
    """A port as a stream of trio."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes."""
        with translated():
            await self._stream.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there may be room."""
        with translated():
            await self._stream.send(b"")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive bytes, none at the end."""
        with translated():
            try:
                return await self._stream.receive(65536 if max_bytes is None else max_bytes)
            except anyio.EndOfStream:
                return b""

    async def send_eof(self) -> None:
        """End one direction."""
        with translated():
            await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the port."""
        await self._stream.aclose()


async def stream_pair() -> tuple[TrioStream, TrioStream]:
    """Make two connected streams."""
    await trio.lowlevel.checkpoint()
    left, right = alpc.port_pair()
    return TrioStream(left.byte_stream()), TrioStream(right.byte_stream())
