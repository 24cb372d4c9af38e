"""Clients that break the protocol at any stage: thrown out with a reason, while the others are served on."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

import alpc_async as alpc
from alpc_async import MessageType, PortLimits, Status
from alpc_async.wire import HEADER_SIZE, MAGIC, VERSION, FrameType, pack, unpack_header
from tests.faults.puppets import client_frames
from tests.port.support import NAME, WAIT, RawPeer, echo_server, raw_peer, until

if TYPE_CHECKING:
    from pathlib import Path

HELLO, REQUEST = client_frames(b"question")
HUGE = (1 << 32) - 1


def announced(kind: int, length: int, message_id: int = 1, value: int = 0) -> bytes:
    """Return a header that announces a payload, without the payload."""
    return length.to_bytes(4, "little") + pack(kind, message_id, value)[4:]


BEFORE_HELLO = {
    "zeros": bytes(64),
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "noise": random.Random(1).randbytes(500),
    "wrong magic": pack(FrameType.HELLO, MAGIC ^ 1, VERSION, b"\x80"),
    "wrong version": pack(FrameType.HELLO, MAGIC, 9 << 16, b"\x80"),
    "request": REQUEST,
    "welcome": pack(FrameType.WELCOME, MAGIC, VERSION, b"\x80"),
    "huge hello": announced(FrameType.HELLO, HUGE, MAGIC, VERSION),
    "not a greeting": pack(FrameType.HELLO, MAGIC, VERSION, b"\xc1\xff garbage"),
    "limits of zero": pack(FrameType.HELLO, MAGIC, VERSION, b"\x81\xa6limits\x81\xb2max_message_length\x00"),
}

AFTER_WELCOME = {
    "zeros": bytes(64),
    "noise": random.Random(2).randbytes(500),
    "second hello": HELLO,
    "refusal": pack(FrameType.REFUSE, 0, 1),
    "unknown type": pack(77, 1, 0),
    "flags": pack(FrameType.DATAGRAM | 1 << 8, 1, 0),
    "handles": pack(FrameType.DATAGRAM | 1 << 16, 1, 0),
    "oversized request": announced(FrameType.REQUEST, 64 * 1024 + 1),
    "huge datagram": announced(FrameType.DATAGRAM, HUGE),
    "cancel with payload": pack(FrameType.CANCEL, 1, 0, b"x"),
    "number from the future": pack(FrameType.DATAGRAM, 2, 0),
    "number zero": pack(FrameType.REQUEST, 0, 0),
    "answer to nothing": pack(FrameType.REPLY, 1, 0),
    "fault for nothing": pack(FrameType.FAULT, 9, 1),
    "cancel of nothing": pack(FrameType.CANCEL, 5, 0),
    "credit for nothing": pack(FrameType.CREDIT, 100, 1),
}


def closing_status(peer: RawPeer) -> Status | None:
    """Return the status of the CLOSE frame that a peer received."""
    position = 0
    while position < len(peer.received):
        length, kind, _, value = unpack_header(peer.received, position)
        if kind == FrameType.CLOSE:
            return Status(value)
        position += HEADER_SIZE + length
    return None


async def expect_violation(peer: RawPeer, server: alpc.ConnectionPort, status: Status = Status.VIOLATION) -> None:
    """Expect the server to name a violation and hang up."""
    types = await peer.hear_the_end()
    assert types[-1] is FrameType.CLOSE
    assert closing_status(peer) is status
    await until(lambda: server.statistics().violations == 1)


@pytest.mark.parametrize("name", BEFORE_HELLO)
async def test_bad_greetings(name: str, runtime_directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is no greeting ends the connection before anybody hears of it, and is logged."""
    async with echo_server() as server, alpc.connect(NAME) as bystander:
        with caplog.at_level(logging.WARNING, "alpc_async"), raw_peer(runtime_directory) as peer:
            await peer.say(BEFORE_HELLO[name])
            await expect_violation(peer, server, Status.WRONG_VERSION if name == "wrong version" else Status.VIOLATION)
        assert any("violation" in record.getMessage() for record in caplog.records)
        assert len(server.connections) == 1
        assert (await bystander.request(b"served")).data == b"served"
        await server.aclose()


@pytest.mark.parametrize("name", AFTER_WELCOME)
async def test_bad_frames(name: str, runtime_directory: Path) -> None:
    """A bad frame ends the connection after what came before it was received, and PORT_CLOSED is reported."""
    async with alpc.listen(NAME) as server, alpc.connect(NAME) as bystander:
        with raw_peer(runtime_directory) as peer:
            await peer.greet()
            await peer.say(AFTER_WELCOME[name])
            await expect_violation(peer, server)
        notice = await server.receive()
        assert (notice.type, b"protocol violation" in notice.data) == (MessageType.PORT_CLOSED, True)
        await bystander.post(b"served")
        assert (await server.receive()).data == b"served"


async def test_good_frames_before_a_bad_one_count(runtime_directory: Path) -> None:
    """Messages in front of a violation are received, also when all came in one send."""
    async with alpc.listen(NAME) as server:
        with raw_peer(runtime_directory) as peer:
            await peer.greet()
            await peer.say(REQUEST + pack(FrameType.DATAGRAM, 2, 0, b"told") + bytes(100))
            await peer.hear_the_end()
        received = [await server.receive() for _ in range(4)]
        assert [message.type for message in received] == [
            MessageType.REQUEST,
            MessageType.DATAGRAM,
            MessageType.CANCELED,
            MessageType.PORT_CLOSED,
        ]
        received[0].reply(b"nobody is left")


@pytest.mark.parametrize("length", [0, 1, 23, 24, len(HELLO) - 1])
async def test_a_truncated_greeting(length: int, runtime_directory: Path) -> None:
    """A connection that ends in the middle of its greeting is an ordinary end and no violation; nobody hears of it."""
    async with alpc.listen(NAME) as server:
        with raw_peer(runtime_directory) as peer:
            await peer.say(HELLO[:length])
            await until(lambda: server.statistics().bytes_received == length)
        await until(lambda: server.statistics().connections == 0)
        assert (server.statistics().violations, server.statistics().queued) == (0, 0)


@pytest.mark.parametrize("length", [1, 23, 24, len(REQUEST) - 1])
async def test_a_truncated_request(length: int, runtime_directory: Path) -> None:
    """A connection that ends in the middle of a frame is an ordinary end, and no half message is delivered."""
    async with alpc.listen(NAME) as server:
        with raw_peer(runtime_directory) as peer:
            await peer.greet()
            await peer.say(REQUEST[:length])
            await until(lambda: server.statistics().bytes_received == len(HELLO) + length)
        assert (await server.receive()).type is MessageType.PORT_CLOSED
        assert server.statistics().violations == 0


async def test_a_client_that_does_not_wait_for_the_welcome(runtime_directory: Path) -> None:
    """Messages in the same send as the greeting are a violation: nobody has let the client in yet."""
    async with alpc.listen(NAME) as server:
        with raw_peer(runtime_directory) as peer:
            await peer.say(HELLO + REQUEST)
            await expect_violation(peer, server)
        assert server.statistics().queued == 0


async def test_a_quota_is_not_a_request(runtime_directory: Path) -> None:
    """A client that sends more than the agreed number of messages is thrown out."""
    limits = PortLimits(max_outstanding_messages=4)
    async with alpc.listen(NAME, limits=limits) as server:
        with raw_peer(runtime_directory) as peer:
            await peer.greet()
            await peer.say(b"".join(pack(FrameType.DATAGRAM, number, 0) for number in range(1, 6)))
            await expect_violation(peer, server)
        kinds = [(await server.receive()).type for _ in range(5)]
        assert kinds == [MessageType.DATAGRAM] * 4 + [MessageType.PORT_CLOSED]


async def test_notices_do_not_pile_up(runtime_directory: Path) -> None:
    """Answered requests that are withdrawn do not fill the memory of a server that does not take notices."""
    limits = PortLimits(max_outstanding_messages=4)
    async with alpc.listen(NAME, limits=limits) as server:
        with raw_peer(runtime_directory) as peer:
            await peer.greet()
            there = server.connections[0]
            for number in range(1, 21):
                await peer.say(pack(FrameType.REQUEST, number, 0))
                (await server.receive()).reply()
            # Withdrawing what was answered is reported as a lost reply, once for each of these frames.
            await peer.say(b"".join(pack(FrameType.CANCEL, number, 0) for number in range(1, 21)))
            await until(lambda: there.statistics().messages_received >= 40)
            assert (there.statistics().queued, there.statistics().dropped_notices) == (4, 16)
            # Nobody can withdraw more than was sent.
            await peer.say(pack(FrameType.CANCEL, 1, 0) * 2)
            await peer.hear_the_end()
            await until(lambda: server.statistics().violations == 1)


async def test_a_client_that_says_nothing(runtime_directory: Path) -> None:
    """Who connects and stays silent, or dawdles through its greeting, is turned out after handshake_timeout."""
    limits = PortLimits(handshake_timeout=0.1)
    async with echo_server(limits=limits) as server, alpc.connect(NAME) as bystander:
        with raw_peer(runtime_directory) as silent, raw_peer(runtime_directory) as slow:
            async with anyio.create_task_group() as tasks:

                async def drip() -> None:
                    for index in range(len(HELLO) - 1):
                        try:
                            await slow.say(HELLO[index : index + 1])
                        except OSError:
                            return
                        await anyio.sleep(0.005)

                tasks.start_soon(drip)
                for peer in (silent, slow):
                    assert await peer.hear_the_end() == [FrameType.CLOSE]
                    assert closing_status(peer) is Status.HANDSHAKE_TIMEOUT
                tasks.cancel_scope.cancel()
        await until(lambda: server.statistics().connections == 1)
        assert server.statistics().violations == 2
        # The time limit is for the handshake only.
        assert (await bystander.request(b"served")).data == b"served"
        await server.aclose()


async def test_a_request_that_drips_in(runtime_directory: Path) -> None:
    """Frames that arrive byte by byte are received like any others, however many there are in one connection."""
    async with echo_server() as server:
        with raw_peer(runtime_directory) as peer:
            for frame in (HELLO, REQUEST):
                for index in range(len(frame)):
                    await peer.say(frame[index : index + 1])
                    await anyio.lowlevel.checkpoint()
                if frame is HELLO:
                    await peer.hear()
            with anyio.fail_after(WAIT):
                while not peer.received.endswith(b"question"):
                    await peer.hear()
            assert (server.statistics().messages_received, server.statistics().violations) == (2, 0)
        await server.aclose()


async def test_silent_clients_count_against_the_limit(runtime_directory: Path) -> None:
    """Connections that have not greeted take a place each; when they are turned out there is room for others."""
    limits = PortLimits(max_connections=3, handshake_timeout=0.2)
    async with echo_server(limits=limits) as server:
        with raw_peer(runtime_directory), raw_peer(runtime_directory), raw_peer(runtime_directory):
            await until(lambda: server.statistics().connections == 3)
            with pytest.raises(alpc.ConnectionRefused) as caught:
                await alpc.connect(NAME)
            assert caught.value.status == Status.TOO_MANY_CONNECTIONS
            await until(lambda: server.statistics().connections == 0)
            async with alpc.connect(NAME) as client:
                assert (await client.request(b"x")).data == b"x"
        await server.aclose()
