"""Asking the kernel who is at the other end of a connected ``AF_UNIX`` socket.

Belongs here: the socket options, their numbers and the ways they fail; what our user namespace can name. Never here:
conclusions from the facts, ``/proc/<pid>`` of the peer or ``pidfd_open`` (a pid may have been reused in between).

The kernel keeps the credentials of the process that called ``connect`` or ``listen`` and answers with those, whoever
holds the socket now.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Literal

from alpc_async.handles import Handle

from ._identity import Identity
from ._numbers import SO_PEERGROUPS, SO_PEERPIDFD

__all__ = ["is_sender", "overflow_id", "own_identity", "peer_identity", "peer_user", "sender_identity"]

# struct ucred: pid_t signed, uid_t and gid_t unsigned.
_UCRED = struct.Struct("=iII")
_DESCRIPTOR = struct.Struct("=i")
_GID_SIZE = 4

# (uid_t)-1 is no user: the kernel answers so for a socket that has no peer.
_NO_ID = 2**32 - 1

# The longest answer that CPython's getsockopt takes, in bytes.
_INTERPRETER_LIMIT = 1024
# The longest answer that we take, in bytes: NGROUPS_MAX (65,536) group ids; labels are at most a page.
_OPTION_LIMIT = 65_536 * _GID_SIZE

_NO_LABEL = frozenset({errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ENODATA})
# ENOPROTOOPT: Linux before 6.5. The others: the process was gone already, which kernels report in different ways.
_NO_PIDFD = frozenset({errno.ENOPROTOOPT, errno.EINVAL, errno.ENODATA, errno.ESRCH})

_DEFAULT_OVERFLOW_ID = 65_534


def peer_identity(sock: socket.socket) -> Identity:
    """Return what the kernel says about the process at the other end.

    Args:
        sock: a connected ``AF_UNIX`` socket; a client may ask before the server has accepted.

    Returns:
        An identity that owns one descriptor where the kernel can pin the process; the caller closes it.

    Raises:
        OSError: ``ENOTCONN`` when the socket has no peer, ``EMFILE`` or ``ENFILE`` when no descriptor is free, or
            whatever else the kernel answers; nothing stays open then.
    """
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid == _NO_ID:
        raise OSError(errno.ENOTCONN, "the socket has no peer to identify; connect it first")
    groups = _peer_groups(sock)
    label = _peer_label(sock)
    overflow_uid, overflow_gid = overflow_id("uid"), overflow_id("gid")
    pinned = _peer_pidfd(sock)
    try:
        return Identity(
            uid=uid,
            gid=gid,
            groups=groups,
            pid=pid,
            label=label,
            pinned=pinned,
            overflow_uid=overflow_uid,
            overflow_gid=overflow_gid,
        )
    except BaseException:
        if pinned is not None:
            pinned.close()
        raise


def is_sender(first: Identity, facts: tuple[int, int, int], process: Handle | None) -> bool:
    """Return whether what the kernel says with the bytes of a message is said about whoever made the connection.

    Args:
        first: who made the connection.
        facts: (process id, real user id, real group id).
        process: a pidfd of the sender, where the kernel gave one and numbers them; then the process id does not decide.
    """
    if facts != (first.pid, first.uid, first.gid):
        return False
    pinned = first.pinned
    if process is None or pinned is None or pinned.closed:
        return True
    return os.fstat(process.fileno()).st_ino == os.fstat(pinned.fileno()).st_ino


def sender_identity(first: Identity, facts: tuple[int, int, int], process: Handle | None) -> Identity:
    """Return the identity of a sender who is not the one that made the connection.

    Args:
        first: who made the connection.
        facts: (process id, real user id, real group id), as the kernel said with the bytes of a message.
        process: a pidfd of the sender, or ``None``; it belongs to the identity from now on.

    Returns:
        An identity that knows user, group, process id and, where it is pinned, the process; nothing more.
    """
    pid, uid, gid = facts
    return Identity(
        uid=uid,
        gid=gid,
        pid=pid,
        changed=True,
        pinned=process,
        overflow_uid=first.overflow_uid,
        overflow_gid=first.overflow_gid,
    )


def peer_user(sock: socket.socket) -> int | None:
    """Return the user at the other end, and nothing more: one system call instead of a dozen.

    Args:
        sock: a connected ``AF_UNIX`` socket.

    Returns:
        The effective user id, or ``None`` when it is the overflow number or the process has no pid here, which is what
        those who cannot be identified have in common; where every user is mapped, ``nobody`` is then among them.

    Raises:
        OSError: the kernel does not answer.
    """
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return uid if pid > 0 and uid not in {_DEFAULT_OVERFLOW_ID, _NO_ID} else None


def own_identity() -> Identity:
    """Return the facts about this process, for connections that never leave it.

    Returns:
        An identity without label and without pidfd; there is nothing to close.
    """
    return Identity(
        uid=os.geteuid(),
        gid=os.getegid(),
        groups=tuple(os.getgroups()),
        pid=os.getpid(),
        overflow_uid=overflow_id("uid"),
        overflow_gid=overflow_id("gid"),
    )


def _peer_groups(sock: socket.socket) -> tuple[int, ...]:
    answer = _read_option(sock, SO_PEERGROUPS)
    return struct.unpack(f"={len(answer) // _GID_SIZE}I", answer)


def _peer_label(sock: socket.socket) -> str | None:
    try:
        answer = _read_option(sock, socket.SO_PEERSEC)
    except OSError as error:
        if error.errno in _NO_LABEL:
            return None
        raise
    # Some modules count the terminating zero as part of the label and some do not.
    return answer.rstrip(b"\0").decode("utf-8", "surrogateescape") or None


def _peer_pidfd(sock: socket.socket) -> Handle | None:
    try:
        answer = sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, _DESCRIPTOR.size)
    except OSError as error:
        if error.errno in _NO_PIDFD:
            return None
        raise
    # The kernel makes every pidfd close-on-exec.
    return Handle(_DESCRIPTOR.unpack(answer)[0])


def _read_option(sock: socket.socket, option: int) -> bytes:
    try:
        return sock.getsockopt(socket.SOL_SOCKET, option, _INTERPRETER_LIMIT)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
    return _read_long_option(sock.fileno(), option)


def _read_long_option(fd: int, option: int) -> bytes:
    """Read an option that is longer than CPython takes, through the C library: more than 256 groups need it.

    It is rare enough that one buffer of the largest size, used once, is better than asking for the size first.
    """
    getsockopt = ctypes.CDLL(None, use_errno=True).getsockopt
    getsockopt.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint32))
    getsockopt.restype = ctypes.c_int
    buffer = ctypes.create_string_buffer(_OPTION_LIMIT)
    length = ctypes.c_uint32(_OPTION_LIMIT)
    if getsockopt(fd, socket.SOL_SOCKET, option, buffer, ctypes.byref(length)) != 0:
        failure = ctypes.get_errno()
        raise OSError(failure, f"socket option {option} of the peer cannot be read: {os.strerror(failure)}")
    return ctypes.string_at(buffer, length.value)


def overflow_id(kind: Literal["uid", "gid"]) -> int | None:
    """Return the number under which the kernel shows us unmapped users or groups, or ``None`` when all are mapped.

    That our map covers the overflow number itself proves nothing: containers commonly map 65,536 ids, so that both
    their own ``nobody`` and every user outside have that number. Only a map of the whole range, as the initial
    namespace has, leaves nobody out. What cannot be read counts as incomplete: then ``nobody`` is not told apart.
    """
    try:
        mapped = sum(int(row.split()[2]) for row in _read_small_file(f"/proc/self/{kind}_map").splitlines())
        if mapped >= _NO_ID:
            return None
        return int(_read_small_file(f"/proc/sys/kernel/overflow{kind}"))
    except (OSError, ValueError, IndexError):
        return _DEFAULT_OVERFLOW_ID


def _read_small_file(path: str) -> bytes:
    # A map has at most 340 rows of 33 bytes; /proc answers a read of that size at once and never blocks.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 16_384)
    finally:
        os.close(fd)
