"""Port names: their grammar, and the lease that holds one name for one port.

Belongs here: taking a name, putting a socket under it, giving it back. Never here: the directory (`_directory`),
accepting or making connections (`_listener`, `_dial`), or who may connect (security).

A name is a socket file in a directory that only its owner (or root) can write. Whoever listens holds ``<name>.lock``
for the life of the port, binds a temporary name, sets its mode, listens, and renames it into place: a client sees the
old socket, or the new one ready to take it, never something in between. What a killed process left behind carries no
lock and is simply replaced.

The lock is ``flock``, and not for want of others. A POSIX record lock belongs to the process: a second port in the
same process gets it too, and closing *any* descriptor of the file drops it, so a failed attempt to take a name would
give away the live name of another port. An open-file-description lock (``F_OFD_SETLK``) behaves as ``flock`` here and
needs a packed structure. Both belong to the open file description, which a forked child shares, and orphaned workers
of a killed server would keep its name. Hence a forked child closes its copies at once, an executed program never gets
them (close-on-exec), and `NameLease.release` unlocks before it closes, which frees the name whoever holds copies.
What remains is a child forked from C code, past Python's fork hooks: the name stays taken until that child ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import secrets
import socket
import stat
import weakref
from typing import TYPE_CHECKING, ClassVar, Final, Self

from ..errors import AccessDenied, InvalidName, NameCollision, PortClosed
from ..handles import Handle
from ._acl import let_in
from ._ancillary import refuse_rights, report_senders
from ._directory import NameDirectory, runtime_directory

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

__all__ = ["MAX_NAME_LENGTH", "NameLease", "check_name"]

MAX_NAME_LENGTH: Final = 80
"""Bytes in a port name.

The path in a socket address has room for 107 bytes and a terminator. Sockets are always reached through
``/proc/self/fd/<n>/``, at most 25 bytes with the longest descriptor number, so 82 remain however long the path of the
directory is; 80 is the round number below.
"""

LOCK_SUFFIX: Final = ".lock"

MODE_OWNER: Final = 0o600
MODE_ANYBODY: Final = 0o666

_FORBIDDEN = re.compile(r"[^A-Za-z0-9._-]")
_REFUSALS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NOT_A_LOCK_FILE: Final = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO})

_logger = logging.getLogger("alpc_async.link")


def check_name(name: str) -> None:
    """Check the grammar of a port name: letters, digits, dots, dashes and underscores, 1 to 80 bytes.

    Args:
        name: the text to check.

    Raises:
        InvalidName: the text is empty or too long, has another character, begins with a dot or a dash, or ends in
            ``.lock`` (which belongs to lock files).
    """
    reason = _name_defect(name)
    if reason:
        raise InvalidName(name=name, reason=reason)


def _name_defect(name: str) -> str:
    if not name:
        return "it is empty"
    forbidden = _FORBIDDEN.search(name)
    if forbidden is not None:
        return f"it contains {forbidden.group()!r}"
    if len(name) > MAX_NAME_LENGTH:
        return f"it has {len(name)} bytes, more than {MAX_NAME_LENGTH}"
    if name[0] in ".-":
        return f"it begins with {name[0]!r}"
    if name.endswith(LOCK_SUFFIX):
        return f"it ends in {LOCK_SUFFIX!r}, which marks lock files"
    return ""


class NameLease:
    """Holds one name for the life of one port; use `acquire` to get one, and `release` it (or use ``with``).

    In a forked child the lease and its socket are closed at once and do nothing; the name stays with the parent.

    Attributes:
        name: the port name.
        turn: none; a name that is inherited has one where several processes accept.
    """

    turn: ClassVar[None] = None

    __slots__ = ("__weakref__", "_bound", "_directory", "_lock", "_socket", "name")

    def __init__(self, name: str, directory: NameDirectory, lock: Handle) -> None:
        self.name = name
        self._directory = directory
        self._lock = lock
        self._bound: tuple[int, int] | None = None
        self._socket: weakref.ref[socket.socket] | None = None
        self._watch_forks()

    @classmethod
    def acquire(cls, name: str, *, directory: str | None = None, shared: bool = False) -> Self:
        """Take a name; nobody else can until `release`, or the end of this process.

        Args:
            name: the port name.
            directory: where; `runtime_directory` when ``None``. It is made when it is missing.
            shared: let other users search the directory if it has to be made.

        Returns:
            The lease, to be released by the caller.

        Raises:
            InvalidName: the text is not a port name.
            UnsafeDirectory: the directory could be tampered with.
            NameCollision: a live port has the name, or something that is not a lock file is in its place.
            AccessDenied: the current user may not make files in the directory.
        """
        check_name(name)
        place = NameDirectory.open(runtime_directory() if directory is None else directory, create=True, shared=shared)
        try:
            return cls(name, place, _lock_name(place, name))
        except BaseException as error:
            place.close()
            _raise_refusal(error, name, place.path)
            raise

    @property
    def directory(self) -> str:
        """The directory that holds the name."""
        return self._directory.path

    def bind(
        self,
        mode: int,
        backlog: int,
        *,
        gid: int | None = None,
        users: Collection[int] = (),
        groups: Collection[int] = (),
    ) -> socket.socket:
        """Put a listening socket under the name, in place of one that a dead process left behind.

        Args:
            mode: permissions of the socket file; connecting takes write permission, hence ``0o600`` or ``0o666``.
            backlog: connections that the kernel keeps until they are accepted.
            gid: the group of the socket file, for modes such as ``0o660``; where we may not give it away, it is one
                of ``groups`` instead.
            users: users who may connect beside those that the mode lets in, by the access list of the file; where
                the file system has none, the mode becomes ``0o666``, because it would keep the wrong ones out.
            groups: groups likewise.

        Returns:
            The socket, non-blocking and close-on-exec; it belongs to the caller.

        Raises:
            PortClosed: the lease was released.
            NameCollision: a file that is not a socket, or a socket of another user, is in the place.
            AccessDenied: the current user may not make files in the directory.
        """
        if self._lock.closed:
            raise PortClosed(port=f"port {self.name!r}")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            refuse_rights(sock)
            report_senders(sock)
            self._publish(sock, mode, backlog, gid, users, groups)
        except BaseException as error:
            sock.close()
            _raise_refusal(error, self.name, self.directory)
            raise
        self._socket = weakref.ref(sock)
        return sock

    def _publish(
        self, sock: socket.socket, mode: int, backlog: int, gid: int | None, users: Collection[int],
        groups: Collection[int],
    ) -> None:  # fmt: skip
        # The leading dot keeps it out of the grammar of names: it cannot be the place of another port.
        temporary = f".{secrets.token_hex(16)}"
        at = self._directory.fileno()
        sock.bind(self._directory.address(temporary))
        try:
            if gid is not None and not self._give_to_group(temporary, gid):
                mode, groups = MODE_OWNER, (*groups, gid)
            os.chmod(temporary, mode, dir_fd=at)
            if (users or groups) and not self._let_in(temporary, users, groups):
                os.chmod(temporary, MODE_ANYBODY, dir_fd=at)
            sock.listen(backlog)
            bound = _inode(os.stat(temporary, dir_fd=at, follow_symlinks=False))
            found = self._directory.status(self.name)
            if found is not None and not _is_replaceable(found):
                raise NameCollision(name=self.name, directory=self.directory)
            os.rename(temporary, self.name, src_dir_fd=at, dst_dir_fd=at)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=at)
            raise
        self._bound = bound

    def _give_to_group(self, entry: str, gid: int) -> bool:
        try:
            os.chown(entry, -1, gid, dir_fd=self._directory.fileno(), follow_symlinks=False)
        except OSError as error:
            _logger.info("cannot give %s to group %d (%s)", self.name, gid, error.strerror)
            return False
        return True

    def _let_in(self, entry: str, users: Collection[int], groups: Collection[int]) -> bool:
        try:
            let_in(self._directory.address(entry), users, groups)
        except OSError as error:
            _logger.info("%s has no access list (%s); its socket is open to all", self.name, error.strerror)
            return False
        return True

    def release(self) -> None:
        """Remove the name and let others have it. Releasing again does nothing; never raises.

        The listening socket is not closed: it belongs to the caller of `bind`.
        """
        if self._lock.closed:
            return
        fd = self._lock.fileno()
        try:
            if self._bound is not None:
                self._remove(self.name, self._bound)
            self._remove(self.name + LOCK_SUFFIX, _inode(os.fstat(fd)))
            fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            self._let_go()

    def _remove(self, entry: str, inode: tuple[int, int]) -> None:
        try:
            status = self._directory.status(entry)
            if status is not None and _inode(status) == inode:
                os.unlink(entry, dir_fd=self._directory.fileno())
        except OSError as error:
            # What stays behind carries no lock and blocks nobody.
            _logger.warning("cannot remove %s/%s: %s", self.directory, entry, error.strerror)

    def _let_go(self) -> None:
        self._lock.close()
        self._directory.close()

    def _watch_forks(self) -> None:
        # Python offers no way to take a fork hook back. This one holds the lease weakly; what stays for each name that
        # was ever taken is one small closure, the price of not keeping a registry in the process.
        reference = weakref.ref(self)

        def let_go() -> None:
            lease = reference()
            if lease is not None:
                lease._let_go_in_child()

        os.register_at_fork(after_in_child=let_go)

    def _let_go_in_child(self) -> None:
        sock = self._socket() if self._socket is not None else None
        if sock is not None:
            sock.close()
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def _lock_name(directory: NameDirectory, name: str) -> Handle:
    entry = name + LOCK_SUFFIX
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        try:
            handle = Handle(os.open(entry, flags, 0o600, dir_fd=directory.fileno()))
        except OSError as error:
            if error.errno in _NOT_A_LOCK_FILE:
                raise NameCollision(name=name, directory=directory.path) from None
            raise
        try:
            fcntl.flock(handle.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = os.fstat(handle.fileno())
            found = directory.status(entry)
            if not stat.S_ISREG(locked.st_mode):
                raise NameCollision(name=name, directory=directory.path)
        except BlockingIOError:
            handle.close()
            raise NameCollision(name=name, directory=directory.path) from None
        except BaseException:
            handle.close()
            raise
        if found is not None and _inode(found) == _inode(locked):
            return handle
        # The holder removed this file between our open and our lock: it locks nothing any more.
        handle.close()


def _is_replaceable(status: os.stat_result) -> bool:
    uid = os.geteuid()
    return stat.S_ISSOCK(status.st_mode) and uid in (0, status.st_uid)


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _raise_refusal(error: BaseException, name: str, directory: str) -> None:
    if isinstance(error, OSError) and error.errno in _REFUSALS and not isinstance(error, AccessDenied):
        reason = f"{os.strerror(error.errno)} in {directory}"
        raise AccessDenied(what=f"listen on port {name!r}", reason=reason) from error
