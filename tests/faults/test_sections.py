"""Sections, ranges and leases of a process that breaks the rules about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import alpc_async as alpc
from alpc_async import MessageType
from alpc_async.testing import LeakCounter
from tests.faults.puppets_transfers import MIB, RAW, SMALL, next_of, partner
from tests.port.support import NAME, echo_server, until

if TYPE_CHECKING:
    from pathlib import Path


BAD_SECTIONS = """
def unsealed(): return memfd(4096, 0)
def shrinkable(): return memfd(4096, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL | FUTURE_WRITE)
def growable(): return memfd(4096, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL | FUTURE_WRITE)
def writable(): return memfd(4096, SEALS)
def sparse(): return memfd(1 << 20, SEALS | FUTURE_WRITE, fill=False)
def oversized(): return memfd((1 << 20) + 4096, SEALS | FUTURE_WRITE)
def empty(): return os.memfd_create("alpc", os.MFD_ALLOW_SEALING), None
def a_pipe(): return os.pipe()[0], None
def a_file(): return os.open(sys.executable, os.O_RDONLY), None
def a_socket(): return socket.socket().detach(), None
verdicts = {}
for make in (unsealed, shrinkable, growable, writable, sparse, oversized, empty, a_pipe, a_file, a_socket):
    raw = Raw()
    raw.offer(make()[0])
    verdicts[make.__name__] = raw.verdict()
say(verdicts)
"""


async def test_sections_that_are_not_safe_end_the_connection(runtime_directory: Path) -> None:
    """Whatever could shrink, be written, be empty or too large is refused before it is mapped; others are served."""
    async with echo_server(limits=SMALL) as server, alpc.connect(NAME) as bystander:
        before = LeakCounter()
        with partner(RAW + BAD_SECTIONS) as stranger:
            verdicts = await stranger.hear()
        expected = {
            "unsealed": "sealed against shrinking",
            "shrinkable": "sealed against shrinking",
            "growable": "sealed against shrinking",
            "writable": "sealed against writing",
            "sparse": "no holes",
            "oversized": "not larger than agreed",
            "empty": "sealed against shrinking",
            "a_pipe": "anonymous shared memory",
            "a_file": "anonymous shared memory",
            "a_socket": "anonymous shared memory",
        }
        assert {name: expected[name] in text for name, text in verdicts.items()} == dict.fromkeys(expected, True), (
            verdicts
        )
        await until(lambda: server.statistics().connections == 1)
        assert server.statistics().violations == len(expected)
        assert (await bystander.request(b"served")).data == b"served"
        await until(lambda: not before.left(), "the descriptors to be closed")
        await server.aclose()


SHRINKER = """
fd, memory = memfd(1 << 20, SEALS | FUTURE_WRITE)
memory[:] = b"a" * (1 << 20)
raw = Raw()
raw.offer(fd)
raw.lend(1, 0, 1 << 20)
hear()
def attempt(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "worked"
libc = ctypes.CDLL(None, use_errno=True)
def fallocate(mode):
    if libc.fallocate(fd, mode, ctypes.c_long(0), ctypes.c_long(4096)):
        raise OSError(ctypes.get_errno(), "")
again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
say([
    attempt(lambda: os.ftruncate(fd, 0)),
    attempt(lambda: os.ftruncate(again, 0)),
    attempt(lambda: os.truncate(f"/proc/self/fd/{fd}", 4096)),
    attempt(lambda: fallocate(3)),
    attempt(lambda: os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_TRUNC)),
    attempt(lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)),
])
hear()
"""


async def test_what_was_lent_cannot_be_taken_from_under_its_reader(runtime_directory: Path) -> None:
    """Truncating, punching holes and all other ways of removing pages fail, so reading can never be a SIGBUS."""
    async with alpc.listen(NAME) as server:
        with partner(RAW + SHRINKER) as owner:
            message = await next_of(server, MessageType.DATAGRAM)
            assert message.view is not None
            owner.tell()
            assert await owner.hear() == ["EPERM"] * 6
            owner.kill()
            content = bytes(message.view.data)
            assert content == b"a" * MIB
        message.release()


RANGES = """
def lending(offset, length, *, lease=1, section=1, before=0):
    raw = Raw()
    raw.offer(memfd(8192, SEALS | FUTURE_WRITE)[0])
    for number in range(before):
        raw.lend(number + 1, 0, 10)
    raw.lend(lease, offset, length, section=section)
    return raw.verdict()
def saying(frame):
    raw = Raw()
    raw.say(frame)
    return raw.verdict()
say({
    "past the end": lending(8192, 1),
    "across the end": lending(8191, 2),
    "far away": lending(2**63, 1),
    "wrapping around": lending(2**64 - 1, 2),
    "no such section": lending(0, 1, section=2),
    "a lease again": lending(0, 1, lease=1, before=1),
    "a lease below": lending(0, 1, lease=1, before=2),
    "a release of nothing": saying(pack(FrameType.RELEASE, 1, 0)),
    "a section gone twice": saying(pack(FrameType.SECTION_GONE, 1, 0)),
    "a receipt of nothing": saying(pack(FrameType.TAKEN, 1, 0)),
})
"""


async def test_ranges_and_leases_that_do_not_exist_end_the_connection(runtime_directory: Path) -> None:
    """Offsets outside of the section, leases used again and releases of nothing are violations, and leave nothing."""
    async with echo_server() as server:
        before = LeakCounter()
        with partner(RAW + RANGES) as stranger:
            verdicts = await stranger.hear()
        assert {name: "violation" in text for name, text in verdicts.items()} == dict.fromkeys(verdicts, True), verdicts
        assert "inside its section" in verdicts["wrapping around"]
        assert "once" in verdicts["a release of nothing"]
        await until(lambda: not before.left(), "the sections to be unmapped")
        await server.aclose()


RELEASER = (
    RAW
    + """
raw = Raw()
while not raw.endpoint._held:
    raw.hear()
raw.say(pack(FrameType.RELEASE, 1, 0))
say("released")
hear()
raw.say(pack(FrameType.RELEASE, 1, 0))
say(raw.verdict())
"""
)


async def test_a_lease_comes_back_once(runtime_directory: Path) -> None:
    """The owner has the range again after the first release, and the second one ends the connection."""
    async with alpc.listen(NAME) as server:
        with partner(RELEASER) as holder:
            await until(lambda: server.connections)
            there = server.connections[0]
            await there.post(bytes(100_000))
            assert await holder.hear() == "released"
            await until(lambda: not there.statistics().lent)
            holder.tell()
            assert "only held leases are released, once" in await holder.hear()


OVERLAPPING = (
    RAW
    + """
fd, memory = memfd(8192, SEALS | FUTURE_WRITE)
memory[:] = bytes(range(256)) * 32
raw = Raw()
raw.offer(fd)
raw.lend(1, 0, 8192)
raw.lend(2, 100, 8000)
raw.lend(3, 0, 8192)
released = []
while len(released) < 3:
    before = len(raw.endpoint._leases)
    data = raw.sock.recv(1 << 18)
    for position in range(0, len(data), 24):
        if data[position + 4] == FrameType.RELEASE:
            released.append(data[position + 8])
say(sorted(released))
"""
)


async def test_ranges_may_overlap(runtime_directory: Path) -> None:
    """Several leases of the same bytes are read and given back each for itself."""
    async with alpc.listen(NAME) as server:
        with partner(OVERLAPPING) as owner:
            messages = [await next_of(server, MessageType.DATAGRAM) for _ in range(3)]
            views = [message.view for message in messages]
            whole = bytes(range(256)) * 32
            assert views[0] is not None
            assert views[1] is not None
            assert bytes(views[0].data) == whole
            messages[0].release()
            assert bytes(views[1].data) == whole[100:8100]
            with pytest.raises(alpc.ViewReleased):
                _ = views[0].data
            for message in messages:
                message.release()
            assert await owner.hear() == [1, 2, 3]
