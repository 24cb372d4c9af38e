"""Acting as the sender of a request, in a thread of its own.

Belongs here: whether it is allowed, and the way between the event loop and the thread. Never here: credentials of
threads (security).

A client allows it for a connection (``connect(qos=…)``) or for a message (a security context), the port's access list
has the right IMPERSONATE for the client, and the server's process has the privilege. All of that is asked before a
thread is started, and again before each function, because a request may be over by then.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, Unpack

import anyio
import anyio.from_thread
import anyio.lowlevel

from ..errors import AccessDenied
from ..security import Access, CallerThread, ImpersonationLevel

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    from ..security import Identity
    from ._arrived import Arrived

__all__ = ["Caller", "Impersonation"]

T = TypeVar("T")
ArgumentTs = TypeVarTuple("ArgumentTs")


class Impersonation:
    """Acting as the sender of a request: ``async with message.impersonate() as caller:``.

    Args:
        message: the request.
    """

    def __init__(self, message: Arrived) -> None:
        self._message = message
        self._caller: Caller | None = None

    async def __aenter__(self) -> Caller:
        """Start a thread that acts as the sender; the loop's own thread stays what it is.

        Cancelling has an effect before the thread is started, and otherwise after it was; then the thread ends.

        Returns:
            What runs functions in that thread.

        Raises:
            AccessDenied: it is not allowed, or not possible; the reason says what is missing. The body does not run.
            RuntimeError: this object was used already, or no thread can be started.
        """
        if self._caller is not None:
            raise RuntimeError("this impersonation was used already; call message.impersonate() again for another one")
        await anyio.lowlevel.checkpoint()
        caller = Caller(self._message, check(self._message))
        await caller._start()  # pyright: ignore[reportPrivateUsage]  # this block is what starts it
        self._caller = caller
        return caller

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._caller is not None:
            await self._caller._stop()  # pyright: ignore[reportPrivateUsage]  # likewise


class Caller:
    """Runs functions as the sender of a request. Made by `Message.impersonate`.

    Attributes:
        identity: as whom.
    """

    def __init__(self, message: Arrived, identity: Identity) -> None:
        self.identity = identity
        self._message = message
        self._thread = CallerThread(identity)
        self._token = anyio.lowlevel.current_token()
        self._over = False

    async def run(self, function: Callable[[Unpack[ArgumentTs]], T], *args: *ArgumentTs) -> T:
        """Run a function in the thread that acts as the sender, and wait for it.

        A cancellation waits until the function has returned: a function that runs as somebody else is never left
        running behind the back of the program. Give functions that may wait a limit of their own.

        Args:
            function: a plain function; it must not leave anything behind that acts later, such as threads.
            *args: its arguments.

        Returns:
            What the function returned. What it raised is raised here.

        Raises:
            AccessDenied: the request is over, or was answered; the function was not called.
            RuntimeError: the block has ended.
        """
        await anyio.lowlevel.checkpoint()
        if self._over:
            raise RuntimeError("the impersonation has ended; run functions inside its block")
        check(self._message)
        done = anyio.Event()
        outcome: list[tuple[Any, BaseException | None]] = []

        def report(result: Any, error: BaseException | None) -> None:
            outcome.append((result, error))
            self._tell(done)

        self._thread.submit(partial(function, *args), report)
        with anyio.CancelScope(shield=True):
            await done.wait()
        result, error = outcome[0]
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]  # it came out of the function of that type

    async def _start(self) -> None:
        """Start the thread. Cancelling waits until that is done."""
        done = anyio.Event()
        failure: list[BaseException] = []

        def report(error: BaseException | None) -> None:
            if error is not None:
                failure.append(error)
            self._tell(done)

        self._thread.start(report)
        with anyio.CancelScope(shield=True):
            await done.wait()
        if failure:
            self._over = True
            raise failure[0]

    async def _stop(self) -> None:
        """End the thread. Cancelling waits until that is done."""
        if not self._over:
            self._over = True
            done = anyio.Event()
            self._thread.stop(lambda: self._tell(done))
            with anyio.CancelScope(shield=True):
                await done.wait()

    def _tell(self, done: anyio.Event) -> None:
        try:
            anyio.from_thread.run_sync(done.set, token=self._token)
        except RuntimeError:
            # The loop is gone, and with it whoever waited.
            pass


def check(message: Arrived) -> Identity:
    """Return as whom a server may act for a message.

    Args:
        message: the message.

    Raises:
        AccessDenied: it may not.
    """
    sender = message.origin if message.origin is not None else message.channel.peer

    def denied(reason: str) -> AccessDenied:
        return AccessDenied(what=f"impersonate {sender}", reason=reason)

    if not message.unanswered:
        raise denied("only the sender of a request that waits for its answer can be impersonated")
    channel = message.channel
    permission = message.permission
    level = channel.peer_qos.level if permission is None or permission.level is None else permission.level
    if permission is not None and channel.has_revoked(permission.context):
        raise denied("the sender has revoked the security context of the message")
    if permission is not None and not permission.impersonate:
        raise denied("the sender forbids it for this message")
    if level < ImpersonationLevel.IMPERSONATE:
        allowed = ImpersonationLevel(level).name.lower()
        raise denied(f"the sender allows {allowed} only; it has to connect with qos=alpc.SecurityQos('impersonate')")
    if channel.gate is not None and not channel.gate.permits(Access.IMPERSONATE, "impersonate"):
        raise denied("the access list of the port gives no right to impersonate it")
    return sender
