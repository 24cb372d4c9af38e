"""What ``alpc bench transfer`` compares with: a plain socket and a pipe of the standard library, with no loop at all.

Belongs here: both ends of the two. Never here: anything of the framework.

Run as a program with the arguments PROCESSOR SOCKET PIPE, it is the receiver, and ends when its senders do. Both ends
block, which is as fast as a socket gets. The pipe is used for bytes only: its way of sending objects runs whatever code
the other side names.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING, Any, Final

from ._bench_transfer_data import seen

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["MODULE", "PlainEnds"]

MODULE: Final = "alpc_async.tools._bench_transfer_plain"
"""What to start."""

READY: Final = b"ready\n"
_LENGTH: Final = struct.Struct("=Q")


class PlainEnds:
    """The senders, for the time of a ``with`` block, and the descriptors that the receiver inherits."""

    def __init__(self) -> None:
        self._socket, self._far_socket = socket.socketpair()
        self._pipe, self._far_pipe = Pipe()

    @property
    def descriptors(self) -> tuple[int, int]:
        """Of the socket and of the pipe of the receiver."""
        return self._far_socket.fileno(), self._far_pipe.fileno()

    def hand_over(self) -> None:
        """Close the ends of the receiver, which has its own by now."""
        self._far_socket.close()
        self._far_pipe.close()

    def by_socket(self, data: bytes) -> bytes:
        """Send by the socket and return the answer."""
        self._socket.sendall(_LENGTH.pack(len(data)))
        self._socket.sendall(data)
        return self._socket.recv(1)

    def by_pipe(self, data: bytes) -> bytes:
        """Send by the pipe and return the answer."""
        self._pipe.send_bytes(data)
        return self._pipe.recv_bytes(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the ends of the senders, whereupon the receiver ends. May be repeated."""
        self.hand_over()
        self._socket.close()
        self._pipe.close()


def _serve_socket(sock: socket.socket) -> None:
    memory = bytearray()
    with sock:
        while header := sock.recv(_LENGTH.size, socket.MSG_WAITALL):
            (size,) = _LENGTH.unpack(header)
            if len(memory) < size:
                memory = bytearray(size)
            target = memoryview(memory)[:size]
            while target:
                target = target[sock.recv_into(target) :]
            sock.sendall(seen(memoryview(memory)[:size]))


def _serve_pipe(pipe: Connection[Any, Any]) -> None:
    with pipe:
        while True:
            try:
                data = pipe.recv_bytes()
            except EOFError:
                return
            pipe.send_bytes(seen(data))


def main(processor: int, sock: int, pipe: int) -> None:
    """Receive by both until the senders are gone.

    Args:
        processor: where to run.
        sock: descriptor of the socket.
        pipe: descriptor of the pipe.
    """
    os.sched_setaffinity(0, {processor})
    receiver = threading.Thread(target=_serve_socket, args=(socket.socket(fileno=sock),))
    receiver.start()
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    _serve_pipe(Connection(pipe))
    receiver.join()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
