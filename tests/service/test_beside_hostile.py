"""Peers whose handles and views are not what their values say: their own calls fail, and nothing stays open.

Belongs here: raw messages with handles and views to a service, and to a client. Never here: honest peers
(`test_beside`).
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import anyio
import msgspec
import pytest

import alpc_async as alpc
from alpc_async.service._layout import BIND, Bound, pack_call
from alpc_async.testing import LeakCounter
from tests.port.support import until
from tests.service.vault import LIMITS, NAME, NUMBERS, UUID, Vault, VaultServer, encode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with some lines."""
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\n")
    return path


# ----------------------------------------------------------------------------------------------------------- strangers


@pytest.fixture
async def raw() -> AsyncGenerator[tuple[VaultServer, alpc.CommunicationPort, int]]:
    """A served vault, and a plain connection that is bound to it."""
    server = VaultServer()
    async with alpc.serve(NAME, server, limits=LIMITS), alpc.connect(NAME, limits=LIMITS) as client:
        answer = await client.request(pack_call(0, BIND, 0) + encode((UUID, 1, 0)))
        yield server, client, msgspec.msgpack.decode(answer.data, type=Bound).object


Raw = tuple[VaultServer, alpc.CommunicationPort, int]


async def test_wrong_indexes_are_refused(raw: Raw, file: Path) -> None:
    """An index that is out of range, used twice, of another type or without anything behind it fails the call alone."""
    server, client, vault = raw
    counter = LeakCounter()
    for count, method, values in [
        (0, "read", [0]),
        (1, "read", [1]),
        (1, "read", [-1]),
        (1, "read", [True]),
        (1, "read", ["0"]),
        (1, "read", [2**63]),
        (1, "read", [0, "x"]),
        (2, "many", [[{"label": "a", "handle": 0}, {"label": "b", "handle": 0}]]),
        (2, "many", [[{"label": "a", "handle": 0}], 0]),
        (1, "total", [0]),
        (0, "total", [0]),
        (1, "total", [1]),
    ]:
        handles = [alpc.Handle.open(file) for _ in range(count)]
        with pytest.raises(alpc.RemoteFault) as caught:
            await client.request(pack_call(vault, NUMBERS[method], 0) + encode(values), handles=handles)
        assert caught.value.status == alpc.Status.BAD_ARGUMENTS, (method, values)
    with await client.allocate(4) as view:
        for values in ([1], [-1], [False], [2**40]):
            with pytest.raises(alpc.RemoteFault) as caught:
                await client.request(pack_call(vault, NUMBERS["total"], 0) + encode(values), view=view)
            assert caught.value.status == alpc.Status.BAD_ARGUMENTS
    await until(lambda: client.statistics().lent == 0)
    assert server.seen == []
    gc.collect()
    await until(lambda: not [left for left in counter.left() if str(file) in left])


async def test_what_is_not_named_is_closed(raw: Raw, file: Path) -> None:
    """Handles and views that no argument names are closed, also with methods that take none at all."""
    _, client, vault = raw
    for method, values in [("read", [1]), ("plain", ["x"]), ("plain", [1]), ("open", ["/nothing"])]:
        reading, writing = os.pipe()
        handles = [alpc.Handle(writing), alpc.Handle.open(file)]
        with await client.allocate(4) as view:
            try:
                await client.request(pack_call(vault, NUMBERS[method], 0) + encode(values), handles=handles, view=view)
            except alpc.RemoteFault:
                assert method != "read"
            await client.request(pack_call(vault, NUMBERS["plain"], 0) + encode(["x"]))
            # The other end of the pipe is closed everywhere.
            await anyio.wait_readable(reading)
            assert os.read(reading, 1) == b""
            os.close(reading)
    await until(lambda: client.statistics().lent == 0)


async def test_a_long_payload_is_not_taken_for_a_view(raw: Raw) -> None:
    """Arguments that travel through shared memory themselves are no view among the arguments."""
    _, client, vault = raw
    with pytest.raises(alpc.RemoteFault, match="without a view"):
        await client.request(pack_call(vault, NUMBERS["total"], 0) + encode([0, "x" * 500_000]))


async def test_a_server_that_gives_wrong_indexes() -> None:
    """An answer that names what did not come is a mistake of the server, and what did come is closed."""
    async with alpc.listen(NAME, limits=LIMITS) as listener:

        async def answer() -> None:
            async for batch in listener:
                for message in batch:
                    if message.type is not alpc.MessageType.REQUEST:
                        continue
                    if message.data[4] == BIND and message.data[0] == 0:
                        message.reply(encode((1, 0, "")))
                    else:
                        message.reply(encode(1), handles=[alpc.Handle(os.dup(0))])

        limits = alpc.PortLimits(max_handles=1, handle_kinds=~alpc.HandleKind(0))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            async with alpc.connect(NAME, Vault, limits=limits) as vault:
                with pytest.raises(alpc.TypeMismatch, match=r"Vault\.open, answer of the other side"):
                    await vault.open("x")
            tasks.cancel_scope.cancel()


async def test_a_reply_that_is_dropped_closes_its_handles(file: Path) -> None:
    """A plain reply with a handle, to a request that was given up, leaves nothing open."""
    async with alpc.port_pair(limits=LIMITS) as pair:
        pending = pair.left.start_request(b"x")
        message = await pair.right.receive()
        pending.cancel()
        await until(lambda: message.cancelled)
        counter = LeakCounter()
        message.reply(b"", handles=[alpc.Handle.open(file)])
        assert counter.left() == []
