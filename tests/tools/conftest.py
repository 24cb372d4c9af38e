"""Fixtures for tests of the command line.

Belongs here: event loops by their names, and directories to look into afterwards. Never here: helpers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def backend(anyio_backend: tuple[str, dict[str, Any]]) -> str:
    """The event loop by the name that the command line gives it."""
    name, options = anyio_backend
    return "uvloop" if options.get("use_uvloop") else name


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory in which the program makes its temporary ones; the test looks whether anything stays."""
    with tempfile.TemporaryDirectory(prefix="alpc-test-") as directory:
        yield Path(directory)
