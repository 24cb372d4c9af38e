"""How far the kernel itself can keep clients out: owner group, mode and access list of a port's socket file.

Belongs here: what follows from a policy for the socket file, and asking any policy about any right. Never here:
changing files (link), or when a policy is asked (port).

Connecting takes write permission on the socket file. Whoever lacks it never reaches us, so the narrower the mode, the
fewer can make our process do anything at all. The mode may only be *wider* than the policy, never narrower: a client
that it lets through is still judged.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ._access import Access, Kind
from ._descriptor import Decision, SecurityDescriptor, is_foreign
from ._policy import required_group, required_user

if TYPE_CHECKING:
    from ._identity import Identity
    from ._policy import Policy

__all__ = ["SocketAccess", "assess", "rights_of", "socket_access"]

_OWNER_ONLY: Final = 0o600
_ONE_GROUP: Final = 0o660
_EVERYBODY: Final = 0o666
_IN_LISTS: Final = (Kind.USER, Kind.GROUP)
"""Kinds of subjects that the access list of a file can name."""


@dataclass(frozen=True, slots=True)
class SocketAccess:
    """The permissions of a socket file.

    Attributes:
        mode: its mode.
        gid: the group it shall belong to, or ``None`` for that of the process.
        users: users who may connect as well, by the access list of the file.
        groups: groups likewise.
    """

    mode: int
    gid: int | None = None
    users: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()


def socket_access(policy: Policy) -> SocketAccess:
    """Return the narrowest permissions that keep nobody out whom the policy might admit.

    Args:
        policy: the policy of a port.

    Returns:
        0600 where only our user and root can be admitted, 0660 and a group where that group is the only one beside
        them, 0600 and an access list where there are several groups, or users, and 0666 otherwise.
    """
    if not policy.admits_others:
        return SocketAccess(_OWNER_ONLY)
    users, groups = _foreign(policy)
    if len(groups) == 1 and not users:
        return SocketAccess(_ONE_GROUP, min(groups))
    return SocketAccess(_OWNER_ONLY, users=users, groups=groups) if users or groups else SocketAccess(_EVERYBODY)


def _foreign(policy: Policy) -> tuple[frozenset[int], frozenset[int]]:
    """Return the users and groups that are all to be admitted beside ours and root, or nothing when there is more."""
    nobody: frozenset[int] = frozenset()
    if not isinstance(policy, SecurityDescriptor):
        group, user = required_group(policy), required_user(policy)
        if group is not None:
            return nobody, frozenset({group})
        return (frozenset({user}), nobody) if user is not None else (nobody, nobody)
    foreign = [subject for subject in policy.admitted() if is_foreign(subject, os.geteuid())]
    if not policy.enforce or not all(subject.kind in _IN_LISTS for subject in foreign):
        return nobody, nobody
    found = [
        frozenset(subject.value for subject in foreign if subject.kind is kind and isinstance(subject.value, int))
        for kind in _IN_LISTS
    ]
    return found[0], found[1]


def assess(policy: Policy, identity: Identity, right: Access) -> Decision:
    """Ask any policy about a right.

    A policy without entries knows CONNECT only, and gives everything to whom it lets in.

    Args:
        policy: the policy.
        identity: the facts from the kernel.
        right: the right in question.
    """
    if isinstance(policy, SecurityDescriptor):
        return policy.explain(identity, right)
    reason = policy.judge(identity)
    return Decision(reason is None, right, str(policy), reason or f"{identity} is allowed by {policy}")


def rights_of(policy: Policy, identity: Identity) -> Access:
    """Return all rights that the rules give to somebody who was let in.

    Args:
        policy: the policy.
        identity: the facts from the kernel.
    """
    if isinstance(policy, SecurityDescriptor):
        return policy.granted(identity)
    return ~Access(0)
