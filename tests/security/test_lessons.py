"""The table of lessons in the explanation of security: complete, and each of its tests exists.

Belongs here: the table, and the lessons that no other module shows. Never here: what other modules test already.
"""

from __future__ import annotations

import gc
import os
import re
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import psutil  # type: ignore[import-untyped]  # it comes without annotations
import pytest

import alpc_async as alpc
from alpc_async import Handle, HandleKind, MessageType, PortLimits
from tests.port.support import NAME, answer, echo_server, until

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "security.md"
LESSONS = 28

ROWS = {
    int(number): (lesson, countermeasure)
    for number, lesson, countermeasure in re.findall(r"^\| (\d+) \| (.+?) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
}


def test_the_table_has_every_lesson() -> None:
    """The lessons are numbered without gaps."""
    assert list(ROWS) == list(range(1, LESSONS + 1))


@pytest.mark.parametrize("number", range(1, LESSONS + 1))
def test_a_lesson_names_a_test_or_a_reason(number: int) -> None:
    """Each row names tests that exist, or says why the lesson does not apply."""
    countermeasure = ROWS[number][1]
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", countermeasure)
    assert named or countermeasure.startswith("Does not apply: "), countermeasure
    for path, name in named:
        code = (ROOT / path).read_text()
        assert re.search(rf"^(async )?def {name}\(", code, re.MULTILINE), f"{path}::{name}"


LAVISH = PortLimits(max_handles=4, handle_kinds=HandleKind.EVENTFD, max_user_handles=4, direct=True)


def flags(count: int) -> list[Handle]:
    """Return new handles, to be consumed by a send."""
    return [Handle(os.eventfd(0, os.EFD_CLOEXEC)) for _ in range(count)]


async def take_whole_messages(server: alpc.ConnectionPort, whole: list[bytes]) -> None:
    """Receive until the client has gone; every message that arrives must have all that went with it."""
    async for batch in server:
        for message in batch:
            with message:
                if message.type in {MessageType.REQUEST, MessageType.DATAGRAM}:
                    assert message.view is not None
                    assert bytes(message.view.data) == b"v" * 1000
                    assert [handle.kind for handle in message.handles] == [HandleKind.EVENTFD] * 2
                    whole.append(message.data)
                if message.type is MessageType.REQUEST:
                    message.reply(b"taken", handles=flags(1))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("end", ["client", "server"])
async def test_13_a_message_arrives_whole_or_leaves_nothing_whenever_the_connection_ends(end: str) -> None:
    """A view, handles, declared memory and a receipt of one message are all there or all undone, after every turn."""
    descriptors = psutil.Process().num_fds()
    whole: list[bytes] = []

    async def ask(client: alpc.CommunicationPort, view: alpc.View) -> None:
        with suppress(alpc.PortClosed, alpc.Disconnected):
            reply = await client.request(
                b"request", view=view, handles=flags(2), direct=alpc.DirectBuffer(bytearray(10))
            )
            reply.release()

    async def tell(client: alpc.CommunicationPort, view: alpc.View) -> None:
        with suppress(alpc.PortClosed, alpc.Disconnected, alpc.RemoteFault):
            await (await client.post(b"datagram", view=view, handles=flags(2), receipt=True))

    async def attempt(turns: int) -> None:
        async with (
            anyio.create_task_group() as tasks,
            alpc.listen(NAME, limits=LAVISH) as server,
            alpc.connect(NAME, limits=LAVISH) as client,
        ):
            await until(lambda: server.connections)
            tasks.start_soon(take_whole_messages, server, whole)
            for send in (ask, tell):
                view = await client.allocate(1000)
                view.data[:] = b"v" * 1000
                tasks.start_soon(send, client, view)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            await (client if end == "client" else server.connections[0]).disconnect(flush=turns % 2 == 0)

    for turns in range(25):
        await attempt(turns)
        gc.collect()
        await until(lambda: psutil.Process().num_fds() == descriptors, f"all to be undone after {turns} turns")
    assert {b"request", b"datagram"} <= set(whole)


async def test_14_callbacks_may_use_the_port_that_calls_them() -> None:
    """What a hook does in the middle of a refusal is done as anywhere else, and the refusal stands."""
    held: list[alpc.Message] = []
    called: list[str] = []

    def hook(record: alpc.AuditRecord) -> None:
        called.append(record.rule)
        for message in held:
            message.reply(b"answered by the hook")
            message.release()
        held.clear()
        asked.append(server.connections[0].start_request(b"question of the hook"))
        server.stop_listening()

    asked: list[alpc.PendingRequest] = []
    async with alpc.listen(NAME, limits=LAVISH, audit=hook) as server, alpc.connect(NAME, limits=LAVISH) as client:
        first = client.start_request(b"first", handles=flags(4))
        held.append(await server.receive())
        over, plain = client.start_request(b"over", handles=flags(1)), client.start_request(b"plain")
        question = await client.receive()
        question.reply(b"answer of the client")
        assert (await first).data == b"answered by the hook"
        with pytest.raises(alpc.RemoteFault, match="max_user_handles"):
            await over
        message = await server.receive()
        assert message.data == b"plain"
        message.reply(b"served")
        assert (await plain).data == b"served"
        assert (await asked[0]).data == b"answer of the client"
        assert called == ["PortLimits.max_user_handles"]
        with pytest.raises(alpc.NameNotFound):
            await alpc.connect(NAME)


async def test_14_who_is_woken_may_close_the_port() -> None:
    """A task that runs because of an answer, and closes the port, harms nobody else whose answer comes with it."""
    async with echo_server() as server, alpc.connect(NAME) as client:
        outcomes: list[str] = []

        async def ask(number: int) -> None:
            try:
                outcomes.append((await client.request(b"%d" % number)).data.decode())
            except alpc.PortClosed:
                outcomes.append("closed")
            await client.aclose()

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(ask, number)
        assert len(outcomes) == 20
        assert set(outcomes) <= {"closed", *map(str, range(20))}
        await until(lambda: not server.connections)
        async with alpc.connect(NAME) as other:
            assert (await other.request(b"still served")).data == b"still served"


async def test_14_who_is_woken_finds_all_answers_noted() -> None:
    """Answers that came with one receive are all there before the first task runs that waited for one of them."""
    async with alpc.listen(NAME) as server, alpc.connect(NAME) as client:
        pending = [client.start_request(b"x") for _ in range(20)]
        found: list[bool] = []

        async def wait(request: alpc.PendingRequest) -> None:
            await request
            found.append(all(other.done for other in pending))

        async with anyio.create_task_group() as tasks:
            for request in pending:
                tasks.start_soon(wait, request)
            messages: list[alpc.Message] = []
            while len(messages) < 20:
                messages += await server.receive_batch()
            for message in messages:
                message.reply(b"answer")
        assert client.statistics().largest_batch == 20
        assert found == [True] * 20


async def test_15_what_a_client_claims_is_not_who_it_is() -> None:
    """Connect data is the client's word and kept apart; the identity is the kernel's, whatever the data says."""
    async with alpc.listen(NAME, accept="manual") as server, anyio.create_task_group() as tasks:

        async def connect() -> None:
            async with alpc.connect(NAME, data=b'{"uid": 4294967294, "trusted": true}') as port:
                await port.request(b"hello")

        tasks.start_soon(connect)
        question = await server.receive()
        assert question.data.startswith(b'{"uid"')
        assert question.sender.uid != 4294967294
        port = question.accept(context="decided by us")
        assert port.connect_data == question.data
        assert port.context == "decided by us"
        message = await server.receive()
        assert message.sender is port.peer
        answer(message)


async def test_19_clients_of_one_server_cannot_reach_each_other() -> None:
    """A reply, a cancellation or a closing of one client concerns its own connection only, whatever number it names."""
    async with alpc.listen(NAME) as server, alpc.connect(NAME) as one, alpc.connect(NAME) as other:
        first, second = one.start_request(b"first"), other.start_request(b"second")
        messages = [await server.receive(), await server.receive()]
        assert [message.id for message in messages] == [1, 1]
        assert first.cancel() is alpc.CancelOutcome.CANCELLED
        await until(lambda: messages[0].cancelled or messages[1].cancelled)
        by_data = {bytes(message.data): message for message in messages}
        assert by_data[b"first"].cancelled
        assert not by_data[b"second"].cancelled
        by_data[b"second"].reply(b"done")
        assert (await second).data == b"done"
