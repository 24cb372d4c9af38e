"""Listening sockets that a process was started with, by a service manager or by ``alpc serve``.

Belongs here: finding the inherited socket of a name, and sharing it fairly. Never here: making the socket and holding
its name, which whoever started the process does.

Two protocols lead to a socket. A service manager sets ``LISTEN_FDS``, ``LISTEN_PID`` and ``LISTEN_FDNAMES``; the
process that is activated is the one that serves, so it calls ``listen`` again, and clients then see *it* as their
server. A supervisor of several processes sets ``ALPC_LISTEN_FDS``; there clients see the supervisor, whichever process
accepts them, because the kernel keeps one identity for the socket: the supervisor holds the name and outlives its
processes.

Processes that share a socket all wake for a connection. Each writes into a shared table how many connections it has,
and one that has more than another looks away for a moment, the longer the more it has, so that connections spread
evenly.
"""

from __future__ import annotations

import mmap
import os
import socket
import stat
import struct
from typing import Final

from ..handles import Handle
from ._ancillary import refuse_rights, report_senders

__all__ = [
    "AcceptTurn",
    "InheritedName",
    "accept_table",
    "clear_turn",
    "inheritance",
    "inherited_name",
    "manager_sockets",
    "supervisor_sockets",
]

FIRST_MANAGER_FD: Final = 3
"""Number of the first descriptor that a service manager passes (sd_listen_fds(3))."""

SOCKETS_VARIABLE: Final = "ALPC_LISTEN_FDS"
"""``parent:fd=name,fd=name``: the sockets that a supervisor passes."""

TURN_VARIABLE: Final = "ALPC_ACCEPT_TABLE"
"""``parent:fd:slot:slots``: the table of connections, and the own place in it."""

LOOK_AWAY: Final = 0.003
"""Seconds for each connection more that a process leaves a new one to the others: a few turns of a busy loop."""

MOST_LOOKS: Final = 10
"""Connections more that count at most: a process that hangs may not hold connections up for long.

On a machine that is busy, the others may not get a processor for some hundredths of a second.
"""

_COUNT: Final = struct.Struct("<q")
_ABSENT: Final = -1


def _is_listener(fd: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        with socket.socket(fileno=os.dup(fd)) as sock:
            return (
                sock.family == socket.AF_UNIX
                and sock.type == socket.SOCK_STREAM
                and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            )
    except OSError:
        return False


def manager_sockets() -> dict[str, int]:
    """Return the listening sockets that a service manager passed, by their names; they stay open."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    try:
        count = int(os.environ.get("LISTEN_FDS", ""))
    except ValueError:
        return {}
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found = zip(range(FIRST_MANAGER_FD, FIRST_MANAGER_FD + count), names, strict=False)
    return {name: fd for fd, name in found if name and _is_listener(fd)}


def supervisor_sockets() -> dict[str, int]:
    """Return the listening sockets that a supervisor passed, by their names; they stay open."""
    parent, _, sockets = os.environ.get(SOCKETS_VARIABLE, "").partition(":")
    if parent != str(os.getppid()):
        return {}
    found = (part.partition("=") for part in sockets.split(","))
    return {name: int(fd) for fd, _, name in found if fd.isdigit() and _is_listener(int(fd))}


class AcceptTurn:
    """The place of this process in the table of connections.

    Args:
        fd: descriptor of the table; a copy is kept.
        slot: the place.
        slots: how many there are.
    """

    __slots__ = ("_slot", "_slots", "_table")

    def __init__(self, fd: int, slot: int, slots: int) -> None:
        self._table = mmap.mmap(fd, slots * _COUNT.size)
        self._slot = slot
        self._slots = slots

    def show(self, connections: int) -> None:
        """Let the others see how many connections there are here.

        Args:
            connections: the number.
        """
        if not self._table.closed:
            _COUNT.pack_into(self._table, self._slot * _COUNT.size, connections)

    def pause(self) -> float:
        """Return how long to leave the next connection to others, in seconds; 0 when it is our turn."""
        counts = [_COUNT.unpack_from(self._table, slot * _COUNT.size)[0] for slot in range(self._slots)]
        others = [count for slot, count in enumerate(counts) if slot != self._slot and count >= 0]
        more: int = counts[self._slot] - min(others, default=counts[self._slot])
        return LOOK_AWAY * min(max(more, 0), MOST_LOOKS)

    def close(self) -> None:
        """Leave the table. Closing again does nothing."""
        if not self._table.closed:
            self.show(_ABSENT)
            self._table.close()


def clear_turn(table: Handle, slot: int) -> None:
    """Empty a place of the table whose process has ended.

    Args:
        table: the table.
        slot: the place.
    """
    os.pwrite(table.fileno(), _COUNT.pack(_ABSENT), slot * _COUNT.size)


def inheritance(sockets: dict[str, int], table: Handle, slot: int, slots: int) -> dict[str, str]:
    """Return the environment by which a child process finds its sockets and its place.

    Args:
        sockets: descriptors by port name.
        table: the table of connections.
        slot: the place of the child.
        slots: how many there are.
    """
    parent = os.getpid()
    passed = ",".join(f"{fd}={name}" for name, fd in sockets.items())
    return {
        SOCKETS_VARIABLE: f"{parent}:{passed}",
        TURN_VARIABLE: f"{parent}:{table.fileno()}:{slot}:{slots}",
    }


def accept_table(slots: int) -> Handle:
    """Return a new table of connections for processes to inherit, all places empty.

    Args:
        slots: number of processes.
    """
    handle = Handle(os.memfd_create("alpc-accept-table", os.MFD_CLOEXEC))
    os.write(handle.fileno(), _COUNT.pack(_ABSENT) * slots)
    return handle


class InheritedName:
    """Stands for the lease of a name that somebody else holds.

    Attributes:
        name: the port name.
        turn: the place in the table of connections, where several processes accept.
    """

    __slots__ = ("name", "turn")

    def __init__(self, name: str, turn: AcceptTurn | None) -> None:
        self.name = name
        self.turn = turn

    def release(self) -> None:
        """Leave the name to its holder. Releasing again does nothing."""
        if self.turn is not None:
            self.turn.close()


def inherited_name(name: str, backlog: int) -> tuple[InheritedName, socket.socket] | None:
    """Return the inherited listening socket of a name, if this process was started with one.

    Args:
        name: the port name.
        backlog: connections that the kernel keeps until they are accepted; counts where the process was activated.

    Returns:
        The stand-in for the lease, and a copy of the socket, non-blocking and close-on-exec; both are the caller's.
    """
    fd = manager_sockets().get(name)
    activated = fd is not None
    if fd is None:
        fd = supervisor_sockets().get(name)
    if fd is None:
        return None
    sock = socket.socket(fileno=os.dup(fd))
    try:
        sock.setblocking(False)
        sock.set_inheritable(False)
        report_senders(sock)
        refuse_rights(sock)
        if activated:
            # The kernel shows clients whoever called this last.
            sock.listen(backlog)
        return InheritedName(name, _turn()), sock
    except BaseException:
        sock.close()
        raise


def _turn() -> AcceptTurn | None:
    parts = os.environ.get(TURN_VARIABLE, "").split(":")
    if len(parts) != 4 or parts[0] != str(os.getppid()):
        return None
    turn = AcceptTurn(*map(int, parts[1:]))
    turn.show(0)
    return turn
