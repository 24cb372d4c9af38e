"""Every frame in every state of both roles: legal ones lead where the tables say, all others are violations."""

from __future__ import annotations

import os

import pytest

from alpc_async.handles import Handle, close_all
from alpc_async.wire import (
    HEADER_SIZE,
    MAGIC,
    RECEIVABLE,
    SENDABLE,
    VERSION,
    Carrier,
    Endpoint,
    FrameType,
    Role,
    SectionKind,
    State,
    Ticket,
    Violated,
    pack,
    unpack_header,
)
from tests.wire.endpoints import ALL, FRAMES, all_described, endpoint

CASES = [
    pytest.param(role, state, kind, id=f"{role.value}-{state.name}-{kind.name}")
    for role in Role
    for state in State
    for kind in FRAMES
]


def greeting(role: Role) -> bytes:
    """Return the payload of an acceptable HELLO or WELCOME."""
    sender = endpoint(role, State.NEW if role is Role.CLIENT else State.GREETED)
    if role is Role.CLIENT:
        sender.hello(b"")
    else:
        sender.accept(b"")
    return sender.data_to_send(ALL)[HEADER_SIZE:]


def prepared(role: Role, state: State) -> Endpoint[Ticket]:
    """Return an endpoint in which every message frame below makes sense."""
    made = endpoint(role, state)
    if state is State.OPEN:
        made.request(Ticket(), b"one", 0.0, None)
        made.request(Ticket(), b"two", 0.0, None)
        made.datagram(b"three")
        made.receive_data(pack(FrameType.REQUEST, 1, 0, b"theirs"))
        made.lend("a range")
        made.expect_receipt(3, "a receipt")
        made.receive_data(pack(FrameType.SECTION, 1, 24))
        made.data_to_send(ALL)
    return made


def frame(kind: FrameType) -> bytes:
    """Return a frame that `prepared` takes, when its state is right."""
    match kind:
        case FrameType.HELLO:
            return pack(kind, MAGIC, VERSION, greeting(Role.CLIENT))
        case FrameType.WELCOME:
            return pack(kind, MAGIC, VERSION, greeting(Role.SERVER))
        case FrameType.CREDIT:
            return pack(kind, 5, 1)
        case FrameType.CANCEL | FrameType.REPLY:
            return pack(kind, 1, 0)
        case FrameType.REQUEST | FrameType.DATAGRAM | FrameType.FAULT:
            return pack(kind, 2, 0, b"data")
        case FrameType.REFUSE | FrameType.CLOSE:
            return pack(kind, 0, 0, b"")
        case FrameType.SECTION:
            return pack(kind, 2, 24)
        case FrameType.TAKEN:
            return pack(kind, 3, 0)
        case FrameType.SECTION_GONE | FrameType.RELEASE | FrameType.REVOKED:
            return pack(kind, 1, 0)
        case FrameType.HANDLES:
            return pack(kind, 0, 24)


@pytest.mark.parametrize(("role", "state", "kind"), CASES)
def test_what_may_arrive(role: Role, state: State, kind: FrameType) -> None:
    """A frame leads to the state in the table; one without an entry is a violation, or ignored after the end."""
    receiver = prepared(role, state)
    following = RECEIVABLE[role][state].get(kind)
    events = receiver.receive_data(frame(kind))
    if following is not None:
        assert receiver.state is following
        assert not any(isinstance(event, Violated) for event in events)
    elif state >= State.CLOSED:
        assert (receiver.state, events, receiver.output_size) == (state, [], 0)
    else:
        assert receiver.state is State.FAILED
        assert [type(event) for event in events] == [Violated]
        assert all_described(events)[0]["error"] == (
            "protocol violation: only frames that are legal in the state of the connection are sent "
            f"({kind.name} to the {role.value} in state {state.name})"
        )
        assert unpack_header(receiver.data_to_send(ALL))[1] == FrameType.CLOSE


def send(sender: Endpoint[Ticket], kind: FrameType) -> None:
    """Give the command that sends a frame."""
    match kind:
        case FrameType.HELLO:
            sender.hello(b"")
        case FrameType.WELCOME:
            sender.accept(b"")
        case FrameType.REFUSE:
            sender.refuse(16, b"")
        case FrameType.REQUEST:
            sender.request(Ticket(), b"", 0.0, None)
        case FrameType.DATAGRAM:
            sender.datagram(b"")
        case FrameType.REPLY:
            sender.reply(1, b"")
        case FrameType.FAULT:
            sender.fault(1, 1, "")
        case FrameType.CLOSE:
            sender.close()
        case FrameType.SECTION:
            handle = Handle(os.open("/dev/null", os.O_RDONLY))
            try:
                sender.offer_section(handle, SectionKind.LIVE)
            except RuntimeError:
                handle.close()
                raise
        case _:
            raise AssertionError("these follow from others")


FOLLOWING = {
    FrameType.CANCEL,
    FrameType.CREDIT,
    FrameType.SECTION_GONE,
    FrameType.RELEASE,
    FrameType.HANDLES,
    FrameType.TAKEN,
    FrameType.REVOKED,
}
DIRECT = [kind for kind in FRAMES if kind not in FOLLOWING]


@pytest.mark.parametrize(("role", "state", "kind"), [case for case in CASES if case.values[2] in DIRECT])
def test_what_may_be_sent(role: Role, state: State, kind: FrameType) -> None:
    """A command queues its frame and leads to the state in the table, or is refused and changes nothing."""
    sender = prepared(role, state)
    if kind in (FrameType.REPLY, FrameType.FAULT) and state is not State.OPEN:
        # A request that came before the end may still be answered by mistake.
        sender.inflow.owed[1] = next(iter(prepared(role, State.OPEN).inflow.owed.values()))
    following = SENDABLE[role][state].get(kind)
    if following is not None:
        send(sender, kind)
        assert sender.state is following
        sent = sender.data_to_send(ALL)
        assert unpack_header(sent)[1] & 0xFF == kind
        if isinstance(sent, Carrier):
            close_all(sent.handles)
    elif kind is FrameType.CLOSE:
        send(sender, kind)
        assert (sender.state, sender.output_size) == (state, 0)
    else:
        with pytest.raises(RuntimeError, match=f"the {role.value} cannot send {kind.name} in state {state.name}"):
            send(sender, kind)
        assert (sender.state, sender.output_size) == (state, 0)


@pytest.mark.parametrize("table", [RECEIVABLE, SENDABLE], ids=["received", "sent"])
def test_states_only_grow(table: dict[Role, dict[State, dict[int, State]]]) -> None:
    """No frame leads back, all states of both roles have a row, and after the end nothing is legal."""
    for role in Role:
        assert list(table[role]) == list(State)
        for state, row in table[role].items():
            assert all(following >= state for following in row.values())
            assert not row or state < State.CLOSED


def test_both_sides_agree_on_what_is_legal() -> None:
    """What one side may send in a state its peer may receive in one of the states that it can be in then."""
    for role, peer in ((Role.CLIENT, Role.SERVER), (Role.SERVER, Role.CLIENT)):
        for state, row in SENDABLE[role].items():
            for kind in row:
                assert any(kind in RECEIVABLE[peer][there] for there in State if there <= state), (role, state, kind)


@pytest.mark.parametrize(
    "kind", [0, 17, 255, 1 << 8 | 4, 1 << 16 | 4, 254 << 16 | 11, 0x80 << 8 | 11, 1 << 31], ids=hex
)
@pytest.mark.parametrize("state", [State.NEW, State.GREETED, State.OPEN], ids=lambda state: state.name)
@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)
def test_unknown_kinds(role: Role, state: State, kind: int) -> None:
    """Types of later versions, flags and handles are refused before their payload is waited for."""
    receiver = endpoint(role, state)
    (event,) = receiver.receive_data(pack(kind, 0, 0, b"12345")[:HEADER_SIZE])
    assert isinstance(event, Violated)
    assert event.error.detail == f"kind {kind:#x} to the {role.value} in state {state.name}"


@pytest.mark.parametrize("state", [State.NEW, State.GREETED, State.OPEN], ids=lambda state: state.name)
def test_the_link_is_gone(state: State) -> None:
    """Without its link a connection is closed, whatever its state, and may be told again."""
    gone = endpoint(Role.CLIENT, state)
    assert gone.abort() == ([], [])
    assert gone.state is State.CLOSED
    assert gone.abort() == ([], [])
    failed = endpoint(Role.CLIENT, State.FAILED)
    failed.abort()
    assert failed.state is State.FAILED
