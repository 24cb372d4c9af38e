"""Running a service: who may call what, interceptors, a client that connects again, and a test in memory."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import anyio

import alpc_async as alpc
from alpc_async.testing import service_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Notes(alpc.Interface, uuid="c1d0a3f4-5c3e-4d0b-8f4b-2d3b1f6a7e10", version=(1, 0)):
    """Keeps lines of text."""

    @alpc.idempotent
    async def read(self) -> list[str]: ...

    async def add(self, line: str) -> None: ...

    async def clear(self) -> None: ...


class NotesServer(Notes):
    """Signs each line with the user who wrote it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    async def read(self) -> list[str]:
        return self.lines

    async def add(self, line: str) -> None:
        self.lines.append(f"{line} (uid {alpc.current_call().peer.uid})")

    async def clear(self) -> None:
        self.lines.clear()


async def announce(call: alpc.Intercepted, proceed: Callable[[], Awaitable[Any]]) -> Any:
    """Stand around every call."""
    print("calling", call.method)
    return await proceed()


async def test_in_memory() -> None:
    """The service signs lines with whoever it believes is calling."""
    async with service_pair(Notes, NotesServer(), identity=alpc.Identity(uid=1234, gid=1234)) as notes:
        await notes.add("hello")
        print(await notes.read())


async def operate() -> None:
    """Serve with a policy for one method and an interceptor, and replace the server under its client."""
    options: dict[str, Any] = {"authorize": {Notes.clear: alpc.require(uid=4711)}, "interceptors": [announce]}
    port = await alpc.serve("demo.notes", NotesServer(), **options)
    async with alpc.connect("demo.notes", Notes, reconnect=alpc.Reconnect()) as notes:
        try:
            await notes.clear()
        except alpc.RemoteFault as fault:
            print(alpc.Status(fault.status).name)
        await port.aclose()
        async with alpc.serve("demo.notes", NotesServer(), **options):
            print(await alpc.with_options(notes, timeout=2.0).read())


async def main() -> None:
    """Do both."""
    await test_in_memory()
    await operate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
