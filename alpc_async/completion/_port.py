"""Completion ports: one place to wait for the messages of many ports.

Belongs here: `CompletionPort`, as a user sees it. Never here: who gets which packet when (`_core`), handlers and how
many of them run (`_pool`).

The rules are those of an I/O completion port: packets first-in first-out for each sender, fair between senders, waiting
tasks released newest-first, one wake-up for any number of packets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec

from ..errors import DeadlineExceeded
from ..port import DEFAULT_BATCH, Posted, Source, redirect
from ._core import Blocked, CompletionIterator, Core

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from ..port import Completion, ReceivePoint

__all__ = ["CompletionPort", "CompletionPortStatistics", "core_of"]

MAX_MESSAGES: Final = 64 * 1024
MAX_BYTES: Final = 256 * 1024 * 1024
"""What may wait at a completion port unless the caller says otherwise, in messages and in bytes.

Each connection is bounded by its own quotas; these bound the sum over a thousand of them, which alone could be 8 GiB.
"""


class CompletionPortStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a completion port has done so far.

    Attributes:
        queued: packets that wait.
        oldest: how long the oldest of them has waited, in seconds.
        throttled: connections that read nothing at the moment because too much waits.
        waiting: tasks that wait for packets.
        running: iterators that hold a batch and do not wait for something else.
        blocked: iterators that hold a batch and wait for something else.
        handed_out: packets that were taken in batches.
        batches: batches that were taken.
        largest_batch: most packets in one of them.
        batch_sizes: how many batches had 1 packet, 2 to 3, 4 to 7, and so on; the last entry counts all larger ones.
        posted: packets that were posted by hand.
    """

    queued: int
    oldest: float
    throttled: int
    waiting: int
    running: int
    blocked: int
    handed_out: int
    batches: int
    largest_batch: int
    batch_sizes: tuple[int, ...]
    posted: int


class CompletionPort:
    """Hands out what arrives at any number of ports, in batches, to any number of tasks.

    ::

        async with alpc.CompletionPort() as completion_port:
            completion_port.associate(port, key="spooler")
            async for batch in completion_port:
                for completion in batch:
                    ...

    Leaving the block closes it; associated ports stay open and belong to whoever opened them.

    Args:
        concurrency: iterators that may run at the same time, each from when it gets a batch until it asks for the
            next, waits in the framework apart; also threads and processes of a worker pool. 0 for any number:
            tasks of one event loop never run at the same moment, and a pool of threads or processes measures how many
            keep the usable processors busy. Others wait even when there are packets.
        max_messages: messages that may wait here; above it the connections that fill it are not read any more, so that
            their senders wait.
        max_bytes: payload bytes that may wait here or be worked on, likewise.

    Raises:
        ValueError: ``concurrency`` is negative, or a bound is not positive.
    """

    def __init__(self, concurrency: int = 0, *, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        if concurrency < 0:
            raise ValueError(f"concurrency must not be negative, not {concurrency}")
        if max_messages < 1 or max_bytes < 1:
            raise ValueError(f"bounds must be positive, not max_messages={max_messages}, max_bytes={max_bytes}")
        self._core = Core(concurrency, max_messages, max_bytes)
        self._source: Source | None = None
        self._posted = 0

    @property
    def concurrency(self) -> int:
        """Iterators that may run at the same time; 0 for any number."""
        return self._core.concurrency

    def associate(self, port: ReceivePoint, key: object = None) -> None:
        """Receive the messages of a port here from now on, those that already wait included.

        A connection port brings all of its clients, present and future. A port is associated with one completion port
        at a time; associating it again moves it.

        Args:
            port: a connection port or a communication port of this event loop.
            key: what its messages show as ``key``.

        Raises:
            PortClosed: this completion port was closed.
            ForkedPort: called from another process, thread or event loop.
        """
        self._core.check_open()
        redirect(port, self._core.queue, key, "a completion port")

    def post(self, key: object, value: Any = None) -> None:
        """Queue a packet by hand: a wake-up, a timer, work of one's own.

        Args:
            key: what the packet shows as ``key``.
            value: what it shows as ``value``.

        Raises:
            PortClosed: this completion port was closed.
            ForkedPort: called from another process, thread or event loop.
        """
        self._core.check_open()
        queue = self._core.queue
        queue.loop.check(repr(self))
        if self._source is None:
            self._source = Source(queue, None)
        self._posted += 1
        self._source.put((Posted(key, value),))

    async def get_batch(self, max_messages: int = DEFAULT_BATCH, *, timeout: float | None = None) -> list[Completion]:
        """Return the packets that wait, at least one; wait if there are none. Cancelling never consumes a packet.

        Args:
            max_messages: most packets to return.
            timeout: how long to wait, in seconds; ``None`` for no end.

        Returns:
            A non-empty list.

        Raises:
            DeadlineExceeded: nothing came in time.
            PortClosed: this completion port was closed, and everything was handed out.
            ForkedPort: called from another process, thread or event loop.
            ValueError: ``max_messages`` is not positive.
        """
        if max_messages < 1:
            raise ValueError(f"max_messages must be at least 1, not {max_messages}")
        if timeout is None:
            return await self._core.take(max_messages, counted=False)
        with anyio.move_on_after(timeout):
            return await self._core.take(max_messages, counted=False)
        raise DeadlineExceeded(what=f"waiting for a packet at {self!r}", timeout=timeout, setting="timeout=")

    def blocked(self) -> Blocked:
        """Return a block in which the caller counts as waiting, not as running.

        ::

            async with completion_port.blocked():
                await something_that_the_framework_does_not_know()

        Give the slot back this way before a long wait of your own; waits of the framework do it by themselves. When
        the block ends the caller runs at once, also if that makes one more than ``concurrency`` for a moment. Does
        nothing where no slot is held. In a handler that runs in a thread, use it with a plain ``with``.
        """
        return Blocked()

    def __aiter__(self) -> CompletionIterator:
        """Iterate over batches of packets until this completion port is closed."""
        return CompletionIterator(self._core)

    def fileno(self) -> int:
        """Return a descriptor that is readable while a packet can be taken; for waiting only.

        Raises:
            PortClosed: this completion port was closed.
        """
        self._core.check_open()
        return self._core.queue.fileno()

    def close(self) -> None:
        """Take no new packets by hand; those that wait are handed out, then iteration ends. May be repeated."""
        self._core.closed = True
        if self._core.made is not None:
            self._core.made.end()

    async def aclose(self) -> None:
        """Close, and give the descriptor of `fileno` back. May be repeated; completes also when cancelled."""
        self.close()
        if self._core.made is not None:
            self._core.made.close()
        await anyio.lowlevel.checkpoint()

    def statistics(self) -> CompletionPortStatistics:
        """Return what this completion port has done so far."""
        core = self._core
        queue = core.made
        return CompletionPortStatistics(
            queued=len(queue) if queue is not None else 0,
            oldest=queue.age() if queue is not None else 0.0,
            throttled=queue.throttled if queue is not None else 0,
            waiting=queue.waiting if queue is not None else 0,
            running=core.running,
            blocked=core.blocked,
            handed_out=core.handed_out,
            batches=core.batches,
            largest_batch=core.largest_batch,
            batch_sizes=tuple(core.batch_sizes),
            posted=self._posted,
        )

    def __repr__(self) -> str:
        return repr(self._core)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def core_of(completion_port: CompletionPort) -> Core:
    """Return what hands packets out behind a completion port, for pools and services that take them one by one.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(completion_port, CompletionPort):
        raise TypeError(
            f"packets come from an alpc.CompletionPort, not {type(completion_port).__name__}; associate ports with one"
        )
    return completion_port._core  # pyright: ignore[reportPrivateUsage]  # the way in for the layers
