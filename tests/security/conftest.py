"""Fixtures for tests with processes of other users."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def path() -> Iterator[str]:
    """Give the test a path for a socket that processes of every user can reach."""
    directory = tempfile.mkdtemp(prefix="alpc-")
    os.chmod(directory, 0o777)  # noqa: S103  # other users put and find sockets here
    yield f"{directory}/socket"
    shutil.rmtree(directory)
