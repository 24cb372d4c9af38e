"""What the processes of the demo say to one another.

Belongs here: names of ports and the layout of messages. Never here: who sends them when.

Two ports. At ``demo.digest`` the server computes digests: every piece of a file is a request of its own, which begins
with `HEADER`; the reply to the last piece of a file is its digest. At ``demo.control`` the parent hands out work to the
clients and hears from everybody, in messages that are encoded with msgspec.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, Literal

import msgspec

from ..handles import HandleKind
from ..limits import PortLimits

__all__ = [
    "CONTROL",
    "CONTROL_LIMITS",
    "DIGEST",
    "DIGEST_LIMITS",
    "FILES_PER_BATCH",
    "HEADER",
    "Arrived",
    "Kind",
    "Ready",
    "Report",
    "ServerReport",
    "Trouble",
    "Work",
    "decode_control",
    "encode",
]

CONTROL: Final = "demo.control"
"""The port of the parent."""

DIGEST: Final = "demo.digest"
"""The port of the server."""

FILES_PER_BATCH: Final = 64
"""Most files that a client gets at a time."""

CONTROL_LIMITS: Final = PortLimits(max_message_length=1024 * 1024)
"""A batch of paths is at most 64 times 4 KiB; a report may name all files of two batches, and has a histogram."""

DIGEST_LIMITS: Final = PortLimits(
    close_timeout=1.0, view_threshold=64 * 1024, max_handles=1, handle_kinds=HandleKind.FILE, direct=True
)
"""What clients and server offer. The threshold lets pieces travel inline that are as long as a message may be; a client
that leaves early does not wait long for a server that hangs."""

HEADER: Final = struct.Struct("<QBQ")
"""In every message: the number of the file among those of this client, the `Kind`, and the bytes of content."""


class Kind(enum.IntEnum):
    """What a message at ``demo.digest`` is."""

    MORE = 0
    """A request: a piece of a file, and more will come. The reply is empty."""
    LAST = 1
    """A request: the last piece, which may be empty. The reply is the digest of the whole file."""
    FORGET = 2
    """A datagram: the file could not be read to its end."""
    FILE = 3
    """A request that brings the open file, which the server reads. The reply is the digest of the whole file."""


class Ready(msgspec.Struct, tag=True):
    """A child tells the parent that it can begin; a client gets the reply when the server can begin as well.

    Attributes:
        role: what the child is.
    """

    role: Literal["server", "client"]


class Trouble(msgspec.Struct, array_like=True):
    """One file that could not be read.

    Attributes:
        path: the file, as the system names it.
        reason: why, in words.
    """

    path: bytes
    reason: str


class Report(msgspec.Struct, tag=True):
    """What a client did since its last report. As a request it asks for work, as a datagram it only tells.

    Attributes:
        files: files whose digests were compared.
        size: bytes of content that were sent.
        requests: requests that were answered.
        mismatched: files whose digests differed.
        unreadable: files that could not be read.
        histogram: the latencies of all requests, in the last report of a client, which asks for no more work.
    """

    files: int = 0
    size: int = 0
    requests: int = 0
    mismatched: list[bytes] = []
    unreadable: list[Trouble] = []
    histogram: bytes = b""


class Work(msgspec.Struct):
    """Files for a client; none when there are no more.

    Attributes:
        paths: the files, as the system names them.
    """

    paths: list[bytes]


class Arrived(msgspec.Struct):
    """What arrived in one way.

    Attributes:
        requests: pieces, or files.
        size: their content, in bytes.
    """

    requests: int = 0
    size: int = 0


class ServerReport(msgspec.Struct):
    """What the server did.

    Attributes:
        receives: receive calls that brought data.
        messages: messages that came with them.
        largest_batch: most messages in one receive call.
        sends: send calls that took data.
        bytes_received: bytes that arrived, headers included.
        bytes_sent: bytes that left, headers included.
        workers: most workers of its pool at the same time.
        ways: what arrived in each way that was used.
    """

    receives: int
    messages: int
    largest_batch: int
    sends: int
    bytes_received: int
    bytes_sent: int
    workers: int
    ways: dict[str, Arrived] = {}


_control_decoder: Final[msgspec.msgpack.Decoder[Ready | Report]] = msgspec.msgpack.Decoder(Ready | Report)


def decode_control(data: bytes) -> Ready | Report:
    """Decode what a child sent to the parent.

    Args:
        data: the payload.

    Raises:
        msgspec.DecodeError: it is no such message.
    """
    return _control_decoder.decode(data)


def encode(value: Ready | Report | Work | ServerReport) -> bytes:
    """Encode a message of the control port."""
    return msgspec.msgpack.encode(value)
