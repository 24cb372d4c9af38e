"""What may be granted, to whom: access rights, and the entries of an access list.

Belongs here: `Access`, `Subject`, `Entry`, and making them with `allow` and `deny`. Never here: the order of entries
and what follows from it (`_descriptor`), their text (`_text`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ._policy import gid_of, uid_of

if TYPE_CHECKING:
    from ._identity import Identity

__all__ = ["ROOT", "Access", "Entry", "Kind", "Subject", "allow", "deny"]

ROOT: Final = 0


class Access(enum.Flag):
    """Rights that a port gives, each by itself; combine them with ``|``."""

    CONNECT = 1
    """Open a connection to the port."""
    SEND = 2
    """Send requests and datagrams; replies need no right."""
    HANDLES = 4
    """Send descriptors along, where the port's limits take any."""
    VIEWS = 8
    """Send data in shared sections."""
    DIRECT = 16
    """Have the port read and write declared ranges of the sender's memory."""
    IMPERSONATE = 32
    """Be impersonated by the port, where the sender allows it too."""
    INTROSPECT = 64
    """See who is connected and what is under way."""
    CONTROL = 128
    """Change how the port runs: drain it, disconnect others."""

    @property
    def words(self) -> str:
        """The names of the rights in lower case, separated by commas, as the text of an entry has them."""
        if self == _EVERYTHING:
            return "all"
        return ",".join(member.name.lower() for member in Access if member in self and member.name) or "nothing"


_EVERYTHING: Final = Access(255)

BROUGHT_ALONG: Final = Access.SEND | Access.VIEWS
"""What `allow` adds to CONNECT: a connection that can say nothing is of use to few, and they can deny it first."""


class Kind(enum.Enum):
    """What a subject is."""

    USER = "user"
    """The effective user."""
    GROUP = "group"
    """The effective group or a supplementary one."""
    LABEL = "label"
    """The security label."""
    SAME_USER = "same-user"
    """The effective user of the process that decides."""
    ROOT = "root"
    """User 0."""
    EVERYONE = "everyone"
    """Every process, also one that cannot be identified."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom an entry is about.

    Attributes:
        kind: what is compared.
        value: uid, gid or label; ``None`` for kinds that need none.
        given: the name that stood for the number, for people.
    """

    kind: Kind
    value: int | str | None = None
    given: str = field(default="", compare=False)

    def matches(self, identity: Identity, own_uid: int) -> bool:
        """Return whether an identity certainly is this subject.

        Whoever cannot be identified is nobody but "everyone": the number that the kernel shows for it may stand for
        any user outside our namespaces, and a rule about a user must neither admit nor shut out somebody else.

        Args:
            identity: the facts from the kernel.
            own_uid: the user whom "same-user" means.
        """
        if self.kind is Kind.EVERYONE:
            return True
        if not identity.identified:
            return False
        if self.kind is Kind.LABEL:
            return identity.label == self.value
        if self.kind is Kind.GROUP:
            return isinstance(self.value, int) and identity.in_group(self.value)
        wanted = {Kind.USER: self.value, Kind.SAME_USER: own_uid, Kind.ROOT: ROOT}[self.kind]
        return isinstance(wanted, int) and identity.is_user(wanted)

    def __str__(self) -> str:
        if self.value is None:
            return self.kind.value
        return f"{self.kind.value}:{self.value}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an access list; made by `allow` and `deny`.

    Attributes:
        allowed: whether it allows or denies.
        subject: whom it is about.
        rights: the rights it decides on.
    """

    allowed: bool
    subject: Subject
    rights: Access

    def __str__(self) -> str:
        return f"{'allow' if self.allowed else 'deny'} {self.subject} {self.rights.words}"


def allow(subject: str, rights: Access = Access.CONNECT) -> Entry:
    """Make an entry that gives rights.

    CONNECT brings SEND and VIEWS along, because they are what one connects for. Put ``deny(subject, Access.SEND)``
    before it for clients that shall only listen.

    Args:
        subject: ``"user:alice"`` or ``"user:1000"``, ``"group:printers"``, ``"label:…"``, ``"same-user"``, ``"root"``
            or ``"everyone"``. Names are looked up here and now, which can block on a directory service.
        rights: the rights to give.

    Returns:
        The entry.

    Raises:
        ValueError: the text names no subject, a name is unknown on this machine, or no right is given.
    """
    _check_rights(rights)
    if Access.CONNECT in rights:
        rights |= BROUGHT_ALONG
    return Entry(True, _subject(subject), rights)


def deny(subject: str, rights: Access = _EVERYTHING) -> Entry:
    """Make an entry that withholds rights.

    Args:
        subject: whom, as for `allow`.
        rights: the rights to withhold; by default all.

    Returns:
        The entry.

    Raises:
        ValueError: the text names no subject, a name is unknown on this machine, or no right is given.
    """
    _check_rights(rights)
    return Entry(False, _subject(subject), rights)


def _check_rights(rights: Access) -> None:
    if not isinstance(rights, Access):
        raise TypeError(f"rights are members of alpc.Access, such as alpc.Access.CONNECT, not {rights!r}")
    if not rights:
        raise ValueError("an entry decides on at least one right")


def _subject(text: str) -> Subject:
    word, colon, value = text.partition(":")
    try:
        kind = Kind(word)
    except ValueError:
        raise ValueError(
            f"{text[:80]!r} is no subject; write user:NAME, group:NAME, label:TEXT, same-user, root or everyone"
        ) from None
    if bool(colon) is not (kind in {Kind.USER, Kind.GROUP, Kind.LABEL}):
        wanted = "needs a value behind a colon" if not colon else "takes no value"
        raise ValueError(f"{text[:80]!r} is no subject: {word} {wanted}")
    if not colon:
        return Subject(kind)
    if not value or value != value.strip():
        raise ValueError(f"{text[:80]!r} is no subject: the value is empty or has spaces around it")
    if kind is Kind.LABEL:
        return Subject(kind, value)
    known = int(value) if value.isascii() and value.isdigit() and len(value) <= 10 else value
    number = uid_of(known) if kind is Kind.USER else gid_of(known)
    return Subject(kind, number, "" if known == number else value)
