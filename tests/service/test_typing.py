"""What editors and type checkers see: proxies are instances of their interface.

Belongs here: expectations that mypy and basedpyright check, and that the run confirms. Never here: behaviour.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

import alpc_async as alpc
from tests.service.contracts import NAME, Counter, CounterServer, Entry, Files, FilesServer, numbers


async def test_a_proxy_is_typed_as_its_interface() -> None:
    """Every way to a proxy, and every method of it, has the type that the interface declares."""
    async with alpc.serve(NAME, FilesServer(), CounterServer()) as port, alpc.connect(NAME, Files) as files:
        assert_type(port, alpc.ServicePort)
        assert_type(files, Files)
        assert_type(await files.size(b"x"), int)
        assert_type(await files.echo(Entry("x")), Entry)
        assert_type(await files.note("x"), None)
        assert_type(files.walk(1), AsyncIterator[Entry])
        assert_type(files.double(numbers(1)), AsyncIterator[int])
        counter = assert_type(await files.open(), Counter)
        assert_type(await counter.add(1), int)
        await counter.aclose()
        other = assert_type(await alpc.bind(files, Counter), Counter)
        assert_type(alpc.with_options(files, timeout=1.0), Files)
        assert_type(alpc.with_options(other, timeout=None, priority=1), Counter)
    async with alpc.listen(NAME), alpc.connect(NAME) as plain:
        assert_type(plain, alpc.CommunicationPort)
    assert_type(alpc.implement(Counter, CounterServer()), Counter)
