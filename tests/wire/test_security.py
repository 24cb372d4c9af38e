"""What a sender says about its identity: the level in its greeting, and security contexts.

Belongs here: the bytes and what they mean to the other side. Never here: identities, which no byte can state.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpc_async.wire import (
    MAGIC,
    VERSION,
    Attribute,
    Attributes,
    Extended,
    FrameType,
    Greeted,
    Revoked,
    Role,
    SecurityRecord,
    State,
    Ticket,
    Violated,
    Welcomed,
    pack,
)
from tests.wire.endpoints import ALL, deliver, endpoint


def test_the_level_and_the_tracking_travel_in_the_greetings() -> None:
    """Each side learns what the other one allows; who says nothing allows to be identified, and does not change."""
    client, server = endpoint(Role.CLIENT), endpoint(Role.SERVER)
    client.level, client.dynamic = 2, True
    client.hello(b"")
    (greeted,) = deliver(client, server)
    assert isinstance(greeted, Greeted)
    assert (greeted.level, greeted.dynamic) == (2, True)
    server.accept(b"")
    (welcomed,) = deliver(server, client)
    assert isinstance(welcomed, Welcomed)
    assert (welcomed.level, welcomed.dynamic) == (1, False)


@pytest.mark.parametrize("level", [b"\x04", b"\xff", b"\xa3two"])
def test_a_level_that_does_not_exist(level: bytes) -> None:
    """Numbers above 3, below 0, and other types end the handshake."""
    (event,) = endpoint(Role.SERVER).receive_data(pack(FrameType.HELLO, MAGIC, VERSION, b"\x81\xa5level" + level))
    assert isinstance(event, Violated)


@given(st.integers(0, 2**32 - 1), st.none() | st.integers(0, 3), st.booleans())
def test_a_context_travels_with_a_message(context: int, level: int | None, impersonate: bool) -> None:
    """Number, level and the wish not to be impersonated arrive as they were sent."""
    client, server = endpoint(Role.CLIENT, State.OPEN), endpoint(Role.SERVER, State.OPEN)
    record = SecurityRecord.of(context, level, impersonate=impersonate)
    client.request(Ticket(), b"data", 0.0, None, Attributes(security=record))
    (event,) = server.receive_data(client.data_to_send(ALL))
    assert isinstance(event, Extended)
    got = event.attributes.security
    assert got is not None
    assert (got.context, got.level, got.impersonate) == (context, level, impersonate)


@pytest.mark.parametrize("flags", [2, 4, 8, 0x60, 0x80, 2**32 - 1])
def test_flags_without_a_meaning_are_a_violation(flags: int) -> None:
    """A later version may give them one, and must not be misread."""
    payload = (1).to_bytes(4, "little") + flags.to_bytes(4, "little")
    frame = pack(FrameType.REQUEST | Attribute.SECURITY << 8, 1, 0, payload)
    (event,) = endpoint(Role.SERVER, State.OPEN).receive_data(frame)
    assert isinstance(event, Violated)
    assert event.error.rule == "a security attribute has only known flags"


def test_a_revocation_arrives() -> None:
    """REVOKED names a context; nothing is said any more once the connection is over."""
    client, server = endpoint(Role.CLIENT, State.OPEN), endpoint(Role.SERVER, State.OPEN)
    client.revoke(7)
    assert deliver(client, server) == [Revoked(7)]
    client.close()
    client.data_to_send(ALL)
    client.revoke(8)
    assert client.output_size == 0
