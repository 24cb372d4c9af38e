"""Quotas of shared memory, for connections and for users."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

import alpc_async as alpc
from alpc_async import PortLimits
from tests.port.support import NAME, WAIT, until

if TYPE_CHECKING:
    from alpc_async import AuditRecord

KIB = 1024
MIB = KIB * KIB


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        (PortLimits(max_user_sections=2), "max_user_sections"),
        (PortLimits(max_user_section_size=3 * MIB), "max_user_section_size"),
    ],
)
async def test_sections_of_one_user_are_bounded(limits: PortLimits, setting: str) -> None:
    """Over all connections a user shares so much and no more; the connection that goes over is cut, with a record."""
    records: list[AuditRecord] = []
    async with (
        alpc.listen(NAME, limits=limits, audit=records.append) as server,
        alpc.connect(NAME) as first,
        alpc.connect(NAME) as second,
    ):
        for port in (first, first, second):
            view = await port.allocate(MIB + 1, mode="sealed")
            await port.post(view=view)
        await until(lambda: not second.connected)
        assert first.connected
        assert setting in records[0].rule
        assert len(records) == 1
        # What the messages hold counts until they are let go.
        for message in await server.receive_batch():
            message.release()
        view = await first.allocate(MIB + 1, mode="sealed")
        await first.post(view=view)
        with anyio.fail_after(WAIT):
            assert (await server.receive()).size == MIB + 1
        assert first.connected
