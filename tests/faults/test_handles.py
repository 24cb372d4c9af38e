"""Descriptors between processes: every kind passed, kinds that are not taken, and descriptors that run out."""

from __future__ import annotations

import mmap
import os
import signal
import socket
from typing import TYPE_CHECKING

import anyio
import psutil  # type: ignore[import-untyped]  # it comes without annotations
import pytest

import alpc_async as alpc
from alpc_async import HandleKind, MessageType, PortLimits, Status
from alpc_async.handles import Handle
from tests.faults.puppets_transfers import ALICE, LIMITS, RAW, as_root, partner
from tests.faults.test_shortage import no_descriptors_left
from tests.port.support import NAME, WAIT, echo_server, readable, until

if TYPE_CHECKING:
    from pathlib import Path

FILES_ONLY = PortLimits(max_handles=300, handle_kinds=HandleKind.FILE)


async def request_of(server: alpc.ConnectionPort) -> alpc.Message:
    """Receive the next request."""
    with anyio.fail_after(WAIT):
        while (message := await server.receive()).type is not MessageType.REQUEST:
            pass
    return message


GIVER = """
async def main():
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    memory = os.memfd_create("given")
    os.write(memory, b"from memory")
    given = [
        Handle.open(sys.executable), Handle(theirs.detach()), Handle(reader), Handle(memory),
        Handle(os.pidfd_open(child.pid)),
    ]
    async with alpc.connect(NAME, limits=LIMITS) as port:
        os.write(writer, b"through the pipe")
        ours.send(b"from the other end")
        reply = await port.request(b"five", handles=given)
        said = ours.recv(100).decode()
        child.wait()
        with reply, reply.take_handle() as back:
            say([said, os.read(back.fileno(), 3).decode(), child.returncode, [handle.fileno() for handle in given]])
run(main)
"""


async def test_every_kind_of_handle_is_passed_between_processes(runtime_directory: Path) -> None:
    """A file, a socket, a pipe, memory and a process arrive as what they are and work; one goes back with the reply."""
    async with alpc.listen(NAME, limits=LIMITS) as server:
        with partner(GIVER) as giver:
            message = await request_of(server)
            kinds = [HandleKind.FILE, HandleKind.SOCKET, HandleKind.PIPE, HandleKind.MEMFD, HandleKind.PIDFD]
            assert [handle.kind for handle in message.handles] == kinds
            file, sock, pipe, memory, process = (message.take_handle(number) for number in range(5))
            with file, pipe, memory, process, socket.socket(fileno=sock.detach()) as end:
                assert os.read(file.fileno(), 4) == b"\x7fELF"
                assert end.recv(100) == b"from the other end"
                end.send(b"hello back")
                assert os.read(pipe.fileno(), 100) == b"through the pipe"
                with mmap.mmap(memory.fileno(), 11) as mapped:
                    assert mapped[:] == b"from memory"
                signal.pidfd_send_signal(process.fileno(), signal.SIGKILL)
                assert readable(process.fileno(), WAIT)
                message.reply(handles=[Handle.open(__file__)])
                assert await giver.hear() == ["hello back", '"""', -signal.SIGKILL, [-1] * 5]


REFUSED = """
async def main():
    statuses = []
    async with alpc.connect(NAME, limits=LIMITS) as port:
        for make in (
            lambda: os.pipe()[0], lambda: socket.socket().detach(), lambda: os.memfd_create("x"),
            lambda: os.pidfd_open(os.getpid()), lambda: os.eventfd(0), lambda: os.open("/", os.O_RDONLY),
            lambda: os.open("/dev/zero", os.O_RDONLY), lambda: os.open(sys.executable, os.O_PATH),
        ):
            try:
                await port.request(handles=[Handle.open(sys.executable), Handle(make())])
            except alpc.RemoteFault as error:
                statuses.append(error.status)
        receipt = await port.post(handles=[Handle(os.eventfd(0))], receipt=True)
        try:
            await receipt
        except alpc.RemoteFault as error:
            statuses.append(error.status)
        reply = await port.request(b"files only", handles=[Handle.open(sys.executable)])
        say([statuses, reply.data.decode()])
run(main)
"""


async def test_kinds_that_are_not_taken_fail_alone(runtime_directory: Path) -> None:
    """A handle of any other kind fails its message, with its receipt, and the next message of the process is served."""
    async with echo_server(limits=FILES_ONLY) as server:
        descriptors = psutil.Process().num_fds()
        with partner(REFUSED) as giver:
            statuses, answered = await giver.hear()
        assert statuses == [Status.HANDLES_REFUSED] * 9
        assert answered == "files only"
        await until(lambda: not server.connections)
        await until(lambda: psutil.Process().num_fds() == descriptors, "the descriptors to be closed")
        await server.aclose()


REPEATER = """
async def main():
    async with alpc.connect(NAME, limits=LIMITS, timeout=30) as port:
        say("connected")
        while (command := await hear_later()) is not None:
            kind, count = command
            try:
                if kind == "handles":
                    reply = await port.request(b"%d" % count, handles=[Handle.open("/dev/null") for _ in range(count)])
                else:
                    reply = await port.request(bytes(count))
                say(len(reply.data))
            except alpc.RemoteFault as error:
                say(alpc.Status(error.status).name)
run(main)
"""


@pytest.mark.parametrize("left", [0, 1, 3, 4])
async def test_a_receiver_without_descriptors_fails_that_message_alone(left: int, runtime_directory: Path) -> None:
    """Handles that arrive in part are closed, their message fails, and the connection goes on with the next ones."""
    kinds = HandleKind.CHARACTER_DEVICE
    limits = PortLimits(max_handles=300, handle_kinds=kinds)
    async with echo_server(limits=limits) as server:
        with partner(REPEATER) as giver:
            assert await giver.hear() == "connected"
            await until(lambda: server.connections)
            descriptors = psutil.Process().num_fds()
            giver.tell(["handles", 5])
            with no_descriptors_left(but=left):
                assert await giver.hear() == "HANDLES_LOST"
            await until(lambda: psutil.Process().num_fds() == descriptors, "what came in part to be closed")
            giver.tell(["handles", 5])
            assert await giver.hear() == 1
            giver.tell(["handles", 300])
            assert await giver.hear() == 3
        await server.aclose()


async def test_a_section_that_was_lost_is_shared_again(runtime_directory: Path) -> None:
    """Long data fails while the receiver has no descriptor for its section, and goes through once it has one."""
    async with echo_server() as server:
        with partner(REPEATER) as giver:
            assert await giver.hear() == "connected"
            await until(lambda: server.connections)
            with no_descriptors_left():
                for _ in range(2):
                    giver.tell(["data", 100_000])
                    assert await giver.hear() == "HANDLES_LOST"
                giver.tell(["data", 1000])
                assert await giver.hear() == 1000
            giver.tell(["data", 100_000])
            assert await giver.hear() == 100_000
        await server.aclose()


POOR = """
async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
    ours, theirs = socket.socketpair()
    async with alpc.connect(NAME, limits=LIMITS, server=alpc.ANYONE) as port:
        # Descriptors under way count for the user, and the kernel takes no more than one process may have.
        null = os.open("/dev/null", os.O_RDONLY)
        for _ in range(2):
            socket.send_fds(ours, [b"x"], [null] * 40)
        said = []
        for _ in range(2):
            try:
                await port.request(b"poor", handles=[Handle.open("/dev/null") for _ in range(3)])
            except alpc.RemoteFault as error:
                said.append(alpc.Status(error.status).name)
            theirs.close()
            said.append((await port.request(b"goes on")).data.decode())
        said.append((await port.request(b"rich", handles=[Handle.open("/dev/null")])).data.decode())
        say(said)
run(main)
"""


@as_root
async def test_a_sender_that_may_send_no_more_fails_that_message_alone(runtime_directory: Path) -> None:
    """With too many descriptors of its user under way a message with handles fails, and the connection goes on."""
    runtime_directory.chmod(0o755)  # noqa: ASYNC240  # takes no time
    limits = PortLimits(max_handles=300, handle_kinds=HandleKind.CHARACTER_DEVICE)
    async with echo_server(limits=limits, security=alpc.ANYONE) as server:
        with partner(POOR, uid=ALICE) as poor:
            said = await poor.hear()
        assert said[:2] == ["HANDLES_LOST", "goes on"]
        assert said[-1] == "rich"
        await server.aclose()


LINGERING = (
    RAW
    + """
def bait(seconds):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    sender = socket.create_connection(listener.getsockname())
    sender.setblocking(False)
    try:
        while True:
            sender.send(bytes(65536))
    except BlockingIOError:
        pass
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, array.array("i", [1, seconds]).tobytes())
    return sender, listener
baits = [bait(25) for _ in range(3)]
raw = Raw()
if arguments["how"] == "unannounced":
    for sender, _ in baits:
        try:
            socket.send_fds(raw.sock, [pack(FrameType.DATAGRAM, 1, 0, b"x")], [sender.fileno()])
        except BrokenPipeError:
            # The server was quicker. Then this program is the one that must not wait.
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes(8))
else:
    for number in range(1 if arguments["how"] == "broken" else 2):
        handles = [Handle(os.dup(sender.fileno())) for sender, _ in baits]
        view = ViewRecord(7, 0, 1, 0, 1) if arguments["how"] == "broken" else None
        raw.endpoint.datagram(b"", Attributes(view=view, handles=[HandleRecord() for _ in baits], received=handles))
        carrier = raw.endpoint.data_to_send(1 << 20)
        socket.send_fds(raw.sock, [carrier], [handle.fileno() for handle in handles])
        raw.flush()
        for handle in handles:
            handle.close()
# Nobody but the receiver has the sockets from here on: whoever closes the last copy waits.
for sender, _ in baits:
    sender.close()
say("sent")
hear()
"""
)


@pytest.mark.parametrize("how", ["unannounced", "broken", "released"])
async def test_closing_what_a_stranger_sent_holds_nobody_up(how: str, runtime_directory: Path) -> None:
    """Sockets whose close takes half a minute cost another client nothing, wherever the server drops them."""
    limits = PortLimits(max_handles=10, handle_kinds=HandleKind.SOCKET)
    async with alpc.listen(NAME, limits=limits) as server, alpc.connect(NAME) as bystander:
        with partner(LINGERING, how=how) as stranger:
            assert await stranger.hear() == "sent"
            if how == "released":
                for _ in range(2):
                    message = await server.receive()
                    message.release()
            with anyio.fail_after(WAIT / 2):
                pending = bystander.start_request(b"served")
                (await request_of(server)).reply(b"at once")
                assert (await pending).data == b"at once"
                if how != "released":
                    await until(lambda: server.statistics().violations == 1)
            await server.aclose()
            stranger.kill()
