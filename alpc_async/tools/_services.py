"""``alpc list``, ``alpc describe``, ``alpc call`` and ``alpc completion``: looking at services and calling them.

Belongs here: the commands, what they print, their exit statuses. Never here: descriptions and calls themselves
(service).

Exit statuses: 0 done; 1 the service failed the call; 2 the command line is wrong; 3 the service cannot be reached.
"""

from __future__ import annotations

import os
import stat
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec

from ..contract_errors import TypeMismatch, UnknownInterface
from ..errors import AlpcError, NameNotFound, RemoteFault
from ..link import search_directories
from ..port import connect
from ..service import DeclaredFault, DynamicClient, InterfaceSummary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..service import InterfaceSchema

__all__ = ["call_command", "complete_command", "completion_command", "describe_command", "list_command"]

FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3

PATIENCE: Final = 2.0
"""Seconds that listing gives each service to say what it offers."""


class Listed(msgspec.Struct, frozen=True):
    """One name that somebody listens under.

    Attributes:
        name: the port name.
        directory: where it is.
        interfaces: what it serves, as far as it tells us.
        note: why it does not tell.
    """

    name: str
    directory: str
    interfaces: list[InterfaceSummary]
    note: str = ""


def shown(text: str) -> str:
    """Return what a service says in such a form that a terminal only shows it.

    Control characters could move the cursor, rename the window, or have the terminal type something.

    Args:
        text: one line, from whoever answers.
    """
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def _print_json(value: Any) -> None:
    print(msgspec.json.encode(value).decode(), flush=True)


def _run(function: Callable[[], Awaitable[int]]) -> int:
    try:
        return anyio.run(function)
    except (TypeMismatch, UnknownInterface) as error:
        print(f"alpc: {shown(str(error))}", file=sys.stderr)
        return USAGE
    except (DeclaredFault, RemoteFault) as error:
        print(f"alpc: {shown(str(error))}", file=sys.stderr)
        return FAILED
    except AlpcError as error:
        print(f"alpc: {shown(str(error))}", file=sys.stderr)
        return UNREACHABLE


def names() -> list[tuple[str, str]]:
    """Return the names under which there are sockets, each with its directory; those found first count."""
    found: dict[str, str] = {}
    for directory in search_directories():
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                        found.setdefault(entry.name, directory)
        except OSError:
            continue
    return sorted(found.items())


async def _look_at(name: str, directory: str) -> Listed | None:
    try:
        with anyio.fail_after(PATIENCE):
            async with DynamicClient(await connect(name, timeout=PATIENCE)) as client:
                return Listed(name, directory, await client.interfaces())
    except NameNotFound:
        return None  # what a killed process left behind
    except (TypeMismatch, UnknownInterface):
        return Listed(name, directory, [], "does not tell what it serves")
    except (AlpcError, TimeoutError) as error:
        return Listed(name, directory, [], str(error) or "does not answer")


def list_command(*, json: bool = False) -> int:
    """List the names that somebody listens under, and the interfaces that are served there.

    Args:
        json: print one JSON value for each name.

    Returns:
        Exit status: 0.
    """

    async def look() -> int:
        for name, directory in names():
            listed = await _look_at(name, directory)
            if listed is None:
                continue
            if json:
                _print_json(listed)
                continue
            served = ", ".join(
                f"{summary.name} {summary.version[0]}.{summary.version[1]}" for summary in listed.interfaces
            )
            print(shown(f"{name:<32} {served or '(' + listed.note.partition(';')[0] + ')'}"))
        return 0

    return _run(look)


def describe_command(name: str, interface: str = "", /, *, json: bool = False) -> int:
    """Show the interfaces of a service: methods with their signatures and docstrings.

    Args:
        name: the port name.
        interface: name or uuid of one interface; by default all of them.
        json: print one JSON value for each interface, with the types as JSON Schema.

    Returns:
        Exit status: 0, 2 when there is no such interface, or 3 when the service cannot be reached.
    """

    async def describe() -> int:
        async with DynamicClient(await connect(name)) as client:
            wanted = [interface] if interface else [summary.uuid for summary in await client.interfaces()]
            for each in wanted:
                schema = await client.describe(each)
                if json:
                    _print_json(schema)
                else:
                    print("\n".join(map(shown, _describe(schema))))
        return 0

    return _run(describe)


def _describe(schema: InterfaceSchema) -> list[str]:
    lines = [f"{schema.name} {schema.version[0]}.{schema.version[1]}  {schema.uuid}"]
    lines += [f"    {line}" for line in schema.doc.splitlines()]
    for method in schema.methods:
        marks = ["one-way"] * (method.kind == "oneway") + ["idempotent"] * method.idempotent
        marks += [f"raises {fault.name}" for fault in method.faults]
        lines.append(f"{method.number:>4}  {method.signature}" + (f"    # {', '.join(marks)}" if marks else ""))
        lines += [f"          {line}" for line in method.doc.splitlines()]
    return lines


def call_command(name: str, method: str, arguments: str = "{}", /, *, json: bool = False) -> int:
    """Call a method of a service, and print its result as JSON; a stream prints one line for each item.

    Args:
        name: the port name.
        method: INTERFACE.METHOD.
        arguments: a JSON object of the arguments by name; bytes as base64.
        json: print errors as JSON too, on standard output.

    Returns:
        Exit status: 0, 1 when the call failed, 2 when there is no such method or the arguments do not fit, or 3 when
        the service cannot be reached.
    """
    interface, _, called = method.rpartition(".")
    try:
        values = msgspec.json.decode(arguments, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        print(f"alpc call: the arguments are not a JSON object: {error}", file=sys.stderr)
        return USAGE
    if not interface:
        print("alpc call: say which method as INTERFACE.METHOD", file=sys.stderr)
        return USAGE
    if not json:
        return _run(partial(_call, name, interface, called, values))

    async def call() -> int:
        try:
            return await _call(name, interface, called, values)
        except DeclaredFault as fault:
            _print_json({"fault": fault.fault, "fields": fault.fields})
        except RemoteFault as fault:
            _print_json({"status": fault.status, "reason": fault.reason, "incident": fault.incident})
        return FAILED

    return _run(call)


async def _call(name: str, interface: str, method: str, values: dict[str, Any]) -> int:
    async with DynamicClient(await connect(name)) as client:
        if await client.kind_of(interface, method) == "stream":
            async for item in await client.stream(interface, method, values):
                _print_json(item)
        else:
            result = await client.call(interface, method, values)
            if result is not None:
                _print_json(result)
    return 0


_BASH: Final = """\
_alpc() {
    local IFS=$'\\n'
    COMPREPLY=($(alpc complete "$COMP_CWORD" "${COMP_WORDS[@]}" 2>/dev/null))
}
complete -o default -F _alpc alpc
"""


def completion_command() -> int:
    """Print a script for bash that completes commands, live port names and methods: ``eval "$(alpc completion)"``.

    Returns:
        Exit status: 0.
    """
    print(_BASH, end="")
    return 0


COMMANDS: Final = ("bench", "call", "completion", "demo", "describe", "list", "mapper", "schema", "serve")


def complete_command(position: int, /, *words: str) -> int:
    """Print what the word at a position of a command line can be completed to; the completion script calls this.

    Args:
        position: of the word, from 0.
        words: the command line, from ``alpc`` on.

    Returns:
        Exit status: 0.
    """
    word = words[position] if position < len(words) else ""
    found: list[str] = []
    if position == 1:
        found = list(COMMANDS)
    elif position == 2 and words[1] in {"describe", "call"}:
        found = [name for name, _ in names()]
    elif position == 3 and words[1] in {"describe", "call"}:
        found = anyio.run(_members, words[2], words[1] == "call")
    for candidate in found:
        if candidate.startswith(word):
            print(shown(candidate))
    return 0


async def _members(name: str, methods: bool) -> list[str]:
    try:
        with anyio.fail_after(PATIENCE):
            async with DynamicClient(await connect(name, timeout=PATIENCE)) as client:
                summaries = await client.interfaces()
                if not methods:
                    return [summary.name for summary in summaries]
                schemas = [await client.describe(summary.uuid) for summary in summaries]
                return [f"{schema.name}.{method.name}" for schema in schemas for method in schema.methods]
    except (AlpcError, TimeoutError):
        return []
