"""asyncio and uvloop as a `Loop`.

Belongs here: the translation of the `Loop` interface into calls of an asyncio event loop. Never here: policy, sockets
or buffers of a connection. This is the only module of the framework that names asyncio.

asyncio keeps a descriptor registered from ``add_reader`` to ``remove_reader``, so waiting for the next message costs no
system call; its futures are implemented in C and serve as waiters unchanged. Where a single message has arrived its
task is run at once, which saves the turn of the loop between a future's result and its task (decision record 5).
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import anyio.lowlevel

from ..errors import ForkedPort

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context

    from ._loop import TimerHandle, Waiter

__all__ = ["AsyncioLoop"]

RECEIVE_BUFFER_SIZE = 256 * 1024

_KEEPS_CALLBACKS: Final = hasattr(asyncio.Future, "_callbacks")
"""Whether futures tell who waits for them, as they do in every CPython so far; otherwise tasks wait for their turn."""


def _task_finder() -> Callable[[asyncio.AbstractEventLoop], object]:
    # The function of CPython 3.11 is Python around this very look-up; later ones are compiled.
    tasks: dict[asyncio.AbstractEventLoop, object] | None = getattr(asyncio.tasks, "_current_tasks", None)
    return asyncio.current_task if tasks is None or sys.version_info >= (3, 12) else tasks.get


_running_task: Final = _task_finder()


class AsyncioLoop:
    """The running asyncio event loop.

    Raises:
        RuntimeError: no asyncio event loop runs in this thread.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        # asyncio itself holds its tasks weakly.
        self._tasks: set[asyncio.Task[None]] = set()
        self.forked = False
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER_SIZE))
        # Bound once: these run per message or per turn, and need no translation.
        self.time: Callable[[], float] = loop.time if type(loop).time is not asyncio.BaseEventLoop.time else monotonic
        self.create_waiter: Callable[[], Waiter] = _waiter_factory(loop)
        self.call_soon: Callable[[Callable[[], None]], object] = loop.call_soon
        self.call_soon_threadsafe: Callable[[Callable[[], None]], object] = loop.call_soon_threadsafe
        self.call_at: Callable[[float, Callable[[], None]], TimerHandle] = loop.call_at

    def wake_now(self, waiter: Any, /) -> None:
        # A task that runs already cannot be entered from within, so the other one has to wait for its turn.
        waiting = waiter._callbacks if _KEEPS_CALLBACKS and _running_task(self._loop) is None else None
        if not waiting:
            waiter.set_result(None)
            return
        callback, context = waiting[0]
        # Whom the future does not know any more the loop does not call.
        waiter.remove_done_callback(callback)
        waiter.set_result(None)
        context.run(callback, waiter)

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> None:
        self._loop.add_reader(fd, callback)

    def remove_reader(self, fd: int, /) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(fd)

    def add_writer(self, fd: int, callback: Callable[[], None], /) -> None:
        self._loop.add_writer(fd, callback)

    def remove_writer(self, fd: int, /) -> None:
        if not self._loop.is_closed():
            self._loop.remove_writer(fd)

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], /, *, name: str, context: Context) -> None:
        task = self._loop.create_task(function(), name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def checkpoint(self) -> None:
        await anyio.lowlevel.checkpoint()

    def check(self, port: str) -> None:
        # asyncio forgets the running loop in a forked child, and keeps it by thread: one comparison covers all.
        if asyncio._get_running_loop() is not self._loop:
            raise ForkedPort(port=port)


def _waiter_factory(loop: asyncio.AbstractEventLoop) -> Callable[[], Waiter]:
    # The method of asyncio's own loop is Python around this very constructor; uvloop's is compiled.
    if isinstance(loop, asyncio.BaseEventLoop):
        return partial(asyncio.Future[None], loop=loop)
    return loop.create_future
