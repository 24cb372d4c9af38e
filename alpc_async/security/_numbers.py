"""Numbers of the kernel's interface that Python has no names for.

Belongs here: socket options and system calls by machine. Never here: calling them.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Final, NamedTuple

__all__ = [
    "SO_PASSPIDFD",
    "SO_PASSRIGHTS",
    "SO_PEERGROUPS",
    "SO_PEERPIDFD",
    "CredentialCalls",
    "credential_calls",
]

# Python 3.11 names SO_PEERCRED and SO_PEERSEC with the numbers of the machine it was built for, but not those below.
# The kernel's asm-generic/socket.h says 59, 76, 77 and 83, which x86, arm, riscv, powerpc and s390 include and alpha
# and mips repeat; only sparc and parisc number them differently, and each is known by its SO_PEERCRED.
_SPARC_PEERCRED, _PARISC_PEERCRED = 0x0040, 0x4011
SO_PEERGROUPS, SO_PASSPIDFD, SO_PEERPIDFD, SO_PASSRIGHTS = {
    _SPARC_PEERCRED: (0x003D, 0x0055, 0x0056, 0x005C),
    _PARISC_PEERCRED: (0x4034, 0x404A, 0x404B, 0x4051),
}.get(socket.SO_PEERCRED, (59, 76, 77, 83))


class CredentialCalls(NamedTuple):
    """Numbers of the system calls that read and change the credentials of one thread."""

    setgroups: int
    getgroups: int
    setresgid: int
    getresgid: int
    setresuid: int
    getresuid: int
    capset: int
    capget: int


_GENERIC: Final = CredentialCalls(159, 158, 149, 150, 147, 148, 91, 90)
"""asm-generic/unistd.h, which newer machines share."""

# Only machines whose calls take 32-bit ids under these numbers: the 32-bit ones have two generations of each call.
_CALLS: Final = {
    "x86_64": CredentialCalls(116, 115, 119, 120, 117, 118, 126, 125),
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
    "loongarch64": _GENERIC,
    "ppc64le": CredentialCalls(81, 80, 169, 170, 164, 165, 184, 183),
    "ppc64": CredentialCalls(81, 80, 169, 170, 164, 165, 184, 183),
    "s390x": CredentialCalls(206, 205, 210, 211, 208, 209, 185, 184),
}

_POINTER_BITS_64: Final = 2**32


def credential_calls() -> CredentialCalls | None:
    """Return the numbers for this process, or ``None`` where they are not known."""
    # A 32-bit process on a 64-bit kernel calls by other numbers.
    return _CALLS.get(os.uname().machine) if sys.maxsize > _POINTER_BITS_64 else None
