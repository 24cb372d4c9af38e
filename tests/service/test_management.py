"""What every service port tells about itself, to whom, and how contracts are compared.

Belongs here: introspection, management, schemas, evolution. Never here: the command line (`tests/tools`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import anyio
import msgspec
import pytest

import alpc_async as alpc
from alpc_async.service import find_breaks, fingerprint
from tests.port.support import until
from tests.service.contracts import NAME, Counter, CounterServer, Files, FilesServer

FILES = "0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c01"


async def test_a_port_tells_what_it_serves() -> None:
    """Interfaces, methods, signatures, docstrings and types can be asked for."""
    async with (
        alpc.serve(NAME, FilesServer(), CounterServer()),
        alpc.connect(NAME, alpc.Introspection) as introspection,
    ):
        summaries = {summary.name: summary for summary in await introspection.interfaces()}
        assert summaries.keys() == {"Files", "Counter"}
        files = summaries["Files"]
        assert (files.uuid, files.version, files.methods) == (FILES, (1, 2), 13)
        assert files.doc == "A service with one method of each kind."
        schema = await introspection.describe(FILES)
        assert schema is not None
        assert fingerprint(schema) == files.fingerprint
        assert schema == alpc.describe_interface(Files)
        assert await introspection.describe("ffffffff-9e7c-4f2f-8a0f-0d6d3a6b7c01") is None
    size = schema.find("size")
    assert size is not None
    assert size.doc == "Return the length of something."
    assert size.parameters == [
        alpc.ParameterSchema("data", {"type": "string", "contentEncoding": "base64"}),
    ]
    assert size.result == {"type": "integer"}
    total = schema.find("total")
    assert total is not None
    assert total.parameters[0].schema == {"x-alpc-stream": {"type": "integer"}}
    use = schema.find("use")
    assert use is not None
    assert use.parameters[0].schema["x-alpc-interface"] == "0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c02"
    walk = schema.find("walk")
    assert walk is not None
    assert (walk.kind, [fault.name for fault in walk.faults]) == ("stream", ["NoSuchEntry"])
    assert walk.signature.startswith("def walk(count: int, end: str = '') -> ")
    assert schema.find("nothing") is None


async def test_calls_that_run_are_listed() -> None:
    """A call that is being handled is listed with its caller, its age and its deadline."""
    server = FilesServer()
    async with (
        alpc.serve(NAME, server),
        alpc.connect(NAME, Files) as client,
        alpc.connect(NAME, alpc.Introspection) as introspection,
        anyio.create_task_group() as tasks,
    ):
        assert await introspection.calls() == []
        tasks.start_soon(alpc.with_options(client, timeout=9.0).sleep, 60)
        await until(lambda: server.started == 1)
        (live,) = await introspection.calls()
        assert (live.interface, live.method) == ("Files", "sleep")
        assert "uid" in live.peer
        assert 0 <= live.age < 9
        assert live.left is not None
        assert 0 < live.left <= 9.1
        tasks.cancel_scope.cancel()


async def test_a_service_can_be_stopped_from_outside() -> None:
    """Statistics and health can be asked for; stopping lets calls end and then ends whoever waits for it."""
    server = FilesServer()
    stopped = anyio.Event()

    async def serve(task_status: anyio.abc.TaskStatus[None]) -> None:
        async with alpc.serve(NAME, server) as port:
            task_status.started()
            await port.wait_stopped()
        stopped.set()

    async with anyio.create_task_group() as tasks:
        await tasks.start(serve)
        async with alpc.connect(NAME, Files) as client, alpc.connect(NAME, alpc.Management) as management:
            await client.size(b"")
            statistics = await management.statistics()
            assert (statistics.connections, statistics.failed) == (2, 0)
            health = await management.health()
            assert health.state == "serving"
            assert health.since >= 0
            tasks.start_soon(client.sleep, 0.05)
            await until(lambda: server.started == 1)
            await management.stop()
            await stopped.wait()
    assert server.cancelled == 0


async def test_stopping_does_not_wait_for_ever() -> None:
    """A call that does not end in time is cancelled when the service stops."""
    server = FilesServer()
    async with (
        anyio.create_task_group() as tasks,
        alpc.serve(NAME, server) as port,
        alpc.connect(NAME, Files) as client,
        alpc.connect(NAME, alpc.Management) as management,
    ):

        async def call() -> None:
            with pytest.raises((alpc.Disconnected, alpc.RemoteFault, alpc.PortClosed)):
                await client.sleep(60)

        tasks.start_soon(call)
        await until(lambda: server.started == 1)
        await management.stop(0.01)
        await port.wait_stopped()
    await until(lambda: server.cancelled == 1)


async def test_rights_are_needed() -> None:
    """With an access list both interfaces need their rights; they can be left out altogether."""
    entries = [alpc.allow("same-user", alpc.Access.CONNECT)]
    async with alpc.serve(NAME, FilesServer(), security=alpc.SecurityDescriptor(entries)):
        for interface in (alpc.Introspection, alpc.Management):
            with pytest.raises(alpc.AccessDenied):
                await alpc.connect(NAME, interface)
    entries = [alpc.allow("same-user", alpc.Access.CONNECT | alpc.Access.INTROSPECT)]
    async with alpc.serve(NAME, FilesServer(), security=alpc.SecurityDescriptor(entries)):
        await (await alpc.connect(NAME, alpc.Introspection)).aclose()
        with pytest.raises(alpc.AccessDenied, match="the right control"):
            await alpc.connect(NAME, alpc.Management)
    async with alpc.serve(NAME, FilesServer(), management=False):
        with pytest.raises(alpc.UnknownInterface):
            await alpc.connect(NAME, alpc.Management)


# ------------------------------------------------------------------------------------------------------------ evolution

UUID = "0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c20"


class Inner(msgspec.Struct):
    """A record of the old version."""

    a: int
    b: str = ""


class Wider(msgspec.Struct):
    """The record with one more optional field."""

    a: int
    b: str = ""
    c: int | None = None


class Stricter(msgspec.Struct):
    """The record with one more required field."""

    a: int
    d: int
    b: str = ""


MethodCase = tuple[str, dict[str, Any], dict[str, Any]]
F: MethodCase = ("f", {"return": None}, {})
G: MethodCase = ("g", {"return": None}, {})
H: MethodCase = ("h", {"a": int, "return": None}, {"a": 1})


def contract(*methods: MethodCase, version: tuple[int, int] = (1, 0), uuid: str = UUID) -> alpc.InterfaceSchema:
    """Return the schema of an interface with methods of name, annotations and defaults."""
    body: dict[str, Any] = {}
    for name, hints, defaults in methods:
        names = [parameter for parameter in hints if parameter != "return"]
        parameters = ", ".join(
            f"{parameter}=DEFAULTS[{parameter!r}]" if parameter in defaults else parameter for parameter in names
        )
        stream = str(hints["return"]).startswith("collections.abc.AsyncIterator")
        scope: dict[str, Any] = {"DEFAULTS": defaults}
        source = f"{'' if stream else 'async '}def {name}(self, {parameters}): ..."
        exec(source, scope)  # noqa: S102  # functions as data
        body[name] = scope[name]
        body[name].__annotations__ = hints
    return alpc.describe_interface(type("Evolving", (alpc.Interface,), body, uuid=uuid, version=version))


def one(hints: dict[str, Any], **defaults: Any) -> alpc.InterfaceSchema:
    """Return the schema of an interface with one method."""
    return contract(("f", hints, defaults))


KEPT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"a": int, "return": int}, {"a": int, "return": int}),
    ({"a": int, "return": int}, {"a": float, "return": int}),
    ({"a": int, "return": float}, {"a": int, "return": int}),
    ({"a": int, "return": int}, {"a": int | str, "return": int}),
    ({"a": int, "return": int | None}, {"a": int, "return": int}),
    ({"a": Inner, "return": Inner}, {"a": Wider, "return": Wider}),
    ({"a": list[Inner], "return": None}, {"a": list[Wider], "return": None}),
    ({"a": Literal["x"], "return": None}, {"a": Literal["x", "y"], "return": None}),
    ({"a": Literal["x"], "return": None}, {"a": str, "return": None}),
    ({"a": dict[str, int], "return": None}, {"a": dict[str, float], "return": None}),
    ({"a": AsyncIterator[int], "return": None}, {"a": AsyncIterator[float], "return": None}),
    ({"a": Counter, "return": Counter}, {"a": Counter, "return": Counter}),
]

BROKEN: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"a": int, "return": int}, {"a": str, "return": int}, "parameter 'a': integer is not taken as string"),
    ({"a": float, "return": int}, {"a": int, "return": int}, "parameter 'a': number is not taken as integer"),
    ({"a": int, "return": int}, {"a": int, "return": float}, "result: number is not taken as integer"),
    ({"a": int | None, "return": None}, {"a": int, "return": None}, "parameter 'a': null is not taken as integer"),
    ({"a": int, "return": int}, {"a": int, "return": int | None}, "result: null is not taken"),
    ({"a": Inner, "return": None}, {"a": Stricter, "return": None}, "parameter 'a'.d: it is required"),
    ({"a": Literal["x", "y"], "return": None}, {"a": Literal["x"], "return": None}, "the value 'y' is not taken"),
    ({"return": Literal["x"]}, {"return": Literal["x", "y"]}, "result: the value 'y' is not taken"),
    ({"return": Literal["x"]}, {"return": str}, "result: string is not taken"),
    ({"a": list[int], "return": None}, {"a": list[str], "return": None}, "parameter 'a'[]: integer is not taken"),
    ({"a": tuple[int, int], "return": None}, {"a": tuple[int, str], "return": None}, "parameter 'a'[1]: integer"),
    ({"a": bytes, "return": None}, {"a": str, "return": None}, "contentEncoding differs"),
    ({"a": int, "return": None}, {"b": int, "return": None}, "parameter 1 was 'a' and is 'b'"),
    ({"a": int, "return": None}, {"return": None}, "parameter 'a' was removed"),
    ({"return": None}, {"a": int, "return": None}, "parameter 'a' was added without a default"),
    ({"return": int}, {"return": AsyncIterator[int]}, "it was unary and is stream"),
    ({"return": AsyncIterator[int]}, {"return": AsyncIterator[str]}, "result: string is not taken as integer"),
    ({"a": AsyncIterator[int], "return": None}, {"a": list[int], "return": None}, "it was a stream and is array"),
    ({"a": Counter, "return": None}, {"a": Files, "return": None}, "x-alpc-interface differs"),
]


@pytest.mark.parametrize(("old", "new"), KEPT)
def test_a_compatible_change_is_found_to_be_one(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Taking more and giving less keeps old peers working."""
    assert find_breaks(one(old), one(new)) == []


@pytest.mark.parametrize(("old", "new", "text"), BROKEN)
def test_a_breaking_change_is_named(old: dict[str, Any], new: dict[str, Any], text: str) -> None:
    """Taking less and giving more is told, with the path to the place."""
    (found,) = find_breaks(one(old), one(new))
    assert found.startswith("Evolving.f: ")
    assert text in found


def test_methods_and_versions_are_compared() -> None:
    """Methods may be added with a new minor version, and neither removed nor renumbered."""
    old = contract(F, G)
    assert find_breaks(old, contract(F, G, H, version=(1, 1))) == []
    assert "raise the minor one" in find_breaks(old, contract(F, G, H))[0]
    assert find_breaks(old, contract(F)) == ["Evolving.g: method 2 was removed"]
    assert "now belongs to g" in find_breaks(old, contract(G, F))[0]
    assert "the minor version went back" in find_breaks(contract(F, version=(1, 3)), contract(F, version=(1, 2)))[0]
    assert "the major version changed" in find_breaks(old, contract(F, G, version=(2, 0)))[0]
    assert "another interface" in find_breaks(old, contract(F, G, uuid=FILES))[0]
    assert find_breaks(contract(H), contract(("h", {"a": int, "return": None}, {}))) == [
        "Evolving.h: parameter 'a' lost its default"
    ]


async def test_old_and_new_versions_work_together() -> None:
    """An old client works with a new server; a new client works with an old one as far as that goes."""

    class Old(alpc.Interface, uuid=UUID, version=(1, 0)):
        async def greet(self, entry: Inner) -> Inner: ...

    class New(alpc.Interface, uuid=UUID, version=(1, 1)):
        async def greet(self, entry: Wider, loud: bool = False) -> Wider: ...
        async def more(self) -> int: ...

    class OldServer(Old):
        async def greet(self, entry: Inner) -> Inner:
            return entry

    class NewServer(New):
        async def greet(self, entry: Wider, loud: bool = False) -> Wider:
            return Wider(entry.a, entry.b, int(loud))

        async def more(self) -> int:
            return 1

    async with alpc.serve(NAME, NewServer()), alpc.connect(NAME, Old) as client:
        assert await client.greet(Inner(1, "x")) == Inner(1, "x")

    # What a client of the new contract sends is taken by an old server that ignores what it does not know.
    class Careful(alpc.Interface, uuid=UUID, version=(1, 0)):
        async def greet(self, entry: Wider, loud: bool = False) -> Wider: ...
        async def more(self) -> int: ...

    async with alpc.serve(NAME, OldServer()):
        async with alpc.connect(NAME, Careful) as careful:
            assert await careful.greet(Wider(1, "x", 5), True) == Wider(1, "x", None)
            with pytest.raises(alpc.RemoteFault) as caught:
                await careful.more()
            assert caught.value.status == alpc.Status.UNKNOWN_METHOD
        with pytest.raises(alpc.UnknownInterface):
            await alpc.connect(NAME, New)
