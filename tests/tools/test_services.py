"""Looking at services and calling them from the command line, and comparing contracts.

Belongs here: the commands as processes. Never here: descriptions by themselves (`tests/service`).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import anyio.to_thread
import pytest

import alpc_async as alpc
from alpc_async.service._dynamic import to_wire
from alpc_async.tools._services import call_command, complete_command, completion_command, describe_command
from tests.port.support import until
from tests.service.contracts import NAME, CounterServer, FilesServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ROOT = Path(__file__).parents[2]


class Done(NamedTuple):
    """What a command did."""

    status: int
    output: str
    errors: str


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``alpc`` with arguments."""
    command = [sys.executable, "-m", "alpc_async", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=environment, cwd=ROOT)


async def alpc_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``alpc`` with arguments while this event loop serves it."""
    return await anyio.to_thread.run_sync(lambda: run(*arguments))


@pytest.fixture
async def server() -> AsyncIterator[FilesServer]:
    """Two interfaces under one name, and a port that serves something else."""
    server = FilesServer()
    async with alpc.serve(NAME, server, CounterServer(3)), alpc.listen("acme.plain"):
        yield server


async def in_thread(
    capsys: pytest.CaptureFixture[str], function: Callable[..., int], *arguments: Any, **options: Any
) -> Done:
    """Run a command in a thread while this event loop serves it."""
    status = await anyio.to_thread.run_sync(lambda: function(*arguments, **options))
    captured = capsys.readouterr()
    return Done(status, captured.out, captured.err)


async def test_services_are_listed(server: FilesServer, runtime_directory: Path) -> None:
    """The list has every live name with what it serves, as a table and as JSON, and none of the dead."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(runtime_directory / "acme.dead"))
    listed = await alpc_command("list")
    assert listed.returncode == 0, listed.stderr
    line = next(line for line in listed.stdout.splitlines() if line.startswith(NAME))
    assert "Files 1.2, Counter 1.0" in line
    values = [json.loads(line) for line in (await alpc_command("list", "--json")).stdout.splitlines()]
    assert {value["name"] for value in values} == {NAME, "acme.plain"}
    (runtime_directory / "acme.dead").unlink()


async def test_services_are_described(server: FilesServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The description has methods with signatures, docstrings and faults."""
    described = await in_thread(capsys, describe_command, NAME, "Files")
    assert described.status == 0
    assert "async def size(data: bytes | bytearray | memoryview) -> int" in described.output
    assert "Return the length of something." in described.output
    assert "raises NoSuchEntry" in described.output
    done = await in_thread(capsys, describe_command, NAME, json=True)
    assert [json.loads(line)["name"] for line in done.output.splitlines()] == ["Files", "Counter"]
    done = await in_thread(capsys, describe_command, NAME, "Nothing")
    assert done == Done(2, "", "alpc: the other side does not serve Nothing: it serves Files, Counter\n")


FAULT = '{"fault":"NoSuchEntry","fields":{"path":"/x","tried":3}}'


class Sly(alpc.Interface, uuid="0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c66"):
    """Clears \x1b[2J the screen, \x9b2J also like this, and writes \x07 a bell."""  # noqa: D301  # they are meant

    async def nothing(self) -> None:
        """Rename \x1b]0;root\x07 the window."""  # noqa: D301  # likewise


class SlyServer(Sly):
    """Fails in colours."""

    async def nothing(self) -> None:
        """Fail."""
        raise alpc.RemoteFault(status=1234, reason="all is \x1b[32mwell\x1b[0m\r")


async def test_a_terminal_is_only_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in what a service says of itself, and why it fails, are shown and do nothing."""
    async with alpc.serve(NAME, SlyServer()):
        described = await in_thread(capsys, describe_command, NAME)
        called = await in_thread(capsys, call_command, NAME, "Sly.nothing")
    assert "Clears \\x1b[2J the screen, \\x9b2J also like this, and writes \\x07 a bell." in described.output
    assert "Rename \\x1b]0;root\\x07 the window." in described.output
    assert "all is \\x1b[32mwell\\x1b[0m\\r" in called.errors
    assert all(line.isprintable() for line in (described.output + called.errors).split("\n"))


async def test_services_are_called(server: FilesServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Calls print their result as JSON, streams line by line, and errors decide the exit status."""
    for arguments, status, output in [
        (("Counter.add", '{"number": 4}'), 0, "7\n"),
        (("Files.size", '{"data": "YWJj"}'), 0, "3\n"),
        (("Files.echo", '{"entry": {"name": "x", "size": 2}}'), 0, '{"name":"x","size":2}\n'),
        (("Files.walk", '{"count": 2}'), 0, '{"name":"entry 0","size":0}\n{"name":"entry 1","size":1}\n'),
        (("Files.note", '{"text": "hi"}'), 0, ""),
        (("Files.fail", '{"how": "status"}'), 1, ""),
        (("Files.size", '{"data": "???"}'), 2, ""),
        (("Files.size", "{}"), 2, ""),
        (("Files.size", '{"other": 1}'), 2, ""),
        (("Files.size", "["), 2, ""),
        (("Files.nothing",), 2, ""),
        (("Nothing.size",), 2, ""),
        (("size",), 2, ""),
    ]:
        done = await in_thread(capsys, call_command, NAME, *arguments)
        assert (done.status, done.output) == (status, output), (arguments, done.errors)
        assert bool(done.errors) == bool(status)
    await until(lambda: server.notes == ["hi"])
    assert (await in_thread(capsys, call_command, "acme.nobody", "A.b")).status == 3
    # Every service has these two, and lists neither.
    health = await in_thread(capsys, call_command, NAME, "Management.health")
    assert json.loads(health.output)["state"] == "serving"
    assert json.loads((await in_thread(capsys, call_command, NAME, "Introspection.calls", '{"most": 3}')).output) == []
    assert "async def stop(" in (await in_thread(capsys, describe_command, NAME, "Management")).output
    done = await in_thread(capsys, call_command, NAME, "Files.fail", '{"how": "declared"}', json=True)
    assert done == Done(1, FAULT + "\n", "")
    done = await in_thread(capsys, call_command, NAME, "Files.fail", '{"how": "status"}', json=True)
    assert json.loads(done.output)["status"] == 1234


async def test_words_are_completed(server: FilesServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands, live names, interfaces and methods are completed."""
    assert "alpc complete" in (await in_thread(capsys, completion_command)).output
    for words, expected in [
        ((1, "alpc", "de"), "demo\ndescribe\n"),
        ((2, "alpc", "call", "acme.f"), f"{NAME}\n"),
        ((3, "alpc", "call", NAME, "Files.wa"), "Files.walk\n"),
        ((3, "alpc", "describe", NAME, ""), "Files\nCounter\n"),
        ((3, "alpc", "call", "acme.nobody", ""), ""),
    ]:
        assert (await in_thread(capsys, complete_command, *words)).output == expected


def test_contracts_are_dumped_and_compared(tmp_path: Path) -> None:
    """A contract that was written down is compared with what the module says now."""
    old = tmp_path / "old.json"
    assert run("schema", "dump", "tests.service.contracts", "--output", str(old)).returncode == 0
    same = run("schema", "check", str(old), "tests.service.contracts")
    assert (same.returncode, same.stdout) == (0, "compatible: Counter, Files\n")
    changed = json.loads(old.read_text())
    changed[0]["methods"][0]["parameters"][0]["schema"] = {"type": "string"}
    new = tmp_path / "new.json"
    new.write_text(json.dumps(changed))
    broken = run("schema", "check", str(old), str(new))
    assert (broken.returncode, broken.stdout) == (
        1,
        "Counter.add: parameter 'number': integer is not taken as string\n",
    )
    new.write_text(json.dumps(changed[1:]))
    assert "is gone" in run("schema", "check", str(old), str(new)).stdout
    for source in ("no.such.module", "tests.service.contracts:Nothing", str(tmp_path / "none.json")):
        assert run("schema", "check", str(old), source).returncode == 2
    assert run("schema", "dump", "no.such.module").returncode == 2
    assert json.loads(run("schema", "dump", "tests.service.contracts:Counter").stdout)[0]["name"] == "Counter"


def test_the_contracts_of_the_examples_stay_compatible() -> None:
    """What the examples served when they were released is still served."""
    done = run("schema", "check", "tests/tools/typed_service.json", "examples.typed_service")
    assert (done.returncode, done.stdout) == (0, "compatible: Library\n")


def test_values_of_json_become_those_of_the_wire() -> None:
    """Base64 text becomes bytes wherever the type says so, and nothing else changes."""
    encoded: dict[str, Any] = {"type": "string", "contentEncoding": "base64"}
    cases: list[tuple[dict[str, Any], Any, Any]]
    definitions = {"R": {"type": "object", "properties": {"b": encoded, "next": {"$ref": "#/definitions/R"}}}}
    cases = [
        (encoded, "YQ==", b"a"),
        ({"type": "array", "items": encoded}, ["YQ==", ""], [b"a", b""]),
        ({"type": "array", "prefixItems": [encoded, {"type": "string"}]}, ["YQ==", "YQ=="], [b"a", "YQ=="]),
        ({"type": "object", "additionalProperties": encoded}, {"x": "YQ=="}, {"x": b"a"}),
        ({"$ref": "#/definitions/R"}, {"b": "YQ==", "next": {"b": ""}}, {"b": b"a", "next": {"b": b""}}),
        ({"anyOf": [encoded, {"type": "null"}]}, "YQ==", b"a"),
        ({"anyOf": [encoded, {"type": "null"}]}, None, None),
        ({"anyOf": [{"$ref": "#/definitions/R"}, {"type": "null"}]}, {"b": "YQ=="}, {"b": b"a"}),
        ({"anyOf": [{"type": "array", "items": encoded}, {"type": "null"}]}, ["YQ=="], [b"a"]),
        ({"type": "integer"}, 5, 5),
    ]
    for schema, value, expected in cases:
        assert to_wire(schema, value, definitions) == expected
    with pytest.raises(ValueError, match="cannot be given as JSON"):
        to_wire({"x-alpc-stream": {}}, [], {})
