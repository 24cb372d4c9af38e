"""A thread that acts as another user.

Belongs here: changing the credentials of one thread, proving that they are changed, and running functions in it. Never
here: whether anybody allowed it (port), event loops.

Linux keeps credentials per thread. The C library changes those of *all* threads when it is asked, so it is not asked:
the system calls are made directly, in a thread that was started for this, runs nothing else, and ends afterwards. It is
never used again and never changes back, so no mistake can leave a thread of the program with foreign credentials.

The order matters: groups first, while there is a capability for it; then the user, with which the kernel takes the
capabilities away; then what may be left of them. `no_new_privs` keeps set-user-ID programs that the body may start from
giving more. Everything is read back before the body runs.

Facts to know. Functions that run here must not change credentials themselves: ``os.setuid`` and its like go through the
C library, which finds the threads of the program at odds and aborts it. The kernel makes the whole process non-dumpable
when a thread changes its user, which is what keeps that user from attaching a debugger to us; we insist on it. And a
user may send signals to a thread that acts as it: who is impersonated could end the program meanwhile.
"""

from __future__ import annotations

import contextvars
import ctypes
import os
import queue
import threading
from typing import TYPE_CHECKING, Any, Final

from ..errors import AccessDenied
from ._numbers import CredentialCalls, credential_calls

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._identity import Identity

__all__ = ["CallerThread"]

_PR_GET_DUMPABLE: Final = 3
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_GET_NO_NEW_PRIVS: Final = 39
_DUMPABLE: Final = 1
_CAPABILITY_VERSION_3: Final = 0x20080522
_MAX_GROUPS: Final = 65_536


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    _fields_ = (("words", ctypes.c_uint32 * 6),)


class _Job:
    """One function to run, and where its outcome goes."""

    __slots__ = ("context", "function", "outcome", "report")

    def __init__(self, function: Callable[[], Any], report: Callable[[Any, BaseException | None], None]) -> None:
        self.function = function
        self.report = report
        self.context = contextvars.copy_context()


class CallerThread:
    """A thread of its own with the credentials of somebody else.

    Args:
        identity: whose.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, report: Callable[[BaseException | None], None]) -> None:
        """Start the thread and change its credentials.

        Args:
            report: called once, in that thread: with ``None`` when it acts as the other user now and that was verified,
                or with the `AccessDenied` that says why not; then the thread is over.

        Raises:
            AccessDenied: the identity is none that can be taken; no thread was started.
            RuntimeError: no thread can be started.
        """
        calls = _check(self._identity)
        self._thread = threading.Thread(
            target=self._run, args=(calls, report), name=f"acts as uid {self._identity.uid}", daemon=True
        )
        self._thread.start()

    def submit(self, function: Callable[[], Any], report: Callable[[Any, BaseException | None], None]) -> None:
        """Run a function in the thread, after those that were submitted before.

        Args:
            function: the function, without arguments.
            report: called in that thread with the result, or with what was raised.
        """
        self._jobs.put(_Job(function, report))

    def stop(self, report: Callable[[], None]) -> None:
        """Let the thread end after what was submitted.

        Args:
            report: called in that thread as its last act.
        """
        self._jobs.put(_Job(_last, lambda _result, _error: report()))
        self._jobs.put(None)

    def _run(self, calls: CredentialCalls, report: Callable[[BaseException | None], None]) -> None:
        try:
            _become(calls, self._identity)
            _verify(calls, self._identity)
        except BaseException as error:
            report(error)
            return
        report(None)
        while (job := self._jobs.get()) is not None:
            try:
                result = job.context.run(job.function)
            except BaseException as error:
                job.report(None, error)
            else:
                job.report(result, None)
            del job


def _last() -> None:
    """Do nothing, after everything else."""


def _denied(identity: Identity, reason: str) -> AccessDenied:
    return AccessDenied(what=f"impersonate {identity}", reason=reason)


def _check(identity: Identity) -> CredentialCalls:
    if not identity.identified:
        raise _denied(identity, "it is not identified: its numbers may stand for anybody outside our namespaces")
    if identity.changed:
        # Without the groups that it has, a thread could do what a member of one of them may not.
        raise _denied(identity, "it took the connection over from another process, and its groups are not known")
    calls = credential_calls()
    if calls is None:
        raise _denied(identity, f"the calls that change one thread are not known for {os.uname().machine}")
    return calls


def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library


def _become(calls: CredentialCalls, identity: Identity) -> None:
    """Change the credentials of this thread.

    Raises:
        AccessDenied: the kernel does not let us; the thread must not be used.
    """
    libc = _libc()

    def call(number: int, *arguments: Any, what: str) -> None:
        if libc.syscall(ctypes.c_long(number), *arguments) != 0:
            code = ctypes.get_errno()
            raise _denied(
                identity,
                f"{what} failed with {os.strerror(code)}; a server that impersonates needs the capabilities "
                "CAP_SETUID and CAP_SETGID, which root has",
            )

    groups = identity.groups
    uid, gid = ctypes.c_uint32(identity.uid), ctypes.c_uint32(identity.gid)
    call(calls.setgroups, ctypes.c_long(len(groups)), (ctypes.c_uint32 * len(groups))(*groups), what="setgroups")
    call(calls.setresgid, gid, gid, gid, what="setresgid")
    call(calls.setresuid, uid, uid, uid, what="setresuid")
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    call(calls.capset, ctypes.byref(header), ctypes.byref(_Capabilities()), what="capset")
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _denied(identity, "prctl(PR_SET_NO_NEW_PRIVS) failed")


def _verify(calls: CredentialCalls, identity: Identity) -> None:
    """Read the credentials of this thread back.

    Raises:
        AccessDenied: something is not as it should be; the thread must not be used.
    """
    libc = _libc()
    for number, wanted, what in ((calls.getresuid, identity.uid, "user"), (calls.getresgid, identity.gid, "group")):
        found = (ctypes.c_uint32 * 3)()
        at = [ctypes.byref(found, 4 * position) for position in range(3)]
        if libc.syscall(ctypes.c_long(number), *at) != 0 or set(found) != {wanted}:
            raise _denied(identity, f"the {what} of the thread is {list(found)} afterwards, not {wanted}")
    groups = (ctypes.c_uint32 * _MAX_GROUPS)()
    count = libc.syscall(ctypes.c_long(calls.getgroups), ctypes.c_long(_MAX_GROUPS), groups)
    if count < 0 or sorted(groups[:count]) != sorted(identity.groups):
        raise _denied(identity, "the supplementary groups of the thread are not those of the caller afterwards")
    header, capabilities = _CapabilityHeader(_CAPABILITY_VERSION_3, 0), _Capabilities()
    if libc.syscall(ctypes.c_long(calls.capget), ctypes.byref(header), ctypes.byref(capabilities)) != 0 or any(
        capabilities.words
    ):
        raise _denied(identity, "the thread has capabilities afterwards")
    if libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        raise _denied(identity, "the thread could gain privileges afterwards")
    if identity.uid != os.getuid() and libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == _DUMPABLE:
        raise _denied(identity, "the process can be debugged by whom it acts as; set fs.suid_dumpable to 0 or 2")
