"""Completion ports: one place to wait for the messages of many ports.

Belongs here: `CompletionPort` and its iterator. Never here: handlers and how many of them run (`_pool`).

The rules are those of an I/O completion port: packets first-in first-out for each sender, fair between senders, waiting
tasks released newest-first, one wake-up for any number of packets. An iterator counts as running from one batch to the
next, except while it waits in a call of the framework or inside `CompletionPort.blocked`: then another may run, and
when the wait ends both run for a moment, until one of them asks for its next batch.
"""

from __future__ import annotations

import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import msgspec

from ..errors import DeadlineExceeded, PortClosed
from ..link import current_loop
from ..port import DEFAULT_BATCH, PacketQueue, Posted, Source, current_slot

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from ..link import Waiter
    from ..port import Completion, ReceivePoint, Slot

__all__ = ["Blocked", "CompletionIterator", "CompletionPort", "CompletionPortStatistics", "blocked_hook"]

MAX_MESSAGES: Final = 64 * 1024
MAX_BYTES: Final = 256 * 1024 * 1024
"""What may wait at a completion port unless the caller says otherwise, in messages and in bytes.

Each connection is bounded by its own quotas; these bound the sum over a thousand of them, which alone could be 8 GiB.
"""

BATCH_CLASSES: Final = 10
"""Classes of the batch histogram: the last one holds batches of 512 packets and more."""

blocked_hook: Final[ContextVar[Callable[[int], None] | None]] = ContextVar(
    "alpc_async.completion.blocked", default=None
)
"""In a thread of a worker pool: tells the pool that the handler waits, or goes on."""


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
            tasks of one event loop never run at the same moment, and threads and processes are as many as the
            processors bear, which a pool finds out by measuring. Others wait even when there are packets.
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
        self.concurrency = concurrency
        self._bounds = max_messages, max_bytes
        self._blocked = 0
        self._watchers: list[Callable[[int], None]] = []
        self._batch_sizes = [0] * BATCH_CLASSES
        self._queue_or_none: PacketQueue | None = None
        self._source_or_none: Source | None = None
        self._closed = False
        self._running = 0
        self._slot_waiters: list[Waiter] = []
        self._handed_out = 0
        self._batches = 0
        self._largest_batch = 0
        self._posted = 0

    @property
    def queue(self) -> PacketQueue:
        """The queue behind this port; worker pools take single packets from it."""
        if self._queue_or_none is None:
            self._queue_or_none = PacketQueue(current_loop())
            self._queue_or_none.bound(*self._bounds)
        return self._queue_or_none

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
        self._check_open()
        port.redirect(self.queue, key, "a completion port")

    def post(self, key: object, value: Any = None) -> None:
        """Queue a packet by hand: a wake-up, a timer, work of one's own.

        Args:
            key: what the packet shows as ``key``.
            value: what it shows as ``value``.

        Raises:
            PortClosed: this completion port was closed.
            ForkedPort: called from another process, thread or event loop.
        """
        self._check_open()
        self.queue.loop.check(repr(self))
        if self._source_or_none is None:
            self._source_or_none = Source(self.queue, None)
        self._posted += 1
        self._source_or_none.put((Posted(key, value),))

    def _check_open(self) -> None:
        if self._closed:
            raise PortClosed(port=repr(self))

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
            return await self._take(max_messages, counted=False)
        with anyio.move_on_after(timeout):
            return await self._take(max_messages, counted=False)
        raise DeadlineExceeded(what=f"waiting for a packet at {self!r}", timeout=timeout, setting="timeout=")

    async def _take(self, max_messages: int, *, counted: bool) -> list[Completion]:
        queue = self.queue
        queue.loop.check(repr(self))
        paused = False
        while True:
            if counted and 0 < self.concurrency <= self._running:
                await self._wait_for_slot()
            elif not queue.ready:
                if self._closed:
                    # Nobody who waits for a slot gets another packet either; each one that ends wakes the next.
                    self._wake_for_slot()
                    raise PortClosed(port=repr(self))
                seat = queue.take_seat(takes=not (counted and self.concurrency))
                try:
                    await seat.waiter
                except BaseException:
                    queue.leave_seat(seat)
                    raise
                if seat.batch is not None:
                    return self._note(cast("list[Completion]", seat.batch), counted=counted)
            elif not paused:
                await queue.loop.checkpoint()
            else:
                # Nothing is awaited between here and the return, so a cancellation cannot take the batch along.
                return self._note(queue.take_batch(max_messages), counted=counted)
            paused = True

    async def _wait_for_slot(self) -> None:
        # The packet that this task was woken for is for somebody who needs no slot, if anybody does not.
        queue = self.queue
        if queue.ready:
            queue.wake_one()
        waiter = queue.loop.create_waiter()
        self._slot_waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter in self._slot_waiters:
                self._slot_waiters.remove(waiter)
            else:
                self._wake_for_slot()
            raise

    def _wake_for_slot(self) -> None:
        while self._slot_waiters:
            waiter = self._slot_waiters.pop()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _note(self, batch: list[Completion], *, counted: bool) -> list[Completion]:
        self._handed_out += len(batch)
        self._batches += 1
        self._largest_batch = max(self._largest_batch, len(batch))
        self._batch_sizes[min(len(batch).bit_length(), BATCH_CLASSES) - 1] += 1
        self._running += counted
        return batch

    async def take_slot(self) -> list[Completion]:
        """Return a batch and take one of the ``concurrency`` slots; iterators call this. Raises like `get_batch`."""
        return await self._take(DEFAULT_BATCH, counted=True)

    def release_slot(self) -> None:
        """Give a slot back, so that another iterator may have a batch."""
        self._running -= 1
        self._wake_for_slot()

    def blocked(self) -> Blocked:
        """Return a block in which the caller counts as waiting, not as running.

        ::

            async with completion_port.blocked():
                await something_that_the_framework_does_not_know()

        Give the slot back this way before a long wait of your own; waits of the framework do it by themselves. When
        the block ends the caller runs at once, also if that makes one more than ``concurrency`` for a moment. Does
        nothing where no slot is held. In a handler that runs in a thread, use it with a plain ``with``.
        """
        return Blocked(self)

    def note_blocked(self, change: int) -> None:
        """Note that one more, or one less, waits; the framework calls this."""
        self._blocked += change
        for watcher in self._watchers:
            watcher(change)

    def watch_blocked(self, watcher: Callable[[int], None]) -> None:
        """Have a pool told when one more or one less of its handlers waits; the framework calls this."""
        self._watchers.append(watcher)

    def leave_slot(self) -> None:
        """Give a slot back for the time of a wait; iterators call this."""
        self._blocked += 1
        self.release_slot()

    def enter_slot(self) -> None:
        """Take the slot again, without waiting for it; iterators call this."""
        self._blocked -= 1
        self._running += 1

    def __aiter__(self) -> CompletionIterator:
        """Iterate over batches of packets until this completion port is closed."""
        return CompletionIterator(self)

    def fileno(self) -> int:
        """Return a descriptor that is readable while a packet can be taken; for waiting only.

        Raises:
            PortClosed: this completion port was closed.
        """
        self._check_open()
        return self.queue.fileno()

    def close(self) -> None:
        """Take no new packets by hand; those that wait are handed out, then iteration ends. May be repeated."""
        self._closed = True
        if self._queue_or_none is not None:
            self._queue_or_none.end()

    async def aclose(self) -> None:
        """Close, and give the descriptor of `fileno` back. May be repeated; completes also when cancelled."""
        self.close()
        if self._queue_or_none is not None:
            self._queue_or_none.close()
        await anyio.lowlevel.checkpoint()

    def statistics(self) -> CompletionPortStatistics:
        """Return what this completion port has done so far."""
        queue = self._queue_or_none
        return CompletionPortStatistics(
            queued=len(queue) if queue is not None else 0,
            oldest=queue.age() if queue is not None else 0.0,
            throttled=queue.throttled if queue is not None else 0,
            waiting=queue.waiting if queue is not None else 0,
            running=self._running,
            blocked=self._blocked,
            handed_out=self._handed_out,
            batches=self._batches,
            largest_batch=self._largest_batch,
            batch_sizes=tuple(self._batch_sizes),
            posted=self._posted,
        )

    def __repr__(self) -> str:
        return f"<CompletionPort{' closed' if self._closed else ''}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class Blocked:
    """A block in which the task or thread counts as waiting. Made by `CompletionPort.blocked`."""

    __slots__ = ("_port", "_slot", "_thread")

    def __init__(self, completion_port: CompletionPort) -> None:
        self._port = completion_port
        self._slot: Slot | None = None
        self._thread: Callable[[int], None] | None = None

    async def __aenter__(self) -> None:
        self._slot = current_slot.get()
        if self._slot is not None:
            self._slot.leave()

    async def __aexit__(self, *_error: object) -> None:
        if self._slot is not None:
            self._slot.enter()

    def __enter__(self) -> None:
        self._thread = blocked_hook.get()
        if self._thread is not None:
            self._thread(1)

    def __exit__(self, *_error: object) -> None:
        if self._thread is not None:
            self._thread(-1)


class CompletionIterator:
    """Yields batches of packets. Holds one of the ``concurrency`` slots while its batch is being worked on.

    Args:
        completion_port: where the packets come from.
    """

    __slots__ = ("__weakref__", "_holds_slot", "_port", "_task", "_waits")

    def __init__(self, completion_port: CompletionPort) -> None:
        self._port = completion_port
        self._holds_slot = False
        self._waits = 0
        self._task = -1

    def __aiter__(self) -> CompletionIterator:
        return self

    async def __anext__(self) -> list[Completion]:
        self._let_go()
        try:
            batch = await self._port.take_slot()
        except PortClosed:
            raise StopAsyncIteration from None
        self._holds_slot = True
        if self._port.concurrency:
            self._task = anyio.get_current_task().id
            current_slot.set(_HeldSlot(self))
        return batch

    def leave(self) -> None:
        """Give the slot back while the task that works on the batch waits; the framework calls this."""
        # Tasks that were started from there have this in their context as well, and hold no slot.
        if self._holds_slot and anyio.get_current_task().id == self._task:
            self._waits += 1
            if self._waits == 1:
                self._port.leave_slot()

    def enter(self) -> None:
        """Take the slot again; the framework calls this."""
        if self._waits and anyio.get_current_task().id == self._task:
            self._waits -= 1
            if not self._waits:
                self._port.enter_slot()

    def _let_go(self) -> None:
        if self._holds_slot:
            self._holds_slot = False
            self._port.release_slot()

    def __del__(self) -> None:
        # A loop that was left by ``break`` gives its slot back when the iterator goes away.
        self._let_go()


class _HeldSlot:
    """Lets waits of the framework reach an iterator without keeping it alive: one that was left has to go away.

    Args:
        iterator: the iterator.
    """

    __slots__ = ("_iterator",)

    def __init__(self, iterator: CompletionIterator) -> None:
        self._iterator = weakref.ref(iterator)

    def leave(self) -> None:
        iterator = self._iterator()
        if iterator is not None:
            iterator.leave()

    def enter(self) -> None:
        iterator = self._iterator()
        if iterator is not None:
            iterator.enter()
