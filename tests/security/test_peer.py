"""What the kernel says about real peers, and what happens when it says nothing or fails.

Belongs here: `peer_identity` and `own_identity`. Never here: what an identity can do afterwards (test_identity), other
namespaces (test_namespaces).
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import struct
from contextlib import closing

import pytest

from alpc_async.security import own_identity, peer_identity
from tests.security.processes import (
    NOBODY,
    STRANGER,
    ScriptedSocket,
    all_mapped,
    as_root,
    client_of,
    open_descriptors,
    scripted,
)

PEERGROUPS = 59
PEERPIDFD = 77


def test_a_socket_pair_shows_this_process() -> None:
    """The peer in a socket pair has the facts that the process knows of itself."""
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(peer_identity(ours)) as peer:
        own = own_identity()
        assert (peer.uid, peer.gid, peer.groups, peer.pid) == (own.uid, own.gid, own.groups, own.pid)
        assert (own.uid, own.gid, own.pid) == (os.geteuid(), os.getegid(), os.getpid())
        assert own.groups == tuple(sorted(set(os.getgroups())))
        assert not own.has_pidfd
        assert own.process_ended() is None


@as_root
def test_another_user_with_groups_is_seen_as_the_kernel_sees_it(path: str) -> None:
    """A client of another user is reported with uid, gid, sorted supplementary groups and pid."""
    with client_of(path, STRANGER, (5003, 5001, 5002)) as (sock, pid), closing(peer_identity(sock)) as peer:
        assert (peer.uid, peer.gid, peer.groups, peer.pid) == (STRANGER, STRANGER, (5001, 5002, 5003), pid)
        assert peer.identified
        assert str(peer) == f"uid {STRANGER} gid {STRANGER} (pid {pid})"
        assert [peer.in_group(group) for group in (STRANGER, 5002, 0)] == [True, True, False]


@as_root
@all_mapped
def test_nobody_is_a_user_where_every_user_is_mapped(path: str) -> None:
    """Uid 65534 is the real nobody when no user of the machine can hide behind the number."""
    with client_of(path, NOBODY) as (sock, _), closing(peer_identity(sock)) as peer:
        assert peer.uid == NOBODY
        assert peer.identified
        assert peer.is_user(NOBODY)
        assert peer.in_group(NOBODY)


@as_root
@pytest.mark.parametrize("count", [255, 256, 257, 300, 65_536])
def test_any_number_of_groups_is_read(path: str, count: int) -> None:
    """The list of groups is complete also when it is longer than the interpreter's own limit of 256."""
    groups = tuple(range(100_000, 100_000 + count))
    with client_of(path, STRANGER, groups) as (sock, _), closing(peer_identity(sock)) as peer:
        assert peer.groups == groups


@as_root
def test_ids_above_two_to_the_31_are_not_negative(path: str) -> None:
    """Large ids arrive as the unsigned numbers that they are."""
    with client_of(path, 2**32 - 2, (2**31,)) as (sock, _), closing(peer_identity(sock)) as peer:
        assert (peer.uid, peer.groups) == (2**32 - 2, (2**31,))


def test_a_socket_without_a_peer_is_an_error() -> None:
    """Nobody is made up for a socket that was never connected."""
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(OSError, match="has no peer") as caught:
        peer_identity(sock)
    assert caught.value.errno == errno.ENOTCONN


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (b"system_u:system_r:init_t:s0\0", "system_u:system_r:init_t:s0"),
        (b"unconfined", "unconfined"),
        (b"\0", None),
        (errno.ENOPROTOOPT, None),
        (b"odd\xff", "odd\udcff"),
    ],
)
def test_labels_of_all_modules_are_understood(answer: bytes | int, label: str | None) -> None:
    """A label comes with or without its terminating zero, or not at all, and may be any bytes."""
    with scripted({socket.SO_PEERSEC: answer}) as sock, closing(peer_identity(sock)) as peer:
        assert peer.label == label
        assert len(peer.stamp) == 32


@pytest.mark.parametrize("option", [socket.SO_PEERCRED, PEERGROUPS, socket.SO_PEERSEC, PEERPIDFD])
def test_other_failures_are_raised_and_leave_nothing_open(option: int) -> None:
    """An option that fails in an unknown way is never read as the absence of the fact, and no descriptor is left."""
    with scripted({option: errno.EMFILE}) as sock:
        before = open_descriptors()
        with pytest.raises(OSError, match="Too many open files"):
            peer_identity(sock)
        assert open_descriptors() == before


def test_a_long_answer_that_fails_is_raised() -> None:
    """When the second, longer read fails too, its error is raised with the option."""
    with scripted({PEERGROUPS: errno.ERANGE}) as sock:
        sock.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            peer_identity(sock)
    with ScriptedSocket(socket.AF_INET) as inet:
        inet.answers = {socket.SO_PEERCRED: struct.pack("=iII", 1, 2, 3), PEERGROUPS: errno.ERANGE}
        with pytest.raises(OSError, match=f"socket option {PEERGROUPS} of the peer cannot be read"):
            peer_identity(inet)


@pytest.mark.parametrize("answers", [{}, {PEERPIDFD: errno.ENOPROTOOPT}], ids=["pidfd", "no-pidfd"])
def test_the_descriptor_is_given_back_when_the_identity_cannot_be_made(
    answers: dict[int, bytes | int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure after the pidfd was asked for leaves none open."""

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("no room for the digest")

    with scripted(answers) as sock:
        before = open_descriptors()
        monkeypatch.setattr(hashlib, "blake2b", fail)
        with pytest.raises(MemoryError, match="digest"):
            peer_identity(sock)
        assert open_descriptors() == before
