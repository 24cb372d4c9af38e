"""Links over sockets: what they add to the contract of every link, and how they end."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from alpc_async.link import SocketLink, current_loop, socket_pair
from alpc_async.testing import Recorder

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from typing_extensions import Buffer


HIGH = 100_000
LOW = 10_000


def link_over(sock: socket.socket) -> SocketLink:
    """Make a link with the usual water marks."""
    return SocketLink(sock, current_loop(), high_water=HIGH, low_water=LOW)


class SpySocket(socket.socket):
    """A socket that counts calls and fails them as it is told."""

    sends = 0
    receives = 0
    sending_fails: OSError | None = None
    receiving_fails: OSError | None = None

    def send(self, *args: Any) -> int:
        """Send or fail."""
        self.sends += 1
        if self.sending_fails is not None:
            raise self.sending_fails
        return super().send(*args)

    def _note_receive(self) -> None:
        self.receives += 1
        if self.receiving_fails is not None:
            raise self.receiving_fails

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Receive or fail."""
        self._note_receive()
        return super().recv(bufsize, flags)

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        """Receive or fail."""
        self._note_receive()
        return super().recv_into(buffer, nbytes, flags)

    def recvmsg(self, *args: Any) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        """Receive or fail."""
        self._note_receive()
        return super().recvmsg(*args)

    def recvmsg_into(self, *args: Any) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
        """Receive or fail."""
        self._note_receive()
        return super().recvmsg_into(*args)


class Ends:
    """A link under test over a socket that spies, and the plain socket at its other end."""

    def __init__(self) -> None:
        left, self.peer = socket_pair()
        self.spy = SpySocket(fileno=left.detach())
        self.link = link_over(self.spy)
        self.owner = Recorder()
        self.link.start(self.owner)

    def read(self, size: int) -> bytes:
        """Take what arrived at the other end, as far as it is there."""
        try:
            return self.peer.recv(size)
        except BlockingIOError:
            return b""


@pytest.fixture
async def ends() -> AsyncGenerator[Ends]:
    """A started link and the socket at its other end, closed after the test."""
    made = Ends()
    yield made
    made.link.close()
    made.peer.close()


async def settle() -> None:
    """Let every callback that is due run."""
    for _ in range(4):
        await current_loop().checkpoint()


async def test_one_receive_takes_everything_that_waits(ends: Ends) -> None:
    """Many small messages arrive with one receive call, and no call is made that brings nothing."""
    for number in range(50):
        ends.peer.send(b"%02d" % number)
    await ends.owner.until(lambda: len(ends.owner.received) == 100, "everything arrived")
    await settle()
    assert ends.owner.calls == ["data"]
    assert ends.spy.receives == 1
    statistics = ends.link.statistics()
    assert (statistics.receives, statistics.bytes_received) == (1, 100)


@pytest.mark.parametrize("handles", [False, True], ids=["bytes alone", "handles too"])
async def test_little_and_much_in_turn(ends: Ends, handles: bool) -> None:
    """Everything arrives in order, whichever way it is received, and a whole buffer costs few receive calls."""
    if handles:
        ends.link.allow_handles()
    sent = b""

    def all_arrived() -> bool:
        return len(ends.owner.received) == len(sent)

    for size in (10, 100_000, 10, 16 * 1024, 16 * 1024, 16 * 1024 - 1, 10, 100_000, 100_000, 10):
        data = os.urandom(size)
        sent += data
        assert ends.peer.send(data) == size
        await ends.owner.until(all_arrived, "the piece arrived")
    assert ends.owner.received == sent
    # One for each piece, and one more where much follows little.
    assert ends.spy.receives <= 10 + 4


async def test_readiness_is_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages come and go without the descriptor being registered again."""
    loop = current_loop()
    registrations: list[int] = []
    add_reader = loop.add_reader

    class Watching:
        """The loop, with a look at its registrations."""

        def __getattr__(self, name: str) -> Any:
            return getattr(loop, name)

        def add_reader(self, fd: int, callback: Any, /) -> None:
            registrations.append(fd)
            add_reader(fd, callback)

        def add_writer(self, fd: int, callback: Any, /) -> None:
            raise AssertionError("there was always room")

    sock, peer = socket_pair()
    watching: Any = Watching()
    link = SocketLink(sock, watching, high_water=HIGH, low_water=LOW)
    owner = Recorder()
    link.start(owner)
    for number in range(1, 11):
        peer.send(b"x")
        await owner.until(lambda expected=number: len(owner.received) == expected, "the byte arrived")  # type: ignore[misc]  # bound now
        owner.queue(b"answer")
        link.request_flush()
        await settle()
    assert registrations == [sock.fileno()]
    link.close()
    peer.close()


async def test_sixteen_frames_leave_in_one_send(ends: Ends) -> None:
    """Everything that is queued in a turn leaves in one call at its end, also when several asked for a flush."""
    frames = b""
    for number in range(16):
        frames += ends.owner.queue(b"%d" % number)
        ends.link.request_flush()
    assert ends.spy.sends == 0
    await settle()
    assert ends.spy.sends == 1
    assert ends.read(4096) == frames


async def test_partial_writes(ends: Ends) -> None:
    """What a small socket buffer does not take follows by itself, in order, and the owner hears when all has left."""
    ends.spy.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    sent = b"".join(ends.owner.queue(os.urandom(30_000)) for _ in range(20))
    ends.link.request_flush()
    await settle()
    frames, taken = ends.link.unsent_frames()
    assert sent.startswith(frames)
    assert 0 < taken < len(frames)
    assert ends.link.unsent() == len(sent) - ends.link.statistics().bytes_sent
    received = b""
    while len(received) < len(sent):
        received += ends.read(65536)
        await settle()
    assert received == sent
    await ends.owner.until(lambda: "flushed" in ends.owner.calls, "all had left")
    assert ends.owner.calls.count("flushed") == 1
    sends = ends.spy.sends
    ends.link.flush()
    assert ends.spy.sends == sends, "nothing is sent when there is nothing"


async def test_a_frame_past_the_owner(ends: Ends) -> None:
    """It leaves at once in one call, ends the promptness, and is counted."""
    ends.link.prompt = True
    assert ends.link.send_frame(b"frame")
    assert ends.read(4096) == b"frame"
    assert not ends.link.prompt
    assert ends.spy.sends == ends.link.statistics().sends == 1
    assert ends.link.statistics().bytes_sent == 5
    assert ends.link.unsent() == 0


async def test_a_frame_past_the_owner_that_does_not_fit(ends: Ends) -> None:
    """The rest follows by itself, before what the owner queues meanwhile; until then no other frame is taken."""
    ends.spy.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    frame = os.urandom(50_000)
    assert ends.link.send_frame(frame)
    assert 0 < ends.link.unsent() < len(frame)
    assert not ends.link.send_frame(b"not now")
    following = ends.owner.queue(b"the end")
    ends.link.request_flush()
    received = b""
    while len(received) < len(frame + following):
        received += ends.read(65536)
        await settle()
    assert received == frame + following
    assert ends.link.send_frame(b"again")


async def test_a_frame_past_the_owner_that_fails(ends: Ends) -> None:
    """It ends the link as any failed write does, and a link that ends or is closed takes no frame."""
    ends.peer.send(b"last words")
    ends.spy.sending_fails = OSError(errno.ENOBUFS, "no room")
    assert ends.link.send_frame(b"lost")
    assert not ends.link.send_frame(b"refused")
    assert ends.owner.calls == [], "the owner may be in the middle of something"
    await ends.owner.until(lambda: ends.owner.ended, "the link ended")
    assert ends.owner.calls == ["data", "ended"]
    assert not ends.link.send_frame(b"refused")


async def test_while_the_kernel_takes_nothing_no_send_is_tried(ends: Ends) -> None:
    """A blocked link waits for writability; flushing it costs no system call."""
    while not ends.link.clogged():
        ends.owner.queue(bytes(10_000))
        ends.link.flush()
    sends = ends.spy.sends
    for _ in range(10):
        ends.link.flush()
        ends.link.request_flush()
    await settle()
    assert ends.spy.sends == sends


async def test_water_marks(ends: Ends) -> None:
    """The link is clogged above the high mark and free again at the low one, and says so once."""
    # A small buffer of the kernel makes the unsent bytes fall in small steps.
    ends.spy.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    while ends.link.unsent() <= HIGH:
        assert not ends.link.clogged()
        ends.owner.queue(bytes(5000))
        ends.link.flush()
    assert ends.link.clogged()
    between = 0
    while ends.link.unsent() > LOW:
        between += ends.link.unsent() < HIGH
        assert ends.link.clogged()
        assert "drained" not in ends.owner.calls
        ends.read(4096)
        await settle()
    assert between
    await ends.owner.until(lambda: "drained" in ends.owner.calls, "the link drained")
    assert not ends.link.clogged()
    while ends.read(65536) or ends.link.unsent():
        await settle()
    assert ends.owner.calls.count("drained") == 1


async def test_a_flush_may_be_enough(ends: Ends) -> None:
    """A link with much to send is not clogged when the kernel takes it."""
    ends.owner.queue(bytes(HIGH))
    assert not ends.link.clogged()
    assert ends.link.unsent() == 0


async def test_a_failed_write_does_not_lose_what_came_before(ends: Ends) -> None:
    """When sending fails, what the other side had sent is handed over, and then the link ends once."""
    ends.peer.send(b"last words")
    ends.spy.sending_fails = OSError(errno.ENOBUFS, "no room")
    ends.owner.queue(b"lost")
    ends.link.flush()
    ends.owner.queue(b"lost too")
    ends.link.flush()
    assert ends.spy.sends == 1
    assert ends.owner.calls == [], "the owner may be in the middle of something"
    await ends.owner.until(lambda: ends.owner.ended, "the link ended")
    await settle()
    assert ends.owner.received == b"last words"
    assert ends.owner.calls == ["data", "ended"]
    assert ends.owner.error is ends.spy.sending_fails
    assert ends.link.fileno() == -1


async def test_a_failed_write_while_waiting_for_room(ends: Ends) -> None:
    """A link that waits for writability ends when the next write fails."""
    while not ends.link.clogged():
        ends.owner.queue(bytes(50_000))
    ends.spy.sending_fails = OSError(errno.ENOBUFS, "no room")
    while ends.read(65536):
        pass
    await ends.owner.until(lambda: ends.owner.ended, "the link ended")
    assert ends.owner.error is ends.spy.sending_fails
    assert "drained" not in ends.owner.calls


async def test_the_other_side_closes(ends: Ends) -> None:
    """The end of the stream ends the link without an error, after the data before it."""
    ends.peer.send(b"bye")
    ends.peer.close()
    await ends.owner.until(lambda: ends.owner.ended, "the link ended")
    assert ends.owner.calls == ["data", "ended"]
    assert ends.owner.error is None


async def test_the_other_side_closes_with_unread_input(ends: Ends) -> None:
    """A reset because of input that nobody read is an ordinary end."""
    ends.owner.queue(b"unread")
    ends.link.flush()
    ends.peer.close()
    await ends.owner.until(lambda: ends.owner.ended, "the link ended")
    assert ends.owner.calls == ["ended"]
    assert ends.owner.error is None


async def test_the_other_side_is_gone_when_we_send(ends: Ends) -> None:
    """Sending to nobody ends the link once, after what had arrived."""
    ends.peer.send(b"bye")
    ends.peer.close()
    ends.owner.queue(b"to nobody")
    ends.link.flush()
    await ends.owner.until(lambda: ends.owner.ended, "the link ended")
    await settle()
    assert ends.owner.calls == ["data", "ended"]


async def test_a_failed_read_ends_the_link(ends: Ends) -> None:
    """An error of the socket ends the link with that error."""
    ends.spy.receiving_fails = OSError(errno.EIO, "broken")
    ends.peer.send(b"x")
    await ends.owner.until(lambda: ends.owner.ended, "the link ended")
    assert ends.owner.error is ends.spy.receiving_fails


@pytest.mark.parametrize("error", [BlockingIOError(), InterruptedError()])
async def test_readiness_without_data_is_harmless(ends: Ends, error: OSError) -> None:
    """A receive call that brings nothing after all changes nothing."""
    ends.spy.receiving_fails = error
    ends.peer.send(b"x")
    for _ in range(20):
        await settle()
        if ends.spy.receives:
            break
    assert ends.spy.receives
    ends.spy.receiving_fails = None
    await ends.owner.until(lambda: ends.owner.received == b"x", "the byte arrived")
    assert ends.link.statistics().receives == 1


async def test_the_rest_of_a_dead_peer_is_bounded(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else who holds the socket of a dead peer cannot keep the link alive by sending on."""
    monkeypatch.setattr("alpc_async.link._stream.FINAL_RECEIVES", 3)
    received: list[bytes] = []

    class Feeding(Recorder):
        """Makes more arrive whenever something arrives."""

        def data_received(self, data: bytes | memoryview, /) -> None:
            received.append(bytes(data))
            ends.peer.send(b"more")

    owner = Feeding()
    ends.link.start(owner)
    ends.peer.send(b"first")
    ends.link.receive_rest()
    assert received == [b"first", b"more", b"more"]
    assert owner.calls == ["ended"]
    assert owner.error is None


async def test_closing_is_repeatable_and_silent(ends: Ends) -> None:
    """After closing nothing is reported, nothing is sent and nothing fails."""
    ends.owner.queue(b"never sent")
    ends.link.request_flush()
    ends.link.close()
    ends.link.close()
    assert ends.link.fileno() == -1
    ends.link.flush()
    ends.link.request_flush()
    ends.link.receive_rest()
    await settle()
    assert ends.owner.calls == []
    assert ends.spy.sends == 0
    assert not ends.link.clogged()
    assert ends.link.unsent() == 0


async def test_a_callback_after_the_close_is_harmless(ends: Ends) -> None:
    """An owner may close the link out of any report, also while the link works on it."""

    class Closing(Recorder):
        """Closes its link as soon as everything has left."""

        def link_flushed(self) -> None:
            super().link_flushed()
            ends.link.close()

    owner = Closing()
    ends.link.start(owner)
    while not ends.link.clogged():
        owner.queue(bytes(50_000))
    while "flushed" not in owner.calls:
        ends.read(65536)
        await settle()
    assert ends.link.fileno() == -1
    assert "drained" not in owner.calls or owner.calls.index("drained") < owner.calls.index("flushed")


def test_pairs_are_private_and_never_block() -> None:
    """Both sockets of a pair are connected, non-blocking and not inherited."""
    left, right = socket_pair()
    with closing(left), closing(right):
        for sock in (left, right):
            assert not sock.getblocking()
            assert not sock.get_inheritable()
        left.send(b"x")
        assert right.recv(1) == b"x"
