"""What one client may do at one port, asked whenever it does it.

Belongs here: `Gate`: a policy, an identity and where refusals are noted. Never here: what is done about a refusal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._access import Access
from ._admission import assess, rights_of

if TYPE_CHECKING:
    from ._audit import AuditTrail
    from ._identity import Identity
    from ._policy import Policy

__all__ = ["Gate"]


class Gate:
    """The rights of one client.

    Args:
        policy: the policy of the port.
        identity: who the client is; `admit` replaces it when another sender takes its place.
        trail: where refusals are noted.
    """

    __slots__ = ("_identity", "_policy", "listens_only", "rights", "trail")

    def __init__(self, policy: Policy, identity: Identity, trail: AuditTrail) -> None:
        self._policy = policy
        self._identity = identity
        self.trail = trail
        self.rights = ~Access(0)
        """What the client may do at most; everything where the entries are only tried out."""
        self.listens_only = False
        """Whether the entries give no right to send, so that each message has to be asked about."""

    def admit(self, identity: Identity) -> str | None:
        """Judge whether somebody may be connected, and keep who it is.

        Args:
            identity: the facts from the kernel.

        Returns:
            Why not, in words, or ``None``.
        """
        self._identity = identity
        if not self.permits(Access.CONNECT, "connect"):
            return assess(self._policy, identity, Access.CONNECT).reason
        granted = rights_of(self._policy, identity)
        self.listens_only = Access.SEND not in granted
        if not assess(self._policy, identity, Access.CONNECT).enforced:
            granted = ~Access(0)
        self.rights = granted
        return None

    def permits(self, right: Access, what: str) -> bool:
        """Return whether the client has a right; a refusal is noted.

        Args:
            right: the right.
            what: what it wants to do, for the record.
        """
        decision = assess(self._policy, self._identity, right)
        if not decision.allowed:
            self.trail.note(
                self._identity, what, rule=decision.rule, reason=decision.reason, right=decision.right,
                enforced=decision.enforced,
            )  # fmt: skip
        return not decision.refuses

    def note(self, what: str, *, rule: str, reason: str) -> None:
        """Note a refusal that no entry decided.

        Args:
            what: what was refused.
            rule: the limit or rule that decided.
            reason: the whole of it in one sentence.
        """
        self.trail.note(self._identity, what, rule=rule, reason=reason)
