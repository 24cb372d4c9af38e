"""The handshake: who says what, what is agreed, and what is refused."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alpc_async.errors import MessageTooLong
from alpc_async.limits import PortLimits
from alpc_async.wire import (
    HEADER_SIZE,
    MAGIC,
    MAX_GREETING_OVERHEAD,
    VERSION,
    Endpoint,
    FrameType,
    Greeted,
    PeerClosed,
    Refused,
    Role,
    State,
    Status,
    Ticket,
    Violated,
    Welcomed,
    pack,
)
from tests.wire.endpoints import ALL, SMALL, deliver, endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

OFFER = SMALL.offer()


def hello(magic: int = MAGIC, version: int = VERSION, **fields: Any) -> bytes:
    """Return a HELLO with any content."""
    greeting = {"features": 0, "limits": OFFER, "data": b"", **fields}
    return pack(FrameType.HELLO, magic, version, msgspec.msgpack.encode(greeting))


def welcome(magic: int = MAGIC, version: int = VERSION, **fields: Any) -> bytes:
    """Return a WELCOME with any content."""
    greeting = {"features": 0, "limits": OFFER, "data": b"", **fields}
    return pack(FrameType.WELCOME, magic, version, msgspec.msgpack.encode(greeting))


def violation(receiver: Endpoint[Ticket], data: bytes) -> str:
    """Feed what must be a violation, and return its text."""
    (event,) = receiver.receive_data(data)
    assert isinstance(event, Violated)
    assert receiver.state is State.FAILED
    return str(event.error)


def test_both_sides_agree() -> None:
    """Limits and features come down to what both sides have, and data travels both ways."""
    client: Endpoint[Ticket] = Endpoint(
        Role.CLIENT, PortLimits(max_message_length=5000, max_outstanding_messages=7), features=0b0110
    )
    server: Endpoint[Ticket] = Endpoint(
        Role.SERVER,
        PortLimits(max_pool_usage=100_000, max_outstanding_messages=9, high_water=70_000, low_water=60_000),
        features=0b1100,
    )
    client.hello(b"from the client")
    assert deliver(client, server) == [Greeted(VERSION, 0b0100, b"from the client")]
    assert (client.state, server.state) == (State.GREETED, State.GREETED)
    server.accept(b"from the server")
    assert deliver(server, client) == [Welcomed(VERSION, 0b0100, b"from the server")]
    assert (client.state, server.state) == (State.OPEN, State.OPEN)
    expected = {
        "max_message_length": 5000,
        "max_connect_data": 4096,
        "max_pool_usage": 100_000,
        "max_outstanding_messages": 7,
        "max_view_size": 256 * 1024 * 1024,
        "max_section_size": 256 * 1024 * 1024,
        "max_total_section_size": 1024 * 1024 * 1024,
        "max_handles": 0,
    }
    assert client.limits.offer() == server.limits.offer() == expected
    assert (client.limits.high_water, server.limits.high_water) == (PortLimits().high_water, 70_000)
    assert client.features == server.features == 0b0100


def test_the_server_may_send_with_its_welcome() -> None:
    """Messages behind the WELCOME are taken with the limits that it agreed on."""
    server = endpoint(Role.SERVER, State.GREETED)
    client = endpoint(Role.CLIENT, State.GREETED)
    server.accept(b"")
    server.datagram(b"at once")
    events = deliver(server, client)
    assert [type(event).__name__ for event in events] == ["Welcomed", "Datagram"]


@pytest.mark.parametrize("state", [State.NEW, State.GREETED], ids=lambda state: state.name)
def test_the_server_refuses(state: State) -> None:
    """A refusal with status and data reaches the client before and after its HELLO, and ends both sides."""
    server, client = endpoint(Role.SERVER, state), endpoint(Role.CLIENT, state)
    server.refuse(Status.TOO_MANY_CONNECTIONS, b"later")
    assert deliver(server, client) == [Refused(Status.TOO_MANY_CONNECTIONS, b"later")]
    assert (client.state, server.state) == (State.CLOSED, State.CLOSED)


def test_a_status_that_does_not_fit_changes_nothing() -> None:
    """A refusal that cannot be sent leaves the client waiting for another decision."""
    server = endpoint(Role.SERVER, State.GREETED)
    with pytest.raises(struct.error):
        server.refuse(-1, b"")
    with pytest.raises(struct.error):
        server.close(1 << 64)
    assert (server.state, server.output_size) == (State.GREETED, 0)


@pytest.mark.parametrize("state", [State.NEW, State.GREETED, State.OPEN], ids=lambda state: state.name)
@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)
def test_either_side_may_leave(role: Role, state: State) -> None:
    """A goodbye in any state ends both sides, with its reason; what follows is ignored."""
    leaving = endpoint(role, state)
    other = endpoint(Role.SERVER if role is Role.CLIENT else Role.CLIENT, state)
    leaving.close(Status.DRAINING, "home")
    leaving.close()
    assert deliver(leaving, other) == [PeerClosed(Status.DRAINING, "home")]
    assert other.state is leaving.state is State.CLOSED
    assert other.receive_data(b"anything") == []
    assert other.receive_data(pack(FrameType.REQUEST, 1, 0)) == []


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)
def test_connect_data_at_its_limit(role: Role) -> None:
    """Data of exactly the limit is taken, one byte more is refused and nothing is sent."""
    sender = endpoint(role, State.NEW if role is Role.CLIENT else State.GREETED)

    def sender_refuses(data: bytes) -> None:
        sender.refuse(16, data)

    commands: list[Callable[[bytes], None]] = [sender.hello] if role is Role.CLIENT else [sender.accept, sender_refuses]
    for command in commands:
        with pytest.raises(MessageTooLong) as caught:
            command(bytes(33))
        assert (caught.value.size, caught.value.limit, caught.value.setting) == (33, 32, "max_connect_data")
        assert sender.output_size == 0
    commands[0](bytes(32))
    assert sender.output_size > 32


def test_connect_data_over_the_other_sides_limit() -> None:
    """Data that the receiver does not take is a violation, also when the sender's own limit allowed it."""
    assert (
        "connect data is not longer than both sides take (33 bytes of 32, see PortLimits.max_connect_data)"
        in violation(endpoint(Role.SERVER), hello(data=bytes(33)))
    )
    assert "33 bytes of 32" in violation(endpoint(Role.CLIENT, State.GREETED), welcome(data=bytes(33)))


@pytest.mark.parametrize(
    ("role", "state", "make"), [(Role.SERVER, State.NEW, hello), (Role.CLIENT, State.GREETED, welcome)]
)
def test_the_first_words(role: Role, state: State, make: Callable[..., bytes]) -> None:
    """Another protocol, and another major version, are recognised by the header alone."""
    header = make(magic=MAGIC ^ 1)[:HEADER_SIZE]
    assert f"magic number ({MAGIC ^ 1:#x})" in violation(endpoint(role, state), header)
    header = make(version=2 << 16)[:HEADER_SIZE]
    assert "both sides speak protocol version 1 (version 2)" in violation(endpoint(role, state), header)
    assert "(version 0)" in violation(endpoint(role, state), make(version=0)[:HEADER_SIZE])
    (event,) = endpoint(role, state).receive_data(make(version=VERSION + 5))
    assert isinstance(event, Greeted | Welcomed)
    assert event.version == VERSION, "the lower minor version counts"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"features": 1}, "turns on only what the client offered (features 0x1)"),
        ({"limits": {**OFFER, "max_message_length": 65}}, "no more than the client offered (max_message_length 65"),
        ({"limits": {}}, "no more than the client offered (max_message_length None, offered 64)"),
        ({"limits": {**OFFER, "max_pool_usage": 1}}, "offered limits fit together"),
    ],
)
def test_a_server_that_goes_beyond_the_offer(fields: dict[str, Any], text: str) -> None:
    """A WELCOME must stay within what was offered."""
    assert text in violation(endpoint(Role.CLIENT, State.GREETED), welcome(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"limits": {"max_pool_usage": 1}},
        {"limits": {"max_message_length": 0}},
        {"limits": {"max_message_length": 2**62 + 1}},
        {"limits": {"max_message_length": 1.5}},
        {"limits": {"max_message_length": True}},
        {"limits": {f"limit {number}": 1 for number in range(65)}},
        {"limits": None},
        {"limits": {1: 1}},
        {"features": -1},
        {"features": 2**62 + 1},
        {"features": "x"},
        {"data": "text"},
        {"data": None},
    ],
    ids=str,
)
def test_hellos_that_make_no_sense(fields: dict[str, Any]) -> None:
    """A HELLO with values out of range or of another type is a violation."""
    server = endpoint(Role.SERVER)
    violation(server, hello(**fields))
    assert server.limits is SMALL


def test_hellos_of_other_versions() -> None:
    """Unknown fields are ignored and missing ones have defaults."""
    assert endpoint(Role.SERVER).receive_data(hello(colour="red", limits={**OFFER, "max_handles": 5})) == [
        Greeted(VERSION, 0, b"")
    ]
    empty = pack(FrameType.HELLO, MAGIC, VERSION, msgspec.msgpack.encode({}))
    assert endpoint(Role.SERVER).receive_data(empty) == [Greeted(VERSION, 0, b"")]


@pytest.mark.parametrize(("role", "kind"), [(Role.SERVER, FrameType.HELLO), (Role.CLIENT, FrameType.WELCOME)])
def test_the_ceiling_of_greetings(role: Role, kind: FrameType) -> None:
    """A greeting of the longest length is waited for; one byte more is refused by its header alone."""
    ceiling = SMALL.max_connect_data + MAX_GREETING_OVERHEAD
    state = State.NEW if role is Role.SERVER else State.GREETED
    frame = pack(kind, MAGIC, VERSION, bytes(ceiling))
    assert endpoint(role, state).receive_data(frame[:HEADER_SIZE]) == []
    text = violation(endpoint(role, state), pack(kind, MAGIC, VERSION, bytes(ceiling + 1))[:HEADER_SIZE])
    detail = f"{kind.name} announces {ceiling + 1} bytes of {ceiling}, see PortLimits.max_connect_data"
    assert text.endswith(f"a frame is not longer than agreed ({detail})")
    assert "MessagePack" in violation(endpoint(role, state), frame)


@given(st.binary(max_size=600))
@example(b"\x81\xa4data" + b"\x91" * 500)
@example(b"\x91" * 4000)
@example(b"\x81" * 4000)
@example(b"\x81\xa1x" + b"\x91" * 4000)
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xa3\xff\xff\xff")
@example(b"\x81\xa1\xff\x01")
@example(b"\x81\xa8features\xcf\xff\xff\xff\xff\xff\xff\xff\xff")
@example(b"\x81\xa6limits\x81\xa2x\xd8\x01")
@example(b"\xc7\xff\x01")
@example(b"\xd6\xff\xff\xff\xff\xff")
def test_any_payload_is_a_greeting_or_a_violation(payload: bytes) -> None:
    """Whatever is in a HELLO or a WELCOME, decoding it ends in one event and raises nothing."""
    for role, kind in ((Role.SERVER, FrameType.HELLO), (Role.CLIENT, FrameType.WELCOME)):
        receiver = endpoint(role, State.NEW if role is Role.SERVER else State.GREETED)
        (event,) = receiver.receive_data(pack(kind, MAGIC, VERSION, payload))
        assert isinstance(event, Greeted | Welcomed | Violated)
        assert receiver.output_size <= HEADER_SIZE + 4096


def test_nothing_is_left_of_a_handshake() -> None:
    """A pair that was made without a handshake is like one that had it."""
    client = endpoint(Role.CLIENT, State.OPEN)
    made: Endpoint[Ticket] = Endpoint(Role.CLIENT, PortLimits())
    made.open_pair(SMALL)
    for side in (client, made):
        assert side.limits.offer() == OFFER
        assert side.outflow.has_room(64)
        side.request(Ticket(), b"", 0.0, None)
    assert client.data_to_send(ALL) == made.data_to_send(ALL)
