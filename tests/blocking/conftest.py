"""A service in a process of its own, for clients that block."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.service.contracts import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

SERVER = f"""
import anyio
import alpc_async as alpc
from tests.service.contracts import FilesServer
from tests.service.vault import VaultServer

async def main():
    async with alpc.serve({NAME!r}, FilesServer(), VaultServer()) as port:
        print("ready", flush=True)
        await port.wait_stopped()

anyio.run(main)
"""


@pytest.fixture
def server(runtime_directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()
