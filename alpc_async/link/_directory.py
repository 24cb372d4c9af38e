"""The directories that port names live in: where they are, and whether they can be trusted.

Belongs here: finding, making and checking a directory. Never here: taking a name in it (`_names`) or connecting to one
(`_dial`).

Whoever can write the directory can put a socket of his own in the place of a port, so a directory that somebody else
owns or can write is refused, by whoever listens and by whoever connects.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final, Self

from ..errors import UnsafeDirectory
from ..handles import Handle

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["NameDirectory", "runtime_directory", "search_directories"]

SYSTEM_DIRECTORY: Final = "/run/alpc"
MODE_PRIVATE: Final = 0o700
MODE_SEARCHABLE: Final = 0o711
MODE_SYSTEM: Final = 0o755


def runtime_directory() -> str:
    """Return the directory in which this process opens ports; it need not exist yet.

    ``$ALPC_RUNTIME_DIR`` decides when it is set. Else it is ``alpc`` in ``$XDG_RUNTIME_DIR``, provided that this is an
    absolute path of a directory of the current user; after ``su`` it often names that of somebody else. Else it is
    ``/run/alpc`` for root and ``/tmp/alpc-<uid>`` for everybody else.

    Raises:
        UnsafeDirectory: ``$ALPC_RUNTIME_DIR`` is not an absolute path.
    """
    chosen = os.environ.get("ALPC_RUNTIME_DIR")
    if chosen:
        if not os.path.isabs(chosen):
            raise UnsafeDirectory(path=chosen, reason="it is not an absolute path")
        return chosen
    uid = os.geteuid()
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(session) and _owner(session) == uid:
        return os.path.join(session, "alpc")
    return SYSTEM_DIRECTORY if uid == 0 else f"/tmp/alpc-{uid}"  # noqa: S108  # checked when opened


def _owner(path: str) -> int:
    try:
        return os.stat(path).st_uid
    except OSError:
        return -1


def search_directories() -> tuple[str, ...]:
    """Return the directories in which a client looks for a port, in this order.

    Its own directory comes first, then the system's, unless ``$ALPC_RUNTIME_DIR`` names the only one.

    Raises:
        UnsafeDirectory: ``$ALPC_RUNTIME_DIR`` is not an absolute path.
    """
    own = runtime_directory()
    if os.environ.get("ALPC_RUNTIME_DIR") or own == SYSTEM_DIRECTORY:
        return (own,)
    return (own, SYSTEM_DIRECTORY)


class NameDirectory:
    """An open, checked directory of port names; use `open` to get one, and `close` it (or use ``with``).

    Everything goes through its descriptor, so nobody can put another directory in its place after the check, and a
    long path does not matter.

    Attributes:
        path: the directory as it was named.
    """

    __slots__ = ("_handle", "path")

    def __init__(self, path: str, handle: Handle) -> None:
        self.path = path
        self._handle = handle

    @classmethod
    def open(cls, path: str, *, create: bool = False, shared: bool = False) -> Self:
        """Open a directory and check that nobody but its owner can put names into it.

        Args:
            path: absolute path of the directory; only parents may be symbolic links.
            create: make it when it is missing, for the current user alone; ``/run/alpc`` can be read by everybody.
            shared: let everybody reach the ports inside, as far as the port's own mode allows; only counts when the
                directory is made by this call.

        Returns:
            The directory, to be closed by the caller.

        Raises:
            FileNotFoundError: it does not exist and was not to be created.
            UnsafeDirectory: it is not a directory, belongs neither to the current user nor to root, can be written
                by group or others, or cannot be made or opened.
        """
        # A slash at the end would make the kernel follow a symbolic link in spite of O_NOFOLLOW.
        path = path.rstrip("/") or "/"
        created = create and _make_directory(path)
        try:
            handle = Handle(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
        except FileNotFoundError:
            raise
        except NotADirectoryError:
            raise UnsafeDirectory(path=path, reason="it is a symbolic link or not a directory") from None
        except PermissionError as error:
            raise UnsafeDirectory(path=path, reason=f"it cannot be opened ({error.strerror})") from None
        try:
            defect = _directory_defect(os.fstat(handle.fileno()))
            if defect:
                raise UnsafeDirectory(path=path, reason=defect)
            if created:
                # By descriptor and after the check: this is the directory made above. mkdir's mode obeys the umask.
                mode = MODE_SYSTEM if path == SYSTEM_DIRECTORY else MODE_SEARCHABLE if shared else MODE_PRIVATE
                os.chmod(f"/proc/self/fd/{handle.fileno()}", mode)
        except BaseException:
            handle.close()
            raise
        return cls(path, handle)

    def fileno(self) -> int:
        """Return the descriptor, or -1 after `close`; it serves as ``dir_fd`` and for nothing else."""
        return self._handle.fileno()

    def address(self, entry: str) -> str:
        """Return the socket address of an entry, at most 107 bytes for an entry of up to 82.

        Args:
            entry: name of a file in the directory.
        """
        return f"/proc/self/fd/{self._handle.fileno()}/{entry}"

    def status(self, entry: str) -> os.stat_result | None:
        """Return what an entry is, without following it, or ``None`` when there is none.

        Args:
            entry: name of a file in the directory.
        """
        try:
            return os.stat(entry, dir_fd=self.fileno(), follow_symlinks=False)
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """Close the descriptor. Closing again does nothing."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _make_directory(path: str) -> bool:
    try:
        os.makedirs(os.path.dirname(path), MODE_SYSTEM, exist_ok=True)
        os.mkdir(path, MODE_PRIVATE)
    except FileExistsError:
        return False
    except OSError as error:
        raise UnsafeDirectory(path=path, reason=f"it cannot be made ({error.strerror})") from None
    return True


def _directory_defect(status: os.stat_result) -> str:
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to uid {status.st_uid}, neither the current user nor root"
    if status.st_mode & 0o022:
        return f"its mode {stat.S_IMODE(status.st_mode):04o} lets others write"
    return ""
