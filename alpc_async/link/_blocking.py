"""A `Loop` without an event loop: for programs that block while they wait.

Belongs here: `BlockingLoop`, which turns only while its caller waits for something. Never here: ports, calls.

A coroutine is driven by hand until it has ended. All that it may await is a waiter of this loop; what needs a real
event loop (scopes, sleeping, other libraries) does not work inside of it.

While a coroutine waits, the thread blocks in the receive call of the connection itself, which is one system call less
per answer than asking first. The socket is in blocking mode then, and its timeouts bound every call.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import socket
import stat
import struct
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from ..errors import ForkedPort
from ._loop import notice_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

    from ._loop import Waiter

__all__ = ["BlockingLoop"]

RECEIVE_BUFFER_SIZE: Final = 256 * 1024

PATIENCE: Final = 0.2
"""Seconds after which receiving stops to block, to look at everything else: whether the other process lives, timers."""
SEND_PATIENCE: Final = 0.001
"""Seconds that sending waits for room before somebody else has to wait for it; the shortest that the kernel knows."""

_READABLE: Final = select.POLLIN | select.POLLPRI | select.POLLHUP | select.POLLERR | select.POLLRDHUP
_WRITABLE: Final = select.POLLOUT | select.POLLHUP | select.POLLERR

_NOTHING: Final = cast("Generator[Any, Any, Any]", iter(()))
"""What a coroutine awaits that has waited already; it has ended, and may be given out again and again."""

ResultT = TypeVar("ResultT")


def _interval(seconds: float) -> bytes:
    """Return a ``struct timeval``."""
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))


class BlockingWaiter:
    """A place where a coroutine waits until the loop has something for it: the loop turns inside of the await.

    Args:
        loop: the loop.
    """

    __slots__ = ("_loop", "is_done")

    def __init__(self, loop: BlockingLoop) -> None:
        self._loop = loop
        self.is_done = False

    def done(self) -> bool:
        return self.is_done

    def set_result(self, _result: None, /) -> None:
        self.is_done = True

    def __await__(self) -> Generator[Any, Any, Any]:
        # A coroutine that waits here is never suspended, so driving it takes one step, whatever it waits for.
        direct = True
        try:
            while not self.is_done:
                self._loop.wait(direct=direct)
                direct = not direct
        finally:
            self.is_done = True
        return _NOTHING


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
        self.create_waiter: Callable[[], Waiter] = partial(BlockingWaiter, self)
        self._thread = threading.get_ident()
        self._soon: list[Callable[[], None]] = []
        self._timers: list[tuple[float, int, BlockingTimer]] = []
        self._numbers = itertools.count()
        self._readers: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, Callable[[], None]] = {}
        self._poll = select.poll()
        self._blocking_fd = -1
        self._receive: Callable[[], None] | None = None
        notice_forks(self)

    def run(self, coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Drive a coroutine to its end.

        An exception that arrives while it waits, such as `KeyboardInterrupt`, is raised inside of it.

        Args:
            coroutine: awaits nothing but waiters of this loop.

        Returns:
            Its result.

        Raises:
            RuntimeError: it awaits what needs an event loop.
        """
        try:
            awaited: object = coroutine.send(None)
        except StopIteration as stop:
            result: ResultT = stop.value
            return result
        coroutine.close()
        raise RuntimeError(f"{coroutine!r} awaits {awaited!r}, which needs an event loop")

    def wait(self, *, direct: bool) -> None:
        """Let something happen: run what is due, or block until there is.

        Args:
            direct: block in receiving from the connection when nothing else is due soon, without asking first whether
                there is anything. Every other wait has to look at everything.
        """
        if self._soon:
            self._run_soon()
            return
        receive = self._receive
        if receive is None or self._writers:
            self.turn(None)
            return
        timers = self._timers
        if timers and timers[0][0] - self.time() < PATIENCE:
            self.turn(None)
        elif direct:
            receive()
        else:
            self.turn(0.0)

    def block_in_receiving(self) -> None:
        """Block in receiving from the one connection of this loop, which saves asking whether there is anything.

        Receiving gives up after `PATIENCE`, and sending nearly at once: neither holds anything else up for long.
        """
        sockets = [fd for fd in self._readers if stat.S_ISSOCK(os.fstat(fd).st_mode)]
        if len(sockets) != 1:
            return
        with socket.socket(fileno=os.dup(sockets[0])) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _interval(PATIENCE))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _interval(SEND_PATIENCE))
        self._blocking_fd = sockets[0]
        self._choose(self._blocking_fd)

    def _choose(self, fd: int) -> None:
        if fd == self._blocking_fd:
            self._receive = self._readers.get(fd)
            os.set_blocking(fd, self._receive is not None)

    def _run_soon(self) -> None:
        soon, self._soon = self._soon, []
        for callback in soon:
            callback()

    def turn(self, timeout: float | None) -> None:
        """Let one turn of the loop pass.

        Args:
            timeout: longest time to wait for something, in seconds; ``None`` for no end.
        """
        if self._soon:
            self._run_soon()
            # What ran may be what the caller waits for.
            timeout = 0.0
        wait = timeout
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heapq.heappop(timers)
        if timers:
            left = max(0.0, timers[0][0] - self.time())
            wait = left if wait is None else min(wait, left)
        ready = self._poll.poll(None if wait is None else wait * 1000.0 + 0.5)
        if timers:
            # Before what came: a deadline that has passed is not undone by an answer that is late.
            self._run_timers()
        for fd, events in ready:
            reader, writer = self._readers.get(fd), self._writers.get(fd)
            if reader is not None and events & _READABLE:
                reader()
            if writer is not None and events & _WRITABLE:
                writer()

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
        self._choose(fd)

    def remove_reader(self, fd: int, /) -> None:
        if self._readers.pop(fd, None) is not None:
            self._register(fd)
            self._choose(fd)

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
