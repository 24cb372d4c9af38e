"""Who may look at a service and manage it, with a real second user.

Belongs here: the rights INTROSPECT and CONTROL across users. Never here: what both interfaces do (`test_management`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

import alpc_async as alpc
from tests.port.strangers import ALICE, as_root, run_as
from tests.service.contracts import NAME, FilesServer

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = as_root

TRY = """
async def main():
    for interface in (alpc.Introspection, alpc.Management):
        try:
            async with alpc.connect(arguments["name"], interface, server=alpc.ANYONE):
                say("in")
        except alpc.AccessDenied:
            say("out")
anyio.run(main)
"""


@pytest.fixture
def open_directory(runtime_directory: Path) -> None:
    """Let other users search the directory of names."""
    runtime_directory.chmod(0o711)


BOTH = alpc.Access.INTROSPECT | alpc.Access.CONTROL


@pytest.mark.parametrize(
    ("security", "expected"),
    [
        (alpc.SecurityDescriptor([alpc.allow(f"user:{ALICE}", alpc.Access.CONNECT)]), ["out", "out"]),
        (
            alpc.SecurityDescriptor([alpc.allow(f"user:{ALICE}", alpc.Access.CONNECT | alpc.Access.INTROSPECT)]),
            ["in", "out"],
        ),
        (
            alpc.SecurityDescriptor([alpc.allow(f"user:{ALICE}", alpc.Access.CONNECT | alpc.Access.CONTROL)]),
            ["out", "in"],
        ),
        (alpc.SecurityDescriptor([alpc.allow(f"user:{ALICE}", alpc.Access.CONNECT | BOTH)]), ["in", "in"]),
        (alpc.ANYONE, ["out", "out"]),
    ],
    ids=["neither", "introspect", "control", "both", "anyone"],
)
@pytest.mark.usefixtures("open_directory")
async def test_another_user_needs_the_rights(security: Any, expected: list[str]) -> None:
    """Another user binds to introspection and to management only with the right for each; a plain policy gives none."""
    async with alpc.serve(NAME, FilesServer(), security=security):
        assert await anyio.to_thread.run_sync(lambda: run_as(ALICE, TRY, name=NAME)) == expected
