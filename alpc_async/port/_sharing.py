"""Shared memory of one connection: what this side lends, and what it has borrowed.

Belongs here: ranges, leases and sections of a connection, and giving everything back at its end. Never here: how a
section is made or checked (memory), the numbers and frames (wire), which message uses which range (`_transfers`).

The owner lends ranges of its sections. Long data is copied into a range of a pool and read by the other side once; a
range that a user fills (`allocate`) counts its holders, the user's view and every message that lends it, and goes back
when the last of them lets go. What was borrowed is never written, and never believed to stand still unless its section
is sealed.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from ..errors import MessageTooLong, ProtocolViolation, QuotaExceeded
from ..memory import Section, SectionPool
from ..memory_errors import OutOfSharedMemory, UnsafeSection
from ..wire import SectionKind, ViewRecord
from ._ranges import Borrowed, LostSection, Range
from ._view import PortView

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..limits import PortLimits
    from ..link import Loop, TimerHandle
    from ..memory import Block
    from ..wire import Endpoint, SectionOffered
    from ._sent import SentRequest

_logger = logging.getLogger("alpc_async.port")

__all__ = ["RELEASE_DELAY", "LostSection", "PortView", "Range", "Sharing"]


RELEASE_DELAY: Final = 0.005
"""Seconds that the word that a range is free may wait for a frame to travel with.

Sent by itself it would cost each round trip with a view one more send, and the owner one more wake-up; sent with the
answer it would keep the answer back until the view is released. The owner lacks a part of its memory for no longer than
this, and no more than the share below (decision record 22).
"""

RELEASE_SHARE: Final = 16
"""Part of the memory that an owner may share above which it is told without delay.

So it is where the range is a section of its own, which counts as a whole until the owner knows.
"""

_PAGE: Final = 4096

TRIM_AFTER: Final = 5.0
"""Seconds without use after which sections are given back to the system: making one again takes 0.5 ms per MiB."""

MAX_ALONE: Final = 200
"""Sections for one range each: most of the 256 that the other side takes, so that the pool can always have its own."""

SPARE: Final = 1024 * 1024
"""Bytes of sections that are kept for a connection that is not used, once it has used any."""


class Sharing:
    """Both directions of shared memory on one connection.

    Args:
        endpoint: its protocol state.
        loop: the running loop.
        flush: asks the link to send what was queued.
        flush_some_time: asks for the same within `RELEASE_DELAY`.
        freed: called after ranges may have become free.
    """

    def __init__(
        self,
        endpoint: Endpoint[SentRequest],
        loop: Loop,
        flush: Callable[[], None],
        flush_some_time: Callable[[], None],
        freed: Callable[[], None],
    ) -> None:
        self._endpoint = endpoint
        self._loop = loop
        self._flush = flush
        self._flush_some_time = flush_some_time
        self._freed = freed
        self._pool: SectionPool | None = None
        self._alone = 0
        self._alone_sections = 0
        self.numbers: dict[Section, int] = {}
        """Numbers of our sections that the other side has."""
        self._borrowed: dict[int, Borrowed | None] = {}
        self._borrowed_size = 0
        self._releases: deque[tuple[int, Borrowed, int]] = deque()
        self._unflushed = 0.0
        self._urgent = endpoint.limits.max_total_section_size // RELEASE_SHARE
        self.account: Callable[[int, int], None] | None = None
        """Counts (sections, bytes) that are borrowed more, or less, for the user of the other side."""
        self.lent_account: Callable[[int], None] | None = None
        """Counts bytes of sections that we make for the user of the other side, or give up; raises `QuotaExceeded`."""
        self._drops: deque[Range] = deque()
        self._release_scheduled = False
        self._trimming: TimerHandle | None = None
        self._thread = threading.get_ident()
        self.ended = False
        self.explicit = False
        """Whether a user lets a view go right now, rather than the garbage collector."""

    @property
    def limits(self) -> PortLimits:
        """The agreed limits."""
        return self._endpoint.limits

    @property
    def lent(self) -> int:
        """Ranges of ours that the other side holds."""
        return self._endpoint.leases

    @property
    def total(self) -> int:
        """Bytes of our sections."""
        return self._alone + (self._pool.total if self._pool is not None else 0)

    # -- lending -----------------------------------------------------------------------------------------------------

    def allocate(self, size: int) -> Range:
        """Take a range of the pool.

        Raises:
            MessageTooLong: it is longer than a view may be.
            QuotaExceeded: the sections are full.
        """
        self._check_size(size)
        if self._pool is None:
            self._pool = SectionPool(
                max_total=self.limits.max_total_section_size,
                max_section=self.limits.max_section_size,
                port=self._endpoint.label,
                on_new_section=lambda section: self._count_lent(section.size),
                on_section_gone=self._give_up,
            )
        self._stop_trimming()
        self._pool.elsewhere = self._alone
        block: Block = self._pool.allocate(size)
        return Range(block.section, block.offset, size, SectionKind.LIVE, block.free)

    def allocate_alone(self, size: int, kind: SectionKind) -> Range:
        """Make a section for one range; raises like `allocate`."""
        self._check_size(size)
        limit = self.limits.max_total_section_size
        if self._pool is not None and self.total + size > limit:
            self._pool.trim(spare=0)
        if self.total + size > limit or self._alone_sections >= MAX_ALONE:
            raise QuotaExceeded(port=self._endpoint.label, setting="max_total_section_size", limit=limit)
        section = Section.create(size, shared=kind is SectionKind.SHARED, live=kind is SectionKind.LIVE)
        try:
            self._count_lent(section.size)
        except BaseException:
            section.close()
            raise
        self._alone += section.size
        self._alone_sections += 1

        def free() -> None:
            self._alone -= section.size
            self._alone_sections -= 1
            self._give_up(section)
            section.close()

        return Range(section, 0, size, kind, free)

    def _check_size(self, size: int) -> None:
        limit = self.limits.max_view_size
        if size > limit:
            raise MessageTooLong(port=self._endpoint.label, size=size, limit=limit, setting="max_view_size")

    def _count_lent(self, size: int) -> None:
        if self.lent_account is not None:
            self.lent_account(size)

    def _give_up(self, section: Section) -> None:
        self._count_lent(-section.size)
        self._retire(section)

    def _retire(self, section: Section) -> None:
        number = self.numbers.pop(section, None)
        if number is not None and not self.ended:
            self._endpoint.retire_section(number)
            self._flush()

    def lend(self, lent: Range, mode: int) -> ViewRecord:
        """Lend a range with a message that is sent right after; `take_back` when it is not.

        Args:
            lent: the range.
            mode: bits of `ViewMode`.

        Raises:
            QuotaExceeded: the other side takes no more sections.
        """
        section = lent.section
        number = self.numbers.get(section)
        if number is None:
            handle = section.duplicate()
            try:
                number = self.numbers[section] = self._endpoint.offer_section(handle, lent.kind)
            except BaseException:
                handle.close()
                raise
        lent.number = number
        lent.keep()
        return ViewRecord(number, mode, self._endpoint.lend(lent), lent.offset, lent.length)

    def lend_view(self, view: PortView, lent: Range, mode: int) -> ViewRecord:
        """Lend what a user has filled; a range that is to be sealed is, and the view ends with that.

        Raises:
            ViewInUse: arrays, slices or other buffers made of a view that is to be sealed are still held.
        """
        if lent.kind is not SectionKind.SEALED:
            return self.lend(lent, mode)
        if not view.kept:
            # The memory of the view ends here; its hold on the range goes on until the range was sent.
            lent.keep()
            try:
                view.release()
                lent.section.seal()
            except BaseException:
                lent.drop()
                raise
            view.kept = True
        return self.lend(lent, mode)

    def take_back(self, record: ViewRecord) -> None:
        """Undo `lend`: the message could not be sent."""
        lent = self._endpoint.withdraw(record.lease)
        if isinstance(lent, Range):
            lent.drop()

    def released(self, record: object, *, lost: bool = False) -> bool:
        """Note that the other side let a range go.

        Args:
            record: the range.
            lost: the other side never got its section, so that it has to be offered again.

        Returns:
            Whether there may be more room now.
        """
        if isinstance(record, Range):
            if lost and self.numbers.get(record.section) == record.number:
                self._retire(record.section)
            if record.drop():
                self._trim_later()
                return True
        return lost

    # -- borrowing ---------------------------------------------------------------------------------------------------

    def offered(self, event: SectionOffered) -> None:
        """Check and keep a section of the other side.

        Raises:
            ProtocolViolation: it is not one that can be used safely, or more than was agreed.
            QuotaExceeded: the user of the other side holds as much as it may.
        """
        if event.handle is None:
            self._borrowed[event.section] = None
            return
        limits = self.limits
        try:
            shared = event.kind == SectionKind.SHARED
            section = Section.adopt(event.handle, max_size=limits.max_section_size, shared=shared)
        except UnsafeSection as error:
            raise ProtocolViolation(rule="a section is safe to use", detail=str(error)) from error
        except OutOfSharedMemory as error:
            # We have no room for it; that is not the other side's fault, and fails its messages alone.
            _logger.warning("%s cannot map a section: %s", self._endpoint.label, error)
            self._borrowed[event.section] = None
            return
        self._borrowed[event.section] = borrowed = Borrowed(section)
        self._borrowed_size += borrowed.size
        if self._borrowed_size > limits.max_total_section_size:
            raise ProtocolViolation(
                rule="nobody shares more memory than agreed",
                detail=f"{self._borrowed_size} bytes, see PortLimits.max_total_section_size",
            )
        if self.account is not None:
            self.account(1, borrowed.size)

    def gone(self, number: int) -> None:
        """Let a section of the other side go; what is still viewed of it stays, and counts."""
        borrowed = self._borrowed.pop(number, None)
        if borrowed is not None:
            borrowed.gone = True
            borrowed.section.close()
            self._forget(borrowed)

    def _forget(self, borrowed: Borrowed) -> None:
        if borrowed.gone and not borrowed.views and borrowed.size:
            self._borrowed_size -= borrowed.size
            if self.account is not None:
                self.account(-1, -borrowed.size)
            borrowed.size = 0

    def borrow(self, record: ViewRecord) -> PortView:
        """Return a view of what the other side lends with a message.

        Raises:
            ProtocolViolation: the range is not inside the section.
            LostSection: the section itself never arrived.
        """
        borrowed = self._borrowed.get(record.section)
        if borrowed is None:
            self._endpoint.release(record.lease, lost=True)
            raise LostSection
        section, length = borrowed.section, record.length
        try:
            view = PortView(
                section,
                record.offset,
                length,
                writable=section.shared,
                on_release=partial(self._let_go, record.lease, borrowed, length),
            )
        except UnsafeSection as error:
            raise ProtocolViolation(rule="a view is inside its section", detail=error.detail) from None
        borrowed.views += 1
        view.sharing = self
        view.record = record
        view.range = None
        view.kept = False
        return view

    def surrender(self, view: PortView, lease: int) -> None:
        """End a view whose range goes back to its owner with the message that is sent right after.

        Raises:
            ViewInUse: arrays, slices or other buffers made of it are still held; it stays valid.
        """
        self._endpoint.give_back(lease)
        try:
            view.release()
        except BaseException:
            self._endpoint.hold(lease)
            raise

    def give_up(self, lease: int) -> None:
        """Give a lease back by itself, because the message with which it should have gone was not sent."""
        self._endpoint.hold(lease)
        self._endpoint.release(lease)
        self._flush()

    def own_view(self, shown: Range) -> PortView:
        """Return a view of a range of ours; letting it go drops the range."""
        view = PortView(
            shown.section, shown.offset, shown.length,
            writable=True, sealed=False, on_release=partial(self.drop_later, shown),
        )  # fmt: skip
        view.sharing = self
        view.record = None
        view.range = shown
        view.kept = False
        return view

    # -- letting go --------------------------------------------------------------------------------------------------

    # A view may be let go by the garbage collector, in any thread and in the middle of anything, so that only notes it;
    # what follows from it happens in a turn of the loop of its own, for all that were noted until then.

    def _let_go(self, lease: int, borrowed: Borrowed, length: int) -> None:
        if self.explicit and not (self._releases or self._drops or self.ended) and self._is_ours():
            # What `settle` does, for this one.
            if not self._endpoint.frames:
                self._unflushed = 0.0
            self._tell(self._give_back(lease, borrowed, length))
            return
        self._releases.append((lease, borrowed, length))
        self._schedule()

    def _is_ours(self) -> bool:
        return threading.get_ident() == self._thread and not self._loop.forked

    def drop_later(self, dropped: Range) -> None:
        """Note that a range is not used any more; may be called in the middle of anything."""
        self._drops.append(dropped)
        self._schedule()

    def _schedule(self) -> None:
        if self.ended:
            # Nothing follows for the connection any more, so this may happen in the middle of anything.
            self._settle_records()
            return
        ours = threading.get_ident() == self._thread
        if ours and self.explicit and not self._loop.forked:
            self.settle()
        elif not self._release_scheduled and not self._loop.forked:
            self._release_scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the connection with it
                (self._loop.call_soon if ours else self._loop.call_soon_threadsafe)(self.settle)

    def settle(self) -> None:
        """Do what follows from the views that were let go."""
        self._release_scheduled = False
        dropped = bool(self._drops)
        if not self._endpoint.frames:
            self._unflushed = 0.0
        released = self._settle_records()
        if released and not self.ended:
            self._tell(released)
        if dropped or self.ended:
            self._freed()
            self._trim_later()

    def _tell(self, released: float) -> None:
        """Have the other side told of so many bytes that went back."""
        self._unflushed += released
        if self._unflushed > self._urgent:
            self._flush()
        else:
            self._flush_some_time()

    def _settle_records(self) -> float:
        """Return the bytes that went back."""
        while self._drops:
            self._drops.popleft().drop()
        size = 0.0
        while self._releases:
            size += self._give_back(*self._releases.popleft())
        return size

    def _give_back(self, lease: int, borrowed: Borrowed, length: int) -> float:
        """Give a lease back; return its bytes, a page at least, and infinity for a section of its own."""
        borrowed.views -= 1
        if borrowed.gone:
            self._forget(borrowed)
        if not self.ended:
            self._endpoint.release(lease)
        return math.inf if borrowed.alone else max(length, _PAGE)

    # -- giving unused sections up -----------------------------------------------------------------------------------

    def _trim_later(self) -> None:
        pool = self._pool
        if pool is not None and self._trimming is None and not self.ended and pool.total > SPARE and not pool.used:
            self._trimming = self._loop.call_at(self._loop.time() + TRIM_AFTER, self._trim)

    def _stop_trimming(self) -> None:
        if self._trimming is not None:
            self._trimming.cancel()
            self._trimming = None

    def _trim(self) -> None:
        self._trimming = None
        if self._pool is not None and not self.ended:
            self._pool.trim()

    def keep_nothing(self) -> None:
        """Take every section back of which nothing is used; the next range makes one again."""
        self._stop_trimming()
        if self._pool is not None and not self.ended:
            self._pool.trim(spare=0)

    # -- the end -----------------------------------------------------------------------------------------------------

    def end(self, leases: list[object]) -> None:
        """Give everything back because the connection is over; views that are still held stay readable.

        Args:
            leases: records of the ranges that the other side held.
        """
        if self.ended:
            return
        self.ended = True
        self._stop_trimming()
        for record in leases:
            self.released(record)
        self.settle()
        for number in list(self._borrowed):
            self.gone(number)
        if self._pool is not None:
            self._count_lent(-self._pool.total)
            self._pool.close()
