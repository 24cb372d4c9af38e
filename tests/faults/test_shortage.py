"""Shortage: peers that do not read, descriptors that run out, and clients of other users."""

from __future__ import annotations

import os
import resource
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

import alpc_async as alpc
from alpc_async import MessageType, PortLimits
from alpc_async.wire import FrameType, pack
from tests.port.support import NAME, WAIT, echo_server, raw_peer, until

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

STRANGER = 54_321
SO_PASSRIGHTS = 83


async def test_a_client_that_does_not_read_its_replies_is_not_served_on(runtime_directory: Path) -> None:
    """Over the high-water mark its messages are not handed out, others' are; when it reads again it gets everything."""
    limits = PortLimits(max_view_size=0, high_water=64 * 1024, low_water=16 * 1024)
    async with alpc.listen(NAME, limits=limits) as server, alpc.connect(NAME) as bystander:
        with raw_peer(runtime_directory, limits=limits) as peer:
            await peer.greet()
            for _ in range(60):
                await peer.request(b"more")
            answered = 0
            with anyio.move_on_after(0.3):
                while True:
                    message = await server.receive()
                    message.reply(bytes(60_000))
                    answered += 1
            there = next(port for port in server.connections if port.statistics().owed)
            assert 2 <= answered < 30
            assert there.statistics().queued == 60 - answered
            await bystander.post(b"polite")
            with anyio.fail_after(WAIT):
                assert (await server.receive()).data == b"polite"

            async def serve_on() -> None:
                for _ in range(60 - answered):
                    (await server.receive()).reply(bytes(60_000))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve_on)
                with anyio.fail_after(WAIT):
                    while len(peer.received) < 60 * 60_000:
                        await peer.hear()
            assert there.connected


async def test_a_client_that_never_reads_is_cut(runtime_directory: Path) -> None:
    """Over max_unsent the connection is cut, and the server learns of it like of any other end."""
    limits = PortLimits(max_view_size=0, high_water=64 * 1024, low_water=16 * 1024, max_unsent=256 * 1024)
    async with alpc.listen(NAME, limits=limits) as server:
        with raw_peer(runtime_directory, limits=limits) as peer:
            await peer.greet()
            for _ in range(30):
                await peer.request(b"more")
            await until(lambda: server.statistics().queued == 30)
            for message in await server.receive_batch():
                message.reply(bytes(60_000))
            with anyio.fail_after(WAIT):
                while (notice := await server.receive()).type is not MessageType.PORT_CLOSED:
                    assert notice.type in (MessageType.LOST_REPLY, MessageType.CANCELED)
            assert not notice.port.connected
            assert server.statistics().connections == 0


async def test_replies_that_cannot_leave_are_reported_lost(runtime_directory: Path) -> None:
    """When a client hangs up without reading, each reply that the kernel did not take whole is LOST_REPLY."""
    async with alpc.listen(NAME, limits=PortLimits(max_view_size=0)) as server:
        with raw_peer(runtime_directory) as peer:
            await peer.greet()
            for _ in range(20):
                await peer.request(b"more")
            await until(lambda: server.statistics().queued == 20)
            batch = await server.receive_batch()
            for message in batch:
                message.reply(bytes(60_000))
            there = batch[0].port
            await until(lambda: there.statistics().bytes_sent)
            await anyio.wait_all_tasks_blocked()
            gone = there.statistics().bytes_sent // 60_024
            assert 0 < gone < 20
        received: list[alpc.Message] = []
        with anyio.fail_after(WAIT):
            while not received or received[-1].type is not MessageType.PORT_CLOSED:
                received += await server.receive_batch()
        assert [message.type for message in received[:-1]] == [MessageType.LOST_REPLY] * (20 - gone)
        assert [message.id for message in received[:-1]] == [message.id for message in batch[gone:]]


async def test_a_poster_waits_for_a_peer_that_does_not_read(runtime_directory: Path) -> None:
    """Posting to a peer that does not read waits with a bounded backlog, and goes on when it reads."""
    limits = PortLimits(max_view_size=0, high_water=64 * 1024, low_water=16 * 1024)
    async with alpc.listen(NAME, limits=limits) as server:
        with raw_peer(runtime_directory, limits=limits) as peer:
            await peer.greet()
            there = server.connections[0]
            posted = 0

            async def post() -> None:
                nonlocal posted
                for _ in range(100):
                    await there.post(bytes(60_000))
                    posted += 1

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(post)
                await until(lambda: there.statistics().waits)
                assert posted < 20
                # Beside the high-water mark there may be the group of frames that is being sent, of 256 KiB at most.
                assert there.statistics().unsent <= limits.high_water + 256 * 1024 + 60_024
                with anyio.fail_after(WAIT):
                    while len(peer.received) < 100 * 60_024:
                        await peer.hear()
            assert posted == 100
            await there.disconnect()
            assert (await peer.hear_the_end())[-1] is FrameType.CLOSE


@contextmanager
def no_descriptors_left(*, but: int = 0) -> Generator[None]:
    """Make every attempt to open a descriptor fail, after so many more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened: list[int] = []
    with ExitStack() as stack:
        probe = os.open("/dev/null", os.O_RDONLY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe + 40, hard))
        os.close(probe)
        try:
            while True:
                try:
                    opened.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    break
            for _ in range(but):
                os.close(opened.pop())
            for descriptor in opened:
                stack.callback(os.close, descriptor)
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_server_without_descriptors_serves_on(runtime_directory: Path) -> None:
    """While descriptors are short connected clients are served, the pause is counted, and others get in after it."""
    async with echo_server() as server, alpc.connect(NAME) as client, anyio.create_task_group() as tasks:
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.setblocking(False)
            with no_descriptors_left():
                waiting.connect(str(runtime_directory / NAME))
                await until(lambda: server.statistics().accept_pauses)
                assert (await client.request(b"served")).data == b"served"
            await until(lambda: server.statistics().connections == 2)
        async with alpc.connect(NAME) as late:
            assert (await late.request(b"late")).data == b"late"
        tasks.cancel_scope.cancel()
        await client.aclose()
        await server.aclose()


async def test_the_last_descriptor_is_the_connection_itself(runtime_directory: Path) -> None:
    """With none left to pin the peer's process a connection is closed, not admitted without; others get in later."""
    async with alpc.listen(NAME) as server:
        with socket.socket(socket.AF_UNIX) as early:
            early.setblocking(False)
            with no_descriptors_left(but=1):
                early.connect(str(runtime_directory / NAME))
                await until(lambda: server.statistics().accept_pauses)
                assert server.statistics().connections == 0
            await anyio.wait_readable(early)
            assert early.recv(1) == b""
        async with alpc.connect(NAME):
            assert server.statistics().connections == 1


async def test_descriptors_that_nobody_asked_for_are_turned_away(runtime_directory: Path) -> None:
    """A server that takes no descriptors refuses them at the sender, who then cannot make it close them slowly."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS)
        except OSError:
            pytest.skip("SO_PASSRIGHTS takes Linux 6.16")
    inline = PortLimits(max_view_size=0)
    async with alpc.listen(NAME, limits=inline) as server:
        with raw_peer(runtime_directory, limits=inline) as peer, socket.socket() as slow:
            # Whoever closes the last copy of this one may have to wait for a minute.
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
            await peer.greet()
            with pytest.raises(PermissionError):
                socket.send_fds(peer.socket, [b"x"], [slow.fileno()])
            assert server.statistics().connections == 1
            await peer.request(b"served")
            with anyio.fail_after(WAIT):
                (await server.receive()).reply(b"")
                assert len(await peer.hear()) == 1


async def test_descriptors_that_nobody_announced_end_the_connection(runtime_directory: Path) -> None:
    """Where views are on, a descriptor without a frame of its own is a violation, and others are served on."""
    async with echo_server() as server:
        with raw_peer(runtime_directory) as peer, socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
            await peer.greet()
            socket.send_fds(peer.socket, [pack(FrameType.DATAGRAM, 1, 0, b"x")], [slow.fileno()])
            await until(lambda: server.statistics().violations == 1)
        async with alpc.connect(NAME) as client:
            assert (await client.request(b"served")).data == b"served"
        await server.aclose()


async def test_without_descriptors_nothing_opens_and_nothing_leaks(runtime_directory: Path) -> None:
    """Opening a pair or a connection without descriptors is an OSError, and works again afterwards."""
    async with echo_server() as server:
        with no_descriptors_left():
            with pytest.raises(OSError, match="open files"):
                alpc.port_pair()
            with pytest.raises(OSError):
                await alpc.connect(NAME)
        async with alpc.connect(NAME) as client:
            assert (await client.request(b"x")).data == b"x"
        await server.aclose()


# -- other users -------------------------------------------------------------------------------------------------------

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")

# The user is changed by the child itself, after importing: the interpreter may live where only root can read it.
_STRANGER = """
import os, sys
import anyio, anyio._backends._asyncio, msgspec
import alpc_async as alpc
import alpc_async.link._asyncio

uid = int(sys.argv[2])
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)

async def connect():
    try:
        async with alpc.connect(sys.argv[1], server=alpc.ANYONE) as port:
            print((await port.request(b"let in")).data.decode())
    except alpc.AlpcError as error:
        print(type(error).__name__)

async def listen():
    async with alpc.listen(sys.argv[1], security=alpc.ANYONE):
        print("listening", flush=True)
        sys.stdin.read()

anyio.run(connect if sys.argv[3] == "connect" else listen)
"""


def stranger(action: str) -> subprocess.Popen[str]:
    """Start a process of another user."""
    root = os.path.dirname(os.path.dirname(alpc.__file__))
    command = [sys.executable, "-c", _STRANGER, NAME, str(STRANGER), action]
    environment = {**os.environ, "PYTHONPATH": root}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


async def verdict() -> str:
    """Have another user connect, and return what came of it."""
    with stranger("connect") as process:
        try:
            with anyio.fail_after(WAIT):
                output, _ = await anyio.to_thread.run_sync(process.communicate)
        finally:
            process.kill()
    return output.strip()


@as_root
@pytest.mark.parametrize(
    ("security", "expected", "refused"),
    [
        # Whom the kernel refuses, the server does not even hear of.
        pytest.param(None, "AccessDenied", 0, id="default"),
        pytest.param(alpc.require(uid=STRANGER), "let in", 0, id="this user"),
        pytest.param(alpc.require(uid=STRANGER + 1), "AccessDenied", 0, id="a third user"),
        pytest.param(
            alpc.SecurityDescriptor([alpc.deny(f"user:{STRANGER}"), alpc.allow("everyone")]),
            "AccessDenied",
            1,
            id="all but this user",
        ),
        pytest.param(alpc.ANYONE, "let in", 0, id="anyone"),
    ],
)
async def test_another_user(security: alpc.Policy | None, expected: str, refused: int, runtime_directory: Path) -> None:
    """Another user is kept out by the permissions of the file or by the policy, and let in by a policy that says so."""
    runtime_directory.chmod(0o755)  # noqa: ASYNC240  # takes no time
    async with echo_server(security=security) as server:
        assert await verdict() == expected
        assert server.statistics().refused == refused
        assert server.statistics().accepted == int(expected == "let in")
        await server.aclose()


@as_root
async def test_a_server_of_another_user(runtime_directory: Path) -> None:
    """By default a client does not talk to a server of another user; it does when told to."""
    runtime_directory.chmod(0o755)  # noqa: ASYNC240  # takes no time
    os.chown(runtime_directory, STRANGER, STRANGER)
    with stranger("listen") as process:
        try:
            assert process.stdout is not None
            assert await anyio.to_thread.run_sync(process.stdout.readline) == "listening\n"
            with pytest.raises((alpc.ServerIdentityMismatch, alpc.UnsafeDirectory)) as caught:
                await alpc.connect(NAME)
            if isinstance(caught.value, alpc.ServerIdentityMismatch):
                assert f"uid {STRANGER}" in str(caught.value.identity)
        finally:
            process.kill()
