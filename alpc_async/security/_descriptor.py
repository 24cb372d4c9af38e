"""Access lists: ordered entries, and the one function that evaluates them.

Belongs here: `decide`, `Decision`, `SecurityDescriptor`. Never here: entries by themselves (`_access`), reading text
and files (`_text`), what the kernel can be told to enforce (`_admission`), what follows from a refusal (port).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ._access import ROOT, Access, Entry, Kind
from ._text import descriptor_text, entries_from_text, entries_from_toml

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

    from ._access import Subject
    from ._identity import Identity

__all__ = ["Decision", "SecurityDescriptor", "decide", "is_foreign"]


_UNKNOWN_OF_CHANGED: Final = frozenset({Kind.GROUP, Kind.LABEL})


def decide(entries: Sequence[Entry], identity: Identity, right: Access, own_uid: int) -> int | None:
    """Return the position of the entry that decides on one right: the first that names the subject and the right.

    Args:
        entries: the access list, in order.
        identity: the facts from the kernel.
        right: one right.
        own_uid: the user whom "same-user" means.

    Returns:
        The position, from 0, or ``None`` when no entry does, which refuses.
    """
    for position, entry in enumerate(entries):
        if right in entry.rights and (entry.subject.matches(identity, own_uid) or _cannot_be_excluded(entry, identity)):
            return position
    return None


def _cannot_be_excluded(entry: Entry, identity: Identity) -> bool:
    # Of whoever took a connection over, the kernel tells neither groups nor label. A rule that shuts members of a group
    # out must not let one of them in for want of knowing.
    return identity.changed and not entry.allowed and entry.subject.kind in _UNKNOWN_OF_CHANGED


def is_foreign(subject: Subject, own_uid: int) -> bool:
    """Return whether a subject can be a user other than ours and root.

    Args:
        subject: whom an entry is about.
        own_uid: our user.
    """
    if subject.kind is Kind.USER:
        return subject.value not in {ROOT, own_uid}
    return subject.kind not in {Kind.SAME_USER, Kind.ROOT}


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says about one right of one identity, and why.

    Attributes:
        allowed: what the rules say.
        right: the right in question; where several were asked about, the first that is refused.
        rule: the deciding entry in words, or what stands in its place.
        reason: the whole of it in one sentence.
        position: position of the deciding entry from 1, or ``None`` when no entry decided.
        enforced: ``False`` when a refusal is only to be noted.
    """

    allowed: bool
    right: Access
    rule: str
    reason: str
    position: int | None = None
    enforced: bool = True

    @property
    def refuses(self) -> bool:
        """Whether it is to be refused: the rules say so, and they are enforced."""
        return self.enforced and not self.allowed


@dataclass(frozen=True, slots=True, init=False)
class SecurityDescriptor:
    """An ordered access list: the first entry that names the subject and the right decides; without one it is refused.

    A process that cannot be identified (from another user or process namespace) matches entries about "everyone" only.
    It is a `Policy`, so it can be given to `listen` and `connect`, where the right in question is CONNECT.

    Args:
        entries: made by `allow` and `deny`.
        enforce: ``False`` refuses nobody and only reports what would be refused, for trying out a list. The socket is
            then open to every user, so use it where everybody may connect today.

    Attributes:
        entries: the entries in order.
        enforce: whether refusals are carried out.
    """

    entries: tuple[Entry, ...]
    enforce: bool

    def __init__(self, entries: Iterable[Entry], *, enforce: bool = True) -> None:
        listed = tuple(entries)
        for entry in listed:
            if not isinstance(entry, Entry):
                raise TypeError(f"an access list consists of alpc.allow(...) and alpc.deny(...), not {entry!r}")
        object.__setattr__(self, "entries", listed)
        object.__setattr__(self, "enforce", enforce)

    @classmethod
    def from_text(cls, text: str, *, enforce: bool = True) -> Self:
        """Read an access list from text: an entry per line or between semicolons, ``#`` begins a comment.

        ``allow user:alice connect,send`` or ``deny group:games``; the rights are names of `Access` in lower case, or
        ``all``, and may be left out as in `allow` and `deny`.

        Args:
            text: the list, at most 64 KiB and 1024 entries.
            enforce: as for the class.

        Returns:
            The descriptor.

        Raises:
            ValueError: the text is no access list; the message says which line, and why.
        """
        return cls(entries_from_text(text), enforce=enforce)

    @classmethod
    def from_toml(cls, path: str, *, table: str = "") -> Self:
        """Read an access list from a TOML file that nobody but root and the current user can write.

        ::

            enforce = true
            [[entry]]
            allow = "user:alice"
            rights = ["connect"]
            [[entry]]
            deny = "group:games"

        Args:
            path: the file, at most 64 KiB.
            table: where in the file the list is, as names separated by dots; by default the file is the list.

        Returns:
            The descriptor.

        Raises:
            AccessDenied: others could write the file.
            OSError: it cannot be read.
            ValueError: it is not TOML, or is no access list; the message says which entry, and why.
        """
        entries, enforce = entries_from_toml(path, table)
        return cls(entries, enforce=enforce)

    def explain(self, identity: Identity, right: Access = Access.CONNECT) -> Decision:
        """Return who decides on a right, and why; the same evaluation that ports use.

        Args:
            identity: the facts from the kernel.
            right: one right or several, which then all have to be allowed.

        Returns:
            The decision.

        Raises:
            ValueError: no right is asked about.
        """
        own_uid = os.geteuid()
        decision = None
        for member in Access:
            if member in right:
                decision = self._explain_one(identity, member, own_uid)
                if not decision.allowed:
                    return decision
        if decision is None:
            raise ValueError("explain() needs at least one right to decide on")
        return decision

    def _explain_one(self, identity: Identity, right: Access, own_uid: int) -> Decision:
        position = decide(self.entries, identity, right, own_uid)
        words = right.words
        if position is None:
            hint = "" if identity.identified else ", who cannot be identified and only matches 'everyone'"
            return Decision(
                False, right, "no entry", f"no entry gives {words} to {identity}{hint}", enforced=self.enforce
            )
        entry = self.entries[position]
        verb = "gives" if entry.allowed else "denies"
        reason = f"entry {position + 1} ({entry}) {verb} {words} to {identity}"
        return Decision(entry.allowed, right, str(entry), reason, position + 1, self.enforce)

    def granted(self, identity: Identity) -> Access:
        """Return all rights that an identity has by the entries.

        Args:
            identity: the facts from the kernel.
        """
        own_uid = os.geteuid()
        rights = Access(0)
        for right in Access:
            position = decide(self.entries, identity, right, own_uid)
            if position is not None and self.entries[position].allowed:
                rights |= right
        return rights

    def judge(self, identity: Identity) -> str | None:
        """Return why the identity may not connect, in words, or ``None`` when it may, or nothing is enforced.

        Args:
            identity: the facts from the kernel.
        """
        decision = self.explain(identity)
        return decision.reason if decision.refuses else None

    @property
    def admits_others(self) -> bool:
        """Whether any user but ours and root could connect, so that the socket file must let them through."""
        if not self.enforce:
            return True
        return any(is_foreign(subject, os.geteuid()) for subject in self.admitted())

    def admitted(self) -> list[Subject]:
        """Return the subjects of the entries that can give CONNECT to anybody."""
        found: list[Subject] = []
        for entry in self.entries:
            if Access.CONNECT in entry.rights:
                if entry.allowed:
                    found.append(entry.subject)
                if entry.subject.kind is Kind.EVERYONE:
                    break
        return found

    def __str__(self) -> str:
        listed = descriptor_text(self.entries, "; ") or "nobody"
        return f"the access list ({listed})"
