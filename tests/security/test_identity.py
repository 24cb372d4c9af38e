"""Identities as values, and as owners of a pinned process.

Belongs here: what `Identity` can do once it is made. Never here: how it is read from a socket (test_peer).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
from contextlib import closing
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alpc_async.security import Identity, peer_identity
from tests.security.processes import STRANGER, WAIT, as_root, client_of, open_descriptors, scripted

PEERPIDFD = 77


def need_pidfd(peer: Identity) -> None:
    """Skip the test where the kernel pins no process."""
    if not peer.has_pidfd:
        pytest.skip("the kernel is older than Linux 6.5 and gives no pidfd")


@as_root
def test_the_pidfd_becomes_readable_when_the_process_is_killed(path: str) -> None:
    """The pidfd shows the end of the very process that connected, and the facts stay."""
    with client_of(path, STRANGER) as (sock, pid), closing(peer_identity(sock)) as peer:
        need_pidfd(peer)
        assert peer.process_ended() is False
        with peer.pidfd() as process:
            assert f"\nPid:\t{pid}\n" in Path(f"/proc/self/fdinfo/{process.fileno()}").read_text()
            os.kill(pid, 9)
            readable, _, _ = select.select([process.fileno()], [], [], WAIT)
            assert readable == [process.fileno()]
        assert peer.process_ended() is True
        assert peer.uid == STRANGER


@as_root
def test_a_client_that_is_gone_is_still_identified(path: str) -> None:
    """Facts are read after the client ended and was reaped; the process is pinned and ended, or not pinned at all."""
    with client_of(path, STRANGER) as (accepted, pid):
        sock = accepted.dup()
    with sock, closing(peer_identity(sock)) as peer:
        assert (peer.uid, peer.pid) == (STRANGER, pid)
        assert peer.process_ended() in ((True,) if peer.has_pidfd else (None,))


def test_every_pidfd_is_close_on_exec_and_a_copy() -> None:
    """Neither the pinned descriptor nor its copies reach programs that we start, and a copy outlives the identity."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_identity(ours)
        with closing(peer):
            need_pidfd(peer)
            assert peer.pinned is not None
            copy = peer.pidfd()
            assert copy.fileno() != peer.pinned.fileno()
            for descriptor in (copy.fileno(), peer.pinned.fileno()):
                assert fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        with copy:
            assert os.fstat(copy.fileno())


def test_a_closed_identity_keeps_its_facts_and_no_descriptor() -> None:
    """After close the facts can be read, the pidfd cannot, and closing again does nothing."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_identity(ours)
        need_pidfd(peer)
        stamp = peer.stamp
        peer.close()
        peer.close()
        assert (peer.uid, peer.stamp, peer.has_pidfd, peer.process_ended()) == (os.geteuid(), stamp, False, None)
        with pytest.raises(OSError, match="given back") as caught:
            peer.pidfd()
        assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("error", [errno.ENOPROTOOPT, errno.EINVAL, errno.ENODATA, errno.ESRCH])
def test_a_pid_never_stands_in_for_a_missing_pidfd(error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel gives no pidfd, none is opened from the pid; asking for one says why."""
    opened: list[int] = []
    monkeypatch.setattr(os, "pidfd_open", opened.append)
    with scripted({PEERPIDFD: error}) as sock, closing(peer_identity(sock)) as peer:
        assert not peer.has_pidfd
        assert peer.process_ended() is None
        with pytest.raises(OSError, match=r"no pidfd for uid .* Linux 6\.5") as caught:
            peer.pidfd()
        assert caught.value.errno == errno.ENOTSUP
    assert opened == []


def test_a_thousand_identities_leave_no_descriptor() -> None:
    """As many descriptors are open after a thousand identities as before."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        before = open_descriptors()
        for _ in range(1000):
            peer_identity(ours).close()
        assert open_descriptors() == before


def test_identities_cannot_be_changed() -> None:
    """Assigning to a fact fails."""
    identity = Identity(uid=1, gid=2)
    for fact in ("uid", "gid", "groups", "pid", "label", "stamp", "pinned"):
        with pytest.raises(FrozenInstanceError):
            setattr(identity, fact, 0)
    assert identity.uid == 1


def test_the_pid_is_only_decoration() -> None:
    """Identities that differ in the pid alone are equal, hash alike and have the same stamp."""
    one, other = (Identity(uid=1, gid=2, groups=(3,), pid=pid) for pid in (10, 11))
    assert one == other
    assert hash(one) == hash(other)
    assert one.stamp == other.stamp


@as_root
def test_two_processes_of_one_user_have_different_stamps(path: str) -> None:
    """Where the kernel numbers processes, the stamp tells two of the same user apart and stays for one of them."""
    if tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2]) < (6, 9):
        pytest.skip("a pidfd has no number of its own before Linux 6.9")
    with client_of(path, STRANGER) as (first, _), client_of(f"{path}-2", STRANGER) as (second, _):
        identities = [peer_identity(sock) for sock in (first, first, second)]
        for identity in identities:
            identity.close()
    one, again, other = (identity.stamp for identity in identities)
    assert one == again
    assert one != other


ids = st.integers(0, 3)
kernel_facts = st.tuples(ids, ids, st.frozensets(ids), st.none() | st.sampled_from(["", "None", "a", "a:b", "1,2"]))


@given(kernel_facts, kernel_facts)
@example((0, 0, frozenset(), None), (0, 0, frozenset(), "None"))
def test_stamps_are_equal_exactly_when_the_facts_are(
    one: tuple[int, int, frozenset[int], str | None], other: tuple[int, int, frozenset[int], str | None]
) -> None:
    """Equal stamps and equal identities mean equal facts, in whatever order the groups came."""
    left = Identity(uid=one[0], gid=one[1], groups=tuple(sorted(one[2])), label=one[3])
    right = Identity(uid=other[0], gid=other[1], groups=tuple(sorted(other[2], reverse=True)), label=other[3])
    assert (left.stamp == right.stamp) == (one == other)
    assert (left == right) == (one == other)
