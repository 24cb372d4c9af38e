"""Calls that are found by their header: the second call of a method is judged like the first one.

Belongs here: what must hold although most of a call is not looked at again. Never here: what a first call may do
(`test_calls`, `test_hostile`).
"""

from __future__ import annotations

import anyio
import msgspec
import pytest

import alpc_async as alpc
from alpc_async.service._layout import BIND, RELEASE, Bound, pack_call
from tests.port.support import until
from tests.service.contracts import NAME, CounterServer, Entry, Files, FilesServer

encode = msgspec.msgpack.encode
FILES = "0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c01"
OPEN, ADD, SIZE, NOTE = 9, 1, 1, 4


async def bind_raw(port: alpc.CommunicationPort) -> int:
    """Return the number of the served object."""
    answer = await port.request(pack_call(0, BIND, 0) + encode((FILES, 1, 0)))
    return msgspec.msgpack.decode(answer.data, type=Bound).object


async def test_a_released_object_is_not_called_any_more() -> None:
    """A number that was called before and is released then is unknown, and another object never has it."""
    async with alpc.serve(NAME, FilesServer()) as port, alpc.connect(NAME) as client:
        files = await bind_raw(client)
        number = msgspec.msgpack.decode((await client.request(pack_call(files, OPEN, 0) + encode([5]))).data, type=int)
        for total in (6, 7):
            answer = await client.request(pack_call(number, ADD, 0) + encode([1]))
            assert answer.data == encode(total)
        await client.post(pack_call(0, RELEASE, 0) + encode([[number]]))
        await until(lambda: port.statistics().objects == 0)
        with pytest.raises(alpc.RemoteFault) as caught:
            await client.request(pack_call(number, ADD, 0) + encode([1]))
        assert caught.value.status == alpc.Status.UNKNOWN_OBJECT


async def test_a_policy_is_asked_at_each_call() -> None:
    """A method that some may not call is refused again and again, while others of the same object are not."""
    nobody = alpc.require(uid=4711)
    async with (
        alpc.serve(NAME, FilesServer(), authorize={Files.size: nobody}),
        alpc.connect(NAME, Files) as client,
    ):
        for _ in range(3):
            with pytest.raises(alpc.RemoteFault, match=r"Files\.size may not be called"):
                await client.size(b"")
            assert (await client.echo(Entry("x"))).name == "x"


async def test_a_known_header_in_a_datagram_calls_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A method with a result that was called before is not called by a message that wants no answer."""
    server = FilesServer()
    async with alpc.serve(NAME, server), alpc.connect(NAME) as client:
        files = await bind_raw(client)
        call = pack_call(files, SIZE, 0) + encode([b"abc"])
        for _ in range(2):
            assert (await client.request(call)).data == encode(3)
        await client.post(call)
        await client.post(pack_call(files, NOTE, 0) + encode(["here"]))
        await until(lambda: server.notes == ["here"])
    assert len(server.calls) == 2
    assert "a one-way call was dropped" in caplog.text
    caplog.clear()


async def test_what_comes_beside_a_plain_call_goes_back() -> None:
    """Shared memory that comes with a call of a method that takes none is given back at once, at each call."""
    async with alpc.serve(NAME, FilesServer()) as port, alpc.connect(NAME) as client:
        files = await bind_raw(client)
        call = pack_call(files, SIZE, 0) + encode([b"abc"])
        for _ in range(3):
            with await client.allocate(100) as view:
                assert (await client.request(call, view=view)).data == encode(3)
            assert (await client.request(call)).data == encode(3)
            await until(lambda: not client.statistics().lent)
        assert port.statistics().running == 0


async def test_wrong_arguments_are_refused_at_each_call() -> None:
    """Arguments of a method that was called before are checked like those of the first call."""
    async with alpc.serve(NAME, CounterServer()), alpc.connect(NAME) as client:
        answer = await client.request(pack_call(0, BIND, 0) + encode(("0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c02", 1, 0)))
        counter = msgspec.msgpack.decode(answer.data, type=Bound).object
        for total in (1, 2):
            assert (await client.request(pack_call(counter, ADD, 0) + encode([1]))).data == encode(total)
            with pytest.raises(alpc.RemoteFault, match="argument 'number': Expected `int`, got `str`"):
                await client.request(pack_call(counter, ADD, 0) + encode(["x"]))


async def test_a_call_gives_the_slot_of_a_completion_port_back_while_it_waits() -> None:
    """Who takes a batch and makes a call does not count as running until the answer has come."""
    server = FilesServer()
    async with (
        alpc.serve(NAME, server),
        alpc.connect(NAME, Files) as client,
        alpc.CompletionPort(concurrency=1) as completion_port,
        anyio.create_task_group() as tasks,
    ):

        async def work() -> None:
            async for _batch in completion_port:
                await client.sleep(60)

        tasks.start_soon(work)
        completion_port.post("first")
        await until(lambda: server.started == 1)
        assert completion_port.statistics().running == 0
        tasks.cancel_scope.cancel()


async def test_calls_wait_for_room() -> None:
    """Of more calls than may be in flight the rest waits, and all are answered."""
    limits = alpc.PortLimits(max_outstanding_messages=4)
    async with alpc.serve(NAME, FilesServer(), limits=limits), alpc.connect(NAME, Files) as client:
        sizes: list[int] = []

        async def call(length: int) -> None:
            sizes.append(await client.size(bytes(length)))

        async with anyio.create_task_group() as tasks:
            for length in range(20):
                tasks.start_soon(call, length)
    assert sorted(sizes) == list(range(20))
