"""Which of the facts about peers this kernel can give.

Belongs here: trying each facility once and saying what is missing in words. Never here: using the facts, or guessing
from a version number what a kernel can do.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass, fields
from typing import Final

from ._numbers import SO_PASSPIDFD, SO_PASSRIGHTS, SO_PEERGROUPS, SO_PEERPIDFD, credential_calls
from ._peer import overflow_id

__all__ = ["KernelFeatures", "kernel_features"]

_CONSEQUENCES: Final = {
    "peer_groups": "supplementary groups of peers are unknown (SO_PEERGROUPS, Linux 4.13)",
    "peer_pidfd": "the process at the other end cannot be pinned (SO_PEERPIDFD, Linux 6.5)",
    "message_credentials": "the sender of a single message is unknown (SO_PASSCRED)",
    "message_pidfd": "the process that sent a single message cannot be pinned, so one that got the number of the "
    "process that connected passes for it until that death is noticed (SO_PASSPIDFD, Linux 6.5)",
    "process_numbers": "neither stamps nor the pidfd of a message's sender can tell processes of one user apart, so "
    "senders of messages are not pinned either (numbered pidfds, Linux 6.9)",
    "refuses_handles": "descriptors that nobody asked for cannot be refused by the kernel (SO_PASSRIGHTS, Linux 6.16)",
    "labels": "no security module gives labels to sockets (SO_PEERSEC)",
    "all_users_mapped": "this user namespace does not map every user, so unmapped ones cannot be told from nobody",
    "thread_credentials": "threads cannot act as other users: the system call numbers of this machine are not known",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFeatures:
    """What this kernel gives, each found by trying.

    Attributes:
        peer_groups: supplementary groups of a peer.
        peer_pidfd: a pidfd that pins the peer's process.
        message_credentials: user, group and process of the sender of each message.
        message_pidfd: a pidfd of the sender of each message.
        process_numbers: pidfds of different processes have different inode numbers.
        refuses_handles: the kernel can turn descriptors away before they reach us.
        labels: a security module labels sockets.
        all_users_mapped: every user of the machine has a number in our user namespace.
        thread_credentials: the numbers of the calls that change the user of one thread are known here.
    """

    peer_groups: bool
    peer_pidfd: bool
    message_credentials: bool
    message_pidfd: bool
    process_numbers: bool
    refuses_handles: bool
    labels: bool
    all_users_mapped: bool
    thread_credentials: bool

    @property
    def pins_senders(self) -> bool:
        """Whether a port that follows its senders pins the process behind each message: that takes both of them."""
        return self.message_pidfd and self.process_numbers

    @property
    def missing(self) -> tuple[str, ...]:
        """What is missing, a sentence for each."""
        return tuple(_CONSEQUENCES[field.name] for field in fields(self) if not getattr(self, field.name))


def kernel_features() -> KernelFeatures:
    """Return what this kernel gives. Tries it with a pair of sockets each time it is called; a few system calls.

    Returns:
        The features; ``features.missing`` says in words what is not there.

    Raises:
        OSError: ``EMFILE`` or ``ENFILE`` when no descriptor is free.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        pidfd, numbered = _try_pidfd(ours)
        return KernelFeatures(
            peer_groups=_can_get(ours, SO_PEERGROUPS, 1024),
            peer_pidfd=pidfd,
            message_credentials=_can_set(ours, socket.SO_PASSCRED, 1),
            message_pidfd=_can_set(ours, SO_PASSPIDFD, 1),
            process_numbers=numbered,
            refuses_handles=_can_set(ours, SO_PASSRIGHTS, 0),
            labels=_can_get(ours, socket.SO_PEERSEC, 1024),
            all_users_mapped=overflow_id("uid") is None and overflow_id("gid") is None,
            thread_credentials=credential_calls() is not None,
        )


def _can_get(sock: socket.socket, option: int, size: int) -> bool:
    try:
        sock.getsockopt(socket.SOL_SOCKET, option, size)
    except OSError as error:
        # ERANGE: the answer is longer, so there is one.
        return error.errno == errno.ERANGE
    return True


def _can_set(sock: socket.socket, option: int, value: int) -> bool:
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, value)
    except OSError:
        return False
    return True


def _try_pidfd(sock: socket.socket) -> tuple[bool, bool]:
    """Return whether the kernel pins a peer, and whether such descriptors have numbers of their own."""
    try:
        fd = struct.unpack("=i", sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4))[0]
    except OSError:
        return False, False
    try:
        plain = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            # Before pidfds had a file system of their own they shared one inode with every anonymous file.
            return True, os.fstat(fd).st_ino != os.fstat(plain).st_ino
        finally:
            os.close(plain)
    finally:
        os.close(fd)
