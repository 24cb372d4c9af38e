"""Who sent a message: the kernel says it with the bytes, whatever became of the socket since it was connected.

Belongs here: changes of user and process on a live connection, with real ones. Never here: who made a connection
(tests/security), acting as somebody (test_impersonation).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

import alpc_async as alpc
from alpc_async import MessageType
from tests.port.strangers import ALICE, BOB, REPOSITORY, as_root, program
from tests.port.support import NAME, WAIT, raw_peer, until

if TYPE_CHECKING:
    from pathlib import Path

# A client without a library: what it sends and who sends it is up to the test.
RAW = """
from alpc_async.wire import Endpoint, Role, Ticket, unpack_header
endpoint = Endpoint(Role.CLIENT, alpc.PortLimits())
def connect():
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(arguments["path"])
    endpoint.hello(b"")
    sock.sendall(endpoint.data_to_send(1 << 30))
    endpoint.receive_data(sock.recv(65536))
    return sock
def frame(data):
    endpoint.request(Ticket(), data, 0.0, None)
    return endpoint.data_to_send(1 << 30)
def last_words(sock):
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return unpack_header(data)[3] if data else None
"""

SETUID = """
sock = connect()
sock.sendall(frame(b"before"))
say(os.getpid())
hear()
become(arguments["later"])
sock.sendall(frame(b"after"))
say(last_words(sock) if arguments["refused"] else None)
hear()
"""

FORK = """
sock = connect()
sock.sendall(frame(b"before"))
say(os.getpid())
hear()
if not os.fork():
    sock.sendall(frame(b"after"))
    os._exit(0)
os.wait()
say(last_words(sock) if arguments["refused"] else None)
hear()
"""

HAND_OVER = """
here, there = socket.socketpair()
if not os.fork():
    become(arguments["later"])
    _, (fd,), _, _ = socket.recv_fds(there, 1, 1)
    sock = socket.socket(fileno=fd)
    endpoint.hello(b"")
    endpoint.data_to_send(1 << 30)
    endpoint.receive_data(bytes.fromhex(arguments["welcome"]))
    frame(b"before")
    sock.sendall(frame(b"after"))
    there.send(b"x")
    os._exit(0)
become(arguments["first"])
sock = connect()
sock.sendall(frame(b"before"))
say(os.getpid())
hear()
socket.send_fds(here, [b"x"], [sock.fileno()])
here.recv(1)
say(last_words(sock) if arguments["refused"] else None)
hear()
"""


@pytest.fixture
def searchable(runtime_directory: Path) -> Path:
    """A directory of names that other users can search."""
    runtime_directory.chmod(0o711)
    return runtime_directory


def change(body: str, *, refused: bool, directory: Path, uid: int = 0) -> dict[str, Any]:
    """Return the arguments of a program whose sender changes."""
    from alpc_async.wire import Endpoint, Role, Ticket  # only for the bytes of a greeting

    client: Endpoint[Ticket] = Endpoint(Role.CLIENT, alpc.PortLimits())
    server: Endpoint[Ticket] = Endpoint(Role.SERVER, alpc.PortLimits())
    client.hello(b"")
    server.receive_data(client.data_to_send(1 << 30))
    server.accept(b"")
    return {
        "uid": uid,
        "body": RAW + body,
        "path": str(directory / NAME),
        "later": BOB if body is HAND_OVER else ALICE,
        "first": ALICE,
        "refused": refused,
        "welcome": server.data_to_send(1 << 30).hex(),
    }


async def line(process: subprocess.Popen[str]) -> Any:
    """Return what a program says next."""
    assert process.stdout is not None
    text = await anyio.to_thread.run_sync(process.stdout.readline)
    assert text, process.stderr.read() if process.stderr is not None else ""
    return json.loads(text)


def go(process: subprocess.Popen[str]) -> None:
    """Let a program go on."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


CHANGES = [
    pytest.param(SETUID, "setuid", id="setuid after connect"),
    pytest.param(FORK, "fork", id="socket inherited by a child"),
    pytest.param(HAND_OVER, "pass", id="socket passed to another user"),
]


@as_root
@pytest.mark.parametrize(("body", "kind"), CHANGES)
async def test_a_change_of_sender_ends_the_connection(body: str, kind: str, searchable: Path) -> None:
    """What the first sender sent is received; the change is counted, recorded and refused, and the peer is told."""
    records: list[alpc.AuditRecord] = []
    async with alpc.listen(NAME, security=alpc.ANYONE, audit=records.append) as server:
        with program(**change(body, refused=True, directory=searchable)) as process:
            await line(process)
            with anyio.fail_after(WAIT):
                first = await server.receive()
                assert (first.type, first.data) == (MessageType.REQUEST, b"before")
                assert first.sender.uid == (ALICE if kind == "pass" else 0)
                assert not first.sender.changed
                go(process)
                assert await line(process) == alpc.Status.SENDER_CHANGED
                assert (await server.receive()).type is MessageType.CANCELED
                last = await server.receive()
                assert last.type is MessageType.PORT_CLOSED
            assert b"a message came from uid" in last.data
            assert first.port.statistics().sender_changes == 1
            go(process)
    (record,) = records
    assert (record.what, record.rule) == ("send as somebody else", "tracking='static'")
    assert record.uid == (ALICE if kind == "pass" else 0)


@as_root
@pytest.mark.parametrize(("body", "kind"), CHANGES)
async def test_a_port_may_follow_the_sender(body: str, kind: str, searchable: Path) -> None:
    """With tracking="dynamic" each message has its own sender, of whom user, group and process are known."""
    qos = alpc.SecurityQos("anonymous", tracking="dynamic")
    async with alpc.listen(NAME, security=alpc.ANYONE, qos=qos) as server:
        with program(**change(body, refused=False, directory=searchable)) as process:
            pid = await line(process)
            go(process)
            with anyio.fail_after(WAIT):
                first, second = await server.receive(), await server.receive()
            assert (first.data, second.data) == (b"before", b"after")
            assert first.sender == first.port.peer
            assert not first.sender.changed
            sender = second.sender
            assert sender.changed
            assert sender.stamp != first.sender.stamp
            assert sender.uid == {"setuid": ALICE, "fork": 0, "pass": BOB}[kind]
            assert (sender.pid == pid) is (kind == "setuid")
            assert sender.groups == ()
            assert sender.has_pidfd is alpc.kernel_features().pins_senders
            assert second.port.statistics().sender_changes == 1
            await line(process)
            go(process)


@as_root
@pytest.mark.parametrize("admits_later", [True, False])
async def test_a_new_sender_is_judged_anew(*, admits_later: bool, searchable: Path) -> None:
    """Also where senders may change, one whom the policy does not admit ends the connection."""
    records: list[alpc.AuditRecord] = []
    admit = alpc.SecurityDescriptor([alpc.allow("root"), *([alpc.allow(f"user:{ALICE}")] if admits_later else [])])
    qos = alpc.SecurityQos("anonymous", tracking="dynamic")
    async with alpc.listen(NAME, security=admit, qos=qos, audit=records.append) as server:
        with program(**change(SETUID, refused=not admits_later, directory=searchable)) as process:
            await line(process)
            go(process)
            said = await line(process)
            with anyio.fail_after(WAIT):
                assert (await server.receive()).data == b"before"
                if admits_later:
                    assert (await server.receive()).data == b"after"
                else:
                    assert said == alpc.Status.ACCESS_DENIED
                    assert (await server.receive()).type is MessageType.CANCELED
            go(process)
    assert [(record.what, record.uid) for record in records] == ([] if admits_later else [("connect", ALICE)])


HALVES = """
sock = connect()
whole = frame(b"x" * 100)
sock.sendall(whole[:50])
say(os.getpid())
hear()
become(arguments["later"])
sock.sendall(whole[50:])
say(last_words(sock))
hear()
"""


@as_root
async def test_a_frame_has_one_sender(searchable: Path) -> None:
    """The rest of a frame from somebody else is refused also where senders may change: whose would it be?"""
    records: list[alpc.AuditRecord] = []
    qos = alpc.SecurityQos("anonymous", tracking="dynamic")
    async with alpc.listen(NAME, security=alpc.ANYONE, qos=qos, audit=records.append) as server:
        with program(**change(HALVES, refused=True, directory=searchable)) as process:
            await line(process)
            await until(lambda: server.statistics().bytes_received > 200)
            go(process)
            assert await line(process) == alpc.Status.SENDER_CHANGED
            go(process)
    assert [record.rule for record in records] == ["one sender per frame"]


FORGE = """
import struct
sock = connect()
for uid in (0, arguments["later"] + 1):
    entry = (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("=iII", os.getpid(), uid, os.getgid()))
    try:
        sock.sendmsg([frame(b"forged")], [entry])
        say("sent")
    except PermissionError as error:
        say(error.strerror)
hear()
"""


@as_root
async def test_credentials_cannot_be_forged(searchable: Path) -> None:
    """A user who claims to be another one with a message is refused by the kernel; nothing of it arrives."""
    async with alpc.listen(NAME, security=alpc.ANYONE) as server:
        with program(**change(FORGE, refused=True, directory=searchable, uid=ALICE)) as process:
            assert [await line(process), await line(process)] == ["Operation not permitted"] * 2
            assert server.statistics().queued == 0
            go(process)


async def test_a_client_that_stays_itself_is_not_disturbed(runtime_directory: Path) -> None:
    """Many messages of one process are no change, with either tracking."""
    for qos in (alpc.SecurityQos("anonymous", "static"), alpc.SecurityQos("anonymous", "dynamic")):
        async with alpc.listen(NAME, qos=qos) as server:
            with raw_peer(runtime_directory) as peer:
                await peer.greet()
                for _ in range(5):
                    await peer.request(b"hello")
                    message = await server.receive()
                    assert message.sender is message.port.peer
                    assert message.port.statistics().sender_changes == 0


# Runs in a process namespace of its own, where few process numbers are left, so that one comes back soon.
REUSE = """
import json, os, socket, sys, threading
import anyio
import alpc_async as alpc
exec(sys.argv[1])
arguments = {"path": os.path.join(os.environ["ALPC_RUNTIME_DIR"], "reuse")}
here, there = socket.socketpair()

def client():
    sock = connect()
    sock.sendall(frame(b"before"))
    socket.send_fds(here, [b"x"], [sock.fileno()])
    os._exit(0)

def successor(fd):
    try:
        socket.socket(fileno=fd).sendall(bytes.fromhex("00"))
        os.write(result[1], b"sent")
    except OSError as error:
        os.write(result[1], type(error).__name__.encode())
    os._exit(0)

def play():
    # Numbers below 300 are given out once only.
    number = 0
    while number < 310:
        number = os.fork()
        if not number:
            os._exit(0)
        os.waitpid(number, 0)
    pid = os.fork()
    if not pid:
        client()
    _, (fd,), _, _ = socket.recv_fds(there, 1, 1)
    os.waitpid(pid, 0)
    for forks in range(200_000):
        again = os.fork()
        if not again:
            if os.getpid() == pid:
                successor(fd)
            os._exit(0)
        os.waitpid(again, 0)
        if again == pid:
            break
    return pid, again

result = os.pipe()

async def main():
    async with alpc.listen("reuse") as server:
        pid, again = await anyio.to_thread.run_sync(play)
        types = []
        with anyio.fail_after(20):
            while not types or types[-1] not in ("PORT_CLOSED", "CLIENT_DIED"):
                types.append((await server.receive()).type.name)
        print(json.dumps({"pid": pid, "again": again, "types": types, "successor": os.read(result[0], 99).decode()}))
anyio.run(main)
"""


@as_root
def test_a_process_number_that_comes_back_is_not_the_process() -> None:
    """A process with the number of a dead client, holding its socket, finds the connection ended with its maker."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-p", "-f", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us run unshare --pid --fork")
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    # From Linux 6.14 the greatest number belongs to the namespace; before, lowering it would be felt by everybody.
    lower = "echo 400 > /proc/sys/kernel/pid_max && " if release >= (6, 14) else ""
    command = [unshare, "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", f'{lower}exec "$@"', "sh"]
    command += [sys.executable, "-W", "ignore", "-c", REUSE, RAW]
    # Measuring coverage would write a file for each of hundreds of forked processes.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment["PYTHONPATH"] = str(REPOSITORY)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["pid"] == seen["again"]
    assert seen["successor"] in {"BrokenPipeError", "ConnectionResetError"}
    assert seen["types"] == ["REQUEST", "CANCELED", "CLIENT_DIED"]
