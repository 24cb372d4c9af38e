"""Attacks of another user with descriptors, memory and frames that are no messages: all of it is counted.

Belongs here: what one user can make a server hold or do beside answering its requests. Never here: plain floods
(`test_attacks`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

import alpc_async as alpc
from tests.port.strangers import ALICE, as_root, finish, program
from tests.port.support import NAME, echo_server, until
from tests.port.test_attacks import AGAIN
from tests.port.test_senders import RAW

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [as_root, pytest.mark.timeout(120)]

LINGERING = """
import array, struct
from alpc_async.wire import FrameType, pack
listener = socket.create_server(("127.0.0.1", 0))
kept = []
def lingering():
    # Whoever closes this last waits an hour for what nobody reads.
    sock = socket.create_connection(listener.getsockname())
    kept.append(listener.accept()[0])
    sock.setblocking(False)
    try:
        while True:
            sock.send(bytes(65536))
    except BlockingIOError:
        pass
    sock.setblocking(True)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    return sock
left = 0
section = pack(FrameType.SECTION | 1 << 16, 1, 1)
try:
    for _ in range(30):
        sock, bait = connect_again(), lingering()
        sock.sendmsg([section[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [bait.fileno()]))])
        # The server has it once it has taken the byte.
        while waiting(sock):
            time.sleep(0.001)
        bait.close()
        sock.sendall(section[1:])
        last_words(sock)
        left += 1
except OSError:
    pass
say(left)
hear()
"""

WAITING = """
import fcntl, struct, termios
def waiting(sock):
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
"""

HOARDER = """
from alpc_async.wire import FrameType, pack
socks = []
for _ in range(4):
    sock = connect_again()
    sock.sendall(b"".join(pack(FrameType.REQUEST, number, 0) for number in range(1, 41)))
    socks.append(sock)
say("asked")
hear()
"""

REVOKING = """
from alpc_async.wire import FrameType, pack
sock = connect()
sock.sendall(b"".join(pack(FrameType.REVOKED, number, 0) for number in range(1, 4001)))
say("sent")
hear()
"""


def closing() -> int:
    """Return how many threads close descriptors that nobody wants."""
    return sum(thread.name == "alpc-dispose" for thread in threading.enumerate())


def shared_memory() -> int:
    """Return the bytes of the sections that this process has made."""
    # One section may have several descriptors, some of them on their way.
    sizes: dict[int, int] = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("/memfd:alpc"):
                facts = os.fstat(int(name))
                sizes[facts.st_ino] = facts.st_size
    return sum(sizes.values())


@pytest.fixture
def open_directory(runtime_directory: Path) -> Path:
    """Let other users search the directory of names."""
    runtime_directory.chmod(0o711)
    return runtime_directory


async def test_descriptors_whose_close_takes_for_ever_are_bounded(open_directory: Path) -> None:
    """A user who leaves them behind with one connection after the other is kept out, and others are not."""
    limits = alpc.PortLimits(max_user_handles=4)
    records: list[alpc.AuditRecord] = []
    async with echo_server(security=alpc.ANYONE, limits=limits, audit=records.append):
        with program(ALICE, RAW + AGAIN + WAITING + LINGERING, path=str(open_directory / NAME)) as process:
            assert process.stdout is not None
            left = int(await anyio.to_thread.run_sync(process.stdout.readline))
            assert left == closing() == 5
            assert [record.rule for record in records][-1] == "PortLimits.max_user_handles"
            async with alpc.connect(NAME) as other:
                assert (await other.request(b"hello")).data == b"hello"
        await until(lambda: not closing(), "the descriptors to be closed when their sender is gone")


async def test_memory_that_is_never_given_back_is_bounded_for_a_user(open_directory: Path) -> None:
    """Long answers to a user who keeps them take no more memory than one user may have, over all connections."""
    most = 16 * 1024 * 1024
    limits = alpc.PortLimits(
        max_view_size=2**20, max_section_size=2**20, max_total_section_size=2**24, max_user_section_size=most
    )
    asked = 0
    async with alpc.listen(NAME, security=alpc.ANYONE, limits=limits) as server, alpc.connect(NAME) as other:
        with program(ALICE, RAW + AGAIN + HOARDER, path=str(open_directory / NAME)) as process:
            while asked < 160:
                for message in await server.receive_batch(timeout=30):
                    message.reply(bytes(2**20))
                    asked += 1
            assert most - 2**21 <= shared_memory() <= most
            pending = other.start_request(b"long, please")
            (await server.receive()).reply(bytes(2**20))
            assert len((await pending).data) == 2**20
            await anyio.to_thread.run_sync(finish, process, "\n")
        await until(lambda: len(server.connections) == 1)
        await until(lambda: shared_memory() <= 2**21, "the memory to come back")


async def test_frames_that_are_no_messages_count_as_well(open_directory: Path) -> None:
    """A flood of them is taken no faster than messages are while another user is active."""
    limits = alpc.PortLimits(max_user_shared_rate=200)
    async with echo_server(security=alpc.ANYONE, limits=limits) as server, alpc.connect(NAME) as other:
        await other.request(b"active")
        with program(ALICE, RAW + REVOKING, path=str(open_directory / NAME)) as process:
            assert process.stdout is not None
            await until(lambda: server.statistics().messages_received > 100)
            for _ in range(20):
                await other.request(b"active")
                await anyio.sleep(0.01)
            assert server.statistics().messages_received < 2000


async def test_a_batch_of_messages_with_memory_is_short() -> None:
    """Requests that bring a MiB each come in small batches, so that whoever takes one lets others in soon."""
    async with alpc.listen(NAME) as server, alpc.connect(NAME) as client:
        pending = [client.start_request(bytes(2**20)) for _ in range(12)]
        await until(lambda: server.statistics().queued == 12)
        sizes: list[int] = []
        while sum(sizes) < 12:
            batch = await server.receive_batch()
            sizes.append(len(batch))
            for message in batch:
                message.reply(b"")
        assert sizes == [4, 4, 4]
        for request in pending:
            await request
