"""What is fuzzed: one sentence of invariant for the parsers, and bytes to begin with.

Belongs here: the targets and their seeds. Never here: how inputs are made (`mutation`) or for how long (`run`).

The invariant of the protocol: any bytes give events or one final violation, the same ones however they are split;
nothing is raised, and no more is kept than the longest frame. Each other parser has one sentence of its own.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from alpc_async.wire import (
    HEADER_SIZE,
    MAGIC,
    MAX_GREETING_OVERHEAD,
    VERSION,
    Endpoint,
    FrameType,
    PeerClosed,
    Refused,
    Role,
    State,
    Ticket,
    Violated,
    pack,
)
from tests.fuzz.alone import ALONE_SEEDS, check_alone
from tests.fuzz.calls import CALL_SEEDS, check_calls
from tests.fuzz.parsers import (
    OWN_SEEDS,
    check_ancillary,
    check_attributes,
    check_limits,
    check_peer_options,
    check_section,
    check_security_text,
    check_security_toml,
)
from tests.wire.endpoints import ALL, SMALL, all_described, endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["TARGETS", "seeds"]

LONGEST = HEADER_SIZE + SMALL.max_connect_data + MAX_GREETING_OVERHEAD
LAST = (Violated, PeerClosed, Refused)


def fresh(role: Role, state: State) -> Endpoint[Ticket]:
    """Return an endpoint; an open one has two requests and a datagram in flight, so that answers can make sense."""
    if state is not State.OPEN:
        return endpoint(role, state)
    # Without the handshake, which takes several times as long as most inputs.
    made: Endpoint[Ticket] = Endpoint(role, SMALL, label=f"the {role.value}")
    made.open_pair(SMALL)
    made.request(Ticket(), b"", 0.0, None)
    made.request(Ticket(), b"", 0.0, None)
    made.datagram(b"12345")
    made.data_to_send(ALL)
    return made


def outcome(receiver: Endpoint[Ticket], pieces: Iterable[bytes]) -> tuple[list[dict[str, object]], State, bytes]:
    """Feed pieces; return the events, the state and the answer, after checks of what must hold at any time."""
    events: list[dict[str, object]] = []
    over = False
    for piece in pieces:
        got = receiver.receive_data(piece)
        assert not (over and got), "nothing follows the end"
        assert not any(isinstance(event, LAST) for event in got[:-1]), "the end is last"
        over = over or any(isinstance(event, LAST) for event in got)
        events += all_described(got)
        assert len(receiver._rest) <= LONGEST + len(piece)  # pyright: ignore[reportPrivateUsage]  # its size is the promise
    return events, receiver.state, receiver.data_to_send(ALL)


def check_stream(role: Role, state: State, data: bytes) -> None:
    """Check the invariant for a stream of bytes."""
    whole = outcome(fresh(role, state), [data])
    middle = len(data) // 2
    assert outcome(fresh(role, state), [data[:middle], data[middle:]]) == whole, "halves differ from the whole"
    single = (data[position : position + 1] for position in range(len(data)))
    assert outcome(fresh(role, state), single) == whole, "single bytes differ from the whole"


def check_greeting(data: bytes) -> None:
    """Check the invariant for the payload of a HELLO and of a WELCOME."""
    check_stream(Role.SERVER, State.NEW, pack(FrameType.HELLO, MAGIC, VERSION, data))
    check_stream(Role.CLIENT, State.GREETED, pack(FrameType.WELCOME, MAGIC, VERSION, data))


def check_shared(data: bytes) -> None:
    """Any frames about sections, leases, handles and contexts are taken or end an open connection, without a trace."""
    stream = b"".join(
        pack(
            int.from_bytes(data[at : at + 4], "little") & 0xFFFF, data[at + 4] & 7, data[at + 5], data[at + 6 : at + 14]
        )
        for at in range(0, len(data) - 5, 14)
    )
    check_stream(Role.SERVER, State.OPEN, stream)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "server-handshake": partial(check_stream, Role.SERVER, State.NEW),
    "client-handshake": partial(check_stream, Role.CLIENT, State.GREETED),
    "server-open": partial(check_stream, Role.SERVER, State.OPEN),
    "client-open": partial(check_stream, Role.CLIENT, State.OPEN),
    "greeting": check_greeting,
    "attributes": check_attributes,
    "calls": check_calls,
    "shared": check_shared,
    "alone": check_alone,
    "ancillary": check_ancillary,
    "security-text": check_security_text,
    "security-toml": check_security_toml,
    "limits": check_limits,
    "section": check_section,
    "peer-options": check_peer_options,
}
"""Name → check that raises nothing but when the invariant is broken."""


def seeds(target: str) -> list[bytes]:
    """Return inputs to begin with: the recorded exchanges, and one frame of each type."""
    vectors = Path(__file__).parents[1].joinpath("wire", "vectors").glob("*.json")
    cases = [case for path in sorted(vectors) for case in json.loads(path.read_text())]
    streams = [bytes.fromhex("".join(case["input"])) for case in cases]
    streams += [pack(kind, 1, 0, b"data") for kind in FrameType] + [pack(kind, 1, 0) for kind in FrameType]
    own = {**OWN_SEEDS, "alone": ALONE_SEEDS, "calls": CALL_SEEDS}
    if target in own:
        return list(own[target])
    if target in {"greeting", "limits"}:
        return [stream[HEADER_SIZE:] for stream in streams if stream[4] <= FrameType.WELCOME]
    return streams
