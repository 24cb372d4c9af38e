"""A server for the demo that gives a wrong digest for one file in three.

Belongs here: the lie. Never here: anything else that a server does.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from alpc_async.tools._demo_child import ChildStatus, run_child
from alpc_async.tools._demo_server import DigestService, serve

if TYPE_CHECKING:
    from alpc_async import CommunicationPort


class LyingService(DigestService):
    """Spoils the last byte of every third digest."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = itertools.count(1)

    def seal(self, digest: Any) -> bytes:
        """Return the digest, or a wrong one."""
        honest = super().seal(digest)
        return honest if next(self.answers) % 3 else honest[:-1] + bytes([honest[-1] ^ 1])


async def lie(control: CommunicationPort) -> ChildStatus:
    """Serve like the honest server, apart from the digests."""
    return await serve(control, LyingService())


if __name__ == "__main__":
    run_child(lie)
