"""Memory of another process: outside of what it declared, after the request, while it dies, and of another user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

import alpc_async as alpc
from alpc_async import MessageType, Transfer
from tests.faults.puppets_transfers import ALICE, BOB, LIMITS, MIB, RAW, as_root, partner
from tests.faults.test_handles import request_of
from tests.port.support import NAME, WAIT, until

if TYPE_CHECKING:
    from pathlib import Path

DECLARER = """
async def main():
    readable = bytearray(b"r" * 300_000)
    writable = bytearray(b"w" * 300_000)
    async with alpc.connect(NAME, limits=LIMITS) as port:
        declared = [alpc.DirectBuffer(readable), alpc.DirectBuffer(writable, writable=True)]
        reply = await port.request(b"both", direct=declared)
        say([reply.data.decode(), readable.decode() == "r" * 300_000, bytes(writable[:6]).decode(), writable[-1]])
        pending = port.start_request(b"given up", direct=declared)
        await hear_later()
        pending.cancel()
        await hear_later()
run(main)
"""


async def test_only_what_an_open_request_declares_is_reached(runtime_directory: Path) -> None:
    """Beside the declared bytes, in read-only ones, after the reply and after a cancel nothing is read or written."""
    async with alpc.listen(NAME, limits=LIMITS) as server:
        with partner(DECLARER) as client:
            message = await request_of(server)
            direct = message.direct
            assert direct is not None
            assert (message.transfer, direct.length, direct.writable) == (Transfer.DIRECT, 600_000, False)
            target = bytearray(600_000)
            await direct.read_into(0, target)
            assert target == b"r" * 300_000 + b"w" * 300_000
            for offset, size in ((600_000, 1), (599_999, 2), (-1, 1), (2**63, 1)):
                with pytest.raises(alpc.DirectRange):
                    await direct.read_into(offset, bytearray(size))
                with pytest.raises(alpc.DirectRange):
                    await direct.write(offset, bytes(size))
            for offset, size in ((0, 1), (299_999, 2)):
                with pytest.raises(alpc.DirectRange, match="writable"):
                    await direct.write(offset, bytes(size))
            await direct.write(300_000, b"server")
            await direct.write(300_006, b"s" * 299_994)
            assert await direct.read(300_000, 8) == b"serverss"
            message.reply(b"done")
            assert await client.hear() == ["done", True, "server", ord("s")]
            for call in (direct.read_into(0, target), direct.write(300_000, b"late"), direct.read(0, 1)):
                with pytest.raises(alpc.DirectOver):
                    await call
            second = await request_of(server)
            assert second.direct is not None
            client.tell()
            with anyio.fail_after(WAIT):
                assert (await server.receive()).type is MessageType.CANCELED
            with pytest.raises(alpc.DirectOver):
                await second.direct.read(0, 1)
            with pytest.raises(alpc.DirectOver):
                await second.direct.write(300_000, b"late")
            client.tell()


BIG = """
size = arguments["size"]
memory = bytearray(b"m") * size
async def main():
    async with alpc.connect(NAME, limits=LIMITS) as port:
        say("declared")
        await port.request(b"copy", direct=alpc.DirectBuffer(memory, writable=True), timeout=None)
def exec_on_demand():
    sys.stdin.readline()
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", "print('1', flush=True); input()"])
threading.Thread(target=exec_on_demand, daemon=True).start()
run(main)
"""


@pytest.mark.parametrize("end", ["killed", "another program"])
@pytest.mark.parametrize("writing", [False, True], ids=["reading", "writing"])
async def test_a_process_ends_during_a_copy(end: str, writing: bool, runtime_directory: Path) -> None:
    """A copy from or to a process that is killed, or runs another program by then, fails and its bytes do not count."""
    size = 256 * MIB
    async with alpc.listen(NAME, limits=LIMITS) as server:
        with partner(BIG, size=size) as client:
            assert await client.hear() == "declared"
            message = await request_of(server)
            direct = message.direct
            assert direct is not None
            ours = bytearray(size)
            errors: list[alpc.AlpcError] = []
            rounds = 0

            async def copy() -> None:
                nonlocal rounds
                while not errors:
                    try:
                        await (direct.write(0, ours) if writing else direct.read_into(0, ours))
                        rounds += 1
                    except alpc.AlpcError as error:
                        errors.append(error)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(copy)
                # Whatever the kernel does first, one copy is under way from here on.
                await until(lambda: rounds)
                if end == "killed":
                    client.kill()
                else:
                    client.tell()
                    assert await client.hear() == 1
                await until(lambda: errors)
            assert isinstance(errors[0], alpc.DirectFailed | alpc.DirectOver)
            await until(lambda: not server.connections)
            with pytest.raises(alpc.DirectOver):
                await direct.read(0, 1)


SERVER = """
async def serve(port):
    while True:
        message = await port.receive()
        if message.type is not MessageType.REQUEST:
            continue
        direct = message.direct
        data = bytearray(direct.length)
        await direct.read_into(0, data)
        refused = []
        try:
            await direct.read(direct.length - 1, 2)
        except alpc.DirectRange:
            refused.append("range")
        if direct.writable:
            await direct.write(0, bytes(reversed(data)))
        else:
            try:
                await direct.write(0, b"x")
            except alpc.DirectRange:
                refused.append("read-only")
        message.reply(json.dumps([message.transfer.name, sum(data), refused]).encode())
        for late in (direct.read(0, 1),):
            try:
                await late
            except alpc.DirectOver:
                pass
            else:
                say("read after the reply")

async def main():
    async with alpc.listen(NAME, limits=LIMITS, security=alpc.ANYONE) as port:
        # Only root's directory of names is good for clients of another user; from here on this is no root any more.
        become(arguments["later"])
        say("listening")
        await serve(port)
run(main)
"""

CLIENT = """
async def main():
    async with alpc.connect(NAME, limits=LIMITS, server=alpc.ANYONE) as port:
        for writable in (False, True):
            # Several pieces of the detour, and a beginning that is not even.
            memory = bytearray(bytes(range(251)) * 80_000)
            before = bytes(memory)
            reply = await port.request(direct=alpc.DirectBuffer(memory, writable=writable))
            transfer, total, refused = json.loads(reply.data)
            expected = bytes(reversed(before)) if writable else before
            say([transfer, total == sum(before), refused, bytes(memory) == expected])
run(main)
"""


@as_root
@pytest.mark.parametrize(
    ("uid", "transfer"), [pytest.param(ALICE, "DIRECT", id="same user"), pytest.param(BOB, "VIEW", id="other user")]
)
async def test_the_same_call_works_for_another_user(uid: int, transfer: str, runtime_directory: Path) -> None:
    """Where the kernel lets no one reach another user's memory the bytes take the detour, both ways, and say so."""
    runtime_directory.chmod(0o755)  # noqa: ASYNC240  # takes no time
    with partner(SERVER, later=ALICE) as server:
        assert await server.hear() == "listening"
        with partner(CLIENT, uid=uid) as client:
            assert await client.hear() == [transfer, True, ["range", "read-only"], True]
            assert await client.hear() == [transfer, True, ["range"], True]


STUCK = """
class Uffd:
    # A page that nobody fills: whoever touches it waits until this process ends.
    def __init__(self):
        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.syscall(323, os.O_CLOEXEC)
        if fd < 0:
            say("no userfaultfd")
            sys.exit()
        self.memory = mmap.mmap(-1, 4096 * 16)
        fcntl.ioctl(fd, 0xC018AA3F, array.array("Q", [0xAA, 0, 0]))
        with alpc_pin(self.memory) as pin:
            self.address = pin.address
        fcntl.ioctl(fd, 0xC020AA00, array.array("Q", [self.address, 4096 * 16, 1, 0]))
from alpc_async.memory import PinnedBuffer as alpc_pin
from alpc_async.wire import DirectRecord
stuck = Uffd()
become(arguments["later"])
raw = Raw()
record = DirectRecord(stuck.address, bytes(16), ((stuck.address + 4096, 4096, 1),))
raw.endpoint.request(Ticket(), b"", 0.0, None, Attributes(direct=record))
raw.flush()
say("asked")
hear()
"""


@as_root
async def test_a_page_that_never_comes_holds_nobody_up(runtime_directory: Path) -> None:
    """A client of another user whose memory makes a reader wait for ever holds up neither the loop nor its others."""
    runtime_directory.chmod(0o755)  # noqa: ASYNC240  # takes no time
    async with alpc.listen(NAME, limits=LIMITS, security=alpc.ANYONE) as server, alpc.connect(NAME) as bystander:
        with partner(RAW + STUCK, later=ALICE) as stuck:
            word = await stuck.hear()
            if word != "asked":
                pytest.skip("this kernel has no userfaultfd")
            message = await request_of(server)
            direct = message.direct
            assert direct is not None
            errors: list[alpc.AlpcError] = []

            async def read() -> None:
                try:
                    await direct.read(0, 100)
                except alpc.AlpcError as error:
                    errors.append(error)

            async with anyio.create_task_group() as tasks:
                for _ in range(6):
                    tasks.start_soon(read)
                for _ in range(3):
                    pending = bystander.start_request(b"served")
                    (await request_of(server)).reply(b"at once")
                    with anyio.fail_after(WAIT):
                        assert (await pending).data == b"at once"
                    assert await anyio.to_thread.run_sync(lambda: "other threads are free") != ""
                assert not errors
                stuck.kill()
            assert len(errors) == 6
