"""The state of an open connection in a few numbers, so that another process can go on with it.

Belongs here: what has to be known to go on, packing and checking it. Never here: the socket, or when it may be passed.

A connection can be passed while nothing is under way that only this process could finish: no request is open in either
direction, no frame has arrived or left in part, and no memory is shared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from ..limits import NEGOTIATED, PortLimits
from ._states import Role, State

if TYPE_CHECKING:
    from ._endpoint import Endpoint
    from ._events import TicketT

FEATURE_REACHES: Final = 2
"""Bit of the handshake's features: the server can read the memory of the client, as it has found out."""

__all__ = ["PassedState", "pass_state", "resume"]

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]

_BORROWS: Final = (
    "the other side shares memory that only this process has; where such connections are to be passed on set "
    "PortLimits.max_view_size=0"
)


class PassedState(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What the next process has to know.

    Attributes:
        role: which side the passed end is.
        limits: the negotiated limits by name, as agreed.
        features: bit set of the optional parts that are on.
        outgoing: next number, datagrams and their bytes without credit yet.
        incoming: next number, credit in messages and bytes that was not given back yet, late cancellations.
        sharing: next section and lease of ours, last ones of the other side.
        level: what the other side lets us do with its identity.
        dynamic: whether its identity may change.
        name: the name that the port was connected by, or empty.
    """

    role: Role
    limits: dict[str, _Count]
    features: _Count
    outgoing: tuple[_Count, _Count, _Count]
    incoming: tuple[_Count, _Count, _Count, _Count]
    sharing: tuple[_Count, _Count, _Count, _Count]
    level: _Count
    dynamic: bool
    name: str

    def encode(self) -> bytes:
        """Return the state as bytes."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> PassedState:
        """Read what another process gave.

        Raises:
            ValueError: it is no such state.
        """
        try:
            return msgspec.msgpack.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"this is not the state of a connection: {error}") from None


def pass_state(endpoint: Endpoint[TicketT], *, level: int, dynamic: bool, name: str) -> PassedState:
    """Return the state of a connection on which nothing is under way.

    Raises:
        ValueError: something is; the text says what.
    """
    reasons = [
        (endpoint.state is not State.OPEN, "it is not open"),
        (endpoint.outflow.busy, "requests of this side are open"),
        (bool(endpoint.inflow.owed), "requests of the other side are not answered"),
        (endpoint.partial, "a frame has arrived in part"),
        (endpoint.output_size > 0, "something waits to be sent"),
        (endpoint.shares, "views of its memory are still held, or a receipt or descriptors are under way"),
        (endpoint.borrows, _BORROWS),
    ]
    found = [reason for wrong, reason in reasons if wrong]
    if found:
        raise ValueError(f"{endpoint.label} cannot be passed on: {', and '.join(found)}")
    limits = {name: getattr(endpoint.limits, name) for name in NEGOTIATED}
    return PassedState(
        endpoint.role, limits, endpoint.features, endpoint.outflow.passed, endpoint.inflow.passed,
        endpoint.shared_numbers, level, dynamic, name,
    )  # fmt: skip


def resume(endpoint: Endpoint[TicketT], state: PassedState, limits: PortLimits) -> None:
    """Bring a new endpoint into a passed state.

    Args:
        endpoint: of the same role, without a past.
        state: what was passed.
        limits: those of this process; the agreed ones are taken over.

    Raises:
        ValueError: the numbers contradict each other.
    """
    if set(state.limits) != set(NEGOTIATED):
        raise ValueError("this is not the state of a connection: limits are missing")
    endpoint.open_pair(msgspec.structs.replace(limits, **state.limits))
    # Whether the memory of the new process can be read has never been found out.
    endpoint.features = state.features & ~FEATURE_REACHES
    endpoint.outflow.passed = state.outgoing
    endpoint.inflow.passed = state.incoming
    endpoint.shared_numbers = state.sharing
