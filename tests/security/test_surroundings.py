"""What kernels can tell, where processes run, and what clients allow with their identity.

Belongs here: kernel features, surroundings of processes, quality of service as values.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from alpc_async.security import (
    Identity,
    ImpersonationLevel,
    SecurityQos,
    kernel_features,
    peer_identity,
    surroundings,
)
from tests.security.processes import STRANGER, as_root, client_of
from tests.security.test_identity import need_pidfd

MACHINES = {"x86_64", "aarch64", "riscv64", "loongarch64", "ppc64le", "ppc64", "s390x"}
NAMESPACES = {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"}


def test_our_own_surroundings() -> None:
    """A peer that is ourselves shares every namespace with us, and its control group is ours."""
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(peer_identity(ours)) as peer:
        need_pidfd(peer)
        seen = surroundings(peer)
    assert seen.shared == seen.namespaces.keys() == NAMESPACES
    assert seen.unreadable == frozenset()
    assert seen.namespaces["user"] == os.stat("/proc/self/ns/user").st_ino
    assert seen.cgroup in Path("/proc/self/cgroup").read_text()
    assert seen.cgroup.startswith("/")


@as_root
def test_surroundings_are_those_of_the_peer_or_none(path: str) -> None:
    """Another process has its own; once it has ended there are none, whoever has its number by then."""
    with client_of(path, STRANGER) as (sock, pid), closing(peer_identity(sock)) as peer:
        need_pidfd(peer)
        assert surroundings(peer).cgroup in Path(f"/proc/{pid}/cgroup").read_text()
        os.kill(pid, 9)
        assert peer.pinned is not None
        while not peer.process_ended():
            pass
        with pytest.raises(OSError, match="has ended") as caught:
            surroundings(peer)
        assert caught.value.errno == errno.ESRCH


def test_surroundings_need_a_pinned_process() -> None:
    """Without a pidfd nothing is read by the number of the process."""
    with pytest.raises(OSError, match="no pidfd") as caught:
        surroundings(Identity(uid=0, gid=0, pid=os.getpid()))
    assert caught.value.errno == errno.ENOTSUP


def test_the_features_are_found_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that knows none of the options has none of the features, and each is explained; nothing stays open."""
    assert kernel_features().message_credentials
    assert kernel_features().thread_credentials is (os.uname().machine in MACHINES)

    def refuse(*_arguments: Any) -> bytes:
        raise OSError(errno.ENOPROTOOPT, "of a test")

    monkeypatch.setattr(socket.socket, "getsockopt", refuse)
    monkeypatch.setattr(socket.socket, "setsockopt", refuse)
    features = kernel_features()
    assert not features.peer_pidfd
    assert not features.process_numbers
    assert len(features.missing) == 7 + (not features.all_users_mapped) + (not features.thread_credentials)
    assert all(re.search(r"\(SO_\w+|mapped|numbers|Linux \d|map every", sentence) for sentence in features.missing)


def test_pidfds_that_share_a_number_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On kernels before 6.9 every pidfd has the inode of all anonymous files, and stamps leave the process out."""
    real = socket.socket.getsockopt

    def old(sock: socket.socket, level: int, option: int, size: int = 0) -> Any:
        return struct.pack("=i", os.eventfd(0)) if option == 77 else real(sock, level, option, size)

    monkeypatch.setattr(socket.socket, "getsockopt", old)
    features = kernel_features()
    assert features.peer_pidfd
    assert not features.process_numbers


@pytest.mark.parametrize(("level", "name"), [(level, level.name.lower()) for level in ImpersonationLevel])
def test_levels_by_name_and_by_number(level: ImpersonationLevel, name: str) -> None:
    """A level may be given as a member or as its name, and levels are ordered."""
    assert SecurityQos(name) == SecurityQos(level) == SecurityQos(level=level, tracking="static")
    assert str(SecurityQos(level, "dynamic")) == f"{name}, dynamic"
    assert SecurityQos().level is ImpersonationLevel.IDENTIFY
    assert sorted(ImpersonationLevel) == list(ImpersonationLevel)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(("root",), "'root' is no level; there are anonymous"), ((1, "sometimes"), "tracking must be"), ((7,), "7")],
)
def test_a_quality_that_does_not_exist(arguments: tuple[Any, ...], text: str) -> None:
    """Other levels and trackings are refused."""
    with pytest.raises(ValueError, match=text):
        SecurityQos(*arguments)
