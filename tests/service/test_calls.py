"""Unary and one-way calls: values, faults, deadlines, cancellation, what handlers know.

Belongs here: calls without streams and objects. Never here: those (`test_streams`, `test_objects`).
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, cast

import anyio
import msgspec
import pytest

import alpc_async as alpc
from tests.port.support import until
from tests.service.contracts import NAME, Color, Counter, CounterServer, Entry, Files, FilesServer, NoSuchEntry, Point

if TYPE_CHECKING:
    from tests.service.conftest import Served


WRONG_ENTRY = msgspec.structs.replace(Entry("a"), size="b")


async def test_arguments_and_results_cross(served: Served) -> None:
    """Positional and keyword arguments, defaults and results arrive as what they were."""
    entry = Entry("a", 7)
    assert await served.client.echo(entry) == entry
    assert await served.client.echo(entry, color=Color.BLUE, point=Point(1.5, -2.0)) == entry
    assert served.server.calls == [(Color.RED, None), (Color.BLUE, Point(1.5, -2.0))]


async def test_a_port_that_is_silent_is_given_up_in_the_time_for_connecting() -> None:
    """A port that takes the connection and never says what it serves holds a client no longer than ``timeout``."""
    async with alpc.listen(NAME):
        with anyio.fail_after(10), pytest.raises(alpc.DeadlineExceeded):
            await alpc.connect(NAME, Files, timeout=0.05)


async def test_a_port_without_types_is_told_apart() -> None:
    """An answer that no typed service gives says so."""
    async with alpc.listen(NAME) as port, anyio.create_task_group() as tasks:

        async def answer() -> None:
            message = await port.receive()
            message.reply(message.data)

        tasks.start_soon(answer)
        with pytest.raises(alpc.TypeMismatch, match="is that a typed service"):
            await alpc.connect(NAME, Files)


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
async def test_a_buffer_takes_bytes_in_any_form(served: Served, data: alpc.Buffer) -> None:
    """Bytes, byte arrays and views are taken alike."""
    assert await served.client.size(data) == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            (msgspec.structs.replace(Entry("a"), size="b"),),
            r"Files.echo, argument 'entry': Expected `int`, got `str` - at `\$.size`",
        ),
        (("a",), "Files.echo, argument 'entry': Expected `object`, got `str`"),
        ((), "Files.echo: Missing required argument 'entry'"),
        ((complex(1),), "Files.echo, arguments: Encoding objects of type complex is unsupported"),
    ],
)
async def test_wrong_arguments_are_refused_before_sending(
    served: Served, arguments: tuple[Any, ...], text: str
) -> None:
    """An argument of another type is refused by the client, with the name of the parameter and the path in it."""
    with pytest.raises(alpc.TypeMismatch, match=text):
        await served.client.echo(*arguments)
    assert served.port.statistics().handled == 1  # the bind


async def test_a_declared_fault_crosses_with_its_fields(served: Served) -> None:
    """The caller gets the exception that the handler raised, of the same class and with the same fields."""
    with pytest.raises(NoSuchEntry) as caught:
        await served.client.fail("declared")
    assert (caught.value.path, caught.value.tried) == ("/x", 3)
    assert str(caught.value) == "path='/x', tried=3"


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("undeclared", alpc.Status.HANDLER_FAILED),
        ("value", alpc.Status.HANDLER_FAILED),
        ("type", alpc.Status.BAD_RESULT),
    ],
)
async def test_other_errors_stay_in_the_log(
    served: Served, how: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller of a handler that fails gets a status and an incident; what happened is in the log under it."""
    with caplog.at_level(logging.CRITICAL, "alpc_async.service"), pytest.raises(alpc.RemoteFault) as caught:
        await served.client.fail(how)
    assert caught.value.status == status
    assert "secret" not in str(caught.value)
    assert caught.value.incident
    assert caught.value.incident in str(caught.value)


async def test_the_log_has_the_incident(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """The log of the server shows the traceback, the caller, and the incident that the caller sees."""
    with pytest.raises(alpc.RemoteFault) as caught:
        await served.client.fail("value")
    (record,) = caplog.records
    assert caught.value.incident in record.getMessage()
    assert "uid" in record.getMessage()
    assert record.exc_info is not None
    assert "secret" in str(record.exc_info[1])
    caplog.clear()


async def test_a_handler_may_choose_a_status(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that raises a fault of the service's own status has it cross; a denial has its own status."""
    with pytest.raises(alpc.RemoteFault) as caught:
        await served.client.fail("status")
    assert (caught.value.status, caught.value.reason) == (1234, "on purpose")
    assert str(caught.value) == "the other side failed the request with status 1234: on purpose"
    with pytest.raises(alpc.RemoteFault, match="not you") as caught:
        await served.client.fail("denied")
    assert caught.value.status == alpc.Status.ACCESS_DENIED
    number = int(alpc.Status.ACCESS_DENIED)
    assert f"with status ACCESS_DENIED ({number}): " in str(caught.value)
    with pytest.raises(alpc.RemoteFault, match=r"with status HANDLER_FAILED \(1\): the handler failed; incident"):
        await served.client.fail("value")
    caplog.clear()


async def test_a_fault_checks_its_fields() -> None:
    """A fault with wrong fields is refused where it is raised."""
    with pytest.raises(TypeError, match="NoSuchEntry: Expected `str`, got `int`"):
        NoSuchEntry(path=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the mistake
    with pytest.raises(TypeError, match="Missing required argument 'path'"):
        NoSuchEntry()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # the mistake


async def test_a_one_way_call_is_not_answered(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """One-way calls are handled in order, before later calls, and their failures are logged."""
    for text in ("one", "fail", "two"):
        await served.client.note(text)
    assert await served.client.size(b"") == 0
    assert served.server.notes == ["one", "two"]
    assert "Files.note called by" in caplog.text
    caplog.clear()


async def test_the_handler_knows_its_call(served: Served) -> None:
    """Inside a handler current_call tells who calls, which method, until when; outside there is none."""
    await alpc.with_options(served.client, timeout=7.0, priority=3, trace="00-ab-cd-01").size(b"x")
    (call,) = served.server.calls
    assert (call.interface, call.method, call.kind, call.idempotent) == ("Files", "size", "unary", False)
    assert (call.priority, call.trace, call.depth) == (3, "00-ab-cd-01", 0)
    assert call.peer.uid == served.port.connections[0].peer.uid
    assert call.port is served.port.connections[0]
    assert 0 < call.deadline - anyio.current_time() <= 7.1
    assert not call.cancelled
    with pytest.raises(LookupError, match="no call is being handled"):
        alpc.current_call()


async def test_there_is_a_default_deadline(served: Served) -> None:
    """A call has the default timeout of the port; none has to be asked for."""
    await served.client.size(b"")
    await alpc.with_options(served.client, timeout=None).size(b"")
    first, second = served.server.calls
    assert first.deadline < math.inf
    assert second.deadline == math.inf


async def test_a_call_ends_at_its_deadline(served: Served) -> None:
    """When its time is over the caller gets an error, and the handler is cancelled."""
    with pytest.raises(alpc.DeadlineExceeded):
        await alpc.with_options(served.client, timeout=0.02).sleep(60)
    await until(lambda: served.server.cancelled == 1)


async def test_cancelling_the_caller_cancels_the_handler(served: Served) -> None:
    """A caller that is cancelled takes its handler along, and the service goes on."""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(served.client.sleep, 60)
            await until(lambda: served.server.started == 1)
            scope.cancel()
    await until(lambda: served.server.cancelled == 1)
    assert await served.client.size(b"x") == 1
    await until(lambda: served.port.statistics().running == 0)


async def test_many_calls_run_at_the_same_time(served: Served) -> None:
    """Handlers that wait do not keep others from running."""
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(served.client.sleep, 0.05)
        await until(lambda: served.server.started == 50)
        assert await served.client.size(b"x") == 1
    await until(lambda: served.port.statistics().workers <= 10)


async def test_the_number_of_handlers_is_bounded() -> None:
    """At most ``maximum`` handlers run at the same time, and all calls are handled."""
    server = FilesServer()
    async with (
        alpc.serve(NAME, server, maximum=2) as port,
        alpc.connect(NAME, Files) as client,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(6):
            tasks.start_soon(client.sleep, 0.02)
        await until(lambda: server.started >= 2)
        while server.started < 6:
            assert port.statistics().running <= 2
            await anyio.sleep(0.001)


class Relay(FilesServer):
    """A service whose handler asks another one."""

    def __init__(self, other: Files) -> None:
        super().__init__()
        self.other = other

    async def size(self, data: alpc.Buffer) -> int:
        self.calls.append(alpc.current_call())
        return await self.other.size(data)

    async def sleep(self, seconds: float) -> None:
        await self.other.sleep(seconds)


async def test_nested_calls_inherit() -> None:
    """A call made by a handler has the deadline, priority, trace and causality of the one it is made in."""
    server = FilesServer()
    async with (
        alpc.serve(NAME, server),
        alpc.connect(NAME, Files) as inner,
        alpc.serve("acme.relay", Relay(inner)) as relay_port,
        alpc.connect("acme.relay", Files) as client,
    ):
        await alpc.with_options(client, timeout=5.0, priority=2, trace="00-1").size(b"x")
        (nested,) = server.calls
        assert (nested.depth, nested.priority, nested.trace) == (1, 2, "00-1")
        assert len(nested.causality) == 16
        assert nested.deadline - anyio.current_time() <= 5.1
        with pytest.raises(alpc.DeadlineExceeded):
            await alpc.with_options(client, timeout=0.05).sleep(60)
        await until(lambda: server.cancelled == 1)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.sleep, 60)
                await until(lambda: server.started == 2)
                scope.cancel()
        await until(lambda: server.cancelled == 2)
        await until(lambda: relay_port.statistics().running == 0)


async def test_one_connection_has_several_interfaces() -> None:
    """A port serves several objects; a client binds to each of them on one connection."""
    async with (
        alpc.serve(NAME, FilesServer(), CounterServer(1)) as port,
        alpc.connect(NAME, Files) as files,
    ):
        counter = await alpc.bind(files, Counter)
        assert await counter.add(2) == 3
        await counter.aclose()
        with pytest.raises(alpc.PortClosed):
            await counter.add(1)
        assert await files.size(b"") == 0
        assert len(port.connections) == 1


async def test_versions_must_fit() -> None:
    """A client works with the same major version and at least its own minor one, and is told otherwise."""
    uuid = "0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c01"

    def version(number: tuple[int, int]) -> type[Files]:
        return cast("type[Files]", type("Files", (alpc.Interface,), {"size": Files.size}, uuid=uuid, version=number))

    async with alpc.serve(NAME, FilesServer()):
        for fitting in ((1, 0), (1, 2)):
            async with alpc.connect(NAME, version(fitting)) as client:
                assert await client.size(b"abc") == 3
        for other in ((2, 0), (0, 9), (1, 3)):
            with pytest.raises(alpc.UnknownInterface, match=r"it serves version 1\.2"):
                await alpc.connect(NAME, version(other))
        with pytest.raises(alpc.UnknownInterface, match="serves no interface"):
            await alpc.connect(NAME, Counter)


async def test_policies_hold_for_interfaces_and_methods() -> None:
    """A policy for an interface is asked when a client binds, one for a method at each call."""
    nobody = alpc.require(uid=4711)
    async with alpc.serve(
        NAME, FilesServer(), CounterServer(), authorize={Counter: nobody, Files.size: nobody, Files.note: nobody}
    ):
        async with alpc.connect(NAME, Files) as client:
            with pytest.raises(alpc.RemoteFault, match=r"Files\.size may not be called") as caught:
                await client.size(b"")
            assert caught.value.status == alpc.Status.ACCESS_DENIED
            assert await client.echo(Entry("x")) == Entry("x")
        with pytest.raises(alpc.AccessDenied, match="use Counter"):
            await alpc.connect(NAME, Counter)


async def test_closing_a_service_ends_its_calls() -> None:
    """A service that is closed cancels its handlers, and their callers get an error at once."""
    server = FilesServer()
    port = await alpc.serve(NAME, server)
    client = await alpc.connect(NAME, Files)
    errors: list[Exception] = []

    async def call() -> None:
        with pytest.raises((alpc.RemoteFault, alpc.Disconnected)) as caught:
            await client.sleep(60)
        errors.append(caught.value)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await until(lambda: server.started == 1)
        await port.aclose()
        await port.aclose()
    assert server.cancelled == 1
    assert len(errors) == 1
    await client.aclose()
    await client.aclose()
    with pytest.raises(alpc.PortClosed):
        await client.size(b"")


async def test_draining_lets_calls_end() -> None:
    """A service that drains ends the calls that run and turns new ones away."""
    server = FilesServer()
    async with (
        alpc.serve(NAME, server) as port,
        alpc.connect(NAME, Files) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(client.sleep, 0.05)
        await until(lambda: server.started == 1)
        tasks.start_soon(port.drain, 5.0)
        await anyio.lowlevel.checkpoint()
        with pytest.raises(alpc.RemoteFault) as caught:
            await client.size(b"")
        assert caught.value.status == alpc.Status.DRAINING
    assert server.cancelled == 0


async def test_proxies_are_closed_in_any_order_and_task() -> None:
    """Proxies and services hold no task group: they are opened in one task and closed in others, in any order."""
    opened: list[Any] = []

    async def open_all() -> None:
        opened.append(await alpc.serve(NAME, FilesServer()))
        opened.append(await alpc.connect(NAME, Files))
        opened.append(await alpc.connect(NAME, Files))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_all)
    async with anyio.create_task_group() as tasks:
        for thing in opened:
            tasks.start_soon(thing.aclose)
    port = opened[0]
    assert (port.connections, port.statistics().workers) == ((), 0)
    with pytest.raises(alpc.NameNotFound):
        await alpc.connect(NAME, Files)


class Blobs(alpc.Interface, uuid="0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c12"):
    """Takes and gives much."""

    async def copy(self, data: bytes) -> bytes: ...

    async def look(self, data: alpc.Buffer) -> alpc.Buffer: ...


class BlobsServer(Blobs):
    """Notes how the data came."""

    def __init__(self) -> None:
        self.transfers: list[alpc.Transfer] = []

    async def copy(self, data: bytes) -> bytes:
        self.transfers.append(alpc.current_call().message.transfer)
        return data

    async def look(self, data: alpc.Buffer) -> alpc.Buffer:
        self.transfers.append(alpc.current_call().message.transfer)
        return data


async def test_big_values_travel_as_views_by_themselves() -> None:
    """Arguments and results of several MiB cross in shared memory, and stay what they are as long as they are held."""
    server = BlobsServer()
    async with alpc.serve(NAME, server), alpc.connect(NAME, Blobs) as client:
        data = bytes(range(256)) * 16_384
        assert await client.copy(data) == data
        held = [await client.look(data) for _ in range(5)]
        assert all(each == data for each in held)
        del held
    assert set(server.transfers) == {alpc.Transfer.VIEW}
