"""Interceptors on both sides, and those that come with the package.

Belongs here: what stands around calls. Never here: calls themselves.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import alpc_async as alpc
from alpc_async.testing import service_pair
from tests.port.support import until
from tests.service.contracts import NAME, Counter, CounterServer, Files, FilesServer, NoSuchEntry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Recorder:
    """Notes what passes, under a name."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    async def __call__(self, call: alpc.Intercepted, proceed: Callable[[], Awaitable[Any]]) -> Any:
        self.log.append(f"{self.name} > {call.interface}.{call.method} {call.kind}")
        try:
            result = await proceed()
        except Exception as error:
            self.log.append(f"{self.name} ! {type(error).__name__}")
            raise
        self.log.append(f"{self.name} < {type(result).__name__}")
        return result


async def test_interceptors_stand_around_calls_in_order() -> None:
    """The first interceptor is the outermost, on both sides; both see calls, streams and one-way calls alike."""
    log: list[str] = []
    server = FilesServer()
    async with (
        alpc.serve(NAME, server, interceptors=[Recorder("s1", log), Recorder("s2", log)]),
        alpc.connect(NAME, Files, interceptors=[Recorder("c1", log), Recorder("c2", log)]) as client,
    ):
        assert await client.size(b"x") == 1
        assert log == [
            "c1 > Files.size unary",
            "c2 > Files.size unary",
            "s1 > Files.size unary",
            "s2 > Files.size unary",
            "s2 < int",
            "s1 < int",
            "c2 < int",
            "c1 < int",
        ]
        log.clear()
        assert len([entry async for entry in client.walk(2)]) == 2
        assert log[:4] == [f"{name} > Files.walk stream" for name in ("c1", "c2", "c2", "c1")] or log[0].startswith(
            "c1"
        )
        assert [line for line in log if line.startswith("s1")] == ["s1 > Files.walk stream", "s1 < async_generator"]
        log.clear()
        await client.note("x")
        await until(lambda: server.notes == ["x"])
        assert {line.split()[2] for line in log if ">" in line} == {"Files.note"}
        log.clear()
        with pytest.raises(NoSuchEntry):
            await client.fail("declared")
        assert [line for line in log if "!" in line] == [f"{name} ! NoSuchEntry" for name in ("s2", "s1", "c2", "c1")]


async def test_an_interceptor_may_change_or_refuse() -> None:
    """An interceptor can answer by itself, change the result, and refuse a call with an error of its own."""

    async def refuse(call: alpc.Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "add" and call.arguments.number < 0:
            raise alpc.AccessDenied(what="add", reason="no negative numbers")
        if call.method == "add" and not call.arguments.number:
            return 4711
        return await proceed() + 1

    async with alpc.serve(NAME, CounterServer(), interceptors=[refuse]), alpc.connect(NAME, Counter) as counter:
        assert await counter.add(1) == 2
        assert await counter.add(0) == 4711
        with pytest.raises(alpc.RemoteFault, match="no negative numbers"):
            await counter.add(-1)


async def test_a_stream_goes_through_interceptors() -> None:
    """A stream that passed an interceptor of the client can be read and closed like any other."""

    async def names(_call: alpc.Intercepted, proceed: Callable[[], Awaitable[Any]]) -> Any:
        return await proceed()

    server = FilesServer()
    async with alpc.serve(NAME, server), alpc.connect(NAME, Files, interceptors=[names]) as client:
        stream: Any = client.walk(3, "wait")
        async with stream:
            assert (await anext(stream)).size == 0
        await until(lambda: server.closed_streams == 1)


async def test_calls_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The logger tells every call, how long it took, and how it ended."""
    logger = alpc.CallLogger(logging.getLogger("acme"))
    with caplog.at_level(logging.INFO, "acme"):
        async with service_pair(Files, FilesServer(), interceptors=[logger]) as client:
            await client.size(b"x")
            with pytest.raises(NoSuchEntry):
                await client.fail("declared")
    texts = [record.getMessage() for record in caplog.records]
    assert texts[0].startswith("Files.size took 0.")
    assert texts[1].startswith("Files.fail ended with NoSuchEntry after 0.")


async def test_calls_are_measured() -> None:
    """The meter counts calls and errors by method, and how long they took."""
    meter = alpc.CallMeter()
    async with service_pair(Files, FilesServer(), interceptors=[meter]) as client:
        for _ in range(3):
            await client.size(b"x")
        with pytest.raises(NoSuchEntry):
            await client.fail("declared")
    size, fail = meter.numbers["Files.size"], meter.numbers["Files.fail"]
    assert (size.calls, size.errors, fail.calls, fail.errors) == (3, 0, 1, 1)
    assert 0 < size.longest <= size.seconds


class Flaky(alpc.Interface, uuid="0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c10"):
    """Fails a few times."""

    @alpc.idempotent
    async def read(self) -> int: ...

    async def write(self) -> int: ...


class FlakyServer(Flaky):
    """Gives up its first requests."""

    def __init__(self, failures: int, status: int) -> None:
        self.failures = failures
        self.status = status
        self.calls = 0

    async def read(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            alpc.current_call().message.fail(self.status, "not now")
        return self.calls

    async def write(self) -> int:
        return await self.read()


async def test_lost_idempotent_calls_are_repeated() -> None:
    """Idempotent calls that were turned away are made again, up to a limit; all others are left alone."""
    with pytest.raises(ValueError, match="attempts must be at least 1"):
        alpc.Retry(0)
    retry = alpc.Retry(3, pause=0.001)
    for failures, status, method, expected in [
        (2, alpc.Status.DRAINING, "read", 3),
        (3, alpc.Status.DRAINING, "read", None),
        (1, alpc.Status.DRAINING, "write", None),
        (1, alpc.Status.HANDLER_FAILED, "read", None),
    ]:
        server = FlakyServer(failures, status)
        async with alpc.serve(NAME, server), alpc.connect(NAME, Flaky, interceptors=[retry]) as client:
            if expected is not None:
                assert await getattr(client, method)() == expected
            else:
                with pytest.raises(alpc.RemoteFault):
                    await getattr(client, method)()
        assert server.calls == min(failures, 3 if method == "read" and status == alpc.Status.DRAINING else 1) + (
            expected is not None
        )


async def test_a_lost_connection_is_no_reason_to_repeat_for_ever() -> None:
    """A client without a connection repeats an idempotent call so many times, and then tells why it failed."""
    port = await alpc.serve(NAME, FlakyServer(0, 1))
    async with alpc.connect(NAME, Flaky, interceptors=[alpc.Retry(3, pause=0.001)]) as client:
        assert await client.read() == 1
        await port.aclose()
        await anyio.lowlevel.checkpoint()
        with pytest.raises(alpc.Disconnected):
            await client.read()


@pytest.mark.parametrize("given", [Recorder.__call__, [1], None], ids=["function", "number", "nothing"])
async def test_interceptors_are_a_list_of_functions(given: Any) -> None:
    """A single interceptor without a list around it, or a list of something else, is a mistake on both sides."""
    with pytest.raises(TypeError, match="interceptors= takes a list of async functions"):
        alpc.serve(NAME, CounterServer(), interceptors=given)
    async with alpc.serve(NAME, CounterServer()):
        with pytest.raises(TypeError, match="interceptors= takes a list of async functions"):
            await alpc.connect(NAME, Counter, interceptors=given)
