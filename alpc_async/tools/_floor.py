"""What both floors share: the frame, the typed work, and the two loops over a filled receive buffer.

Belongs here: everything about the floor that names no event loop. Never here: anything of the framework. The floor is
the yardstick of the benchmark, a hand-written request loop without names, identity, limits, cancellation, deadlines or
fairness, so importing a layer would make the framework be measured against itself.

The typed work (`Work`, `Answer`, `handle` and the codec) is what the benchmark has the framework do as well.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

__all__ = [
    "BUFFER_SIZE",
    "HEADER_SIZE",
    "Answer",
    "Work",
    "answer_all",
    "decode_answer",
    "decode_work",
    "encode",
    "handle",
    "pack_header",
    "unpack_header",
]

BUFFER_SIZE: Final = 256 * 1024
"""Bytes of the receive buffer; a frame of the floor must fit in it."""

_HEADER: Final = struct.Struct("<IQ")
HEADER_SIZE: Final = _HEADER.size
"""Bytes before each payload: its length, and the number of the request."""

pack_header = _HEADER.pack
unpack_header = _HEADER.unpack_from


class Work(msgspec.Struct):
    """What a caller asks for.

    Attributes:
        number: told back by the answer.
        payload: told back by the answer.
    """

    number: int
    payload: bytes


class Answer(msgspec.Struct):
    """What the handler makes of a `Work`.

    Attributes:
        number: that of the work.
        payload: that of the work.
    """

    number: int
    payload: bytes


encode = msgspec.msgpack.Encoder().encode
decode_work = msgspec.msgpack.Decoder(Work).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode


async def handle(work: Work) -> Answer:
    """Do the work. Never suspends, so cancelling cannot reach it."""
    return Answer(work.number, work.payload)


def answer_all(view: memoryview, filled: int, parts: list[bytes]) -> int:
    """Answer every whole frame of a receive buffer.

    Args:
        view: the buffer.
        filled: bytes of it that were received.
        parts: where the headers and payloads of the answers are appended.

    Returns:
        Bytes that were used up.

    Raises:
        RuntimeError: the handler suspended; the floor drives it and does not schedule it.
    """
    position = 0
    while filled - position >= HEADER_SIZE:
        length, number = unpack_header(view, position)
        start = position + HEADER_SIZE
        end = start + length
        if end > filled:
            break
        coroutine = handle(decode_work(view[start:end]))
        try:
            coroutine.send(None)
        except StopIteration as stop:
            payload = encode(stop.value)
        else:
            coroutine.close()
            raise RuntimeError("the handler of the floor suspended")
        parts.append(pack_header(len(payload), number))
        parts.append(payload)
        position = end
    return position
