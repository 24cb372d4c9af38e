"""What travels beside the bytes of a socket: descriptors, and who sent the bytes.

Belongs here: control messages of ``AF_UNIX`` sockets, in both directions, and the options that turn them on and off.
Never here: what descriptors are for, or what a sender may do.

The kernel never joins the bytes of two senders in one receive while it reports senders, and never joins two sends that
carry descriptors, so both belong to all bytes of the receive that brings them (unix(7), ``unix_stream_read_generic``).
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import sys
import termios
from typing import TYPE_CHECKING, Final, NamedTuple

from ..handles import Handle, ReceivedHandle
from ..memory_errors import UnsuitableHandle
from ..wire import MAX_HANDLES_PER_FRAME

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CONTROL_SIZE",
    "RECEIVE_FLAGS",
    "TRUNCATED",
    "Ancillary",
    "ControlMessages",
    "adopt_socket",
    "allow_rights",
    "bytes_waiting",
    "control_messages",
    "pin_senders",
    "refuse_rights",
    "report_senders",
    "rights",
]

_UCRED: Final = struct.Struct("=iII")
_INT: Final = array.array("i").itemsize

CONTROL_SIZE: Final = (
    socket.CMSG_SPACE(MAX_HANDLES_PER_FRAME * _INT) + socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(_INT)
)
"""Room for whatever one send can carry: with less, the kernel would drop descriptors while we could take them."""

RECEIVE_FLAGS: Final = int(socket.MSG_CMSG_CLOEXEC)
"""Descriptors must not slip into a program that another thread starts at this moment."""

TRUNCATED: Final = int(socket.MSG_CTRUNC)
"""Flag of a receive whose descriptors were lost. A plain number: an operation on the enumeration is slow."""

SO_PASSRIGHTS: Final = 83
"""Option of Linux 6.16 that CPython has no name for; asm-generic/socket.h."""

SO_PASSPIDFD: Final = 76
"""Option of Linux 6.5 that CPython has no name for; likewise."""

SCM_PIDFD: Final = 4
"""Kind of the control message that the option brings; linux/socket.h."""

Ancillary = list[tuple[int, int, bytes]]


class ControlMessages(NamedTuple):
    """What came beside the bytes of one receive.

    Attributes:
        sender: (pid, uid, gid), or ``None`` when the kernel was not asked.
        sender_entry: the same as the kernel wrote it, for comparing.
        handles: descriptors, close-on-exec.
        process: a pidfd of the sender, or ``None`` when the kernel was not asked or has none to give.
    """

    sender: tuple[int, int, int] | None
    sender_entry: Ancillary
    handles: list[Handle]
    process: Handle | None


def control_messages(ancillary: Ancillary) -> ControlMessages:
    """Read the control messages of one receive; every descriptor in them has an owner afterwards.

    Args:
        ancillary: as ``recvmsg`` returned it.
    """
    handles: list[Handle] = []
    sender: tuple[int, int, int] | None = None
    sender_entry: Ancillary = []
    process: Handle | None = None
    for entry in ancillary:
        level, kind, data = entry
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_RIGHTS:
            numbers = array.array("i", data[: len(data) - len(data) % _INT])
            handles += [ReceivedHandle(number) for number in numbers]
        elif kind == socket.SCM_CREDENTIALS and len(data) == _UCRED.size:
            sender = _UCRED.unpack(data)
            sender_entry = [entry]
        elif kind == SCM_PIDFD and len(data) == _INT:
            # A negative number is the reason why there is no descriptor.
            number = int.from_bytes(data, sys.byteorder, signed=True)
            process = ReceivedHandle(number) if number >= 0 else None
    return ControlMessages(sender, sender_entry, handles, process)


def rights(handles: Sequence[Handle]) -> list[tuple[int, int, array.array[int]]]:
    """Return the control message that carries descriptors, for ``sendmsg``.

    Args:
        handles: at most `MAX_HANDLES_PER_FRAME`.
    """
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [handle.fileno() for handle in handles]))]


def report_senders(sock: socket.socket) -> None:
    """Have the kernel say with each receive who sent the bytes; sockets accepted from this one inherit it.

    Args:
        sock: a listening or connected stream socket.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def pin_senders(sock: socket.socket, *, pin: bool = True) -> None:
    """Have the kernel give a pidfd of the sender with each receive, where it can; it takes a descriptor every time.

    Args:
        sock: a connected stream socket.
        pin: ``False`` switches it off.
    """
    _set_option(sock, SO_PASSPIDFD, int(pin))


def refuse_rights(sock: socket.socket) -> None:
    """Have the kernel turn away descriptors that a peer wants to send along; sockets accepted from this one inherit it.

    Descriptors that nobody asked for are closed by the kernel in our thread, and closing can wait: a TCP socket with
    ``SO_LINGER`` and unsent data stops the closer for as long as its sender chose. Before Linux 6.16, which has no such
    option, that remains possible for whoever may connect.

    Args:
        sock: a stream socket that is not connected yet, or one of a pair.
    """
    _set_option(sock, SO_PASSRIGHTS, 0)


def allow_rights(sock: socket.socket) -> None:
    """Take descriptors from now on, after both sides agreed on it.

    Args:
        sock: a connected stream socket.
    """
    _set_option(sock, SO_PASSRIGHTS, 1)


def bytes_waiting(sock: socket.socket) -> int:
    """Return how many bytes have arrived and were not received.

    Args:
        sock: a connected socket.
    """
    count = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.FIONREAD, count)
    return count[0]


def _set_option(sock: socket.socket, option: int, value: int) -> None:
    if os.uname().machine.startswith(("sparc", "parisc")):
        return  # the options have other numbers there
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, option, value)


def adopt_socket(handle: Handle) -> socket.socket:
    """Make a socket of a descriptor: non-blocking and close-on-exec.

    Args:
        handle: the descriptor; consumed, whether that works or not.

    Raises:
        UnsuitableHandle: it is no connected ``AF_UNIX`` stream socket.
    """
    fd = handle.detach()
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        os.close(fd)
        raise UnsuitableHandle(kind="unknown", reason=f"it is no socket: {error.strerror}") from None
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        kind = f"{sock.family.name} {sock.type.name}"
        sock.close()
        raise UnsuitableHandle(kind=kind, reason="connections are AF_UNIX stream sockets")
    sock.setblocking(False)
    sock.set_inheritable(False)
    # Whoever had it before may have asked for a descriptor with each receive, which we would have to close.
    pin_senders(sock, pin=False)
    return sock
