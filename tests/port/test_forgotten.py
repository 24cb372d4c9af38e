"""Ports that were forgotten, and openings that are taken for ports: what is said about them."""

from __future__ import annotations

import gc
import warnings
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import alpc_async as alpc
from tests.port.support import NAME

if TYPE_CHECKING:
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
