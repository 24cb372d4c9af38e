"""Links that have the kernel pin whoever sends, and links that somebody else told to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing
from functools import partial

import psutil  # type: ignore[import-untyped]  # it comes without annotations
import pytest

from alpc_async.handles import Handle
from alpc_async.link import PinningLink, SocketLink, adopt_socket, current_loop, socket_pair
from alpc_async.link._ancillary import SO_PASSPIDFD, control_messages, pin_senders, report_senders
from alpc_async.security import kernel_features
from alpc_async.testing import Recorder

pytestmark = pytest.mark.skipif(not kernel_features().pins_senders, reason="; ".join(kernel_features().missing))


def process_of(handle: Handle) -> int:
    """Return the number of the process behind a pidfd that no other one ever gets."""
    return os.fstat(handle.fileno()).st_ino


def test_a_reason_in_place_of_a_descriptor_is_no_descriptor() -> None:
    """The kernel writes a negative number where it has no pidfd to give; nothing is opened or closed for it."""
    entry = (socket.SOL_SOCKET, 4, (-3).to_bytes(4, sys.byteorder, signed=True))
    assert control_messages([entry]).process is None


def child_that_sends(sock: socket.socket) -> subprocess.Popen[bytes]:
    """Start a program that inherits a socket and sends one byte through it."""
    code = "import os, sys; os.write(int(sys.argv[1]), b'c')"
    return subprocess.Popen([sys.executable, "-c", code, str(sock.fileno())], pass_fds=[sock.fileno()])


def _has(owner: Recorder, count: int) -> bool:
    return len(owner.received) == count


async def test_each_process_that_sends_is_told_once() -> None:
    """The owner gets a pidfd of the first sender and of each that follows another one; all others are closed."""
    left, right = socket_pair()
    report_senders(right)
    owner = Recorder()
    link = PinningLink(right, current_loop(), high_water=1000, low_water=100)
    link.start(owner)
    with left, closing(link), Handle(os.pidfd_open(os.getpid())) as ourselves:
        left.send(b"a")
        await owner.until(lambda: owner.received == b"a", "the first byte is there")
        (first,) = owner.processes
        assert process_of(first) == process_of(ourselves)
        descriptors = psutil.Process().num_fds()
        for _ in range(20):
            left.send(b"b")
            count = len(owner.received) + 1
            await owner.until(partial(_has, owner, count), "one more byte is there")
        assert psutil.Process().num_fds() == descriptors
        child = child_that_sends(left)
        await owner.until(lambda: owner.received.endswith(b"c"), "the byte of the child is there")
        assert child.wait() == 0
        left.send(b"d")
        await owner.until(lambda: owner.received.endswith(b"d"), "our last byte is there")
        assert [pid for pid, _, _ in owner.senders] == [os.getpid(), child.pid, os.getpid()]
        assert len({process_of(process) for process in owner.processes}) == 2
        for process in owner.processes:
            process.close()


async def test_a_link_that_did_not_ask_closes_what_comes() -> None:
    """A socket that somebody told to bring a descriptor with each receive fills nobody's table."""
    left, right = socket_pair()
    pin_senders(right)
    owner = Recorder()
    link = SocketLink(right, current_loop(), high_water=1000, low_water=100, senders=True)
    link.start(owner)
    with left, closing(link):
        descriptors = psutil.Process().num_fds()
        for count in range(1, 20):
            left.send(b"x")
            await owner.until(partial(_has, owner, count), "one more byte is there")
        assert psutil.Process().num_fds() == descriptors
        assert owner.processes == []
        assert len(owner.senders) == 1


def test_a_socket_that_was_passed_on_is_told_to_bring_none() -> None:
    """Whoever had it before cannot have its next owner open and close a descriptor with each receive."""
    left, right = socket_pair()
    pin_senders(right)
    assert right.getsockopt(socket.SOL_SOCKET, SO_PASSPIDFD) == 1
    with left, adopt_socket(Handle(right.detach())) as adopted:
        assert adopted.getsockopt(socket.SOL_SOCKET, SO_PASSPIDFD) == 0
