"""A link that has the kernel pin the process that sent the bytes of each receive.

Belongs here: `PinningLink`. Never here: what becomes of a change of sender (the owner).

A process number is given out again; a pidfd means one process for ever, and has an inode number that no other process
gets until the machine restarts (Linux 6.9). With each receive the kernel opens one, so this costs a descriptor, a look
at it and a close for every receive: only ports that follow their senders ask for it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ._ancillary import pin_senders
from ._stream import SocketLink

if TYPE_CHECKING:
    import socket

    from ._ancillary import ControlMessages
    from ._loop import Loop

__all__ = ["PinningLink"]


class PinningLink(SocketLink):
    """A link over a connected stream socket that tells the owner of every change of the process that sends.

    Args:
        sock: the socket.
        loop: the running loop.
        high_water: unsent bytes above which the link is clogged.
        low_water: unsent bytes at which it is free again.
    """

    def __init__(self, sock: socket.socket, loop: Loop, *, high_water: int, low_water: int) -> None:
        super().__init__(sock, loop, high_water=high_water, low_water=low_water, senders=True)
        pin_senders(sock)
        # Nothing that the kernel says equals this, so every receive is looked at: each brings a descriptor.
        self._usual = [(-1, -1, b"")]
        self._sender: tuple[int, int, int] | None = None
        self._process = 0

    def _note_sender(self, found: ControlMessages) -> None:
        process = found.process
        # Without a descriptor, because none was free or the sender is gone, the process counts as the same.
        number = self._process if process is None else os.fstat(process.fileno()).st_ino
        owner = self._owner
        if found.sender is None or owner is None or (found.sender == self._sender and number == self._process):
            if process is not None:
                process.close()
            return
        self._sender, self._process = found.sender, number
        owner.sender_changed(*found.sender, process)
