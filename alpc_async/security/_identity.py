"""What the kernel says about one end of a connection.

Belongs here: the facts, what may be concluded from them, and the pinned process. Never here: how the facts are asked
for (`_peer`), whether they suffice (`_policy`), names of users or groups (looking them up can block on a network).

Three facts of Linux shape this module:

* A process id is reused, a pidfd is not. The pid is shown to people and decides nothing; where a process must be
  reached, only the descriptor that the kernel gave with the connection counts.
* A user or group that has no number in our user namespace is shown to us under the *overflow* number (65534 unless
  the machine's administrator changed it), which is also the real number of ``nobody``. Where some users are unmapped
  the number means nothing, so here it equals no user at all.
* A process outside our process namespace and its children has no pid for us, and the kernel reports 0.
"""

from __future__ import annotations

import errno
import hashlib
import os
import select
from dataclasses import dataclass, field
from typing import Final

from alpc_async.handles import Handle

__all__ = ["Identity", "anonymous_identity"]

HIDDEN: Final = 65_534
"""The number that stands for whoever does not want to be known, as it does for whoever is not mapped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The kernel's facts about the process at one end of a connection, as they were when it connected or listened.

    Equal identities have the same user, groups, label and, where the kernel pins it, process; the pid is not compared.
    The identity owns the pinned descriptor until `close`; the facts stay readable afterwards.

    Attributes:
        uid: effective user id.
        gid: effective group id.
        groups: supplementary group ids, ascending.
        pid: process id for people to read, or 0 when the process has none in our process namespace. It may have been
            reused since: never decide or act on it.
        label: security label (SELinux, AppArmor, Smack), or ``None`` without such a module.
        stamp: digest of uid, gid, groups, label and pinned process; equal stamps mean the same facts, so what was
            decided for one may be kept for the other. It means something until the machine restarts. Linux gives a
            process a number of its own from 6.9; on older kernels the stamp covers the other four facts only.
        changed: whether this is the sender of a message and another one than whoever made the connection; then the
            supplementary groups and the label are unknown, which matches no rule about them.
        pinned: the owned pidfd; `pidfd` makes a copy to keep.
        overflow_uid: the number that stands for every user who is not mapped into our user namespace, or ``None`` when
            all are.
        overflow_gid: the same for groups.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    pid: int = field(default=0, compare=False)
    label: str | None = None
    stamp: str = field(init=False)
    changed: bool = field(default=False, compare=False)
    pinned: Handle | None = field(default=None, compare=False, repr=False)
    overflow_uid: int | None = field(default=None, compare=False, repr=False)
    overflow_gid: int | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(sorted(set(self.groups))))
        object.__setattr__(self, "stamp", self._digest())

    def _digest(self) -> str:
        process = os.fstat(self.pinned.fileno()).st_ino if self.pinned is not None else None
        # The label comes last and is the only free text, so no two sets of facts are written the same way.
        facts = f"{self.uid}:{self.gid}:{','.join(map(str, self.groups))}:{process}:{self.label!r}"
        return hashlib.blake2b(facts.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

    @property
    def mapped(self) -> bool:
        """Whether uid and gid are numbers of our user namespace, rather than the kernel's stand-in for any other."""
        return self.uid != self.overflow_uid and self.gid != self.overflow_gid

    @property
    def identified(self) -> bool:
        """Whether user, group and process are all known in our namespaces."""
        return self.pid > 0 and self.mapped

    def is_user(self, uid: int) -> bool:
        """Return whether the process certainly acts for the user.

        Args:
            uid: the user id asked about.

        Returns:
            ``False`` also when the number only stands for an unmapped user.
        """
        return self.uid == uid != self.overflow_uid

    def in_group(self, gid: int) -> bool:
        """Return whether the process certainly is in the group, by its group id or a supplementary one.

        Args:
            gid: the group id asked about.

        Returns:
            ``False`` also when the number only stands for an unmapped group.
        """
        return gid != self.overflow_gid and (self.gid == gid or gid in self.groups)

    @property
    def has_pidfd(self) -> bool:
        """Whether the process is pinned: the kernel gave a pidfd and `close` was not called yet."""
        return self.pinned is not None and not self.pinned.closed

    def pidfd(self) -> Handle:
        """Return a pidfd of the process, pinned by the kernel when the connection was made.

        Returns:
            A new handle; it is the caller's to close, is close-on-exec, and outlives this identity.

        Raises:
            OSError: ``ENOTSUP`` when the kernel gave no pidfd for this connection (older than Linux 6.5, or the
                process had already ended) or this is our own identity; ``EBADF`` when the identity was closed;
                ``EMFILE`` when no descriptor is free.
        """
        if self.pinned is None:
            raise OSError(
                errno.ENOTSUP,
                f"the kernel gave no pidfd for {self}: that takes Linux 6.5 and a process that was alive; "
                "a pid is no substitute, since it may belong to another process by now",
            )
        if self.pinned.closed:
            raise OSError(
                errno.EBADF, f"the pidfd of {self} was given back when its connection ended; take a copy before"
            )
        return Handle(os.dup(self.pinned.fileno()))

    def process_ended(self) -> bool | None:
        """Return whether the process has ended, reaped or not; never waits.

        Returns:
            ``None`` when that is unknown because the process is not pinned.
        """
        if self.pinned is None or self.pinned.closed:
            return None
        poller = select.poll()
        poller.register(self.pinned.fileno(), select.POLLIN)
        return bool(poller.poll(0))

    def close(self) -> None:
        """Give the pinned descriptor back. Closing again does nothing; the facts stay readable."""
        if self.pinned is not None:
            self.pinned.close()

    def __str__(self) -> str:
        remarks = [f"pid {self.pid}" if self.pid > 0 else "pid not visible from here"]
        if not self.mapped:
            remarks.append("not mapped into this user namespace")
        return f"uid {self.uid} gid {self.gid} ({', '.join(remarks)})"


def anonymous_identity() -> Identity:
    """Return what a program sees of a peer that does not want to be known: nobody, and not identified."""
    return Identity(uid=HIDDEN, gid=HIDDEN, overflow_uid=HIDDEN, overflow_gid=HIDDEN)
