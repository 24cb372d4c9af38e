"""The quotas of a port, as one frozen value with a unit for every field.

Belongs here: `PortLimits`, its checks and the rule that negotiates two of them. Never here: enforcement, which is done
where the bytes are (wire, link and port).
"""

from __future__ import annotations

from typing import Final

import msgspec

from .kinds import HandleKind

__all__ = ["HANDLES_CEILING", "MESSAGE_LENGTH_CEILING", "USER_HANDLES_CEILING", "PortLimits"]

MESSAGE_LENGTH_CEILING: Final = 16 * 1024 * 1024
"""Largest value of `PortLimits.max_message_length`, in bytes.

Source: larger content belongs in shared memory, where it is not copied twice. Attack: a header that announces
gigabytes makes a receiver reserve them. Slack: 256 times the default.
"""

HANDLES_CEILING: Final = 512
"""Largest value of `PortLimits.max_handles`.

Source: ALPC passes as many. Attack: each one takes a descriptor of the receiver, of which a process commonly has 1024.
Slack: more than two sends of 253, the most that the kernel passes at once.
"""

USER_HANDLES_CEILING: Final = 1024 * 1024
"""Largest value of `PortLimits.max_user_handles`.

Source: ``fs.nr_open``, the most descriptors that Linux lets a process have unless its administrator changed that.
Attack: a user who sends handles that nobody closes takes the descriptors that everybody else needs. Slack: none; a
larger value would not bound anything.
"""

OPTIONAL: Final = ("max_view_size", "max_section_size", "max_total_section_size", "max_handles")
"""The negotiated fields of things that can be switched off: 0, or not saying anything, switches them off."""

NEGOTIATED: Final = (
    "max_message_length",
    "max_connect_data",
    "max_pool_usage",
    "max_outstanding_messages",
    *OPTIONAL,
)
"""The fields that both sides must agree on; the smaller value counts. All others are a side's own business."""

_MAY_BE_ZERO: Final = frozenset(
    {*OPTIONAL, "memory_bandwidth", "max_user_rate", "max_user_shared_rate", "view_threshold", "direct_threshold"}
)


class PortLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a port takes, holds and waits for.

    The first eight fields travel in the handshake, and the smaller value of both sides counts for the connection, in
    both directions. The others are local. Make a changed copy with ``msgspec.structs.replace``.

    Attributes:
        max_message_length: largest payload of one inline message, in bytes.
        max_connect_data: largest connect data in either direction, in bytes.
        max_pool_usage: payload bytes that one side may have in flight to the other: requests until they are answered
            and datagrams until they are received, in bytes.
        max_outstanding_messages: messages that one side may have in flight to the other, counted likewise.
        max_view_size: largest payload of one message that travels through shared memory, where 0 switches views off, in
            bytes.
        max_section_size: largest single shared section; must hold a view of max_view_size, in bytes.
        max_total_section_size: all shared sections that one side may have open towards the other, in bytes.
        max_handles: descriptors that one message may carry; 0, the default, switches handles off, and 512 is the most.
        handle_kinds: kinds of descriptors that this side accepts; all others are closed on arrival and fail their
            message. None by default: list what the service is made for.
        direct: whether the other side may read and write the memory that requests of this side declare.
        view_threshold: payload from which data travels as a view by itself, in bytes.
        direct_threshold: payload from which data is read directly where both sides allow it, in bytes.
        memory_bandwidth: payload that one connection moves per second in each direction, whatever way it takes; a
            second's worth may move at once. What arrives over it is held, and what would leave over it waits where it
            is sent; answers are never refused. 0 is no limit, in bytes.
        max_connections: connections, finished handshake or not, that a connection port holds at once; one more is
            refused.
        max_user_connections: how many of them one user may have. All peers that cannot be identified count as one
            user, here and below.
        max_user_handshakes: connections that one user may begin per second, and as many at once after a pause.
        max_user_pool_usage: sum of ``max_pool_usage`` over all connections of one user to a connection port, in bytes.
            The first connections get their quota, later ones smaller ones.
        max_user_messages: sum of ``max_outstanding_messages`` likewise.
        max_user_sections: shared sections that one user may have open towards a connection port, over all of its
            connections; each takes a descriptor here before Python 3.13.
        max_user_section_size: their size together, and likewise of those that answers to the user have filled and that
            it has not given back, in bytes.
        max_user_handles: descriptors that came with the messages of one user, over all of its connections to a
            connection port, and were neither taken nor closed; a message that brings more fails alone, and a user
            whose descriptors cannot be closed is kept out. At least max_handles; 1,048,576 is the most.
        max_user_rate: messages that a connection port takes from one user per second; faster senders wait. A long
            message counts as several, one more for each 4 KiB that come through the connection or 16 KiB of shared
            memory. 0 is no limit.
        max_user_shared_rate: the same while another user is active, which is for a second after each of its messages,
            so that a flood of one does not hold up another; the smaller one of both counts. 0 is no limit.
        backlog: connections that the kernel holds while the port does not accept.
        high_water: unsent bytes of one connection above which senders wait, and above which messages of that
            connection are not handed out, in bytes.
        low_water: unsent bytes at which they go on, in bytes.
        max_unsent: unsent bytes at which a connection whose other side does not read is cut, in bytes.
        handshake_timeout: time that a server gives a client to say who it is, in seconds.
        request_timeout: default time for a reply, in seconds.
        close_timeout: time that closing a port gives unsent bytes to leave, in seconds.
        max_objects: objects and streams of a service that one peer may hold at once.
        max_call_depth: calls that may be nested in one another, back and forth between services.

    Raises:
        ValueError: a value is out of range, or two of them contradict each other.
        TypeError: a count or a size is not a whole number.
    """

    max_message_length: int = 64 * 1024
    max_connect_data: int = 4 * 1024
    max_pool_usage: int = 8 * 1024 * 1024
    max_outstanding_messages: int = 4096
    max_view_size: int = 256 * 1024 * 1024
    max_section_size: int = 256 * 1024 * 1024
    max_total_section_size: int = 1024 * 1024 * 1024
    max_handles: int = 0
    handle_kinds: HandleKind = HandleKind(0)
    direct: bool = False
    view_threshold: int = 64 * 1024
    direct_threshold: int = 1024 * 1024
    memory_bandwidth: int = 0
    max_connections: int = 1024
    max_user_connections: int = 512
    max_user_handshakes: int = 1000
    max_user_pool_usage: int = 256 * 1024 * 1024
    max_user_messages: int = 64 * 1024
    max_user_sections: int = 512
    max_user_section_size: int = 4 * 1024 * 1024 * 1024
    max_user_handles: int = 512
    max_user_rate: int = 0
    max_user_shared_rate: int = 4_000
    backlog: int = 512
    high_water: int = 4 * 1024 * 1024
    low_water: int = 1024 * 1024
    max_unsent: int = 64 * 1024 * 1024
    handshake_timeout: float = 5.0
    request_timeout: float = 30.0
    close_timeout: float = 5.0
    max_objects: int = 4096
    max_call_depth: int = 16

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            _check(field.name, getattr(self, field.name), field.type)
        if self.max_message_length > MESSAGE_LENGTH_CEILING:
            raise ValueError(f"PortLimits.max_message_length must be at most {MESSAGE_LENGTH_CEILING} bytes")
        if self.max_connect_data > self.max_message_length:
            raise ValueError("PortLimits.max_connect_data must be at most max_message_length")
        if self.max_message_length > self.max_pool_usage:
            raise ValueError("PortLimits.max_pool_usage must hold at least one message of max_message_length")
        if not self.max_view_size <= self.max_section_size <= self.max_total_section_size:
            raise ValueError(
                "PortLimits.max_view_size must be at most max_section_size, and that at most max_total_section_size"
            )
        if self.max_handles > HANDLES_CEILING:
            raise ValueError(f"PortLimits.max_handles must be at most {HANDLES_CEILING}")
        if self.max_user_handles > USER_HANDLES_CEILING:
            raise ValueError(f"PortLimits.max_user_handles must be at most {USER_HANDLES_CEILING}")
        if self.max_handles > self.max_user_handles:
            raise ValueError("PortLimits.max_user_handles must hold the handles of one message (max_handles)")
        if self.low_water > self.high_water:
            raise ValueError("PortLimits.low_water must be at most high_water")
        if self.max_unsent < self.high_water:
            raise ValueError("PortLimits.max_unsent must be at least high_water")

    def agreed(self, peer: dict[str, int]) -> PortLimits:
        """Return these limits with every negotiated field lowered to the peer's where that is smaller.

        Args:
            peer: the peer's values by field name; unknown names are ignored. Missing ones count as no objection, but
                for what can be switched off: a peer that does not mention it does not have it.

        Raises:
            ValueError: the peer's values are not positive, or contradict each other.
        """
        lowered = {name: min(getattr(self, name), peer[name]) for name in NEGOTIATED if name in peer}
        lowered.update((name, 0) for name in OPTIONAL if name not in peer)
        lowered.setdefault("max_message_length", self.max_message_length)
        lowered.setdefault("max_connect_data", self.max_connect_data)
        lowered["max_connect_data"] = min(lowered["max_connect_data"], lowered["max_message_length"])
        return msgspec.structs.replace(self, **lowered)

    def offer(self) -> dict[str, int]:
        """Return the negotiated fields by name, as they travel in the handshake."""
        return {name: getattr(self, name) for name in NEGOTIATED}


def _check(name: str, value: object, kind: type) -> None:
    """Check one field by itself; what no comparison takes, such as not-a-number, is refused as well."""
    if kind is not float and type(value) is not kind:
        known = {int: "a whole number", bool: "True or False", HandleKind: "a HandleKind"}[kind]
        raise TypeError(f"PortLimits.{name} must be {known}, not {value!r}")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if name in _MAY_BE_ZERO:
        if value < 0:
            raise ValueError(f"PortLimits.{name} must not be negative, but it is {value!r}")
    elif not value > 0:
        raise ValueError(f"PortLimits.{name} must be positive, not {value!r}")
