"""The process behind each message, on ports that follow their senders: pinned by the kernel, so no number decides.

Belongs here: what ``tracking="dynamic"`` adds where the kernel can pin senders, with real processes. Never here: users
and changes of user (`test_senders`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import psutil  # type: ignore[import-untyped]  # it comes without annotations
import pytest

import alpc_async as alpc
from alpc_async import PortLimits
from alpc_async.handles import Handle
from tests.port.strangers import BOB, REPOSITORY, as_root, program
from tests.port.support import NAME, WAIT, raw_peer
from tests.port.test_senders import RAW, change, go, line

if TYPE_CHECKING:
    from pathlib import Path

DYNAMIC = alpc.SecurityQos("anonymous", tracking="dynamic")

needs_pins = pytest.mark.skipif(
    not alpc.kernel_features().pins_senders, reason="; ".join(alpc.kernel_features().missing)
)


@pytest.fixture
def searchable(runtime_directory: Path) -> Path:
    """A directory of names that other users can search."""
    runtime_directory.chmod(0o711)
    return runtime_directory


HANDED_ON = """
here, there = socket.socketpair()
child = os.fork()
if not child:
    become(arguments["later"])
    _, (fd,), _, _ = socket.recv_fds(there, 1, 1)
    sock = socket.socket(fileno=fd)
    endpoint.hello(b"")
    endpoint.data_to_send(1 << 30)
    endpoint.receive_data(bytes.fromhex(arguments["welcome"]))
    frame(b"before")
    sock.sendall(frame(b"after"))
    there.recv(1)
    os._exit(0)
become(arguments["first"])
sock = connect()
sock.sendall(frame(b"before"))
say(os.getpid())
hear()
socket.send_fds(here, [b"x"], [sock.fileno()])
say(child)
hear()
here.send(b"x")
os.waitpid(child, 0)
say("over")
hear()
"""


async def two_messages(server: alpc.ConnectionPort) -> tuple[alpc.Message, alpc.Message]:
    """Receive two messages."""
    with anyio.fail_after(WAIT):
        return await server.receive(), await server.receive()


@as_root
@needs_pins
async def test_the_process_that_sent_a_message_is_pinned(searchable: Path) -> None:
    """Whoever got the socket passed is known by a pidfd of its own, which tells when that very process has ended."""
    arguments = change(HANDED_ON, refused=False, directory=searchable)
    arguments["later"] = BOB
    async with alpc.listen(NAME, security=alpc.ANYONE, qos=DYNAMIC) as server:
        with program(**arguments) as process:
            await line(process)
            go(process)
            child = await line(process)
            first, second = await two_messages(server)
            sender = second.sender
            assert (sender.uid, sender.pid, sender.changed) == (BOB, child, True)
            with sender.pidfd() as pidfd, Handle(os.pidfd_open(child)) as same:
                assert os.fstat(pidfd.fileno()).st_ino == os.fstat(same.fileno()).st_ino
            assert sender.process_ended() is first.sender.process_ended() is False
            go(process)
            assert await line(process) == "over"
            assert sender.process_ended() is True
            assert first.sender.process_ended() is False
            assert first.sender is first.port.peer
            go(process)


FORKS = """
sock = connect()
sock.sendall(frame(b"0"))
say(os.getpid())
for number in (1, 2, 3):
    data = frame(b"%d" % number)
    if not os.fork():
        sock.sendall(data)
        os._exit(0)
    os.wait()
hear()
"""


@as_root
@needs_pins
async def test_pinned_senders_count_for_their_user(searchable: Path) -> None:
    """What pins senders is bounded like other descriptors; a sender over the bound is known by its numbers alone."""
    limits = PortLimits(max_user_handles=2)
    async with alpc.listen(NAME, security=alpc.ANYONE, qos=DYNAMIC, limits=limits) as server:
        with program(**change(FORKS, refused=False, directory=searchable)) as process:
            await line(process)
            with anyio.fail_after(WAIT):
                messages = [await server.receive() for _ in range(4)]
            assert [message.data for message in messages] == [b"0", b"1", b"2", b"3"]
            assert [message.sender.changed for message in messages] == [False, True, True, True]
            assert [message.sender.has_pidfd for message in messages] == [True, True, True, False]
            go(process)


@needs_pins
async def test_the_descriptors_of_messages_come_back(runtime_directory: Path) -> None:
    """The kernel gives a descriptor with every receive; a client that stays itself leaves none of them open."""
    async with alpc.listen(NAME, qos=DYNAMIC) as server:
        with raw_peer(runtime_directory) as peer:
            await peer.greet()
            await peer.request(b"first")
            message = await server.receive()
            descriptors = psutil.Process().num_fds()
            for _ in range(100):
                await peer.request(b"hello")
                message = await server.receive()
                assert message.sender is message.port.peer
            assert psutil.Process().num_fds() == descriptors
            assert message.port.statistics().sender_changes == 0


@as_root
async def test_a_kernel_that_pins_nothing(searchable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Senders are then known by their numbers, have no pidfd, and the features say what is missing."""
    poor = replace(alpc.kernel_features(), message_pidfd=False)
    assert any("SO_PASSPIDFD" in sentence for sentence in poor.missing)
    monkeypatch.setattr("alpc_async.port._connection.kernel_features", lambda: poor)
    async with alpc.listen(NAME, security=alpc.ANYONE, qos=DYNAMIC) as server:
        with program(**change(FORKS, refused=False, directory=searchable)) as process:
            await line(process)
            first, second = await two_messages(server)
            assert (first.sender.changed, second.sender.changed) == (False, True)
            assert not second.sender.has_pidfd
            with pytest.raises(OSError, match="the kernel gave no pidfd"):
                second.sender.pidfd()
            go(process)


# Runs in a process namespace of its own, where few process numbers are left, so that one comes back soon. The loop is
# held up meanwhile, so the death of the client and what its successor sent are noticed together.
REUSE = """
import json, os, socket, sys
import anyio
import alpc_async as alpc
exec(sys.argv[1])
arguments = {"path": os.path.join(os.environ["ALPC_RUNTIME_DIR"], "reuse")}
here, there = socket.socketpair()

def client():
    sock = connect()
    sock.sendall(frame(b"before"))
    socket.send_fds(here, [frame(b"after")], [sock.fileno()])
    here.recv(1)
    os._exit(0)

def replace(pid):
    data, (fd,), _, _ = socket.recv_fds(there, 1000, 1)
    there.send(b"x")
    os.waitpid(pid, 0)
    for _ in range(10_000):
        again = os.fork()
        if not again:
            if os.getpid() == pid:
                socket.socket(fileno=fd).sendall(data)
            os._exit(0)
        os.waitpid(again, 0)
        if again == pid:
            break
    os.close(fd)
    return again

async def main():
    number = 0
    while number < 310:
        number = os.fork()
        if not number:
            os._exit(0)
        os.waitpid(number, 0)
    qos = alpc.SecurityQos("anonymous", tracking=sys.argv[2])
    async with alpc.listen("reuse", qos=qos) as server:
        pid = os.fork()
        if not pid:
            client()
        with anyio.fail_after(20):
            first = await server.receive()
            again = replace(pid)
            second = await server.receive()
        print(json.dumps({
            "pid": pid, "again": again, "data": second.data.decode(), "sender": second.sender.pid,
            "changed": second.sender.changed,
        }))
anyio.run(main)
"""


@as_root
@needs_pins
@pytest.mark.parametrize("tracking", ["dynamic", "static"])
def test_a_process_that_got_the_number_is_another_sender(tracking: str) -> None:
    """With pinned senders, one that has the number and the socket of a dead client is known not to be that client.

    Where senders are not followed they are not pinned, and it passes for the client until that death is seen.
    """
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-p", "-f", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us run unshare --pid --fork")
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    # From Linux 6.14 the greatest number belongs to the namespace; before, lowering it would be felt by everybody.
    lower = "echo 400 > /proc/sys/kernel/pid_max && " if release >= (6, 14) else ""
    command = [unshare, "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", f'{lower}exec "$@"', "sh"]
    command += [sys.executable, "-W", "ignore", "-c", REUSE, RAW, tracking]
    # Measuring coverage would write a file for each of hundreds of forked processes.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment["PYTHONPATH"] = str(REPOSITORY)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["again"] == seen["sender"] == seen["pid"]
    assert seen["data"] == "after"
    assert seen["changed"] is (tracking == "dynamic")
