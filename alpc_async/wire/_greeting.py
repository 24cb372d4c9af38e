"""The payload of HELLO and WELCOME.

Belongs here: what the two sides tell each other before the first message, and its checked decoding. Never here: when
they may say it.

The payload is MessagePack with named fields, because it must stay readable for peers of other versions: unknown fields
are ignored and missing ones have defaults. It is decoded once per connection, so its cost does not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from ..errors import ProtocolViolation
from ..limits import OPTIONAL
from ._ceilings import MAX_LEVEL
from ._frames import MAGIC, VERSION

if TYPE_CHECKING:
    from ..limits import PortLimits

__all__ = ["DEFAULT_LEVEL", "Greeting", "WrongVersion", "agree", "check_magic", "check_welcome"]

# 0 switches something off; where it makes no sense, `PortLimits` says so.
_Quota = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


DEFAULT_LEVEL: Final = 1
"""What a side that says nothing allows: that the other one knows who it is."""


class WrongVersion(ProtocolViolation):
    """The other side speaks another major version of the protocol."""


class Greeting(msgspec.Struct, frozen=True):
    """What one side tells the other.

    Attributes:
        features: bit set of optional parts of the protocol that the sender has (HELLO) or that are on (WELCOME).
        limits: negotiated limits by field name.
        data: connect data of the application; untrusted.
        level: what the other side may do with the sender's identity: 0 not show it to programs, 1 show it, 2 act under
            it, 3 receive descriptors opened under it as well.
        dynamic: whether the sender's identity may change from message to message.
        cookie: (address, bytes) of a secret in the memory of the client, with which the server finds out whether it can
            read that memory; ``None`` where direct access is off.
    """

    features: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    limits: Annotated[dict[str, _Quota], msgspec.Meta(max_length=64)] = {}
    data: bytes = b""
    level: Annotated[int, msgspec.Meta(ge=0, le=MAX_LEVEL)] = DEFAULT_LEVEL
    dynamic: bool = False
    cookie: tuple[_Quota, Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]] | None = None

    def encode(self) -> bytes:
        """Return the payload as bytes."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, payload: bytes) -> Greeting:
        """Read a payload that a peer sent.

        Raises:
            ProtocolViolation: it is not a greeting.
        """
        try:
            return msgspec.msgpack.decode(payload, type=cls)
        # A key of the limits that is not UTF-8 is the one thing that msgspec does not report as its own error.
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolViolation(
                rule="a greeting is MessagePack of the documented form", detail=str(error)
            ) from None


def check_magic(magic: int, version: int) -> None:
    """Check the header of a greeting, before its payload is waited for.

    Raises:
        ProtocolViolation: the other side does not speak this protocol, or another major version of it.
    """
    if magic != MAGIC:
        raise ProtocolViolation(rule="a greeting begins with the magic number", detail=f"{magic:#x}")
    if version >> 16 != VERSION >> 16:
        raise WrongVersion(rule=f"both sides speak protocol version {VERSION >> 16}", detail=f"version {version >> 16}")


def agree(greeting: Greeting, limits: PortLimits) -> PortLimits:
    """Return what both sides agree on.

    Args:
        greeting: what the other side said.
        limits: what we offer.

    Raises:
        ProtocolViolation: the other side's limits contradict each other, or its connect data is too long.
    """
    try:
        agreed = limits.agreed(greeting.limits)
    except ValueError as error:
        raise ProtocolViolation(rule="offered limits fit together", detail=str(error)) from None
    if len(greeting.data) > agreed.max_connect_data:
        raise ProtocolViolation(
            rule="connect data is not longer than both sides take",
            detail=f"{len(greeting.data)} bytes of {agreed.max_connect_data}, see PortLimits.max_connect_data",
        )
    return agreed


def check_welcome(greeting: Greeting, limits: PortLimits, features: int) -> None:
    """Check that a server answered within what we offered.

    Raises:
        ProtocolViolation: it turned on a feature or raised a limit that we did not offer.
    """
    if greeting.features & ~features:
        raise ProtocolViolation(
            rule="the server turns on only what the client offered", detail=f"features {greeting.features:#x}"
        )
    for name, offered in limits.offer().items():
        answer = greeting.limits.get(name, 0 if name in OPTIONAL else None)
        if answer is None or answer > offered:
            raise ProtocolViolation(
                rule="the server agrees to no more than the client offered",
                detail=f"{name} {answer}, offered {offered}",
            )
