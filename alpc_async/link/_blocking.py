"""A `Loop` without an event loop: for programs that block while they wait.

Belongs here: `BlockingLoop`, which turns only while its caller waits for something. Never here: ports, calls.

A coroutine is driven by hand until it has ended. All that it may await is a waiter of this loop; what needs a real
event loop (scopes, sleeping, other libraries) does not work inside of it.
"""

from __future__ import annotations

import heapq
import itertools
import select
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..errors import ForkedPort
from ._loop import notice_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

    from ._loop import Waiter

__all__ = ["BlockingLoop"]

RECEIVE_BUFFER_SIZE: Final = 256 * 1024

_READABLE: Final = select.POLLIN | select.POLLPRI | select.POLLHUP | select.POLLERR | select.POLLRDHUP
_WRITABLE: Final = select.POLLOUT | select.POLLHUP | select.POLLERR

ResultT = TypeVar("ResultT")


class BlockingWaiter:
    """A place where a coroutine waits until the loop has something for it."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done = False

    def done(self) -> bool:
        return self._done

    def set_result(self, _result: None, /) -> None:
        self._done = True

    def __await__(self) -> Generator[BlockingWaiter, None, None]:
        if not self._done:
            try:
                yield self
            except BaseException:
                self._done = True
                raise


class BlockingTimer:
    """One entry of the timer heap."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class BlockingLoop:
    """Drives coroutines in the thread that made it, and blocks that thread while they wait."""

    def __init__(self) -> None:
        self.forked = False
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER_SIZE))
        self.time: Callable[[], float] = time.monotonic
        self.create_waiter: Callable[[], Waiter] = BlockingWaiter
        self.create_prompt_waiter: Callable[[], Waiter] = BlockingWaiter
        self._thread = threading.get_ident()
        self._soon: list[Callable[[], None]] = []
        self._timers: list[tuple[float, int, BlockingTimer]] = []
        self._numbers = itertools.count()
        self._readers: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, Callable[[], None]] = {}
        self._poll = select.poll()
        notice_forks(self)

    def run(self, coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Drive a coroutine to its end.

        An exception that arrives while it waits, such as `KeyboardInterrupt`, is raised inside of it.

        Args:
            coroutine: awaits nothing but waiters of this loop.

        Returns:
            Its result.
        """
        error: BaseException | None = None
        while True:
            try:
                waiter: Waiter = coroutine.send(None) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                result: ResultT = stop.value
                return result
            error = None
            try:
                while not waiter.done():
                    self.turn(None)
            except BaseException as caught:  # noqa: BLE001 RUF100  # it goes on in the coroutine
                error = caught

    def turn(self, timeout: float | None) -> None:
        """Let one turn of the loop pass.

        Args:
            timeout: longest time to wait for something, in seconds; ``None`` for no end.
        """
        soon = self._soon
        if soon:
            self._soon = []
            for callback in soon:
                callback()
            if self._soon:
                timeout = 0.0
        wait = timeout
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heapq.heappop(timers)
        if timers:
            left = max(0.0, timers[0][0] - self.time())
            wait = left if wait is None else min(wait, left)
        for fd, events in self._poll.poll(None if wait is None else wait * 1000.0 + 0.5):
            reader, writer = self._readers.get(fd), self._writers.get(fd)
            if reader is not None and events & _READABLE:
                reader()
            if writer is not None and events & _WRITABLE:
                writer()
        if timers:
            self._run_timers()

    def _run_timers(self) -> None:
        now = self.time()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()

    def wake_now(self, waiter: Waiter, /) -> None:
        waiter.set_result(None)

    def call_soon(self, callback: Callable[[], None], /) -> None:
        self._soon.append(callback)

    def call_soon_threadsafe(self, callback: Callable[[], None], /) -> None:
        """Run a callback in the next turn, whenever that is: nothing turns this loop but its own thread."""
        self._soon.append(callback)

    def call_at(self, when: float, callback: Callable[[], None], /) -> BlockingTimer:
        timer = BlockingTimer(callback)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def _register(self, fd: int) -> None:
        events = (select.POLLIN | select.POLLRDHUP) * (fd in self._readers) | select.POLLOUT * (fd in self._writers)
        if events:
            self._poll.register(fd, events)
            return
        try:
            self._poll.unregister(fd)
        except KeyError:
            pass

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> None:
        self._readers[fd] = callback
        self._register(fd)

    def remove_reader(self, fd: int, /) -> None:
        if self._readers.pop(fd, None) is not None:
            self._register(fd)

    def add_writer(self, fd: int, callback: Callable[[], None], /) -> None:
        self._writers[fd] = callback
        self._register(fd)

    def remove_writer(self, fd: int, /) -> None:
        if self._writers.pop(fd, None) is not None:
            self._register(fd)

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], /, *, name: str, context: Context) -> None:  # noqa: ARG002  # there are no tasks to name
        """Run an async function at the end of this turn, to its end."""
        self.call_soon(lambda: self.run(function()))

    async def checkpoint(self) -> None:
        """Do nothing: there is nobody else who could run."""

    def check(self, port: str) -> None:
        if self.forked or threading.get_ident() != self._thread:
            raise ForkedPort(port=port)
