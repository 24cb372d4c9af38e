"""Attacks on a server's resources by another user: whatever it tries, others are served and memory stays bounded.

Belongs here: one program for each attack, run by a real other user. Never here: what one bad frame does
(tests/faults/test_bad_input).
"""

from __future__ import annotations

import os
import re
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

import alpc_async as alpc
from tests.port.strangers import ALICE, as_root, finish, program
from tests.port.support import NAME, echo_server, until
from tests.port.test_senders import RAW

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [as_root, pytest.mark.timeout(180)]

MOST_GROWTH = 96 * 1024 * 1024
"""Bytes by which the server's process may grow: less than the quotas of two connections and their unsent replies."""

LONGEST_ATTACK = 150.0
"""Seconds that an attack may take: ten thousand connections took six where nothing else ran."""

LONGEST_ANSWER = 10.0
"""Seconds in which an honest client is answered all the while; loose, because the machine may be busy otherwise."""

HALF_OPEN = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (12_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = []
while len(held) < 10_000:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    if sock.connect_ex(arguments["path"]):
        sock.close()
        time.sleep(0.0005)
    else:
        held.append(sock)
say(len(held))
"""

DRIP = """
socks = [socket.socket(socket.AF_UNIX) for _ in range(100)]
for sock in socks:
    sock.connect(arguments["path"])
endpoint.hello(b"")
greeting = endpoint.data_to_send(1 << 30)
sent = 0
for position in range(len(greeting) - 1):
    for sock in socks:
        sent += sock.send(greeting[position : position + 1])
say(sent)
"""

DEAF = """
sock = connect()
sock.setblocking(False)
data = bytes(60_000)
sent = 0
end = time.monotonic() + 3
rest = b""
try:
    while time.monotonic() < end:
        if not rest:
            try:
                endpoint.request(Ticket(), data, 0.0, None)
                sent += 1
            except alpc.QuotaExceeded:
                pass
            rest = endpoint.data_to_send(1 << 30)
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            time.sleep(0.001)
except (BrokenPipeError, ConnectionResetError):
    pass
say(sent)
"""

BOMBS = """
import array
sent = refused = 0
for _ in range(20):
    try:
        sock = connect_again()
    except OSError:
        continue
    bait = [socket.socketpair() for _ in range(60)]
    fds = array.array("i", [end.fileno() for pair in bait for end in pair])
    # A socket that holds a socket that holds a socket.
    for (outer, _), (inner, _) in zip(bait, bait[1:]):
        try:
            outer.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [inner.fileno()]))])
        except OSError:
            break
    try:
        for _ in range(50):
            sock.sendmsg([frame(b"bomb")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            sent += 1
    except OSError:
        refused += 1
    for pair in bait:
        for end in pair:
            end.close()
    sock.close()
say([sent, refused])
"""

UNKNOWN_REPLIES = """
from alpc_async.wire import FrameType, pack
flood = b"".join(pack(FrameType.REPLY, number, 0, b"x" * 100) for number in range(1, 2000))
ended = 0
for _ in range(200):
    sock = connect_again()
    try:
        for _ in range(100):
            sock.sendall(flood)
    except (BrokenPipeError, ConnectionResetError):
        ended += 1
    sock.close()
say(ended)
"""

FORGED_TYPES = """
from alpc_async.wire import pack
ended = 0
for kind in [*range(17, 256), 0, 1, 2, 3, 11 << 8, 0xFF << 8 | 7, 1 << 16 | 4, 0xFFFF << 16]:
    sock = connect_again()
    try:
        sock.sendall(pack(kind, 1, 5, b""))
        ended += last_words(sock) == 32
    except (BrokenPipeError, ConnectionResetError):
        ended += 1
    sock.close()
say(ended)
"""

AGAIN = """
def connect_again():
    global endpoint
    endpoint = Endpoint(Role.CLIENT, alpc.PortLimits())
    return connect()
"""


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1)) * 1024


def descriptors() -> int:
    """Return how many descriptors are open."""
    return len(os.listdir("/proc/self/fd"))


def exactly(value: object) -> Callable[[Any], bool]:
    """Return a check of what the attacker said at the end."""
    return lambda said: bool(said == value)


def at_least(value: int) -> Callable[[Any], bool]:
    """Return a check of what the attacker said at the end."""
    return lambda said: bool(said >= value)


def kept_out(said: Any) -> bool:
    """Return whether the kernel kept descriptors out, or the server ended the connections that carried them."""
    return bool(said[0] == 0 or said[1] > 0)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(HALF_OPEN, exactly(10_000), id="10,000 half-open handshakes"),
        pytest.param(DRIP, at_least(10_000), id="greetings byte by byte"),
        pytest.param(DEAF, at_least(50), id="a client that never reads"),
        pytest.param(BOMBS, kept_out, id="handle bombs"),
        pytest.param(UNKNOWN_REPLIES, exactly(200), id="replies that nobody asked for"),
        pytest.param(FORGED_TYPES, exactly(247), id="forged system messages"),
    ],
)
async def test_an_attack_leaves_others_served(
    body: str, expected: Callable[[Any], bool], runtime_directory: Path, request: pytest.FixtureRequest
) -> None:
    """An honest client is answered all the while, a new one gets in, memory and descriptors come back."""
    os.chmod(runtime_directory, 0o711)  # noqa: S103  # the attacker has to get in
    limits = alpc.PortLimits(handshake_timeout=2.0)
    records: list[alpc.AuditRecord] = []
    async with echo_server(security=alpc.ANYONE, limits=limits, audit=records.append) as server:
        async with alpc.connect(NAME) as honest:
            await honest.request(b"warm")
            before, open_before = resident(), descriptors()
            most, slowest, answers = before, 0.0, 0
            attack = RAW + AGAIN + body
            with program(ALICE, attack, path=str(runtime_directory / NAME)) as process:
                said: list[Any] = []

                async def wait() -> None:
                    said.extend(await anyio.to_thread.run_sync(partial(finish, process, wait=LONGEST_ATTACK)))

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(wait)
                    while not said:
                        began = time.monotonic()
                        assert (await honest.request(b"hello", timeout=LONGEST_ANSWER)).data == b"hello"
                        slowest = max(slowest, time.monotonic() - began)
                        answers += 1
                        most = max(most, resident())
                        await anyio.sleep(0.01)
            assert expected(said[0]), said
            async with alpc.connect(NAME, timeout=LONGEST_ANSWER) as newcomer:
                assert (await newcomer.request(b"new")).data == b"new"
            await until(lambda: server.statistics().connections == 1)
            await until(lambda: descriptors() <= open_before + 2)
        grown = most - before
        assert grown < MOST_GROWTH
        assert len(records) < 200
        statistics = server.statistics()
    print(  # noqa: T201  # the numbers are wanted
        f"{request.node.callspec.id}: {answers} answers, the slowest after {slowest * 1000:.0f} ms; grown by "
        f"{grown / 2**20:.1f} MiB; {statistics.refusals} refusals, {len(records)} records; the attacker said {said}"
    )
