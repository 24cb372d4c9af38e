"""Descriptors of one user at a port: how many, over all of its connections, until they are taken or closed."""

from __future__ import annotations

import gc
import os
import threading
import time
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

import alpc_async as alpc
from alpc_async import Handle, HandleKind, PortLimits
from alpc_async.handles import dispose
from alpc_async.port._tally import HandleTally
from alpc_async.port._users import Users
from tests.port.strangers import ALICE, BOB, as_root, program
from tests.port.support import NAME, WAIT

if TYPE_CHECKING:
    from pathlib import Path

KINDS = HandleKind.EVENTFD | HandleKind.FILE
LIMITS = PortLimits(max_handles=3, handle_kinds=KINDS, max_user_handles=3)
CLIENT = PortLimits(max_handles=3, handle_kinds=KINDS)


def some(count: int) -> list[Handle]:
    """Return new handles, to be consumed by a send."""
    return [Handle(os.eventfd(0, os.EFD_CLOEXEC)) for _ in range(count)]


async def received(server: alpc.ConnectionPort) -> alpc.Message:
    """Receive one message."""
    with anyio.fail_after(WAIT):
        return await server.receive()


async def refused(port: alpc.CommunicationPort, count: int = 1) -> None:
    """Check that a request with handles fails for the limit, and that it was that limit."""
    with pytest.raises(alpc.RemoteFault, match="max_user_handles") as fault:
        await port.request(b"more", handles=some(count), timeout=WAIT)
    assert fault.value.status == alpc.Status.USER_LIMIT


async def test_connections_of_one_user_share_their_handles() -> None:
    """The message that goes over the limit fails alone, on whichever connection, and is recorded; others go on."""
    records: list[alpc.AuditRecord] = []
    async with (
        alpc.listen(NAME, limits=LIMITS, audit=records.append) as server,
        alpc.connect(NAME, limits=CLIENT) as one,
        alpc.connect(NAME, limits=CLIENT) as other,
    ):
        one.start_request(b"first", handles=some(2))
        with await received(server) as message:
            assert len(message.handles) == 2
            await refused(other, 2)
            other.start_request(b"plain")
            assert (await received(server)).data == b"plain"
            other.start_request(b"last", handles=some(1))
            with await received(server) as last:
                assert last.data == b"last"
                await refused(one)
        assert one.connected
        assert other.connected
    assert {(record.what, record.rule) for record in records} == {("handles", "PortLimits.max_user_handles")}
    assert len(records) == 2


@pytest.mark.parametrize("how", ["released", "taken", "closed", "forgotten"])
async def test_handles_are_counted_back(how: str) -> None:
    """Whatever becomes of a handle, as long as the port does not hold it any more it does not count."""
    async with alpc.listen(NAME, limits=LIMITS) as server, alpc.connect(NAME, limits=CLIENT) as client:
        for _ in range(3):
            client.start_request(b"x", handles=some(3), timeout=WAIT)
            message = await received(server)
            assert message.data == b"x"
            if how == "released":
                message.release()
            elif how == "taken":
                for number in range(3):
                    message.take_handle(number).close()
            elif how == "closed":
                for handle in message.handles:
                    handle.close()
            if how != "released":
                message.reply()
            del message
            gc.collect()


async def test_datagrams_and_replies_count() -> None:
    """A datagram over the limit is dropped and its receipt says so; a reply over it fails the request it answers."""
    async with alpc.listen(NAME, limits=LIMITS) as server, alpc.connect(NAME, limits=CLIENT) as client:
        await client.post(b"held", handles=some(3))
        with await received(server):
            receipt = await client.post(b"over", handles=some(1), receipt=True)
            with anyio.fail_after(WAIT), pytest.raises(alpc.RemoteFault) as fault:
                await receipt
            assert fault.value.status == alpc.Status.USER_LIMIT
            assert f"with status USER_LIMIT ({int(alpc.Status.USER_LIMIT)}): " in str(fault.value)
            pending = server.connections[0].start_request(b"give")
            with anyio.fail_after(WAIT):
                (await client.receive()).reply(handles=some(1))
                with pytest.raises(alpc.HandleRefused, match="max_user_handles"):
                    await pending
        assert client.connected


async def test_what_a_user_left_behind_still_counts() -> None:
    """A user does not get new room by connecting again as long as the port holds what came before."""
    async with alpc.listen(NAME, limits=LIMITS) as server:
        async with alpc.connect(NAME, limits=CLIENT) as client:
            await client.post(b"left", handles=some(3))
            message = await received(server)
        assert (await received(server)).type is alpc.MessageType.PORT_CLOSED
        async with alpc.connect(NAME, limits=CLIENT) as client:
            await refused(client)
            message.release()
            client.start_request(b"room", handles=some(3))
            with await received(server) as last:
                assert last.data == b"room"


def test_a_handle_counts_until_it_is_really_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """While a close does not return, the descriptor is still here, whichever thread waits for it."""
    tally = HandleTally(2)
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    close, goes_on = os.close, threading.Event()

    def hang(number: int) -> None:
        if number == fd:
            goes_on.wait()
        close(number)

    monkeypatch.setattr(os, "close", hang)
    counted = tally.take([Handle(fd)])
    assert counted is not None
    dispose(counted)
    assert counted[0].closed
    assert tally.held == 1
    goes_on.set()
    while tally.held:
        time.sleep(0.001)


def test_moving_a_handle_does_not_count_it_back() -> None:
    """Who passes a received handle on still has it, until it is sent or closed."""
    tally = HandleTally(1)
    counted = tally.take(some(1))
    assert counted is not None
    moved = counted[0].moved()
    assert tally.held == 1
    assert tally.take([moved]) is None
    moved.close()
    moved.close()
    assert tally.held == 0


def test_a_user_who_holds_nothing_is_forgotten() -> None:
    """The account of a user stays as long as handles do, and goes with the next one that connects."""
    users = Users(LIMITS)
    promised = users.open(7)
    assert promised is not None
    tally = users.handles(7)
    counted = tally.take(some(1))
    assert counted is not None
    users.close(7, promised)
    assert users.open(7) == promised
    assert users.handles(7) is tally
    users.close(7, promised)
    counted[0].close()
    users.open(8)
    users.open(7)
    assert users.handles(7) is not tally


HOLD = """
async def main():
    limits = alpc.PortLimits(max_handles=3)
    async with alpc.connect(arguments["name"], server=alpc.ANYONE, limits=limits) as port:
        other = await alpc.connect(arguments["name"], server=alpc.ANYONE, limits=limits)
        for part in (port, port, other, other):
            try:
                await part.request(b"hold", handles=[alpc.Handle(os.eventfd(0))])
                say("held")
            except alpc.RemoteFault as error:
                say(alpc.Status(error.status).name)
        hear()
        await port.request(b"again", handles=[alpc.Handle(os.eventfd(0))])
        await other.aclose()
        say("again")
anyio.run(main)
"""


@as_root
async def test_another_user_is_not_affected(runtime_directory: Path) -> None:
    """One user's handles fill its own limit and no other's, and room comes back when the port closes them."""
    runtime_directory.chmod(0o711)  # noqa: ASYNC240  # takes no time
    held: list[alpc.Message] = []

    async def hold(server: alpc.ConnectionPort) -> None:
        async for batch in server:
            for message in batch:
                if message.type is alpc.MessageType.REQUEST:
                    held.append(message)
                    message.reply()

    async def said(process_line: str) -> None:
        for process in programs:
            assert process.stdout is not None
            assert await anyio.to_thread.run_sync(process.stdout.readline) == f'"{process_line}"\n'

    async with (
        anyio.create_task_group() as tasks,
        alpc.listen(NAME, security=alpc.ANYONE, limits=LIMITS) as server,
    ):
        tasks.start_soon(hold, server)
        with program(ALICE, HOLD, name=NAME) as alice, program(BOB, HOLD, name=NAME) as bob:
            programs = (alice, bob)
            for word in ("held", "held", "held", "USER_LIMIT"):
                await said(word)
            assert len(held) == 6
            for message in held:
                for handle in message.handles:
                    handle.close()
            for process in programs:
                assert process.stdin is not None
                process.stdin.write("go on\n")
                process.stdin.flush()
            await said("again")
