"""Where a process runs: its control group and its namespaces, which is what Linux has for a container's identity.

Belongs here: reading them for a pinned process. Never here: deciding on them, or looking at a process by its pid.

``/proc/<pid>`` is asked only while the pidfd shows that the process, and with it the number, still exists: the number
comes from the pidfd itself, and what was read counts only if the process is there afterwards as well.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._identity import Identity

__all__ = ["Surroundings", "surroundings"]

_NAMESPACES: Final = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_LONGEST: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where a process ran when it was looked at.

    Attributes:
        cgroup: its control group, as a path below the root of our view of the hierarchy; containers and services each
            have one of their own. Only as trustworthy as whoever may move processes between groups.
        namespaces: numbers of its namespaces by kind; equal numbers mean the same namespace.
        shared: the kinds that are ours as well.
        unreadable: the kinds that we may not see; that takes the same user, or ``CAP_SYS_PTRACE``.
    """

    cgroup: str
    namespaces: dict[str, int]
    shared: frozenset[str]
    unreadable: frozenset[str]


def surroundings(identity: Identity) -> Surroundings:
    """Return where the process of an identity runs now. Reads a few small files of ``/proc``.

    Args:
        identity: the peer, as long as its connection is there.

    Returns:
        The facts, of that very process.

    Raises:
        OSError: ``ENOTSUP`` when the kernel did not pin the process, ``EBADF`` when the identity was closed, ``ESRCH``
            when the process has ended, ``ENOENT`` when it is not visible from our process namespace.
    """
    with identity.pidfd() as process:
        pid = _pid_of(process.fileno())
        facts = _read(pid)
        if identity.process_ended() is not False:
            raise OSError(errno.ESRCH, f"the process of {identity} has ended")
        return facts


def _pid_of(pidfd: int) -> int:
    for line in _text(f"/proc/self/fdinfo/{pidfd}").splitlines():
        name, _, value = line.partition(":")
        if name == "Pid":
            pid = int(value)
            if pid > 0:
                return pid
            # -1: the process was reaped; 0: it is outside our process namespace.
            code = errno.ESRCH if pid < 0 else errno.ENOENT
            raise OSError(code, "the process has ended" if pid < 0 else "the process is not visible from here")
    raise OSError(errno.ENOTSUP, "the kernel does not tell the number behind a pidfd")


def _read(pid: int) -> Surroundings:
    try:
        cgroup = _cgroup(_text(f"/proc/{pid}/cgroup"))
    except FileNotFoundError:
        raise OSError(errno.ESRCH, "the process has ended") from None
    theirs = {kind: _namespace(f"/proc/{pid}/ns/{kind}") for kind in _NAMESPACES}
    ours = {kind: _namespace(f"/proc/self/ns/{kind}") for kind in _NAMESPACES}
    seen = {kind: number for kind, number in theirs.items() if number is not None}
    return Surroundings(
        cgroup=cgroup,
        namespaces=seen,
        shared=frozenset(kind for kind, number in seen.items() if number == ours[kind]),
        unreadable=frozenset(theirs.keys() - seen.keys()),
    )


def _cgroup(text: str) -> str:
    """Return the path in the unified hierarchy, or the longest one of the old hierarchies where there is no unified."""
    paths = dict(line.split(":", 2)[::2] for line in text.splitlines() if line.count(":") >= 2)
    return paths.get("0") or max(paths.values(), key=len, default="")


def _namespace(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _text(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _LONGEST).decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)
