"""What a client lets a server do with its identity.

Belongs here: `ImpersonationLevel`, `SecurityQos`. Never here: acting on them (`_impersonation`, port).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

__all__ = ["ImpersonationLevel", "SecurityQos"]


class ImpersonationLevel(enum.IntEnum):
    """How far a client trusts a server with its identity; each level includes those before it."""

    ANONYMOUS = 0
    """The server's program is not told who we are; the framework still judges us and counts us against quotas."""
    IDENTIFY = 1
    """The server may know who we are and decide on it."""
    IMPERSONATE = 2
    """The server may act as us on this machine while it handles a request of ours, where it has the privilege."""
    DELEGATE = 3
    """The same, and we hand over opened descriptors; prefer handing over descriptors alone, which needs no level."""


@dataclass(frozen=True, slots=True)
class SecurityQos:
    """How much of our identity the other side may use, and whether it may change.

    Args:
        level: an `ImpersonationLevel`, or its name in lower case.
        tracking: ``"static"``: the identity is that of the moment when the connection was made, and a message that
            comes from anybody else ends the connection. ``"dynamic"``: each message has the identity of its sender.

    Attributes:
        level: how far the other side is trusted.
        tracking: ``"static"`` or ``"dynamic"``.

    Raises:
        ValueError: there is no such level or tracking.
    """

    level: ImpersonationLevel = ImpersonationLevel.IDENTIFY
    tracking: Literal["static", "dynamic"] = "static"

    def __init__(
        self, level: ImpersonationLevel | str = "identify", tracking: Literal["static", "dynamic"] = "static"
    ) -> None:
        if isinstance(level, str):
            found = ImpersonationLevel.__members__.get(level.upper())
            if found is None:
                names = ", ".join(name.lower() for name in ImpersonationLevel.__members__)
                raise ValueError(f"{level[:80]!r} is no level; there are {names}")
            level = found
        if tracking not in ("static", "dynamic"):
            raise ValueError(f"tracking must be 'static' or 'dynamic', not {tracking!r}")
        object.__setattr__(self, "level", ImpersonationLevel(level))
        object.__setattr__(self, "tracking", tracking)

    def __str__(self) -> str:
        return f"{self.level.name.lower()}, {self.tracking}"
