"""Every error that the framework raises: one root, one class per circumstance.

Belongs here: exception classes and the sentences they print. Never here: decisions about when to raise.

Each class also derives from the exception that generic code expects for its circumstance (anyio's for streams, the
built-in ones for names, permissions and time), so that code written for sockets keeps working. The facts are fields;
the text is built from them and says what happened, to whom, which setting is involved, and what to do next.

::

    AlpcError
    ├── PortClosed              this side closed the port
    ├── Disconnected            the other side is gone
    ├── ForkedPort              used in a forked child, another thread or another event loop
    ├── PortAssociated          messages of this port arrive somewhere else
    ├── InvalidName             not a port name
    ├── UnsafeDirectory         the directory of port names could be tampered with
    ├── NameNotFound            nobody listens under the name
    ├── NameCollision           somebody already listens under the name
    ├── AccessDenied            a policy or the kernel says no
    ├── ServerIdentityMismatch  the listener is not who the client requires
    ├── ConnectionRefused       the server declined the connection
    ├── MessageTooLong          over the negotiated message length
    ├── QuotaExceeded           over a negotiated quota
    ├── ReplyMismatch           no such request is waiting for a reply
    ├── RequestCancelled        the request was cancelled by its owner
    ├── DeadlineExceeded        time ran out
    ├── ProtocolViolation       the other side broke the protocol
    ├── InterpretersMissing     this Python has no interpreters for a worker pool
    ├── HandlerNotLoaded        a handler cannot be imported where it should run
    ├── RemoteFault             the other side answered with a fault
    │   └── WorkerDied          the process that worked on the request died

Those of typed services stand in `alpc_async.contract_errors`.
"""

from __future__ import annotations

import enum
import errno
from typing import Any

import anyio

__all__ = [
    "AccessDenied",
    "AlpcError",
    "ConnectionRefused",
    "DeadlineExceeded",
    "Disconnected",
    "ForkedPort",
    "HandlerNotLoaded",
    "InterpretersMissing",
    "InvalidName",
    "MessageTooLong",
    "NameCollision",
    "NameNotFound",
    "PortAssociated",
    "PortClosed",
    "ProtocolViolation",
    "QuotaExceeded",
    "RemoteFault",
    "ReplyMismatch",
    "RequestCancelled",
    "ServerIdentityMismatch",
    "UnsafeDirectory",
    "WorkerDied",
]


class AlpcError(Exception):
    """The root of all errors of this package; never raised itself.

    Errors can be copied and sent to other processes, as pools of processes do with what their functions raise.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (type(self), self.args, vars(self))


def _made_again(kind: type[AlpcError], args: tuple[Any, ...], facts: dict[str, Any]) -> AlpcError:
    # Not by calling the class, which takes the facts and makes the text: what it was given need not be among them.
    built_in: Any = kind
    while built_in.__module__ != "builtins":
        built_in = built_in.__base__
    error: AlpcError = built_in.__new__(kind)
    built_in.__init__(error, *args)
    vars(error).update(facts)
    return error


class PortClosed(AlpcError, anyio.ClosedResourceError):
    """This side closed the port (or its block ended) and then used it.

    Attributes:
        port: what the port calls itself.
    """

    def __init__(self, *, port: str) -> None:
        self.port = port
        super().__init__(f"{port} was closed on this side; open a new port to go on")


class Disconnected(AlpcError, anyio.BrokenResourceError):
    """The other side closed the connection, died, or the connection broke.

    Attributes:
        port: what the port calls itself.
        reason: what was seen, in a few words.
        sent: whether the message in question had been handed to the other side's kernel queue or may have been;
            ``False`` means that the other side certainly never saw it.
    """

    def __init__(self, *, port: str, reason: str, sent: bool = False) -> None:
        self.port = port
        self.reason = reason
        self.sent = sent
        fate = "; the other side may have seen this message" if sent else ""
        super().__init__(f"{port} is disconnected: {reason}{fate}; connect again to go on")


class ForkedPort(AlpcError, RuntimeError):
    """The port was used where it cannot work: in a forked child, from another thread, or in another event loop.

    Attributes:
        port: what the port calls itself.
    """

    def __init__(self, *, port: str) -> None:
        self.port = port
        super().__init__(
            f"{port} belongs to the process, thread and event loop that opened it, and this is another one; "
            "open a port of your own here, or call back into the owner's loop"
        )


class PortAssociated(AlpcError, anyio.BusyResourceError):
    """A receive was asked of a port whose messages arrive somewhere else.

    Attributes:
        port: what the port calls itself.
        receiver: where its messages arrive.
    """

    def __init__(self, *, port: str, receiver: str) -> None:
        self.port = port
        self.receiver = receiver
        # anyio's class would write a sentence of its own around the text.
        Exception.__init__(self, f"the messages of {port} arrive at {receiver}; receive them there")


class InvalidName(AlpcError, ValueError):
    """The text is not a port name.

    Attributes:
        name: the text.
        reason: which rule it breaks.
    """

    def __init__(self, *, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(
            f"{name[:120]!r} is not a port name: {reason}; use letters, digits, dots, dashes and underscores, "
            "such as 'acme.printer'"
        )


class UnsafeDirectory(AlpcError, PermissionError):
    """The directory that holds port names is missing, or others could tamper with it.

    Attributes:
        path: the directory.
        reason: what is wrong with it.
    """

    def __init__(self, *, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(
            errno.EPERM,
            f"the directory of port names {path} cannot be used: {reason}; set ALPC_RUNTIME_DIR to a directory "
            "that only you or root can write",
        )


class NameNotFound(AlpcError, FileNotFoundError):
    """Nobody listens under the name.

    Attributes:
        name: the port name.
        directories: where it was looked for.
    """

    def __init__(self, *, name: str, directories: tuple[str, ...]) -> None:
        self.name = name
        self.directories = directories
        super().__init__(
            errno.ENOENT,
            f"nobody listens on port {name!r} (looked in {', '.join(directories)}); start the server, "
            "or set ALPC_RUNTIME_DIR to the directory that it uses",
        )


class NameCollision(AlpcError, FileExistsError):
    """A live port already has the name; a live name is never taken over.

    Attributes:
        name: the port name.
        directory: the directory that holds it.
    """

    def __init__(self, *, name: str, directory: str) -> None:
        self.name = name
        self.directory = directory
        super().__init__(
            errno.EADDRINUSE,
            f"port {name!r} is already open in {directory}; choose another name or stop the server that holds it",
        )


class AccessDenied(AlpcError, PermissionError):
    """A policy or the kernel refused.

    Attributes:
        what: what was refused.
        reason: which rule decided.
    """

    def __init__(self, *, what: str, reason: str) -> None:
        self.what = what
        self.reason = reason
        super().__init__(errno.EACCES, f"access denied: {what}: {reason}")


class ServerIdentityMismatch(AlpcError, PermissionError):
    """The process behind the name is not one that the client's ``server=`` policy allows; nothing was sent to it.

    Attributes:
        name: the port name.
        identity: who listens there.
        required: the policy that was not met.
    """

    def __init__(self, *, name: str, identity: object, required: object) -> None:
        self.name = name
        self.identity = identity
        self.required = required
        super().__init__(
            errno.EACCES,
            f"port {name!r} is held by {identity}, but the client requires {required}; nothing was sent; "
            "pass server= to connect() if this server is the right one",
        )


class ConnectionRefused(AlpcError, ConnectionRefusedError):
    """The server declined the connection.

    Attributes:
        name: the port name.
        status: a member of `alpc_async.Status`.
        data: bytes that the server gave as its reason; untrusted.
    """

    def __init__(self, *, name: str, status: int, reason: str, data: bytes = b"") -> None:
        self.name = name
        self.status = status
        self.reason = reason
        self.data = data
        said = f" and said {data[:80]!r}" if data else ""
        super().__init__(errno.ECONNREFUSED, f"the server of port {name!r} refused the connection: {reason}{said}")


class MessageTooLong(AlpcError, ValueError):
    """The data is longer than the limit that both sides agreed on.

    Attributes:
        port: what the port calls itself.
        size: length of the data in bytes.
        limit: the agreed limit in bytes.
        setting: the field of `alpc_async.PortLimits` to raise, on both sides.
    """

    def __init__(self, *, port: str, size: int, limit: int, setting: str = "max_message_length") -> None:
        self.port = port
        self.size = size
        self.limit = limit
        self.setting = setting
        super().__init__(
            f"{size} bytes are more than the {limit} that {port} takes; send it in parts, or raise "
            f"PortLimits.{setting} on both sides (the smaller one counts)"
        )


class QuotaExceeded(AlpcError):
    """Sending now would go over a quota that both sides agreed on, and the caller did not want to wait.

    Attributes:
        port: what the port calls itself.
        setting: the field of `alpc_async.PortLimits` that decided.
        limit: its agreed value.
    """

    def __init__(self, *, port: str, setting: str, limit: int) -> None:
        self.port = port
        self.setting = setting
        self.limit = limit
        super().__init__(
            f"{port} already uses its whole quota of {limit} (PortLimits.{setting}); await request() or post(), "
            "which wait for room, take replies sooner, or raise the limit on both sides"
        )


class ReplyMismatch(AlpcError):
    """A reply was given to something that does not wait for one: a second reply, or not a request.

    Attributes:
        port: what the port calls itself.
        message_id: the id that the reply named.
        reason: why it does not fit.
    """

    def __init__(self, *, port: str, message_id: int, reason: str) -> None:
        self.port = port
        self.message_id = message_id
        self.reason = reason
        super().__init__(f"cannot reply to message {message_id} of {port}: {reason}")


class RequestCancelled(AlpcError):
    """The request was withdrawn with `PendingRequest.cancel` before its reply arrived.

    Attributes:
        port: what the port calls itself.
        message_id: the id of the request.
    """

    def __init__(self, *, port: str, message_id: int) -> None:
        self.port = port
        self.message_id = message_id
        super().__init__(f"request {message_id} of {port} was cancelled by its owner; a late reply is dropped")


class DeadlineExceeded(AlpcError, TimeoutError):
    """Time ran out before the operation finished.

    Attributes:
        what: the operation and whom it concerns.
        timeout: the time allowed, in seconds.
        setting: the argument or limit that set it.
    """

    def __init__(self, *, what: str, timeout: float, setting: str) -> None:
        self.what = what
        self.timeout = timeout
        self.setting = setting
        super().__init__(
            errno.ETIMEDOUT, f"{what} did not finish within {timeout:g} s; allow more with {setting} if it should"
        )


class ProtocolViolation(AlpcError):
    """The other side sent something that the protocol forbids; the connection has been ended.

    Attributes:
        rule: the rule that was broken.
        detail: the offending values.
    """

    def __init__(self, *, rule: str, detail: str = "") -> None:
        self.rule = rule
        self.detail = detail
        super().__init__(f"protocol violation: {rule}" + (f" ({detail})" if detail else ""))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ProtocolViolation):
            return NotImplemented
        return (self.rule, self.detail) == (other.rule, other.detail)

    def __hash__(self) -> int:
        return hash((self.rule, self.detail))


class RemoteFault(AlpcError):
    """The other side answered the request with a fault instead of a reply.

    Attributes:
        status: a member of `alpc_async.Status`, or a number of the service's own (from 1000).
        reason: a sentence from the other side; untrusted text, never a traceback.
        message_id: the id of the request.
        incident: under which id the other side logged what happened; empty when it did not.
    """

    def __init__(self, *, status: int, reason: str, message_id: int = 0, incident: str = "") -> None:
        self.status = status
        self.reason = reason
        self.message_id = message_id
        self.incident = incident
        name = f"{status.name} ({status:d})" if isinstance(status, enum.IntEnum) else str(status)
        super().__init__(f"the other side failed the request with status {name}: {reason}")


class WorkerDied(RemoteFault):
    """The process that worked on the request died. ``exit_status`` tells the server how: a status, or -signal."""

    def __init__(self, *, status: int, reason: str = "", message_id: int = 0, exit_status: int | None = None) -> None:
        self.exit_status = exit_status
        died = f"the worker process ended with status {exit_status} and is replaced"
        super().__init__(status=status, reason=reason or died, message_id=message_id)


class InterpretersMissing(AlpcError, NotImplementedError):
    """A pool with ``kind="interpreter"`` was asked for, and this Python does not have what that needs.

    Attributes:
        python: version of the Python that runs.
        lacks: what it lacks.
    """

    def __init__(self, *, python: str, lacks: str) -> None:
        self.python = python
        self.lacks = lacks
        super().__init__(
            f"Python {python} lacks {lacks}, which kind='interpreter' needs; run CPython 3.14 or newer, or use "
            "kind='process', which takes the same handlers"
        )


class HandlerNotLoaded(AlpcError, ImportError):
    """A handler cannot be imported where it should run: in a process or an interpreter of its own.

    Attributes:
        target: the handler, as ``module:function``.
        reason: what was said there.
        kind: ``"process"`` or ``"interpreter"``.
    """

    def __init__(self, *, target: str, reason: str, kind: str = "interpreter") -> None:
        self.target = target
        self.reason = reason
        self.kind = kind
        place, advice = (
            ("an interpreter", "extension modules often refuse that, and kind='process' has no such limit")
            if kind == "interpreter"
            else ("a process", "name a plain function at the top of a module on the path, as 'module:function'")
        )
        super().__init__(f"the handler {target} cannot be loaded in {place}: {reason}; {advice}")
