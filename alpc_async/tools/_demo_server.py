"""The server of the demo: a program that computes digests of what clients send in messages.

Belongs here: the digest service, and what its process does. Never here: looking for files; the server reads only those
that it is handed.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread

from .. import CompletionPort, Message, MessageType, WorkerPool, listen
from ._demo_child import ChildStatus, run_child
from ._demo_messages import DIGEST, DIGEST_LIMITS, HEADER, Arrived, Kind, Ready, ServerReport, encode
from ._demo_ways import PIECE

if TYPE_CHECKING:
    from .. import CommunicationPort, ConnectionPort, DirectAccess

    Hash = Any
    """What `hashlib.sha256` returns; its type has no public name."""

__all__ = ["TOO_MANY_FILES", "UNFINISHED_FILES", "DigestService", "serve"]

UNFINISHED_FILES: Final = 1024
"""Files that one client may have begun and not finished; the server keeps the state of a digest for each."""

TOO_MANY_FILES: Final = 1000
"""Status of a fault: the client has begun too many files."""


class DigestService:
    """Computes digests. What it knows about a client is the context of the client's port.

    Attributes:
        ways: what arrived in each way.
    """

    def __init__(self) -> None:
        self.ways: dict[str, Arrived] = {}
        self._buffers: list[bytearray] = []

    async def handle(self, message: Message) -> None:
        """Handle one message of any client.

        Suspends only for requests that bring no content. A client sends the next piece of a file when it has the answer
        to the last, so that pieces of a file never overtake one another.

        Args:
            message: what the completion port handed out.
        """
        if message.type is MessageType.REQUEST:
            with message:
                await self._add_piece(message, message.context)
        elif message.type is MessageType.CONNECTION_REQUEST:
            begun: dict[int, Hash] = {}
            message.accept(context=begun)
        elif message.type is MessageType.DATAGRAM:
            number, _, _ = HEADER.unpack_from(message.data)
            message.context.pop(number, None)

    async def _add_piece(self, message: Message, begun: dict[int, Hash]) -> None:
        number, kind, size = HEADER.unpack_from(message.data)
        digest = begun.pop(number, None)
        if digest is None:
            digest = hashlib.sha256()
        if kind == Kind.FILE:
            await self._add_file(message, digest)
        elif message.direct is not None:
            await self._add_direct(message.direct, digest, size)
        elif message.view is not None:
            # Each byte is read once, so it does not matter that the client could change it meanwhile.
            digest.update(message.view.data[:size])
        else:
            digest.update(memoryview(message.data)[HEADER.size :])
        self._count("handle" if kind == Kind.FILE else message.transfer.value, size)
        if kind in {Kind.LAST, Kind.FILE}:
            message.reply(self.seal(digest))
        elif len(begun) >= UNFINISHED_FILES:
            message.fail(TOO_MANY_FILES, f"at most {UNFINISHED_FILES} files may be under way at the same time")
        else:
            begun[number] = digest
            message.reply()

    async def _add_direct(self, direct: DirectAccess, digest: Hash, size: int) -> None:
        # Memory that was used before is there at once; new memory would cost more than the copy.
        buffer = self._buffers.pop() if self._buffers else bytearray(PIECE)
        try:
            room = memoryview(buffer)[: min(size, len(buffer))]
            await direct.read_into(0, room)
            digest.update(room)
        finally:
            self._buffers.append(buffer)

    async def _add_file(self, message: Message, digest: Hash) -> None:
        # Reading a file of somebody else can take as long as its file system likes, so it is not done in the loop.
        with message.take_handle() as handle:
            position = 0
            while piece := await anyio.to_thread.run_sync(os.pread, handle.fileno(), PIECE, position):
                digest.update(piece)
                position += len(piece)

    def _count(self, way: str, size: int) -> None:
        arrived = self.ways.setdefault(way, Arrived())
        arrived.requests += 1
        arrived.size += size

    def seal(self, digest: Hash) -> bytes:
        """Return the answer for a file whose last piece has come.

        Args:
            digest: the state of its digest.
        """
        sealed: bytes = digest.digest()
        return sealed


async def serve(control: CommunicationPort, service: DigestService | None = None) -> ChildStatus:
    """Compute digests for everybody who connects, until the parent goes away. Cancelling closes the port.

    Args:
        control: the port to the parent; every request on it is answered with the statistics so far.
        service: what computes the digests.
    """
    service = service or DigestService()
    async with (
        CompletionPort() as completion_port,
        listen(DIGEST, limits=DIGEST_LIMITS, completion_port=completion_port, accept="manual") as port,
        WorkerPool(completion_port, service.handle) as pool,
    ):
        # The parent answers at once; when it cannot, the connection ends.
        await control.request(encode(Ready("server")), timeout=None)
        async for batch in control:
            for message in batch:
                if message.type is MessageType.REQUEST:
                    message.reply(encode(_report(port, pool, service)))
    return ChildStatus.DONE


def _report(port: ConnectionPort, pool: WorkerPool, service: DigestService) -> ServerReport:
    statistics = port.statistics()
    return ServerReport(
        receives=statistics.receives,
        messages=statistics.messages_received,
        largest_batch=statistics.largest_batch,
        sends=statistics.sends,
        bytes_received=statistics.bytes_received,
        bytes_sent=statistics.bytes_sent,
        workers=pool.statistics().largest_size,
        ways=service.ways,
    )


if __name__ == "__main__":
    run_child(serve)
