"""The table of lessons in the explanation of security: complete, and each of its tests exists.

Belongs here: the table, and the lessons that no other module shows. Never here: what other modules test already.
"""

from __future__ import annotations

import re
from pathlib import Path

import anyio
import pytest

import alpc_async as alpc
from tests.port.support import NAME, answer, until

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "security.md"
LESSONS = 28

ROWS = {
    int(number): (lesson, countermeasure)
    for number, lesson, countermeasure in re.findall(r"^\| (\d+) \| (.+?) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
}


def test_the_table_has_every_lesson() -> None:
    """The lessons are numbered without gaps."""
    assert list(ROWS) == list(range(1, LESSONS + 1))


@pytest.mark.parametrize("number", range(1, LESSONS + 1))
def test_a_lesson_names_a_test_or_a_reason(number: int) -> None:
    """Each row names tests that exist, or says why the lesson does not apply."""
    countermeasure = ROWS[number][1]
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", countermeasure)
    assert named or countermeasure.startswith("Does not apply: "), countermeasure
    for path, name in named:
        code = (ROOT / path).read_text()
        assert re.search(rf"^(async )?def {name}\(", code, re.MULTILINE), f"{path}::{name}"


async def test_15_what_a_client_claims_is_not_who_it_is() -> None:
    """Connect data is the client's word and kept apart; the identity is the kernel's, whatever the data says."""
    async with alpc.listen(NAME, accept="manual") as server, anyio.create_task_group() as tasks:

        async def connect() -> None:
            async with alpc.connect(NAME, data=b'{"uid": 4294967294, "trusted": true}') as port:
                await port.request(b"hello")

        tasks.start_soon(connect)
        question = await server.receive()
        assert question.data.startswith(b'{"uid"')
        assert question.sender.uid != 4294967294
        port = question.accept(context="decided by us")
        assert port.connect_data == question.data
        assert port.context == "decided by us"
        message = await server.receive()
        assert message.sender is port.peer
        answer(message)


async def test_19_clients_of_one_server_cannot_reach_each_other() -> None:
    """A reply, a cancellation or a closing of one client concerns its own connection only, whatever number it names."""
    async with alpc.listen(NAME) as server, alpc.connect(NAME) as one, alpc.connect(NAME) as other:
        first, second = one.start_request(b"first"), other.start_request(b"second")
        messages = [await server.receive(), await server.receive()]
        assert [message.id for message in messages] == [1, 1]
        assert first.cancel() is alpc.CancelOutcome.CANCELLED
        await until(lambda: messages[0].cancelled or messages[1].cancelled)
        by_data = {bytes(message.data): message for message in messages}
        assert by_data[b"first"].cancelled
        assert not by_data[b"second"].cancelled
        by_data[b"second"].reply(b"done")
        assert (await second).data == b"done"
