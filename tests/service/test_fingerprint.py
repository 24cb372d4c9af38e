"""Fingerprints of contracts: what counts, and that both sides compare them when a client binds.

Belongs here: digests and the warning about them. Never here: which change breaks whom (`test_management`).
"""

from __future__ import annotations

import logging
from typing import Any, cast

import msgspec
import pytest

import alpc_async as alpc
from alpc_async.service import describe_interface, fingerprint
from tests.service.contracts import NAME, Counter, CounterServer

UUID = "0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c30"


class Titled(msgspec.Struct, tag="t"):
    """A record whose fields have names that are words of JSON Schema."""

    title: str = ""
    more: Titled | None = None


class Renamed(msgspec.Struct, tag="t"):
    """The same under another name."""

    title: str = ""
    more: Renamed | None = None


class Untitled(msgspec.Struct, tag="t"):
    """A record without one of the fields."""

    more: Untitled | None = None


class Other(msgspec.Struct, tag="o"):
    """Another member of a union."""


def taking(annotation: Any, version: tuple[int, int] = (1, 0), *, name: str = "Taking", doc: str = "") -> type[Any]:
    """Return an interface with one method that takes one argument."""

    async def take(self: object, value: object) -> None: ...

    take.__annotations__ = {"value": annotation, "return": None}
    take.__doc__ = doc
    made: Any = type(name, (alpc.Interface,), {"take": take}, uuid=UUID, version=version)
    return cast("type[Any]", made)


def serving(interface: type[Any]) -> Any:
    """Return an object that implements such an interface."""

    async def take(self: object, value: object) -> None:
        return None

    return type("Server", (interface,), {"take": take})()


def digest(interface: type[Any]) -> str:
    """Return the fingerprint of an interface."""
    return fingerprint(describe_interface(interface))


def test_a_fingerprint_is_of_the_contract_only() -> None:
    """The fingerprint changes with the types, and not with words, names of types and minor versions."""
    assert digest(taking(int)) == digest(taking(int, (1, 7), name="Renamed", doc="Words."))
    assert digest(taking(int)) != digest(taking(int, (2, 0)))
    assert digest(taking(int)) != digest(taking(str))
    assert digest(taking(Titled)) == digest(taking(Renamed))
    assert digest(taking(Titled)) != digest(taking(Untitled))
    assert digest(taking(Titled | Other)) == digest(taking(Renamed | Other))


class Keyed(alpc.Interface, uuid="0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c31"):
    """Takes what JSON Schema cannot describe."""

    async def take(self, value: dict[tuple[int, int], int]) -> int: ...


class KeyedServer(Keyed):
    """Serves it."""

    async def take(self, value: dict[tuple[int, int], int]) -> int:
        return len(value)


async def test_what_cannot_be_described_has_no_fingerprint(caplog: pytest.LogCaptureFixture) -> None:
    """An interface that JSON Schema cannot describe is used without a fingerprint, and nobody is warned."""
    async with alpc.serve(NAME, KeyedServer()), alpc.connect(NAME, Keyed) as keyed:
        assert await keyed.take({(1, 2): 3}) == 1
    assert caplog.records == []


async def test_contracts_of_one_version_that_differ_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """A client is warned once when the server has its version of a contract and not its contract, and goes on."""
    same = taking(int)
    async with alpc.serve(NAME, serving(same)):
        async with alpc.connect(NAME, same), alpc.connect(NAME, taking(int, name="Other", doc="Words.")):
            assert caplog.records == []
        changed = taking(float)
        async with alpc.connect(NAME, changed) as client:
            (record,) = caplog.records
            assert record.levelno == logging.WARNING
            assert "version 1.0 of Taking, and their contracts differ" in record.getMessage()
            assert digest(same) in record.getMessage()
            assert digest(changed) in record.getMessage()
            with pytest.raises(alpc.RemoteFault):
                await client.take(1.5)
    caplog.clear()


async def test_contracts_of_different_versions_may_differ(caplog: pytest.LogCaptureFixture) -> None:
    """A client of an older minor version is not warned: its contract is meant to be another one."""
    async with alpc.serve(NAME, serving(taking(int, (1, 1)))), alpc.connect(NAME, taking(bool)) as client:
        with pytest.raises(alpc.RemoteFault):
            await client.take(True)
    assert caplog.records == []


async def test_a_fingerprint_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second client that binds to an interface costs no second digest."""
    async with alpc.serve("acme.counter", CounterServer()), alpc.connect("acme.counter", Counter):
        worked_out: list[object] = []
        monkeypatch.setattr("alpc_async.service._fingerprint.describe_contract", worked_out.append)
        async with alpc.connect("acme.counter", Counter) as again:
            assert await again.add(1) == 1
        assert worked_out == []
