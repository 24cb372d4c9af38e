"""Sending with attributes, and choosing how data travels.

Belongs here: the choice between inline, view and direct; attributes of what is sent; waiting for room in the sections.
Never here: plain messages (`_sending`), tables of shared memory (`_sharing`), replies and receipts (`_replying`).

Data up to ``view_threshold`` is copied through the socket. Longer data is copied once into a range of a shared section
that both sides have mapped already, and only its place travels. When the sections are full, data that may travel inline
does, and longer data waits for room.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeVar

from ..errors import MessageTooLong, QuotaExceeded
from ..memory_errors import HandleRefused, OutOfSharedMemory
from ..wire import Attributes, HandleRecord, SectionKind, ViewMode, ViewRecord
from ._extras import Extras, moved_by, overhead
from ._message import as_memory
from ._receipt import Receipt
from ._sending import BURST, BURST_BYTES, Place, SendingChannel, wake
from ._sent import SentRequest
from ._sharing import RELEASE_DELAY, PortView, Sharing

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from ..link import Link, Loop, TimerHandle, Waiter
    from ..memory import View
    from ..security import Identity
    from ..wire import Endpoint
    from ._sharing import Range
    from ._source import Source

__all__ = ["TransferringChannel"]

T = TypeVar("T")

_LIVE: Final = SectionKind.LIVE
_IS_DATA: Final = ViewMode.IS_DATA

_ROOM: Final = frozenset({"max_outstanding_messages", "max_pool_usage", "high_water", "memory_bandwidth"})
"""Quotas for which it makes sense to wait: the other side gives their room back, or time does."""


class TransferringChannel(SendingChannel):
    """What can be sent on one connection beside plain messages. Arguments like `SendingChannel`."""

    __slots__ = ("_release_timer", "_sharing", "_view_places", "lent_account", "section_account")

    def __init__(self, endpoint: Endpoint[SentRequest], link: Link, loop: Loop, peer: Identity, source: Source) -> None:
        super().__init__(endpoint, link, loop, peer, source)
        self._sharing: Sharing | None = None
        self.section_account: Callable[[int, int], None] | None = None
        """Counts sections for the user at the other end; see `Sharing.account`."""
        self.lent_account: Callable[[int], None] | None = None
        """Counts memory that is shared with that user; see `Sharing.lent_account`."""
        self._view_places: list[Place] = []
        self._release_timer: TimerHandle | None = None

    @property
    def sharing(self) -> Sharing:
        """The shared memory of this connection, made when first asked for."""
        if self._sharing is None:
            self._sharing = Sharing(self.endpoint, self.loop, self.flush_later, self.flush_some_time, self.wake_views)
            self._sharing.account = self.section_account
            self._sharing.lent_account = self.lent_account
        return self._sharing

    def flush_some_time(self) -> None:
        """Send what is queued with the next frame, or after `RELEASE_DELAY`."""
        if self._release_timer is None and not self._in_turn:
            self._release_timer = self.loop.call_at(self.loop.time() + RELEASE_DELAY, self._flush_rest)

    def _flush_rest(self) -> None:
        self._release_timer = None
        if self._frames:
            self.link.flush()

    @property
    def lent(self) -> int:
        """Ranges of ours that the other side holds."""
        return self.endpoint.leases

    @property
    def shared(self) -> int:
        """Bytes of our sections."""
        return self._sharing.total if self._sharing is not None else 0

    def settle_limits(self) -> None:
        """Note what both sides agreed on: from now on longer data travels as a view."""
        limits = self.endpoint.limits
        if limits.max_view_size:
            self.endpoint.outflow.inline_limit = min(limits.view_threshold, limits.max_message_length)
        if limits.max_view_size or limits.max_handles:
            self.link.allow_handles()

    def payload(self, data: Buffer) -> bytes | memoryview:
        """Return data that is not ``bytes`` in a form that can be sent: a copy, unless it is long enough for a view."""
        view = as_memory(data)
        return view if view.nbytes > self.endpoint.outflow.inline_limit else bytes(view)

    def data_extras(self, data: bytes | memoryview, extras: Extras) -> Extras | None:
        """Return the extras of a request whose data the server reads from our memory, or ``None`` for other ways."""
        raise NotImplementedError

    # -- attributes --------------------------------------------------------------------------------------------------

    def attributes_of(self, extras: Extras, view: ViewRecord | None) -> Attributes:
        """Return what travels for what the user wants.

        Args:
            extras: what the user wants.
            view: the range that travels, lent already.
        """
        if not (extras.handles or extras.direct or extras.security or extras.receipt or extras.system):
            return Attributes(view=view)
        handles = list(extras.handles)
        states = list(extras.states) or [b""] * len(handles)
        return Attributes(
            security=extras.security,
            view=view,
            direct=extras.direct.record if extras.direct is not None else None,
            handles=[HandleRecord(state) for state in states],
            receipt=extras.receipt,
            system=extras.system,
            received=handles,
        )

    def check_extras(self, extras: Extras) -> None:
        """Check what only depends on the connection.

        Raises:
            HandleRefused: the other side takes no handles, or not so many.
        """
        limit = self.endpoint.limits.max_handles
        if len(extras.handles) > limit:
            raise HandleRefused(
                port=self.label,
                reason=f"{len(extras.handles)} with one message are more than the {limit} agreed on; raise "
                "PortLimits.max_handles on both sides, and name the kinds that the receiver takes in its handle_kinds",
            )

    # -- data that travels as a view ---------------------------------------------------------------------------------

    def send_with(
        self,
        data: bytes | memoryview,
        extras: Extras,
        send: Callable[[bytes, Attributes], T],
        prepared: Range | None = None,
    ) -> T:
        """Send a message with attributes, its data inline or as a view.

        Args:
            data: the payload.
            extras: what goes with it.
            send: queues the message; raises when it cannot.
            prepared: shared memory that holds the payload already.

        Raises:
            QuotaExceeded: there is no room, neither inline nor in the sections.
            MessageTooLong: the payload is longer than any way of moving it allows.
        """
        self.check_extras(extras)
        lent: ViewRecord | None = None
        if prepared is not None:
            lent = self.sharing.lend(prepared, ViewMode.IS_DATA)
            data = b""
        elif extras.view is not None:
            lent = self._lend_view(extras.view, ViewMode.IS_DATA if not len(data) else 0)
        elif self._is_long(data, extras):
            lent = self._lend_copy(data, extras)
            if lent is not None:
                data = b""
        try:
            sent = send(bytes(data), self.attributes_of(extras, lent))
        except BaseException:
            if lent is not None and not lent.mode & ViewMode.RETURNED:
                self.sharing.take_back(lent)
            raise
        if extras.view is not None:
            extras.view.sent()
        return sent

    def _is_long(self, data: bytes | memoryview, extras: Extras) -> bool:
        """Return whether data without a view of its own travels as one."""
        if extras.way == "auto":
            return len(data) > self.endpoint.outflow.inline_limit
        return extras.way == "view" and len(data) > 0

    def _lend_copy(self, data: bytes | memoryview, extras: Extras) -> ViewRecord | None:
        limits = self.endpoint.limits
        inline = extras.way == "auto" and len(data) <= limits.max_message_length
        if not limits.max_view_size:
            if extras.way == "view":
                raise MessageTooLong(port=self.label, size=len(data), limit=0, setting="max_view_size")
            raise MessageTooLong(port=self.label, size=len(data), limit=limits.max_message_length)
        try:
            copy = self.sharing.allocate(len(data))
        except (QuotaExceeded, MessageTooLong, OutOfSharedMemory):
            if inline:
                return None
            raise
        try:
            copy.fill(data)
            return self.sharing.lend(copy, ViewMode.IS_DATA)
        except (QuotaExceeded, OutOfSharedMemory):
            if inline:
                return None
            raise
        finally:
            copy.drop()

    def allocated(self, view: PortView) -> bool:
        """Return whether a view was allocated here and can be sent."""
        return view.range is not None and view.sharing is self._sharing and not view.released

    def _lend_view(self, view: PortView, mode: int) -> ViewRecord:
        if view.released and not view.kept:
            raise ValueError(f"{view!r} was released; allocate another one")
        if view.sharing is not self._sharing:
            raise ValueError(f"{view!r} belongs to another connection; views travel where they were allocated only")
        if view.range is not None:
            return self.sharing.lend_view(view, view.range, mode)
        record = view.record
        if record is None:
            raise ValueError(f"{view!r} cannot be sent")
        return ViewRecord(record.section, ViewMode.RETURNED, record.lease, record.offset, record.length)

    async def allocate_view(self, size: int, kind: SectionKind, deadline: float) -> PortView:
        """Wait for shared memory to fill.

        Args:
            size: bytes.
            kind: who may write to it after it was sent.
            deadline: when to give up, on the loop's clock, in seconds; infinity for never.
        """
        sharing = self.sharing
        if kind is SectionKind.LIVE:
            return sharing.own_view(await self.wait_for_view(lambda: sharing.allocate(size), deadline))
        return sharing.own_view(await self.wait_for_view(lambda: sharing.allocate_alone(size, kind), deadline))

    async def wait_for_view(self, attempt: Callable[[], T], deadline: float) -> T:
        """Try something that needs room in the sections until it works, first come first served.

        Args:
            attempt: raises `QuotaExceeded` while there is no room.
            deadline: when to give up, on the loop's clock, in seconds; infinity for never.

        Raises:
            DeadlineExceeded: the deadline came first.
            Disconnected: the connection ended.
        """
        if not self._view_places:
            try:
                return attempt()
            except QuotaExceeded:
                pass
        got: list[T] = []

        def try_again() -> bool:
            try:
                got.append(attempt())
            except QuotaExceeded:
                return False
            return True

        what = f"waiting for shared memory of {self.label}"
        await self.wait_in_line(self._view_places, try_again, deadline, what, self.wake_views)
        return got[0]

    def wake_views(self) -> None:
        """Let tasks that wait for room in the sections try again."""
        if self._view_places:
            wake(self._view_places[0].waiter)

    def _check_room_for(self, data: bytes | memoryview, extras: Extras, *, in_line: bool, certain: bool) -> None:
        # Sealing a view cannot be undone, so what there is no room for must fail before.
        view = extras.view
        if view is not None and not certain and not (view.range is not None and view.range.kind is SectionKind.LIVE):
            self.check_room(len(data) + overhead(extras, lent=True), in_line=in_line)

    # -- requests, datagrams, replies --------------------------------------------------------------------------------

    def start_lending(
        self, data: bytes | memoryview, view: View, timeout: float | None, context: object, waiter: Waiter, /
    ) -> SentRequest | None:
        """Queue a request that has a live view of ours and nothing else: `start_with` for what is most common.

        Returns:
            The request. ``None``: nothing was done, and `start_with` does it or says why not.
        """
        sharing = self._sharing
        if sharing is None or not isinstance(view, PortView) or view.released:
            return None
        shown = view.range
        if shown is None or shown.kind is not _LIVE or type(data) is not bytes:
            return None
        # Those of another connection have no number here.
        number = sharing.numbers.get(shown.section)
        if number is None or self._room or self.closing:
            return None
        if not self._in_turn or self.loop.forked:
            self._begin_turn()
        endpoint = self.endpoint
        if endpoint.output_size > self._high_water:
            return None
        pending = SentRequest(channel=self, context=context, timeout=timeout, waiter=waiter)
        place = number, 0 if data else _IS_DATA, shown.offset, shown.length
        now = self._now
        frame = endpoint.request_lending(pending, data, now(), timeout, shown, place, not self._in_turn)
        if frame is None:
            return None
        shown.number = number
        shown.users += 1
        if endpoint.outflow.next_deadline < self._timer_at:
            self._arm_timer()
        if not self._in_turn:
            if not frame or not self.link.send_frame(frame):
                self._send_now(frame)
        elif len(self._frames) >= BURST or endpoint.output_size >= BURST_BYTES:
            self.link.flush()
        return pending

    def start_with(
        self,
        data: bytes | memoryview,
        extras: Extras,
        timeout: float | None,
        context: object,
        *,
        waiter: Waiter | None = None,
        in_line: bool = False,
        certain: bool = False,
        prepared: Range | None = None,
    ) -> SentRequest:
        """Queue a request with attributes; raises like `send_with` and `SendingChannel.start`."""
        self._check_room_for(data, extras, in_line=in_line, certain=certain)
        if prepared is None and extras.way == "auto" and len(data) > self.endpoint.outflow.inline_limit:
            direct = self.data_extras(data, extras)
            if direct is not None:
                extras, data = direct, b""

        def send(payload: bytes, attributes: Attributes) -> SentRequest:
            pending = self.start(
                payload, timeout, context, waiter=waiter, in_line=in_line, certain=certain, attributes=attributes
            )
            pending.declared = extras.direct
            return pending

        return self.send_with(data, extras, send, prepared)

    def post_with(
        self,
        data: bytes | memoryview,
        extras: Extras,
        *,
        in_line: bool = False,
        certain: bool = False,
        prepared: Range | None = None,
    ) -> Receipt | None:
        """Queue a datagram with attributes; return its receipt if one is wanted. Raises like `send_with`."""
        self._check_room_for(data, extras, in_line=in_line, certain=certain)
        number = self.send_with(
            data,
            extras,
            lambda payload, attributes: self.post(payload, in_line=in_line, certain=certain, attributes=attributes),
            prepared,
        )
        if not extras.receipt:
            return None
        receipt = Receipt(self.loop, number)
        self.endpoint.expect_receipt(number, receipt)
        return receipt

    async def start_later(
        self,
        data: bytes | memoryview,
        extras: Extras,
        timeout: float | None,
        context: object,
        waiter: Waiter | None,
    ) -> SentRequest:
        """Queue a request as soon as there is room for it, first come first served; arguments like `start_with`."""
        deadline = math.inf if timeout is None else self.loop.time() + timeout

        def attempt(prepared: Range | None, in_line: bool) -> SentRequest:
            left = None if timeout is None else max(0.0, deadline - self.loop.time())
            return self.start_with(data, extras, left, context, waiter=waiter, in_line=in_line, prepared=prepared)

        return await self._send_later(data, extras, deadline, attempt)

    async def post_later(self, data: bytes | memoryview, extras: Extras, deadline: float) -> Receipt | None:
        """Queue a datagram as soon as there is room for it; arguments like `post_with`."""

        def attempt(prepared: Range | None, in_line: bool) -> Receipt | None:
            return self.post_with(data, extras, in_line=in_line, prepared=prepared)

        return await self._send_later(data, extras, deadline, attempt, posting=True)

    async def _send_later(
        self,
        data: bytes | memoryview,
        extras: Extras,
        deadline: float,
        attempt: Callable[[Range | None, bool], T],
        *,
        posting: bool = False,
    ) -> T:
        limits = self.endpoint.limits
        size = len(data)
        moved = moved_by(data, extras)
        prepared: Range | None = None
        try:
            direct = extras.way == "auto" and self.data_extras(data, extras) is not None and not posting
            long = extras.way == "view" or (size > limits.max_message_length and extras.way == "auto")
            if long and size and limits.max_view_size and extras.view is None and not direct:
                prepared = await self.wait_for_view(lambda: self.sharing.allocate(size), deadline)
                prepared.fill(data)
                size = 0
            in_line = False
            while True:
                try:
                    return attempt(prepared, in_line)
                except QuotaExceeded as error:
                    if error.setting not in _ROOM:
                        raise
                room = size + overhead(extras, lent=prepared is not None)
                await self.wait_for_room(room, deadline, moved=moved)
                in_line = True
        except MessageTooLong as error:
            # Not as a second error of the short way, which was refused with the bound of messages.
            raise error from None
        finally:
            if prepared is not None:
                prepared.drop()

    def keep_no_sections(self) -> None:
        """Take the sections back of which nothing is used, because another process shall go on with the connection."""
        if self._sharing is not None:
            self._sharing.keep_nothing()

    # -- the end -----------------------------------------------------------------------------------------------------

    def end_transfers(self, leases: list[object]) -> None:
        """Give shared memory back and wake whoever waits for some, because the connection is over."""
        if self._sharing is None:
            return
        if self._release_timer is not None:
            self._release_timer.cancel()
            self._release_timer = None
        self._sharing.end(leases)
        for place in self._view_places:
            wake(place.waiter)
