"""Who may: policies that a server applies to its clients and a client to its server.

Belongs here: decisions on the facts of an `Identity`. Never here: obtaining the facts, what happens after a refusal,
decisions on a pid.

A policy that names nobody in particular refuses whoever cannot be identified; only `ANYONE` lets them in unseen.
"""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from ._identity import Identity

__all__ = ["ANYONE", "SAME_USER_OR_ROOT", "Policy", "gid_of", "require", "required_group", "required_user", "uid_of"]

_ROOT = 0
# (uid_t)-1 and (gid_t)-1 mean "no id" to the kernel.
_MAX_ID = 2**32 - 2


class Policy(Protocol):
    """Decides whether the process at the other end will do.

    Policies are immutable and can be hashed. ``str(policy)`` completes the sentence "the client requires …".
    """

    def judge(self, identity: Identity) -> str | None:
        """Return why the identity is refused, in words, or ``None`` when it is allowed.

        Args:
            identity: the facts from the kernel.
        """
        ...

    @property
    def admits_others(self) -> bool:
        """Whether any user but ours and root could be allowed, so that the socket file must let them through."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class _SameUserOrRoot:
    """Allows our own effective user, as it is when the judgement is made, and root."""

    def judge(self, identity: Identity) -> str | None:
        if not identity.identified:
            return f"{identity} cannot be identified: it is outside our {_namespace(identity)} namespace"
        own = os.geteuid()
        if identity.is_user(own) or identity.is_user(_ROOT):
            return None
        return f"uid {identity.uid} is neither our own user ({own}) nor root"

    @property
    def admits_others(self) -> bool:
        return False

    def __str__(self) -> str:
        return "the same user or root"

    def __repr__(self) -> str:
        return "SAME_USER_OR_ROOT"


@dataclass(frozen=True, slots=True, repr=False)
class _Anyone:
    """Allows every process that can reach the socket, identified or not."""

    def judge(self, identity: Identity) -> str | None:  # noqa: ARG002  # the protocol has the parameter
        return None

    @property
    def admits_others(self) -> bool:
        return True

    def __str__(self) -> str:
        return "anyone"

    def __repr__(self) -> str:
        return "ANYONE"


@dataclass(frozen=True, slots=True)
class _Require:
    """Allows whoever has all of the facts that are given."""

    uid: int | None
    gid: int | None
    group: int | None
    label: str | None
    words: str = field(compare=False, repr=False)

    def judge(self, identity: Identity) -> str | None:
        if self.uid is not None and not identity.is_user(self.uid):
            return f"uid {self.uid} is required, but this is {identity}"
        # in_group() as well, because it knows which number stands for any unmapped group.
        if self.gid is not None and not (identity.gid == self.gid and identity.in_group(self.gid)):
            return f"gid {self.gid} is required, but this is {identity}"
        if self.group is not None and not identity.in_group(self.group):
            return f"group {self.group} is required, but {identity} is not in it"
        if self.label is not None and identity.label != self.label:
            return f"label {self.label!r} is required, but {identity} has {identity.label!r}"
        return None

    @property
    def admits_others(self) -> bool:
        return self.uid is None or self.uid not in (_ROOT, os.geteuid())

    def __str__(self) -> str:
        return self.words

    def __repr__(self) -> str:
        facts = {"uid": self.uid, "gid": self.gid, "group": self.group, "label": self.label}
        return f"require({', '.join(f'{name}={fact!r}' for name, fact in facts.items() if fact is not None)})"


SAME_USER_OR_ROOT: Final[Policy] = _SameUserOrRoot()
"""Allows processes of our own effective user and of root; refuses whoever is outside our namespaces."""

ANYONE: Final[Policy] = _Anyone()
"""Allows every process that can reach the port, also one that cannot be identified."""


def require(
    *, uid: int | str | None = None, gid: int | None = None, group: int | str | None = None, label: str | None = None
) -> Policy:
    """Make a policy that allows whoever has all of the given facts.

    Names are looked up here and now, which can block on a directory service; the policy itself holds numbers. A user
    or group that is not mapped into our user namespace never matches. The process may be in another process namespace.

    Args:
        uid: effective user id, or the name of the user.
        gid: effective group id exactly.
        group: group id, or the name of the group, that is the effective or a supplementary group.
        label: security label, compared as text.

    Returns:
        The policy.

    Raises:
        ValueError: no fact is given, a name is unknown on this machine, an id is out of range, or the label is empty.
    """
    words: list[str] = []
    uid_number = gid_number = group_number = None
    if uid is not None:
        uid_number = uid_of(uid)
        words.append(_shown("uid", uid_number, uid))
    if gid is not None:
        gid_number = _checked("gid", gid)
        words.append(_shown("gid", gid_number, gid))
    if group is not None:
        group_number = gid_of(group)
        words.append(_shown("group", group_number, group))
    if label is not None:
        if not label:
            raise ValueError("an empty label matches nobody; leave label out to allow any label")
        words.append(f"label {label!r}")
    if not words:
        raise ValueError("require() needs at least one of uid, gid, group and label; ANYONE is the policy without any")
    return _Require(uid_number, gid_number, group_number, label, " and ".join(words))


def required_group(policy: Policy) -> int | None:
    """Return the group that whoever a policy allows certainly is in, or ``None`` when it requires none.

    Args:
        policy: any policy.
    """
    if not isinstance(policy, _Require):
        return None
    return policy.gid if policy.gid is not None else policy.group


def required_user(policy: Policy) -> int | None:
    """Return the user whom a policy requires, or ``None`` when it requires none.

    Args:
        policy: any policy.
    """
    return policy.uid if isinstance(policy, _Require) else None


def _namespace(identity: Identity) -> str:
    return "process" if identity.mapped else "user"


def _shown(what: str, number: int, given: int | str) -> str:
    return f"{what} {number}" if isinstance(given, int) else f"{what} {number} ({given})"


def _checked(what: str, number: int) -> int:
    if not 0 <= number <= _MAX_ID:
        raise ValueError(f"{what} {number} is out of range; ids are 0 to {_MAX_ID}")
    return number


def uid_of(user: int | str) -> int:
    """Return the uid of a user.

    Raises:
        ValueError: the name is unknown on this machine, or the number is out of range.
    """
    if isinstance(user, int):
        return _checked("uid", user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ValueError(f"no user is named {user!r} on this machine; give the uid as a number") from None


def gid_of(group: int | str) -> int:
    """Return the gid of a group.

    Raises:
        ValueError: the name is unknown on this machine, or the number is out of range.
    """
    if isinstance(group, int):
        return _checked("group", group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ValueError(f"no group is named {group!r} on this machine; give the gid as a number") from None
