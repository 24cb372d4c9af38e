"""Acting as a client: who allows it, what the thread is, and what it leaves behind.

Belongs here: real other users; everything but the refusals needs root. Never here: the wire form of permissions.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import alpc_async as alpc
from alpc_async.security import CallerThread, Identity
from tests.port.strangers import ALICE, BOB, as_root, finish, program
from tests.port.support import NAME, WAIT, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

EXTRA = 54_777

REQUEST = """
async def main():
    qos = alpc.SecurityQos(arguments["level"])
    async with alpc.connect(arguments["name"], qos=qos, server=alpc.ANYONE) as port:
        try:
            say((await port.request(b"please", timeout=30)).data.decode())
        except alpc.RemoteFault as fault:
            say([fault.status, fault.reason])
anyio.run(main)
"""


@pytest.fixture
def shared_directory(runtime_directory: Path) -> Path:
    """A directory of names in which every user can also make files."""
    runtime_directory.chmod(0o711)
    (runtime_directory / "open").mkdir()
    (runtime_directory / "open").chmod(0o777)
    return runtime_directory


@asynccontextmanager
async def request_of(
    uid: int, level: str = "impersonate", **options: Any
) -> AsyncGenerator[tuple[alpc.Message, subprocess.Popen[str]]]:
    """Receive a request of another user's program, which ends with the block."""
    options.setdefault("security", alpc.ANYONE)
    async with alpc.listen(NAME, **options) as server:
        with program(uid, REQUEST, groups=(EXTRA,), name=NAME, level=level) as process:
            with anyio.fail_after(WAIT):
                yield await server.receive(), process


async def reply(message: alpc.Message, process: subprocess.Popen[str]) -> None:
    """Answer, and see the program end well."""
    message.reply(b"done")
    assert await anyio.to_thread.run_sync(finish, process) == ["done"]


def credentials() -> dict[str, Any]:
    """Return what the kernel says of this thread."""
    with open("/proc/thread-self/status") as file:
        rows = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return {
        "uid": set(map(int, rows["Uid"].split())),
        "gid": set(map(int, rows["Gid"].split())),
        "groups": list(map(int, rows["Groups"].split())),
        "capabilities": {rows[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")},
        "no_new_privs": rows["NoNewPrivs"],
    }


ROOTS_OWN = credentials()


@as_root
async def test_the_thread_is_the_sender_and_nobody_else_is(shared_directory: Path) -> None:
    """User, group and groups are the sender's, capabilities are gone, files are the sender's; the loop is as before."""
    async with request_of(ALICE) as (message, process):
        assert message.port.peer_qos == alpc.SecurityQos("impersonate")
        async with message.impersonate() as caller:
            assert caller.identity.uid == ALICE
            assert await caller.run(credentials) == {
                "uid": {ALICE},
                "gid": {ALICE},
                "groups": [EXTRA],
                "capabilities": {"0000000000000000"},
                "no_new_privs": "1",
            }
            assert credentials() == ROOTS_OWN
            path = shared_directory / "open" / "page"
            await caller.run(path.write_text, "printed")
            with pytest.raises(PermissionError):
                await caller.run(os.listdir, "/root")
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (ALICE, ALICE)
        assert credentials() == ROOTS_OWN
        await reply(message, process)


@as_root
@pytest.mark.usefixtures("shared_directory")
async def test_programs_that_the_body_starts_cannot_come_back() -> None:
    """A child of the thread is the sender in every respect, and gains nothing from set-user-ID programs."""
    code = "import os\ntry: os.setresuid(0, 0, 0)\nexcept PermissionError: print(os.getresuid())"
    async with request_of(ALICE) as (message, process), message.impersonate() as caller:
        command = ["/usr/bin/python3", "-I", "-c", code]
        if not os.access(command[0], os.X_OK):
            pytest.skip("there is no interpreter that every user can start")
        done = await caller.run(partial(subprocess.run, command, capture_output=True, text=True, check=True))
        assert done.stdout == f"({ALICE}, {ALICE}, {ALICE})\n"
        await reply(message, process)


@as_root
@pytest.mark.usefixtures("shared_directory")
async def test_two_at_once_and_the_loop_stays_itself() -> None:
    """Two threads act as two users at the same moment, while the loop's thread is root all along."""
    meeting = threading.Barrier(3, timeout=WAIT)

    def meet() -> int:
        meeting.wait()
        uid = os.geteuid()
        meeting.wait()
        return uid

    found: list[int] = []

    async def act(message: alpc.Message) -> None:
        async with message.impersonate() as caller:
            found.append(await caller.run(meet))

    async with alpc.listen(NAME, security=alpc.ANYONE) as server, anyio.create_task_group() as tasks:
        with (
            program(ALICE, REQUEST, name=NAME, level="impersonate") as first,
            program(BOB, REQUEST, name=NAME, level="delegate") as second,
        ):
            with anyio.fail_after(WAIT):
                messages = [await server.receive(), await server.receive()]
                for message in messages:
                    tasks.start_soon(act, message)
                for _ in range(2):
                    await anyio.to_thread.run_sync(meeting.wait)
                    assert os.geteuid() == 0
                await until(lambda: len(found) == 2)
            assert sorted(found) == [ALICE, BOB]
            for message in messages:
                message.reply(b"done")
            for process in (first, second):
                assert await anyio.to_thread.run_sync(finish, process) == ["done"]


@as_root
@pytest.mark.usefixtures("shared_directory")
async def test_the_thread_ends_with_the_block_and_is_new_each_time() -> None:
    """No thread with foreign credentials is left, also after an error, and none is used twice."""
    async with request_of(ALICE) as (message, process):
        seen: set[int] = set()
        callers: list[alpc.Caller] = []
        for _ in range(2):
            with contextlib.suppress(ZeroDivisionError):
                async with message.impersonate() as caller:
                    callers.append(caller)
                    seen.add(await caller.run(threading.get_native_id))
                    await caller.run(lambda: 1 // 0)
                    pytest.fail("the error was lost")
        for caller in callers:
            with pytest.raises(RuntimeError, match="has ended"):
                await caller.run(os.getuid)
        await until(lambda: not any(thread.name.startswith("acts as") for thread in threading.enumerate()))
        assert not {int(entry) for entry in os.listdir("/proc/self/task")} & seen
        block = message.impersonate()
        async with block:
            pass
        with pytest.raises(RuntimeError, match="used already"):
            await block.__aenter__()
        await reply(message, process)


@as_root
@pytest.mark.usefixtures("shared_directory")
async def test_a_cancellation_waits_for_the_function() -> None:
    """The function runs to its end, and only then the cancellation goes on; the thread ends too."""
    started, go = threading.Event(), threading.Event()
    ended: list[int] = []

    def work() -> None:
        started.set()
        go.wait(WAIT)
        ended.append(os.geteuid())

    async with request_of(ALICE) as (message, process):

        async def act(scope: anyio.CancelScope) -> None:
            with scope:
                async with message.impersonate() as caller:
                    await caller.run(work)
                    await anyio.lowlevel.checkpoint()

        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(act, scope)
            await anyio.to_thread.run_sync(started.wait)
            scope.cancel()
            await anyio.sleep(0.01)
            assert ended == []
            go.set()
        assert ended == [ALICE]
        assert scope.cancelled_caught
        await reply(message, process)


@as_root
@pytest.mark.usefixtures("shared_directory")
@pytest.mark.parametrize("level", ["anonymous", "identify"])
async def test_only_who_allows_it_is_impersonated(level: str) -> None:
    """A client that allows less is not, the body does not run, and an anonymous one is shown as nobody."""
    async with request_of(ALICE, level) as (message, process):
        with pytest.raises(alpc.AccessDenied, match=f"allows {level} only"):
            async with message.impersonate():
                pytest.fail("the body ran")
        assert (message.sender.uid, message.sender.identified) == (
            (ALICE, True) if level == "identify" else (65534, False)
        )
        assert message.port.peer == message.sender
        await reply(message, process)


@as_root
@pytest.mark.usefixtures("shared_directory")
async def test_a_port_can_ask_for_a_level() -> None:
    """A client that allows less than the port needs is refused with the reason, and recorded."""
    records: list[alpc.AuditRecord] = []
    options: dict[str, Any] = {"security": alpc.ANYONE, "audit": records.append}
    async with alpc.listen(NAME, qos=alpc.SecurityQos("impersonate"), **options):
        with pytest.raises(alpc.AccessDenied, match=r"connect\(qos=\.\.\.\) with a higher level"):
            await alpc.connect(NAME)
        async with alpc.connect(NAME, qos=alpc.SecurityQos("delegate")):
            pass
    assert [(record.what, record.rule) for record in records] == [("connect", "listen(qos=...)")]


@as_root
@pytest.mark.usefixtures("shared_directory")
async def test_the_access_list_must_allow_it() -> None:
    """Without the right IMPERSONATE the attempt is denied and recorded; with it it works."""
    records: list[alpc.AuditRecord] = []
    admit = alpc.SecurityDescriptor([alpc.allow(f"user:{ALICE}")])
    async with request_of(ALICE, security=admit, audit=records.append) as (message, process):
        with pytest.raises(alpc.AccessDenied, match="the access list"):
            await message.impersonate().__aenter__()
        await reply(message, process)
    assert [(record.what, record.right) for record in records] == [("impersonate", alpc.Access.IMPERSONATE)]
    admit = alpc.SecurityDescriptor([alpc.allow(f"user:{ALICE}", alpc.Access.CONNECT | alpc.Access.IMPERSONATE)])
    async with request_of(ALICE, security=admit) as (message, process), message.impersonate() as caller:
        assert await caller.run(os.getuid) == ALICE
        await reply(message, process)


@as_root
@pytest.mark.usefixtures("shared_directory")
async def test_only_an_outstanding_request_is_a_reason() -> None:
    """After the answer, after the client is gone, and within a block whose request ends, it is denied."""
    async with request_of(ALICE) as (message, process):
        async with message.impersonate() as caller:
            await reply(message, process)
            with pytest.raises(alpc.AccessDenied, match="waits for its answer"):
                await caller.run(os.getuid)
        with pytest.raises(alpc.AccessDenied, match="waits for its answer"):
            await message.impersonate().__aenter__()
    async with request_of(ALICE) as (message, process), message.impersonate() as caller:
        process.kill()
        await until(lambda: message.cancelled)
        with pytest.raises(alpc.AccessDenied, match="waits for its answer"):
            await caller.run(os.getuid)


def do_nothing(*_arguments: object) -> None:
    """Stand for a step that has no effect."""


@as_root
@pytest.mark.usefixtures("shared_directory")
async def test_a_step_that_fails_leaves_the_body_unrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the thread is found to be anything but the sender, nothing runs in it."""
    import alpc_async.security._impersonation as module

    async with request_of(ALICE) as (message, process):
        with monkeypatch.context() as patch:
            patch.setattr(module, "_become", do_nothing)
            with pytest.raises(alpc.AccessDenied, match=f"the user of the thread is .0, 0, 0. afterwards, not {ALICE}"):
                async with message.impersonate():
                    pytest.fail("the body ran")
        await until(lambda: not any(thread.name.startswith("acts as") for thread in threading.enumerate()))
        await reply(message, process)


CONTEXTS = """
async def ask(port, words, **options):
    say([words, (await port.request(words.encode(), timeout=30, **options)).data.decode()])

async def main():
    me = dict(server=alpc.ANYONE)
    async with alpc.connect(arguments["name"], **me) as port:
        more = port.create_security_context(alpc.SecurityQos("impersonate"))
        less = port.create_security_context(alpc.SecurityQos("anonymous"))
        await ask(port, "plain")
        await ask(port, "more", security=more)
        await ask(port, "less", security=less)
        more.delete()
        less.revoke()
        for context in (more, less):
            try:
                await port.request(b"x", security=context)
            except alpc.AccessDenied as error:
                say(error.reason)
        taken = port.create_security_context(alpc.SecurityQos("impersonate"))
        pending = port.start_request(b"revoke", security=taken)
        await anyio.wait_readable(sys.stdin)
        taken.revoke()
        taken.revoke()
        await port.request(b"revoked")
        say((await pending).data.decode())
    async with alpc.connect(arguments["name"], qos=alpc.SecurityQos("impersonate"), **me) as port:
        await ask(port, "plain")
        await ask(port, "never", security=alpc.DO_NOT_IMPERSONATE)
        try:
            await port.request(b"x", security=taken)
        except alpc.AccessDenied as error:
            say("belongs to" in error.reason)
anyio.run(main)
"""


@as_root
@pytest.mark.usefixtures("shared_directory")
async def test_security_contexts_go_with_single_messages() -> None:
    """A context counts instead of the connection's level, fails when it was taken back, also while it is used."""
    held: list[alpc.Message] = []

    async def act(message: alpc.Message) -> str:
        try:
            async with message.impersonate() as caller:
                return f"uid {await caller.run(os.getuid)}"
        except alpc.AccessDenied as error:
            return error.reason.partition(";")[0]

    async with alpc.listen(NAME, security=alpc.ANYONE) as server:
        with program(ALICE, CONTEXTS, name=NAME) as process:

            async def serve() -> None:
                async for batch in server:
                    for message in batch:
                        if message.type is not alpc.MessageType.REQUEST:
                            continue
                        if message.data == b"revoke":
                            held.append(message)
                            assert await act(message) == f"uid {ALICE}"
                            assert process.stdin is not None
                            process.stdin.write("go")
                            process.stdin.flush()
                        elif message.data == b"revoked":
                            held[0].reply((await act(held[0])).encode())
                            message.reply()
                        else:
                            message.reply((await act(message)).encode())

            said: list[Any] = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve)
                said += await anyio.to_thread.run_sync(wait_for, process)
                tasks.cancel_scope.cancel()
    only = "the sender allows {} only"
    assert said == [
        ["plain", only.format("identify")],
        ["more", f"uid {ALICE}"],
        ["less", only.format("anonymous")],
        "it was deleted",
        "it was revoked",
        "the sender has revoked the security context of the message",
        ["plain", f"uid {ALICE}"],
        ["never", "the sender forbids it for this message"],
        True,
    ]


def wait_for(process: subprocess.Popen[str]) -> list[Any]:
    """Read what a program says to its end, while somebody else writes to it."""
    assert process.stdout is not None
    lines = [json.loads(line) for line in process.stdout]
    assert process.stderr is not None
    assert process.wait(WAIT) == 0, process.stderr.read()
    return lines


ALONE = """
async def main():
    async with (
        alpc.listen("own") as server,
        alpc.connect("own", qos=alpc.SecurityQos("impersonate")) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(client.request)
        with await server.receive() as message:
            try:
                async with message.impersonate():
                    say("the body ran")
            except alpc.AccessDenied as error:
                say(error.reason)
            message.reply()
anyio.run(main)
"""


@as_root
async def test_a_server_without_the_privilege_is_told_so(runtime_directory: Path) -> None:
    """The reason names the call that failed and the capabilities that it takes."""
    os.chown(runtime_directory, ALICE, ALICE)

    def run() -> list[Any]:
        with program(ALICE, ALONE) as process:
            return finish(process)

    (reason,) = await anyio.to_thread.run_sync(run)
    assert reason.startswith("setgroups failed with Operation not permitted")
    assert "CAP_SETUID" in reason


def test_nobody_acts_as_somebody_unidentified() -> None:
    """An identity whose numbers stand for anybody is refused before a thread is started."""
    for who in (Identity(uid=5, gid=5, pid=0), Identity(uid=65534, gid=5, pid=5, overflow_uid=65534)):
        with pytest.raises(alpc.AccessDenied, match="not identified"):
            CallerThread(who).start(lambda _error: None)


def test_nobody_acts_as_somebody_whose_groups_are_unknown() -> None:
    """Whoever took a connection over is not impersonated: a thread without its groups might do more than it may."""
    with pytest.raises(alpc.AccessDenied, match="its groups are not known"):
        CallerThread(Identity(uid=5, gid=5, pid=5, changed=True)).start(lambda _error: None)


def test_a_machine_whose_calls_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the reason says so, instead of calling by a guessed number."""
    real = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*real[:4], "vax")))
    with pytest.raises(alpc.AccessDenied, match="not known for vax"):
        CallerThread(Identity(uid=5, gid=5, pid=5)).start(lambda _error: None)


SPY = """
thread = arguments["thread"]
say([os.access(f"/proc/{thread}/{name}", os.R_OK) for name in ("mem", "fd", "environ")])
os.kill(thread, 0)
say("signal")
"""


@as_root
@pytest.mark.usefixtures("shared_directory")
async def test_who_is_impersonated_cannot_trace_us() -> None:
    """The kernel keeps the user from attaching to the thread, or reading the memory behind it; it may signal it."""
    async with request_of(ALICE) as (message, process), message.impersonate() as caller:
        thread = await caller.run(threading.get_native_id)

        def spy() -> list[Any]:
            with program(ALICE, SPY, groups=(EXTRA,), thread=thread) as other:
                return finish(other)

        assert await anyio.to_thread.run_sync(spy) == [[False] * 3, "signal"]
        await reply(message, process)
