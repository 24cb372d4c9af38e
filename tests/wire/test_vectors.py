"""Recorded exchanges: the bytes of the protocol as other implementations have to produce and read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from alpc_async.wire import HEADER_SIZE, FrameType, Role, State, pack
from tests.wire.endpoints import ALL, all_described, endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VECTORS = [
    pytest.param(case, id=f"{path.stem}: {case['name']}")
    for path in sorted(Path(__file__).with_name("vectors").glob("*.json"))
    for case in json.loads(path.read_text())
]


def whole(data: bytes) -> Iterator[bytes]:
    """Give everything at once."""
    yield data


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    """Give single bytes."""
    for position in range(len(data)):
        yield data[position : position + 1]


def in_sevens(data: bytes) -> Iterator[bytes]:
    """Give pieces that fit neither header nor payload."""
    for position in range(0, len(data), 7):
        yield data[position : position + 7]


@pytest.mark.parametrize("cut", [whole, byte_by_byte, in_sevens])
@pytest.mark.parametrize("case", VECTORS)
def test_a_vector(case: dict[str, Any], cut: Callable[[bytes], Iterator[bytes]]) -> None:
    """The bytes give exactly these events, this state and this output, however they are cut."""
    receiver = endpoint(Role[case["role"]], State[case["state"]])
    data = bytes.fromhex("".join(case["input"]))
    events = [event for piece in cut(data) for event in receiver.receive_data(piece)]
    assert all_described(events) == case["events"]
    assert receiver.state is State[case["after"]]
    assert receiver.data_to_send(ALL) == bytes.fromhex("".join(case["output"]))


@pytest.mark.parametrize("case", VECTORS)
def test_a_vector_with_something_behind_it(case: dict[str, Any]) -> None:
    """A message that follows in the same bytes is kept for later, or ignored after the end."""
    receiver = endpoint(Role[case["role"]], State[case["state"]])
    data = bytes.fromhex("".join(case["input"]))
    bye = pack(FrameType.CLOSE, 0, 77, b"behind")
    events = all_described(receiver.receive_data(data + bye[:-1]))
    assert events == case["events"]
    assert receiver.state is State[case["after"]]
    last = all_described(receiver.receive_data(bye[-1:]))
    alive = State[case["after"]] < State.CLOSED
    assert last == ([{"event": "PeerClosed", "status": 77, "reason": "behind"}] if alive else [])


def test_the_header_is_as_documented() -> None:
    """Length, type, flags, handles, id and value stand where the documentation says, little-endian."""
    assert HEADER_SIZE == 24
    frame = pack(FrameType.REQUEST, 0x0102030405060708, 0x1112131415161718, b"xyz")
    assert frame[:-3].hex(" ", 8).split() == ["0300000004000000", "0807060504030201", "1817161514131211"]
    assert frame.endswith(b"xyz")
