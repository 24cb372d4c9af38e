"""Whole programs that share memory, pass handles and declare memory, or break the rules of that.

Belongs here: starting them, talking to them, and counting what is left in this process. Never here: tests.

A program runs on the same event loop as the test. It imports what it needs before it changes its user: the interpreter
and the package may live where only root can read them.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

import alpc_async as alpc
from alpc_async import HandleKind, MessageType, PortLimits
from tests.port.support import NAME, WAIT

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = [
    "ALICE",
    "ANY_KIND",
    "BOB",
    "LIMITS",
    "MIB",
    "RAW",
    "SMALL",
    "Partner",
    "as_root",
    "next_of",
    "partner",
    "receipts_owed",
    "room",
    "shared_bytes",
    "used",
]

ALICE = 54_321
BOB = 54_322
MIB = 1 << 20
ROOT = Path(__file__).parents[2]

ANY_KIND = HandleKind.FILE | HandleKind.SOCKET | HandleKind.PIPE | HandleKind.MEMFD | HandleKind.PIDFD
LIMITS = PortLimits(max_handles=300, handle_kinds=ANY_KIND, direct=True)
SMALL = PortLimits(max_view_size=MIB, max_section_size=MIB, max_total_section_size=2 * MIB)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")

_PRELUDE = """
import array, ctypes, encodings.idna, errno, fcntl, grp, json, mmap, os, pwd, resource, signal, socket, stringprep
import subprocess, sys, threading
import anyio, anyio._backends._asyncio, anyio.to_thread, asyncio
import alpc_async as alpc
from alpc_async import HandleKind, MessageType, PortLimits
from alpc_async.handles import Handle
from alpc_async.wire import Attributes, Endpoint, FrameType, HandleRecord, Role, Ticket, ViewMode, ViewRecord, pack
arguments = json.loads(sys.argv[1])
if arguments["backend"] == "trio":
    import trio, anyio._backends._trio
if arguments["options"].get("use_uvloop"):
    import uvloop
KINDS = HandleKind.FILE | HandleKind.SOCKET | HandleKind.PIPE | HandleKind.MEMFD | HandleKind.PIDFD
LIMITS = PortLimits(max_handles=300, handle_kinds=KINDS, direct=True)
NAME, PATH = arguments["name"], arguments["path"]
def say(value):
    print(json.dumps(value), flush=True)
def hear():
    return json.loads(sys.stdin.readline())
async def hear_later():
    return json.loads(await anyio.to_thread.run_sync(sys.stdin.readline))
def become(uid):
    os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
    # A process that has changed its user cannot be reached by others of that user, unless it says so (PR_SET_DUMPABLE).
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
def open_descriptors():
    return len(os.listdir("/proc/self/fd"))
def mapped_sections():
    return sum("/memfd:" in line for line in open("/proc/self/maps"))
def run(main):
    anyio.run(main, backend=arguments["backend"], backend_options=arguments["options"])
if arguments["uid"]:
    become(arguments["uid"])
"""

RAW = """
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
FUTURE_WRITE = 0x10
def memfd(size, seals, *, fill=True):
    fd = os.memfd_create("alpc", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if fill:
        os.posix_fallocate(fd, 0, size)
    else:
        os.ftruncate(fd, size)
    memory = mmap.mmap(fd, size)
    if seals & fcntl.F_SEAL_WRITE:
        memory.close()
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd, memory
class Raw:
    def __init__(self, limits=LIMITS):
        self.endpoint = Endpoint(Role.CLIENT, limits, features=1)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(PATH)
        self.endpoint.hello(b"")
        self.flush()
        self.hear()
    def flush(self):
        while data := self.endpoint.data_to_send(1 << 20):
            self.sock.sendall(data)
    def hear(self):
        try:
            data, descriptors, _, _ = socket.recv_fds(self.sock, 1 << 18, 253)
        except ConnectionResetError:
            return None
        if descriptors:
            self.endpoint.receive_handles([Handle(descriptor) for descriptor in descriptors], False)
        return self.endpoint.receive_data(data) if data else None
    def offer(self, fd, number=1, kind=1):
        socket.send_fds(self.sock, [pack(FrameType.SECTION | 1 << 16, number, kind)], [fd])
    def lend(self, lease, offset, length, *, section=1, mode=ViewMode.IS_DATA):
        record = ViewRecord(section, mode, lease, offset, length)
        # It may come back before the verdict.
        self.endpoint._leases.setdefault(lease, record)
        self.endpoint.datagram(b"", Attributes(view=record))
        self.flush()
    def say(self, frame):
        self.sock.sendall(frame)
    def verdict(self):
        reason = ""
        while (events := self.hear()) is not None:
            for event in events:
                reason = getattr(event, "reason", reason)
        return reason
"""


class Partner:
    """A program at the other end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._stdin = process.stdin
        self._stdout = process.stdout

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self.process.pid

    def tell(self, value: object = None) -> None:
        """Give the program what its ``hear()`` waits for."""
        self._stdin.write(json.dumps(value) + "\n")
        self._stdin.flush()

    async def hear(self) -> Any:
        """Return the next thing that the program says."""
        with anyio.fail_after(2 * WAIT):
            line = await anyio.to_thread.run_sync(self._stdout.readline, abandon_on_cancel=True)
        assert line, "the program ended: " + (self.process.stderr.read() if self.process.stderr else "")
        return json.loads(line)

    def kill(self) -> None:
        """Kill the process, as the kernel does when memory runs out, and wait until it is gone."""
        self.process.kill()
        self.process.wait()


@contextmanager
def partner(body: str, *, uid: int = 0, name: str = NAME, **more: Any) -> Generator[Partner]:
    """Run a program, and end it with the block.

    Args:
        body: its code; ``say(value)`` and ``hear()`` talk to the test, ``run(main)`` starts the loop.
        uid: the user that it becomes; 0 stays who we are.
        name: the port that it is about.
        **more: further entries of its ``arguments``.
    """
    loop = _loop_module()
    given = {
        "backend": "asyncio" if loop else "trio",
        "options": {"use_uvloop": True} if loop.startswith("uvloop") else {},
        "uid": uid,
        "name": name,
        "path": str(Path(os.environ["ALPC_RUNTIME_DIR"]) / name),
        **more,
    }
    command = [sys.executable, "-c", _PRELUDE + body, json.dumps(given)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            yield Partner(process)
        finally:
            process.kill()


def _loop_module() -> str:
    try:
        return type(asyncio.get_running_loop()).__module__
    except RuntimeError:
        return ""


async def next_of(port: alpc.ConnectionPort | alpc.CommunicationPort, kind: MessageType) -> alpc.Message:
    """Receive up to the next message of a kind."""
    with anyio.fail_after(WAIT):
        while (message := await port.receive()).type is not kind:
            assert message.type is not MessageType.PORT_CLOSED
    return message


def used(port: alpc.CommunicationPort) -> tuple[int, int]:
    """Return (ranges that the other side holds, bytes that are in use in sections of this side)."""
    sharing = port._channel.sharing  # pyright: ignore[reportPrivateUsage]  # users see only what is held
    pool, alone = sharing._pool, sharing._alone  # pyright: ignore[reportPrivateUsage]  # likewise
    return sharing.lent, alone + (pool.used if pool is not None else 0)


def room(port: alpc.CommunicationPort) -> int:
    """Return how many more messages may be in flight."""
    return port._channel.endpoint.outflow.free_messages  # pyright: ignore[reportPrivateUsage]  # users see only errors


def receipts_owed(port: alpc.CommunicationPort) -> int:
    """Return how many messages the other side wants to know about."""
    endpoint = port._channel.endpoint  # pyright: ignore[reportPrivateUsage]  # a table that users never see
    return len(endpoint._receipts_owed)  # pyright: ignore[reportPrivateUsage]  # likewise


def shared_bytes() -> int:
    """Return how many bytes of shared sections are mapped in this process."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "/memfd:" in line:
            begin, end = line.split()[0].split("-")
            total += int(end, 16) - int(begin, 16)
    return total
