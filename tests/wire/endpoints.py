"""What the tests of the protocol share: endpoints without a driver, and events in a form that compares.

Belongs here: helpers of more than one test module about the protocol. Never here: tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from alpc_async.limits import PortLimits
from alpc_async.wire import Endpoint, FrameType, Replied, Request, Role, State, Ticket

if TYPE_CHECKING:
    from collections.abc import Iterable

    from alpc_async.wire import Event

SMALL = PortLimits(max_message_length=64, max_connect_data=32, max_pool_usage=200, max_outstanding_messages=4)
ALL = 1 << 40
"""More bytes than any test queues."""


class Pair(NamedTuple):
    """Two endpoints that speak to each other."""

    client: Endpoint[Ticket]
    server: Endpoint[Ticket]


def endpoint(
    role: Role, state: State = State.NEW, limits: PortLimits = SMALL, *, features: int = 0
) -> Endpoint[Ticket]:
    """Make an endpoint and bring it to a state in an ordinary way, with nothing left to be sent."""
    made: Endpoint[Ticket] = Endpoint(role, limits, label=f"the {role.value}", features=features)
    other: Endpoint[Ticket] = Endpoint(Role.SERVER if role is Role.CLIENT else Role.CLIENT, limits, features=features)
    client, server = (made, other) if role is Role.CLIENT else (other, made)
    if state in (State.GREETED, State.OPEN):
        client.hello(b"")
        server.receive_data(client.data_to_send(ALL))
    if state is State.OPEN:
        server.accept(b"")
        client.receive_data(server.data_to_send(ALL))
    if state is State.CLOSED:
        made.close()
    if state is State.FAILED:
        made.receive_data(bytes(24))
    made.data_to_send(ALL)
    assert made.state is state
    return made


def open_pair(limits: PortLimits = SMALL) -> Pair:
    """Make two connected endpoints."""
    client: Endpoint[Ticket] = Endpoint(Role.CLIENT, limits, label="the client")
    server: Endpoint[Ticket] = Endpoint(Role.SERVER, limits, label="the server")
    client.open_pair(limits)
    server.open_pair(limits)
    return Pair(client, server)


def deliver(sender: Endpoint[Ticket], receiver: Endpoint[Ticket]) -> list[Event[Ticket]]:
    """Carry everything that one side has to send to the other."""
    return receiver.receive_data(sender.data_to_send(ALL))


def described(event: Event[Ticket]) -> dict[str, object]:
    """Return an event as plain data; tickets and requests stand for themselves by their ids."""
    facts: dict[str, object] = {"event": type(event).__name__}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if isinstance(value, Ticket):
            value = value.id
        elif isinstance(value, bytes):
            value = value.hex()
        elif isinstance(value, Request):
            value = value.id
        elif isinstance(value, Replied):
            # Of a reply with attributes; tickets of two endpoints are never equal.
            value = described(cast("Replied[Ticket]", value))
        elif isinstance(value, Exception):
            value = str(value)
        if name not in ("context", "size") and (name != "cookie" or value is not None):
            facts[name] = value
    return facts


def all_described(events: Iterable[Event[Ticket]]) -> list[dict[str, object]]:
    """Return events as plain data."""
    return [described(event) for event in events]


FRAMES = list(FrameType)
