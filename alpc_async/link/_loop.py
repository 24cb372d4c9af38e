"""What the framework asks of an event loop, and how the running one is found.

Belongs here: the `Loop` interface and `current_loop`. Never here: asyncio or trio by name; each has one adapter module
beside this one, and everything above speaks of a `Loop` only.

The interface is readiness, timers and a parking place for tasks, nothing else. It is callback-based on purpose: a
port holds no task group and no cancel scope, hence it can be opened in one task and closed in another, in any order.

Callbacks given to a loop must not raise; the adapters report one that does to the loop's own error handler.
"""

from __future__ import annotations

import os
import sys
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from anyio.lowlevel import RunVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

__all__ = ["Loop", "TimerHandle", "Waiter", "current_loop"]


class Waiter(Protocol):
    """A place where one task waits until somebody calls `set_result`.

    Awaiting is the only blocking operation of the link layer. Cancelling the await marks the waiter as done.
    """

    def __await__(self) -> Generator[Any, Any, Any]: ...

    def done(self) -> bool:
        """Return whether a result was set or the waiting task was cancelled."""
        ...

    def set_result(self, result: None, /) -> None:
        """Wake the task. Must not be called when `done`."""
        ...


class TimerHandle(Protocol):
    """A callback that is due at a time."""

    def cancel(self) -> None:
        """Forget the callback. Does nothing when it has run or was cancelled."""
        ...


class Loop(Protocol):
    """The running event loop, as the framework sees it."""

    forked: bool
    """Whether this is the copy of the loop in a forked child, where nothing of it may be used."""

    receive_buffer: memoryview
    """Where every link of this loop receives into, 256 KiB; what is kept is copied out before the callback returns."""

    def time(self) -> float:
        """Return the loop's clock in seconds."""
        ...

    def create_waiter(self) -> Waiter:
        """Return a new waiter."""
        ...

    def wake_now(self, waiter: Waiter, /) -> None:
        """Wake the task of a waiter that is not done; at once, before this returns, where the loop can do that.

        Only to be called as the last thing of a callback of the loop, since the task runs user code.
        """
        ...

    def call_soon(self, callback: Callable[[], None], /) -> object:
        """Run a callback at the end of this turn of the loop, after everything that is ready now."""
        ...

    def call_soon_threadsafe(self, callback: Callable[[], None], /) -> object:
        """Run a callback in the next turn of the loop; may be called from any thread."""
        ...

    def call_at(self, when: float, callback: Callable[[], None], /) -> TimerHandle:
        """Run a callback at a time of the loop's clock, in seconds."""
        ...

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> None:
        """Run a callback whenever the descriptor is readable, until `remove_reader`."""
        ...

    def remove_reader(self, fd: int, /) -> None:
        """Stop watching; must come before the descriptor is closed. Does nothing when it is not watched."""
        ...

    def add_writer(self, fd: int, callback: Callable[[], None], /) -> None:
        """Run a callback whenever the descriptor is writable, until `remove_writer`."""
        ...

    def remove_writer(self, fd: int, /) -> None:
        """Stop watching; must come before the descriptor is closed. Does nothing when it is not watched."""
        ...

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], /, *, name: str, context: Context) -> None:
        """Run an async function in a task that belongs to no task group, and ends with the loop at the latest.

        Args:
            function: must not raise anything but the loop's own cancellation.
            name: of the task, for those who look at all tasks.
            context: the context variables of the task.
        """
        ...

    async def checkpoint(self) -> None:
        """Let others run, and notice cancellation."""
        ...

    def check(self, port: str) -> None:
        """Raise `ForkedPort` when the caller is not in this loop, in the process that runs it.

        Args:
            port: what the port calls itself, for the message.
        """
        ...


_current: RunVar[Loop] = RunVar("alpc_async.link.loop")
"""One adapter per running event loop; anyio keeps the value with the loop and drops it with the loop."""


def notice_forks(loop: Loop) -> None:
    """Set ``forked`` in every child that is forked from now on.

    Python offers no way to take a fork hook back; this one holds the loop weakly, and there is one for each loop.

    Args:
        loop: the loop.
    """
    reference = weakref.ref(loop)

    def note() -> None:
        loop = reference()
        if loop is not None:
            loop.forked = True

    os.register_at_fork(after_in_child=note)


def current_loop() -> Loop:
    """Return the adapter of the running event loop.

    Raises:
        RuntimeError: no event loop of asyncio (with or without uvloop) or trio runs here.
    """
    try:
        return _current.get()
    except LookupError:
        pass
    loop = _adapt()
    notice_forks(loop)
    _current.set(loop)
    return loop


def _adapt() -> Loop:
    # trio is asked first: in its guest mode both libraries run in this thread, and only trio knows whose turn it is.
    if "trio" in sys.modules:
        from ._trio import TrioLoop, in_trio_run

        if in_trio_run():
            return TrioLoop()
    from ._asyncio import AsyncioLoop

    return AsyncioLoop()
