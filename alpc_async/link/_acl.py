"""Access lists of files: more users and groups than an owner, a group and a mode can name.

Belongs here: making one and setting it on a socket file. Never here: who is to be on it (security).

Connecting takes write permission on the socket file, and the kernel looks at the list of the file for that like for
any other (``man 5 acl``). File systems without such lists, and systems that forbid them, refuse to take one.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["let_in"]

# linux/posix_acl_xattr.h and linux/posix_acl.h; entries are in the order of their tags, then of their ids.
_ATTRIBUTE: Final = "system.posix_acl_access"
_VERSION: Final = struct.pack("<I", 2)
_ENTRY: Final = struct.Struct("<HHI")
_OWNER, _USER, _OWNING_GROUP, _GROUP, _MASK, _OTHERS = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NO_ID: Final = 2**32 - 1
_READ_WRITE: Final = 6


def let_in(path: str, users: Collection[int], groups: Collection[int]) -> None:
    """Let the owner of a file, some users and some groups read and write it, and nobody else.

    Args:
        path: the file.
        users: their ids.
        groups: likewise.

    Raises:
        OSError: the file system has no such lists, or the list is too long for it.
    """
    entries = [
        (_OWNER, _READ_WRITE, _NO_ID),
        *((_USER, _READ_WRITE, uid) for uid in sorted(users)),
        (_OWNING_GROUP, 0, _NO_ID),
        *((_GROUP, _READ_WRITE, gid) for gid in sorted(groups)),
        (_MASK, _READ_WRITE, _NO_ID),
        (_OTHERS, 0, _NO_ID),
    ]
    os.setxattr(path, _ATTRIBUTE, _VERSION + b"".join(_ENTRY.pack(*entry) for entry in entries))
