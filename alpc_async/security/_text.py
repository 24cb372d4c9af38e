"""Access lists as text and as TOML.

Belongs here: reading and writing entries, and whether a file may be believed. Never here: what entries mean
(`_access`, `_descriptor`).

Both forms are small languages without quotes, references or includes. Any text gives entries or a ``ValueError`` that
names the place.
"""

from __future__ import annotations

import os
import stat
import tomllib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..errors import AccessDenied
from ._access import Access, Entry, allow, deny

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["descriptor_text", "entries_from_text", "entries_from_toml"]

MAX_TEXT: Final = 64 * 1024
"""Bytes of an access list: hundreds of times a long one, and read in a moment."""

MAX_ENTRIES: Final = 1024
"""Entries of an access list; evaluating that many took well under a millisecond."""

_RIGHTS: Final = {member.name.lower(): member for member in Access if member.name}
_MAKERS: Final = {"allow": allow, "deny": deny}


def descriptor_text(entries: Iterable[Entry], separator: str = "\n") -> str:
    """Return entries as text that `entries_from_text` reads back."""
    return separator.join(map(str, entries))


def entries_from_text(text: str) -> list[Entry]:
    """Read entries, one per line or between semicolons.

    Raises:
        ValueError: a line is no entry, or the text is too long.
    """
    if len(text) > MAX_TEXT:
        raise ValueError(f"an access list has at most {MAX_TEXT} characters, not {len(text)}")
    entries: list[Entry] = []
    for number, line in enumerate(text.split("\n"), 1):
        for part in line.split("#", 1)[0].split(";"):
            words = part.split()
            if words:
                entries.append(_entry(words, f"line {number}"))
    return _checked(entries)


def _entry(words: list[str], place: str) -> Entry:
    maker = _MAKERS.get(words[0])
    if maker is None:
        raise ValueError(f"{place}: an entry begins with allow or deny, not with {words[0][:80]!r}")
    if len(words) == 1:
        raise ValueError(f"{place}: {words[0]} needs a subject, such as user:alice")
    try:
        if len(words) == 2:
            return maker(words[1])
        return maker(words[1], _rights("".join(words[2:]).split(",")))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _rights(names: Iterable[str]) -> Access:
    rights = Access(0)
    for name in names:
        if name == "all":
            rights |= ~Access(0)
        elif name in _RIGHTS:
            rights |= _RIGHTS[name]
        else:
            raise ValueError(f"{name[:80]!r} is no right; there are {', '.join(_RIGHTS)} and all")
    return rights


def _checked(entries: list[Entry]) -> list[Entry]:
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"an access list has at most {MAX_ENTRIES} entries, not {len(entries)}")
    return entries


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    """One entry of a file."""

    allow: str | None = None
    deny: str | None = None
    rights: list[str] | None = None


class _List(msgspec.Struct, forbid_unknown_fields=True):
    """A whole file, or a table in one."""

    enforce: bool = True
    entry: list[_Row] = []


def entries_from_toml(path: str, table: str) -> tuple[list[Entry], bool]:
    """Read entries and the word ``enforce`` from a file.

    Raises:
        AccessDenied: others could write the file.
        OSError: it cannot be read.
        ValueError: it is not TOML, or is no access list.
    """
    data = _read_trusted(path)
    try:
        return entries_from_document(data.decode(), table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def entries_from_document(text: str, table: str) -> tuple[list[Entry], bool]:
    """Read entries and the word ``enforce`` from TOML.

    Raises:
        ValueError: it is not TOML, or is no access list.
    """
    try:
        document: object = tomllib.loads(text)
        for name in table.split(".") if table else ():
            tables = msgspec.convert(document, dict[str, Any])
            if name not in tables:
                raise ValueError(f"there is no table {table!r}")
            document = tables[name]
        found = msgspec.convert(document, _List)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return _checked([_entry_of(row, f"entry {number}") for number, row in enumerate(found.entry, 1)]), found.enforce


def _entry_of(row: _Row, place: str) -> Entry:
    verb, subject = ("allow", row.allow) if row.allow is not None else ("deny", row.deny)
    if subject is None or (row.allow is not None and row.deny is not None):
        raise ValueError(f"{place}: an entry has either allow or deny")
    try:
        return _MAKERS[verb](subject) if row.rights is None else _MAKERS[verb](subject, _rights(row.rights))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _read_trusted(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        defect = ""
        if not stat.S_ISREG(status.st_mode):
            defect = "it is not a file"
        elif status.st_uid not in (0, os.geteuid()):
            defect = f"it belongs to uid {status.st_uid}, neither the current user nor root"
        elif status.st_mode & 0o022:
            defect = f"its mode {stat.S_IMODE(status.st_mode):04o} lets others write it"
        if defect:
            raise AccessDenied(what=f"read the access list {path}", reason=defect)
        data = os.read(fd, MAX_TEXT + 1)
    finally:
        os.close(fd)
    if len(data) > MAX_TEXT:
        raise ValueError(f"it has more than {MAX_TEXT} bytes")
    return data
