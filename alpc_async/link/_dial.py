"""Connecting to a port by its name.

Belongs here: finding the socket of a name and connecting to it. Never here: opening names (`_names`), the handshake
(wire), or whether the server is the right one (port and security).
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

from ..errors import AccessDenied, NameNotFound, UnsafeDirectory
from ._ancillary import refuse_rights
from ._directory import NameDirectory, search_directories
from ._names import check_name

if TYPE_CHECKING:
    from ._loop import Loop

__all__ = ["dial"]

FIRST_PAUSE: Final = 0.001
"""Seconds before the second attempt at a full backlog: a running server empties it within a turn of its loop."""

LONGEST_PAUSE: Final = 0.05
"""Seconds between later attempts: 20 system calls a second for each waiting client, and a delay nobody notices."""

_NOBODY: Final = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.EPROTOTYPE, errno.ELOOP, errno.ENOTDIR})
_REFUSALS: Final = frozenset({errno.EACCES, errno.EPERM})


async def dial(loop: Loop, name: str) -> tuple[socket.socket, str]:
    """Connect to the port of a name, waiting without limit while the server's backlog is full.

    Cancelling closes what was opened; the server may see a connection that ends at once.

    Args:
        loop: the running loop.
        name: the port name.

    Returns:
        The connected socket, non-blocking and close-on-exec, which belongs to the caller; and the directory in which
        the port was found.

    Raises:
        InvalidName: the text is not a port name.
        NameNotFound: nobody listens under the name in any directory.
        AccessDenied: the mode of the socket or of its directory keeps the current user out.
        UnsafeDirectory: a directory to search could be tampered with, and the name is in no other.
    """
    check_name(name)
    await loop.checkpoint()
    directories = search_directories()
    unsafe: UnsafeDirectory | None = None
    for path in directories:
        try:
            sock = await _dial_in(loop, path, name)
        except UnsafeDirectory as error:
            # Anybody can squat on a place below /tmp; that must not hide the ports of the system's directory.
            unsafe = error
            continue
        if sock is not None:
            return sock, path
    raise unsafe or NameNotFound(name=name, directories=directories)


async def _dial_in(loop: Loop, path: str, name: str) -> socket.socket | None:
    try:
        directory = NameDirectory.open(path)
    except FileNotFoundError:
        return None
    with directory:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        refuse_rights(sock)
        try:
            code = await _connect(loop, sock, directory.address(name))
            if code in _REFUSALS:
                raise AccessDenied(what=f"connect to port {name!r}", reason=f"{os.strerror(code)} in {path}")
            if code and code not in _NOBODY:
                raise OSError(code, os.strerror(code), os.path.join(path, name))
        except BaseException:
            sock.close()
            raise
    if code:
        sock.close()
        return None
    return sock


async def _connect(loop: Loop, sock: socket.socket, address: str) -> int:
    # AF_UNIX connects at once or not at all. A full backlog is EAGAIN, and the kernel offers nothing to wait for: an
    # unconnected socket polls as writable.
    pause = FIRST_PAUSE
    while (code := sock.connect_ex(address)) == errno.EAGAIN:
        await _pause(loop, pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    return code


async def _pause(loop: Loop, seconds: float) -> None:
    waiter = loop.create_waiter()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = loop.call_at(loop.time() + seconds, wake)
    try:
        await waiter
    finally:
        timer.cancel()
