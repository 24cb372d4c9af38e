"""Peers that do not keep to the protocol of services: nothing but their own calls fails.

Belongs here: raw messages to a service, and to a client. Never here: frames (`tests/faults`).
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import alpc_async as alpc
from alpc_async.service._layout import BIND, CHECK, HEADER_SIZE, PULL, RELEASE, Bound, pack_call
from alpc_async.service._stream import WINDOW
from tests.port.support import until
from tests.service.contracts import NAME, CounterServer, Files, FilesServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

encode = msgspec.msgpack.encode
UUID = "0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c01"
WALK = 6
OPEN = 9
NESTED = b"\x91" * 50_000 + b"\xc0"
"""Arrays in one another, deeper than any decoder goes."""


@pytest.fixture
async def raw() -> AsyncIterator[tuple[alpc.ServicePort, FilesServer, alpc.CommunicationPort, int]]:
    """A service, and a plain connection to it that is bound to its object."""
    server = FilesServer()
    async with alpc.serve(NAME, server) as port, alpc.connect(NAME) as client:
        answer = await client.request(pack_call(0, BIND, 0) + encode((UUID, 1, 0)))
        yield port, server, client, msgspec.msgpack.decode(answer.data, type=Bound).object


Raw = tuple[alpc.ServicePort, FilesServer, alpc.CommunicationPort, int]


async def status_of(port: alpc.CommunicationPort, data: bytes) -> int:
    """Send a request that fails, and return its status."""
    with pytest.raises(alpc.RemoteFault) as caught:
        await port.request(data)
    return caught.value.status


async def test_calls_of_what_is_not_there_fail(raw: Raw, caplog: pytest.LogCaptureFixture) -> None:
    """Unknown objects, methods, kinds of call, contexts and arguments are refused, each with its status."""
    _, server, port, files = raw
    status = alpc.Status
    for data, expected in [
        (b"", status.BAD_ARGUMENTS),
        (b"\0" * (HEADER_SIZE - 1), status.BAD_ARGUMENTS),
        (pack_call(0, 99, 0), status.UNKNOWN_METHOD),
        (pack_call(0, RELEASE, 0) + encode([[1]]), status.UNKNOWN_METHOD),
        (pack_call(0, BIND, 0), status.BAD_ARGUMENTS),
        (pack_call(0, BIND, 0) + encode(("x", 1, 0)), status.UNKNOWN_INTERFACE),
        (pack_call(4711, 1, 0), status.UNKNOWN_OBJECT),
        (pack_call(2**32 - 1, 1, 0), status.UNKNOWN_OBJECT),
        (pack_call(files, 4711, 0), status.UNKNOWN_METHOD),
        (pack_call(files, 4, 0) + encode(["note"]), status.UNKNOWN_METHOD),
        (pack_call(files, 1, 0), status.BAD_ARGUMENTS),
        (pack_call(files, 1, 0) + encode([1]), status.BAD_ARGUMENTS),
        (pack_call(files, 1, 0) + encode([]), status.BAD_ARGUMENTS),
        (pack_call(files, 1, 0) + encode({"data": b""}), status.BAD_ARGUMENTS),
        (pack_call(files, 1, 5) + b"\xc1" * 5 + encode([b""]), status.BAD_ARGUMENTS),
        (pack_call(files, 1, 2000) + b"\x80" * 2000, status.BAD_ARGUMENTS),
        (pack_call(files, 1, 50) + b"\x80", status.BAD_ARGUMENTS),
        (pack_call(files, 1, len(encode({"d": 17}))) + encode({"d": 17}) + encode([b""]), status.TOO_DEEP),
        (pack_call(files, 10, 0) + encode([-1, 2]), status.BAD_ARGUMENTS),
        (pack_call(files, 10, 0) + encode([0, 2]), status.BAD_ARGUMENTS),
        (pack_call(files, 10, 0) + encode([True, 2]), status.BAD_ARGUMENTS),
        (pack_call(files, 10, 0) + encode(["x", 2]), status.BAD_ARGUMENTS),
        (pack_call(files, 10, 0) + encode([-files, 2]), status.BAD_ARGUMENTS),
        (pack_call(0, BIND, 0) + b"\x93\xa1\xff\x01\x00", status.BAD_ARGUMENTS),
        (pack_call(0, BIND, 0) + b"\x94\xa1x\x01\x00" + NESTED, status.BAD_ARGUMENTS),
        (pack_call(files, 1, 0) + b"\x92\xc4\x00" + NESTED, status.BAD_ARGUMENTS),
        (pack_call(files, 1, 9) + b"\x81\xa5trace\xa1\xff" + encode([b""]), status.BAD_ARGUMENTS),
    ]:
        assert await status_of(port, data) == expected, data
    # Nothing of it is an error of this side.
    assert caplog.text == ""
    assert server.calls == []
    # Whether this is too deep depends on the interpreter.
    with contextlib.suppress(alpc.RemoteFault):
        await port.request(pack_call(files, 1, 1023) + b"\x81\xa1x" + NESTED[-1020:] + encode([b""]))
    assert caplog.text == ""
    assert (await port.request(pack_call(files, 1, 0) + encode([b"abc"]))).data == b"\x03"


async def test_datagrams_that_make_no_sense_are_dropped(raw: Raw, caplog: pytest.LogCaptureFixture) -> None:
    """Datagrams to what is not there, of the wrong kind or with nonsense inside are logged and dropped."""
    _, server, port, files = raw
    for data in [
        b"",
        pack_call(files, 1, 0) + encode([b"abc"]),
        pack_call(files, 4, 0) + encode([7]),
        pack_call(4711, 4, 0),
        pack_call(0, BIND, 0),
        pack_call(0, RELEASE, 0) + b"\xc1",
        pack_call(0, RELEASE, 0) + encode([[4711, -1, 0, 2**60]]),
        pack_call(0, CHECK, 0) + encode([["x"]]),
    ]:
        await port.post(data)
    await port.post(pack_call(files, 4, 0) + encode(["here"]))
    await until(lambda: server.notes == ["here"])
    assert caplog.text.count("a one-way call was dropped") == 7
    caplog.clear()


async def test_releasing_twice_runs_down_once(raw: Raw) -> None:
    """A peer that releases an object again, or one that it never had, changes nothing."""
    port, server, client, files = raw
    answer = await client.request(pack_call(files, OPEN, 0) + encode([5]))
    number = msgspec.msgpack.decode(answer.data, type=int)
    for _ in range(3):
        await client.post(pack_call(0, RELEASE, 0) + encode([[number, number, number + 1]]))
    assert await status_of(client, pack_call(number, 1, 0) + encode([1])) == alpc.Status.UNKNOWN_OBJECT
    await until(lambda: server.run_down == [5])
    assert port.statistics().objects == 0


async def test_a_question_for_unknown_objects_is_answered(raw: Raw) -> None:
    """A peer that asks which of its objects are known here is told to release the others."""
    _, _, client, _ = raw
    await client.post(pack_call(0, CHECK, 0) + encode([[8, 9]]))
    message = await client.receive(timeout=10)
    assert message.type is alpc.MessageType.DATAGRAM
    assert bytes(message.data) == pack_call(0, RELEASE, 0) + encode([[8, 9]])


async def test_pulling_too_much_is_bounded(raw: Raw) -> None:
    """A reader that asks for more than a window gets a window; one that asks twice at once is refused."""
    port, server, client, files = raw
    answer = await client.request(pack_call(files, WALK, 0) + encode([10 * WINDOW, "wait"]))
    number, items, last = msgspec.msgpack.decode(answer.data, type=tuple[int, list[object], bool])
    assert (len(items), last) == (WINDOW, False)
    for maximum in (0, -1):
        assert await status_of(client, pack_call(number, PULL, 0) + encode([maximum])) == alpc.Status.BAD_ARGUMENTS
    assert await status_of(client, pack_call(number, 2, 0) + encode([1])) == alpc.Status.UNKNOWN_METHOD
    assert await status_of(client, pack_call(number, PULL, 0) + b"\xc1") == alpc.Status.BAD_ARGUMENTS
    total = len(items)
    while total < 10 * WINDOW:
        answer = await client.request(pack_call(number, PULL, 0) + encode([2**40]))
        items, _ = msgspec.msgpack.decode(answer.data, type=tuple[list[object], bool])
        assert 0 < len(items) <= WINDOW
        total += len(items)
    waiting = client.start_request(pack_call(number, PULL, 0) + encode([1]))
    assert await status_of(client, pack_call(number, PULL, 0) + encode([1])) == alpc.Status.BAD_ARGUMENTS
    waiting.cancel()
    await client.post(pack_call(0, RELEASE, 0) + encode([[number]]))
    await until(lambda: server.closed_streams == 1)
    await until(lambda: port.statistics().running == 0)


async def test_an_object_of_the_service_cannot_be_passed_as_another_type(raw: Raw) -> None:
    """A peer cannot hand an object back in a place where one of another type is declared."""
    _, _, client, files = raw
    answer = await client.request(pack_call(files, OPEN, 0) + encode([5]))
    number = msgspec.msgpack.decode(answer.data, type=int)
    same = pack_call(files, 12, 0)
    assert (await client.request(same + encode([-number]))).data == encode(True)
    assert await status_of(client, same + encode([-files])) == alpc.Status.BAD_ARGUMENTS
    assert await status_of(client, same + encode([-4711])) == alpc.Status.BAD_ARGUMENTS


async def test_17_a_reference_means_nothing_on_another_connection(raw: Raw) -> None:
    """The number of an object that one client holds reaches nothing for another, as a target or as an argument."""
    _, server, client, files = raw
    answer = await client.request(pack_call(files, OPEN, 0) + encode([5]))
    number = msgspec.msgpack.decode(answer.data, type=int)
    add = pack_call(number, 1, 0) + encode([1])
    async with alpc.connect(NAME) as other:
        bound = await other.request(pack_call(0, BIND, 0) + encode((UUID, 1, 0)))
        own = msgspec.msgpack.decode(bound.data, type=Bound).object
        assert await status_of(other, pack_call(own, 12, 0) + encode([-number])) == alpc.Status.BAD_ARGUMENTS
        assert await status_of(other, add) == alpc.Status.UNKNOWN_OBJECT
        await other.post(pack_call(0, RELEASE, 0) + encode([[number, 1]]))
        # The answer to a request shows that the release before it was handled.
        assert await status_of(other, add) == alpc.Status.UNKNOWN_OBJECT
    assert msgspec.msgpack.decode((await client.request(add)).data) == 6
    assert server.run_down == []


async def test_a_number_used_twice_is_refused(raw: Raw) -> None:
    """A peer cannot give two objects the same number."""
    _, server, client, files = raw
    keep = pack_call(files, 11, 0)
    await client.request(keep + encode([77]))
    assert await status_of(client, keep + encode([77])) == alpc.Status.BAD_ARGUMENTS
    assert len(server.kept) == 1


async def test_flooding_with_objects_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """A peer that binds and opens without end runs into its limit, and others are not disturbed."""
    limits = alpc.PortLimits(max_objects=20)
    with caplog.at_level(logging.CRITICAL):
        async with (
            alpc.serve(NAME, FilesServer(), limits=limits) as port,
            alpc.connect(NAME, Files) as other,
            alpc.connect(NAME) as client,
        ):
            bind = pack_call(0, BIND, 0) + encode((UUID, 1, 0))
            for _ in range(20):
                await client.request(bind)
            for _ in range(30):
                assert await status_of(client, bind) == alpc.Status.TOO_MANY_OBJECTS
            assert await other.size(b"x") == 1
            assert port.statistics().references == 21


@given(data=st.lists(st.binary(max_size=40), min_size=1, max_size=20))
@settings(max_examples=30)
def test_any_payload_is_answered(data: list[bytes]) -> None:
    """Whatever bytes are sent as calls, each is answered or dropped, and the service goes on."""

    async def run() -> None:
        logging.getLogger("alpc_async.service").setLevel(logging.CRITICAL)
        async with alpc.serve(NAME, FilesServer(), CounterServer()), alpc.connect(NAME) as client:
            for payload in data:
                await client.post(payload)
                with contextlib.suppress(alpc.RemoteFault):
                    await client.request(payload, timeout=10)
            async with alpc.connect(NAME, Files) as files:
                assert await files.size(b"x") == 1

    try:
        anyio.run(run)
    finally:
        logging.getLogger("alpc_async.service").setLevel(logging.NOTSET)


async def lying(port: alpc.ConnectionPort, answers: list[bytes]) -> None:
    """Serve the bind, then answer calls with prepared bytes."""
    async for batch in port:
        for message in batch:
            if message.type is alpc.MessageType.REQUEST:
                message.reply(answers.pop(0))


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (b"", alpc.TypeMismatch, "answer of the other side"),
        (b"\xa1x", alpc.TypeMismatch, "answer of the other side"),
        (b"\xc1", alpc.RemoteFault, "unknown kind"),
        (b"\xc1\x03", alpc.RemoteFault, "unknown kind"),
        (b"\xc1\x01\x90", alpc.RemoteFault, "cannot be read"),
        (b"\xc1\x01" + encode(["Other", {}]), alpc.RemoteFault, "'Other', which is not declared here"),
        (b"\xc1\x01" + encode(["NoSuchEntry", {"path": 5}]), alpc.RemoteFault, "cannot be read"),
        (b"\xc1\x02" + encode([1]), alpc.RemoteFault, "cannot be read"),
        (b"\xc1\x02\x93\x01\xa1\xff\xa0", alpc.RemoteFault, "cannot be read"),
        (b"\xc1\x02\x94\x01\xa0\xa0" + NESTED, alpc.RemoteFault, "cannot be read"),
    ],
)
async def test_a_lying_server_is_not_believed(answer: bytes, error: type[Exception], text: str) -> None:
    """A client takes no answer that is not of the declared type."""
    answers = [encode([1, 0, ""]), answer]
    async with (
        alpc.listen(NAME) as port,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(lying, port, answers)
        async with alpc.connect(NAME, Files) as client:
            with pytest.raises(error, match=text):
                await client.fail("x")
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "answer",
    [b"", encode([7, [["no", "entry"]], True]), b"\x94\x07\x90\xc3" + NESTED],
    ids=["nothing", "of another type", "too deep"],
)
async def test_items_of_a_lying_server_are_not_believed(answer: bytes) -> None:
    """A stream takes no items that are not of the declared type, and is over then."""
    async with alpc.listen(NAME) as port, anyio.create_task_group() as tasks:
        tasks.start_soon(lying, port, [encode([1, 0, ""]), answer])
        async with alpc.connect(NAME, Files) as client:
            stream = client.walk(3)
            with pytest.raises(alpc.TypeMismatch, match="items of the other side"):
                await anext(stream)
            assert [item async for item in stream] == []
        tasks.cancel_scope.cancel()


async def test_a_server_that_does_not_speak_services_is_noticed() -> None:
    """A client of a port that serves something else gets an error when it binds."""
    async with alpc.listen(NAME) as port, anyio.create_task_group() as tasks:
        tasks.start_soon(lying, port, [b"hello"])
        with pytest.raises(alpc.TypeMismatch, match="binding Files"):
            await alpc.connect(NAME, Files)
        tasks.cancel_scope.cancel()


async def test_a_server_cannot_call_what_a_client_did_not_give() -> None:
    """Requests of a server to objects that it does not hold are refused by the client."""

    async def call_back(port: alpc.ConnectionPort, statuses: list[int]) -> None:
        async for batch in port:
            for message in batch:
                if message.type is alpc.MessageType.REQUEST:
                    message.reply(encode([1, 0, ""]))
                    statuses.append(await status_of(message.port, pack_call(1, 1, 0)))
                    statuses.append(await status_of(message.port, pack_call(0, BIND, 0) + encode((UUID, 1, 0))))

    statuses: list[int] = []
    async with alpc.listen(NAME) as port, anyio.create_task_group() as tasks:
        tasks.start_soon(call_back, port, statuses)
        async with alpc.connect(NAME, Files):
            await until(lambda: len(statuses) == 2)
        tasks.cancel_scope.cancel()
    assert statuses == [alpc.Status.UNKNOWN_OBJECT, alpc.Status.UNKNOWN_INTERFACE]
