"""A service whose methods take and give handles and views.

Belongs here: the interface and its server. Never here: tests.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator  # noqa: TC003  # contracts are read at run time
from typing import Any

import anyio
import msgspec
import pytest

import alpc_async as alpc

NAME = "acme.vault"
UUID = "0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c40"
LIMITS = alpc.PortLimits(max_handles=4, handle_kinds=alpc.HandleKind.FILE | alpc.HandleKind.PIPE)

encode = msgspec.msgpack.encode


class Labelled(msgspec.Struct):
    """A handle inside of a record."""

    label: str
    handle: alpc.Handle


class Vault(alpc.Interface, uuid=UUID):
    """Takes and gives what travels beside the bytes."""

    async def read(self, file: alpc.Handle, size: int = 100) -> bytes: ...

    async def many(self, files: list[Labelled], spare: alpc.Handle | None = None) -> dict[str, bytes]: ...

    async def open(self, path: str) -> alpc.Handle: ...

    async def swap(self, file: alpc.Handle) -> alpc.Handle: ...

    async def total(self, data: alpc.View, note: str = "") -> int: ...

    async def fill(self, size: int) -> alpc.View: ...

    async def upper(self, data: alpc.View) -> alpc.View: ...

    async def keep(self, data: alpc.View) -> None: ...

    @alpc.oneway
    async def drop(self, file: alpc.Handle, data: alpc.View | None = None) -> None: ...

    def lines(self, file: alpc.Handle) -> AsyncIterator[bytes]: ...

    async def hang(self, file: alpc.Handle, data: alpc.View) -> None: ...

    async def wrong(self, how: str) -> alpc.Handle: ...

    async def plain(self, text: str) -> str: ...


NUMBERS = {name: number for number, name in enumerate([name for name in vars(Vault) if not name.startswith("_")], 1)}


class VaultServer(Vault):
    """Serves `Vault`."""

    service: alpc.ServicePort

    def __init__(self) -> None:
        self.kept: list[alpc.View] = []
        self.seen: list[alpc.View] = []
        self.handles: list[alpc.Handle] = []
        self.dropped: list[bytes] = []
        self.started = 0

    async def read(self, file: alpc.Handle, size: int = 100) -> bytes:
        with file:
            return os.pread(file.fileno(), size, 0)

    async def many(self, files: list[Labelled], spare: alpc.Handle | None = None) -> dict[str, bytes]:
        found = {each.label: await self.read(each.handle) for each in files}
        if spare is not None:
            found["spare"] = await self.read(spare)
        return found

    async def open(self, path: str) -> alpc.Handle:
        return alpc.Handle.open(path)

    async def swap(self, file: alpc.Handle) -> alpc.Handle:
        return file

    async def total(self, data: alpc.View, note: str = "") -> int:
        self.seen.append(data)
        return sum(data.data)

    async def fill(self, size: int) -> alpc.View:
        view = await alpc.current_call().port.allocate(size)
        view.data[:] = bytes(range(size))
        self.seen.append(view)
        return view

    async def upper(self, data: alpc.View) -> alpc.View:
        data.data[:] = bytes(data.data).upper()
        return data

    async def keep(self, data: alpc.View) -> None:
        self.kept.append(alpc.current_call().keep_view(data))
        with pytest.raises(ValueError, match="no view among the arguments"):
            alpc.current_call().keep_view(data)

    async def drop(self, file: alpc.Handle, data: alpc.View | None = None) -> None:
        self.dropped.append(await self.read(file) + (bytes(data.data) if data is not None else b""))

    async def lines(self, file: alpc.Handle) -> AsyncIterator[bytes]:
        with file:
            for line in os.pread(file.fileno(), 1000, 0).splitlines():
                yield line

    async def hang(self, file: alpc.Handle, data: alpc.View) -> None:
        self.handles.append(file)
        self.seen.append(data)
        self.started += 1
        await anyio.sleep_forever()

    async def wrong(self, how: str) -> Any:
        handle = alpc.Handle.open("/dev/null")
        if how == "type":
            return [handle]
        if how == "closed":
            handle.close()
        return handle

    async def plain(self, text: str) -> str:
        return text
