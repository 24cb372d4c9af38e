"""Ports that were forgotten, and openings that are taken for ports: what is said about them."""

from __future__ import annotations

import copy
import gc
import warnings
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import alpc_async as alpc
from tests.port.support import NAME
from tests.service.contracts import Counter, CounterServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def _forget() -> None:
    server = await alpc.listen(NAME)
    client = await alpc.connect(NAME)
    await client.post(b"")
    await server.receive()


async def _forget_nothing() -> None:
    async with alpc.listen(NAME):
        pass


def test_forgotten_ports_are_named(anyio_backend: tuple[str, dict[str, Any]], runtime_directory: Path) -> None:
    """Ports that were opened with await and never closed warn with their names, and the name is free."""
    name, options = anyio_backend
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        anyio.run(_forget, backend=name, backend_options=options)
        gc.collect()
    texts = {str(warning.message) for warning in warned if warning.category is ResourceWarning}
    assert f"unclosed <CommunicationPort connection to port {NAME!r}>" in texts
    assert any(text.startswith(f"unclosed <ConnectionPort {NAME!r}") for text in texts)
    anyio.run(_forget_nothing, backend=name, backend_options=options)
    assert list(runtime_directory.iterdir()) == []


async def test_an_opening_is_not_a_port() -> None:
    """Using what listen and connect return as if it were the port says what to write instead."""
    for opening, text in ((alpc.listen(NAME), "alpc.listen('acme.printer')"), (alpc.connect("a"), "alpc.connect('a')")):
        taken_for_a_port: Any = opening
        with pytest.raises(AttributeError) as caught:
            await taken_for_a_port.receive()
        assert str(caught.value) == (
            f"{text} is not open yet and has no 'receive'; write 'async with {text} as port:' or 'port = await {text}'"
        )
        with pytest.raises(TypeError, match="is opened with 'async with', not with 'with'"), taken_for_a_port:
            pass
        with pytest.raises(TypeError, match=r"is not open yet; write 'async with alpc\..*' around the loop"):
            async for _ in taken_for_a_port:
                pass
        async with alpc.listen("a"):
            await (await opening).aclose()
        with pytest.raises(RuntimeError, match=r"alpc\..* was opened already; call it again for another one"):
            await opening


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: alpc.listen(NAME), "alpc.listen('acme.printer')"),
        (lambda: alpc.connect(NAME), "alpc.connect('acme.printer')"),
        (lambda: alpc.serve(NAME, CounterServer()), "alpc.serve('acme.printer', ...)"),
        (lambda: alpc.connect(NAME, Counter), "alpc.connect('acme.printer', Counter)"),
    ],
    ids=["listen", "connect", "serve", "typed"],
)
def test_an_opening_that_nobody_opens(call: Callable[[], object], text: str) -> None:
    """A port that was asked for and never entered or awaited is warned about once, as a coroutine would be."""
    with pytest.warns(RuntimeWarning) as found:
        call()
    assert [str(one.message) for one in found] == [f"{text} was never entered or awaited"]


async def test_a_port_stays_where_it_is() -> None:
    """Copying a port, or pickling it to give it to another process, says what to do instead."""
    async with alpc.port_pair() as (left, _), alpc.listen(NAME) as server:
        for port, label in ((left, "client end of a port pair"), (server, f"port {NAME!r}")):
            with pytest.raises(TypeError, match=f"{label}.* can be neither copied nor sent to another process"):
                copy.copy(port)
