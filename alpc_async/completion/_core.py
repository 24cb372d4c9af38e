"""What hands packets out behind a completion port: the queue, the slots of the tasks that run, and what was counted.

Belongs here: `Core`, which iterators, worker pools and services share, iterators, and blocks that wait. Never here:
what a user calls (`_port`), handlers and how many of them run (`_pool`).

An iterator counts as running from one batch to the next, except while it waits in a call of the framework or inside
`CompletionPort.blocked`: then another may run, and when the wait ends both run for a moment, until one of them asks for
its next batch.
"""

from __future__ import annotations

import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, cast

import anyio

from ..errors import PortClosed
from ..link import current_loop
from ..port import DEFAULT_BATCH, PacketQueue, current_slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link import Waiter
    from ..port import Completion, Slot

__all__ = ["BATCH_CLASSES", "Blocked", "CompletionIterator", "Core", "blocked_hook"]

BATCH_CLASSES: Final = 10
"""Classes of the batch histogram: the last one holds batches of 512 packets and more."""

blocked_hook: Final[ContextVar[Callable[[int], None] | None]] = ContextVar(
    "alpc_async.completion.blocked", default=None
)
"""In a thread of a worker pool: tells the pool that the handler waits, or goes on."""


class Core:
    """What hands packets out behind a completion port.

    Args:
        concurrency: iterators that may run at the same time; 0 for any number.
        max_messages: messages that may wait.
        max_bytes: payload bytes that may wait or be worked on.

    Attributes:
        closed: no packet is posted any more; those that wait are handed out.
        running: iterators that hold a batch and do not wait for something else.
        blocked: iterators and handlers that wait for something else.
        handed_out: packets that were taken in batches.
        batches: batches that were taken.
        largest_batch: most packets in one of them.
        batch_sizes: batches by the number of their packets, in powers of two.
    """

    def __init__(self, concurrency: int, max_messages: int, max_bytes: int) -> None:
        self.concurrency = concurrency
        self.closed = False
        self.running = 0
        self.blocked = 0
        self.handed_out = 0
        self.batches = 0
        self.largest_batch = 0
        self.batch_sizes = [0] * BATCH_CLASSES
        self.made: PacketQueue | None = None
        """The queue, once somebody asked for it; a completion port may be made before there is a loop."""
        self._bounds = max_messages, max_bytes
        self._watchers: list[Callable[[int], None]] = []
        self._slot_waiters: list[Waiter] = []

    def __repr__(self) -> str:
        return f"<CompletionPort{' closed' if self.closed else ''}>"

    @property
    def queue(self) -> PacketQueue:
        """The queue; worker pools and services take single packets from it."""
        if self.made is None:
            self.made = PacketQueue(current_loop())
            self.made.bound(*self._bounds)
        return self.made

    def check_open(self) -> None:
        """Raise when the completion port was closed."""
        if self.closed:
            raise PortClosed(port=repr(self))

    async def take(self, max_messages: int, *, counted: bool) -> list[Completion]:
        """Return the packets that wait, at least one; raises like `CompletionPort.get_batch`.

        Args:
            max_messages: most packets to return.
            counted: take one of the ``concurrency`` slots.
        """
        queue = self.queue
        queue.loop.check(repr(self))
        paused = False
        while True:
            if counted and 0 < self.concurrency <= self.running:
                await self._wait_for_slot()
            elif not queue.ready:
                if self.closed:
                    # Nobody who waits for a slot gets another packet either; each one that ends wakes the next.
                    self._wake_for_slot()
                    raise PortClosed(port=repr(self))
                seat = queue.take_seat(not (counted and self.concurrency))
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
        self.handed_out += len(batch)
        self.batches += 1
        self.largest_batch = max(self.largest_batch, len(batch))
        self.batch_sizes[min(len(batch).bit_length(), BATCH_CLASSES) - 1] += 1
        self.running += counted
        return batch

    async def take_slot(self) -> list[Completion]:
        """Return a batch and take one of the ``concurrency`` slots. Raises like `CompletionPort.get_batch`."""
        return await self.take(DEFAULT_BATCH, counted=True)

    def release_slot(self) -> None:
        """Give a slot back, so that another iterator may have a batch."""
        self.running -= 1
        self._wake_for_slot()

    def leave_slot(self) -> None:
        """Give a slot back for the time of a wait."""
        self.blocked += 1
        self.release_slot()

    def enter_slot(self) -> None:
        """Take the slot again, without waiting for it."""
        self.blocked -= 1
        self.running += 1

    def note_blocked(self, change: int) -> None:
        """Note that one more, or one less, handler waits."""
        self.blocked += change
        for watcher in self._watchers:
            watcher(change)

    def watch_blocked(self, watcher: Callable[[int], None]) -> None:
        """Have a pool told when one more or one less of its handlers waits."""
        self._watchers.append(watcher)


class Blocked:
    """A block in which the task or thread counts as waiting. Made by `CompletionPort.blocked`."""

    __slots__ = ("_slot", "_thread")

    def __init__(self) -> None:
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
        core: where the packets come from.
    """

    __slots__ = ("__weakref__", "_core", "_holds_slot", "_task", "_waits")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._holds_slot = False
        self._waits = 0
        self._task = -1

    def __aiter__(self) -> CompletionIterator:
        return self

    async def __anext__(self) -> list[Completion]:
        self._let_go()
        try:
            batch = await self._core.take_slot()
        except PortClosed:
            raise StopAsyncIteration from None
        self._holds_slot = True
        if self._core.concurrency:
            self._task = anyio.get_current_task().id
            current_slot.set(_HeldSlot(self))
        return batch

    def leave(self) -> None:
        """Give the slot back while the task that works on the batch waits."""
        # Tasks that were started from there have this in their context as well, and hold no slot.
        if self._holds_slot and anyio.get_current_task().id == self._task:
            self._waits += 1
            if self._waits == 1:
                self._core.leave_slot()

    def enter(self) -> None:
        """Take the slot again."""
        if self._waits and anyio.get_current_task().id == self._task:
            self._waits -= 1
            if not self._waits:
                self._core.enter_slot()

    def _let_go(self) -> None:
        if self._holds_slot:
            self._holds_slot = False
            self._core.release_slot()

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
