"""The server of the demo: a program that computes digests of what clients send in messages.

Belongs here: the digest service, and what its process does. Never here: files; the server never sees one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from .. import CompletionPort, Message, MessageType, WorkerPool, listen
from ._demo_child import ChildStatus, run_child
from ._demo_messages import DIGEST, HEADER, Kind, Ready, ServerReport, encode

if TYPE_CHECKING:
    from .. import CommunicationPort, ConnectionPort

    Hash = Any
    """What `hashlib.sha256` returns; its type has no public name."""

__all__ = ["TOO_MANY_FILES", "UNFINISHED_FILES", "DigestService", "serve"]

UNFINISHED_FILES: Final = 1024
"""Files that one client may have begun and not finished; the server keeps the state of a digest for each."""

TOO_MANY_FILES: Final = 1000
"""Status of a fault: the client has begun too many files."""


class DigestService:
    """Computes digests. What it knows about a client is the context of the client's port."""

    async def handle(self, message: Message) -> None:
        """Handle one message of any client. Never suspends, so messages are handled in the order of their arrival.

        Args:
            message: what the completion port handed out.
        """
        if message.type is MessageType.REQUEST:
            self._add_piece(message, message.context)
        elif message.type is MessageType.CONNECTION_REQUEST:
            begun: dict[int, Hash] = {}
            message.accept(context=begun)
        elif message.type is MessageType.DATAGRAM:
            number, _ = HEADER.unpack_from(message.data)
            message.context.pop(number, None)

    def _add_piece(self, message: Message, begun: dict[int, Hash]) -> None:
        number, kind = HEADER.unpack_from(message.data)
        digest = begun.pop(number, None)
        if digest is None:
            digest = hashlib.sha256()
        digest.update(memoryview(message.data)[HEADER.size :])
        if kind == Kind.LAST:
            message.reply(self.seal(digest))
        elif len(begun) >= UNFINISHED_FILES:
            message.fail(TOO_MANY_FILES, f"at most {UNFINISHED_FILES} files may be under way at the same time")
        else:
            begun[number] = digest
            message.reply()

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
    handle = (service or DigestService()).handle
    async with (
        CompletionPort() as completion_port,
        listen(DIGEST, completion_port=completion_port, accept="manual") as port,
        WorkerPool(completion_port, handle) as pool,
    ):
        # The parent answers at once; when it cannot, the connection ends.
        await control.request(encode(Ready("server")), timeout=None)
        async for batch in control:
            for message in batch:
                if message.type is MessageType.REQUEST:
                    message.reply(encode(_report(port, pool)))
    return ChildStatus.DONE


def _report(port: ConnectionPort, pool: WorkerPool) -> ServerReport:
    statistics = port.statistics()
    return ServerReport(
        receives=statistics.receives,
        messages=statistics.messages_received,
        largest_batch=statistics.largest_batch,
        sends=statistics.sends,
        bytes_received=statistics.bytes_received,
        bytes_sent=statistics.bytes_sent,
        workers=pool.statistics().largest_size,
    )


if __name__ == "__main__":
    run_child(serve)
