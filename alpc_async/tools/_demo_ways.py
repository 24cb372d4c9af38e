"""How the content of a file gets from a client of the demo to the server: four ways, and the choice by size.

Belongs here: what a client does in each way, for one piece of a file. Never here: comparing digests; the server's part.

Small files travel inline. Larger ones are read from the disk right into shared memory, which the server hashes where it
lies, without any copy in between. The largest are read into memory of the client, of which the server takes a copy
directly. Or the server gets the open file itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from .. import DirectBuffer
from ._demo_messages import HEADER, Kind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .. import CommunicationPort, Message
    from ._demo_files import RegularFile

    Hash = Any
    """What `hashlib.sha256` returns; its type has no public name."""

__all__ = ["PIECE", "Sent", "TransferName", "Way", "Ways"]

Way = Literal["inline", "view", "direct", "handle"]
"""How a piece travels."""

TransferName = Literal["inline", "view", "direct", "handle", "auto"]
"""What a user may ask for."""

PIECE: Final = 4 * 1024 * 1024
"""Largest piece of a file that travels as a view or directly, in bytes: no gain is left in larger ones."""


class Sent(NamedTuple):
    """One piece that the server has answered for.

    Attributes:
        reply: the answer.
        last: whether it was the end of the file.
    """

    reply: Message
    last: bool


class Ways:
    """Sends pieces of files.

    Args:
        port: the connection to the server.
        transfer: the way to take, or ``"auto"``.
        request: makes a request and notes how long it took: gets the data, the bytes of content that the request moves,
            and what else `CommunicationPort.request` takes.
    """

    def __init__(
        self, port: CommunicationPort, transfer: TransferName, request: Callable[..., Awaitable[Message]]
    ) -> None:
        self._port = port
        self._transfer: TransferName = transfer
        self._request = request
        self._room = port.limits.max_message_length - HEADER.size
        self._senders = {"inline": self._inline, "view": self._view, "direct": self._direct, "handle": self._handle}

    def choose(self, size: int) -> Way:
        """Return the way for a file.

        Args:
            size: of the file, in bytes, as far as is known.
        """
        if self._transfer != "auto":
            return self._transfer
        limits = self._port.limits
        if size <= min(limits.view_threshold, self._room):
            return "inline"
        return "view" if size < limits.direct_threshold or not limits.direct else "direct"

    async def send(self, way: Way, number: int, source: RegularFile, digest: Hash) -> Sent:
        """Send the next piece of a file and wait for the answer.

        Args:
            way: how.
            number: of the file.
            source: the file.
            digest: where the content is added.

        Raises:
            OSError: the content cannot be read; the server may have begun the file.
        """
        return await self._senders[way](number, source, digest)

    async def _inline(self, number: int, source: RegularFile, digest: Hash) -> Sent:
        piece = source.read(self._room)
        digest.update(piece)
        last = len(piece) < self._room
        header = HEADER.pack(number, Kind.LAST if last else Kind.MORE, len(piece))
        return Sent(await self._request(header + piece, len(piece)), last)

    async def _view(self, number: int, source: RegularFile, digest: Hash) -> Sent:
        # One byte more than the file has, so that its end is seen without a further piece.
        room = min(PIECE, source.left + 1)
        view = await self._port.allocate(room)
        try:
            size = source.read_into(view.data)
            digest.update(view.data[:size])
            header = HEADER.pack(number, Kind.LAST if size < room else Kind.MORE, size)
            return Sent(await self._request(header, size, view=view), size < room)
        finally:
            view.release()

    async def _direct(self, number: int, source: RegularFile, digest: Hash) -> Sent:
        room = min(PIECE, source.left + 1)
        buffer = bytearray(room)
        size = source.read_into(memoryview(buffer))
        digest.update(memoryview(buffer)[:size])
        header = HEADER.pack(number, Kind.LAST if size < room else Kind.MORE, size)
        return Sent(await self._request(header, size, direct=DirectBuffer(buffer)), size < room)

    async def _handle(self, number: int, source: RegularFile, digest: Hash) -> Sent:
        size = 0
        while piece := source.read(PIECE):
            digest.update(piece)
            size += len(piece)
        header = HEADER.pack(number, Kind.FILE, size)
        # The server reads for as long as the file is long; it is ended by the end of the connection.
        return Sent(await self._request(header, size, handles=[source.handle()], timeout=None), True)
