"""What travels in ``alpc bench transfer``: memory of which every page carries a stamp.

Belongs here: names of the ways, stamps, their check. Never here: sending.

A way could seem fast because its data never arrived. So the sender marks the first byte of every page, and the receiver
looks at all of them and answers what it saw; filling and using the rest is the same work however it travels, and not
measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["FRAMEWORK", "PAGE", "PLAIN", "TITLES", "WAYS", "Payloads", "Way", "seen", "stamp"]

Way = Literal["socket", "pipe", "inline", "view", "copy", "place", "direct", "handle", "auto"]

PLAIN: Final[tuple[Way, ...]] = ("socket", "pipe")
"""The ways to compare with."""

FRAMEWORK: Final[tuple[Way, ...]] = ("inline", "view", "copy", "place", "direct", "handle", "auto")
"""The ways of a port."""

WAYS: Final[tuple[Way, ...]] = (*PLAIN, *FRAMEWORK)
"""All of them, in the order of reports."""

TITLES: Final[dict[Way, str]] = {
    "socket": "plain socket",
    "pipe": "multiprocessing",
    "inline": "inline",
    "view": "view",
    "copy": "view, copied out",
    "place": "view in place",
    "direct": "direct",
    "handle": "handle",
    "auto": "auto",
}
"""What reports call them."""

PAGE: Final = 4096
"""Distance of the stamps, in bytes."""

_NO_STAMP: Final = 0


def stamp(memory: memoryview, number: int) -> None:
    """Mark every page.

    Args:
        memory: writable bytes.
        number: the stamp, 1 to 255.
    """
    memory[::PAGE] = bytes((number,)) * len(range(0, len(memory), PAGE))


def seen(data: Buffer) -> bytes:
    """Return the stamp that all pages carry, or a byte that is no stamp when they do not carry the same one.

    Args:
        data: what arrived.
    """
    marks = memoryview(data).cast("B")[::PAGE].tobytes()
    return marks[:1] if marks == marks[:1] * len(marks) else bytes((_NO_STAMP,))


class Payloads:
    """Two payloads of one size with different stamps, so that a receiver cannot see an old one unnoticed.

    Args:
        size: bytes.
    """

    def __init__(self, size: int) -> None:
        self._variants: list[bytes] = []
        for number in (1, 2):
            memory = bytearray(size)
            stamp(memoryview(memory), number)
            self._variants.append(bytes(memory))

    def take(self, turn: int) -> tuple[bytes, bytes]:
        """Return the payload of a turn, and its stamp.

        Args:
            turn: number of the transfer.
        """
        return self._variants[turn % 2], bytes((turn % 2 + 1,))
