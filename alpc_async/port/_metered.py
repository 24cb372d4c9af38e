"""Connections with a limit of bytes per second.

Belongs here: `MeteredChannel`, which holds a connection to `PortLimits.memory_bandwidth` in both directions, and
`make_channel`, which decides once per connection whether there is such a limit, so that a message of a connection
without one costs nothing more. Never here: the bucket (`_bandwidth`).

What arrives over the limit waits until the bucket has refilled, and so does all behind it. It keeps its place in the
quota, so the other side has to wait as well. What would leave over the limit waits where it is sent, as it does for any
other quota. Answers are never refused and never wait, as with the other quotas: those that leave are counted, and as
long as they are not made up for nothing more is handed out that would have to be answered; those that arrive were asked
for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import QuotaExceeded
from ..wire import DIRECT_DATA, State, ViewMode
from ._bandwidth import Bandwidth
from ._channel import Channel
from ._extras import moved_by
from ._rich import RichMessage

if TYPE_CHECKING:
    from ..link import Link, Loop, Waiter
    from ..security import Identity
    from ..wire import Attributes, Endpoint
    from ._arrived import Arrived
    from ._extras import Extras
    from ._ranges import Range
    from ._receipt import Receipt
    from ._sent import SentRequest
    from ._source import Source

__all__ = ["MeteredChannel", "make_channel"]


def make_channel(endpoint: Endpoint[SentRequest], link: Link, loop: Loop, peer: Identity, source: Source) -> Channel:
    """Make what drives one connection; arguments like `SendingChannel`."""
    kind = MeteredChannel if endpoint.limits.memory_bandwidth else Channel
    return kind(endpoint, link, loop, peer, source)


class MeteredChannel(Channel):
    """One connection with a limit of bytes per second. Arguments like `SendingChannel`."""

    __slots__ = ("_arriving", "_holds", "_leaving", "_rate")

    def __init__(self, endpoint: Endpoint[SentRequest], link: Link, loop: Loop, peer: Identity, source: Source) -> None:
        super().__init__(endpoint, link, loop, peer, source)
        self._rate = endpoint.limits.memory_bandwidth
        self._arriving = Bandwidth(self._rate, loop, self._refilled)
        self._leaving = Bandwidth(self._rate, loop, self._refilled)
        self._holds = False
        self.screens = True

    # -- sending -----------------------------------------------------------------------------------------------------

    def start(
        self,
        data: bytes | memoryview,
        timeout: float | None,
        context: object,
        waiter: Waiter | None = None,
        in_line: bool = False,
        certain: bool = False,
        attributes: Attributes | None = None,
    ) -> SentRequest:
        size = _moved(data, attributes)
        if not certain:
            self._check_bandwidth(len(data), size)
        pending = super().start(data, timeout, context, waiter, in_line, certain, attributes)
        self._leaving.count(size)
        return pending

    def post(
        self,
        data: bytes | memoryview,
        *,
        in_line: bool = False,
        certain: bool = False,
        attributes: Attributes | None = None,
    ) -> int:
        size = _moved(data, attributes)
        if not certain:
            self._check_bandwidth(len(data), size)
        number = super().post(data, in_line=in_line, certain=certain, attributes=attributes)
        self._leaving.count(size)
        return number

    def start_lending(self, *_arguments: object) -> None:
        """Leave it to `start_with`, where what moves is counted."""

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
        # Before data is copied into a section or a view is sealed.
        if not certain:
            self._check_bandwidth(len(data), moved_by(data, extras))
        return super().start_with(
            data, extras, timeout, context, waiter=waiter, in_line=in_line, certain=certain, prepared=prepared
        )

    def post_with(
        self,
        data: bytes | memoryview,
        extras: Extras,
        *,
        in_line: bool = False,
        certain: bool = False,
        prepared: Range | None = None,
    ) -> Receipt | None:
        if not certain:
            self._check_bandwidth(len(data), moved_by(data, extras))
        return super().post_with(data, extras, in_line=in_line, certain=certain, prepared=prepared)

    def _check_bandwidth(self, length: int, size: int) -> None:
        self.check_usable()
        limits = self.endpoint.limits
        # What is too long is never sent, so waiting would be in vain; sending it says so.
        fits = length <= max(limits.max_message_length, limits.max_view_size)
        if fits and not self._leaving.has_room(size):
            raise QuotaExceeded(port=self.label, setting="memory_bandwidth", limit=self._rate)

    def has_room(self, size: int, moved: int) -> bool:
        return super().has_room(size, moved) and self._leaving.has_room(moved)

    def send_reply(self, message: Arrived, data: bytes | memoryview, attributes: Attributes | None) -> None:
        leaves = not message.cancelled and self.endpoint.state is State.OPEN
        super().send_reply(message, data, attributes)
        if leaves:
            self._leaving.count(_moved(data, attributes))
            self._settle()

    # -- receiving ---------------------------------------------------------------------------------------------------

    def _queue(self, packets: list[Arrived]) -> None:
        if packets:
            self._arriving.count(sum(map(_brought, packets)))
            self._settle()
        super()._queue(packets)

    def set_screens(self, *, draining: bool = False, listens_only: bool | None = None) -> None:
        super().set_screens(draining=draining, listens_only=listens_only)
        self.screens = True

    def link_drained(self) -> None:
        if self._holds:
            self.wake_room()
        else:
            super().link_drained()

    # -- the bucket --------------------------------------------------------------------------------------------------

    def _refilled(self) -> None:
        self._settle()
        self.wake_room()

    def _settle(self) -> None:
        """Hold back what was received while either direction has moved too much, and let it go afterwards."""
        if self.ending is not None:
            return
        # Both are asked, so that both have a timer.
        holds = [bucket.has_room(0) for bucket in (self._arriving, self._leaving)] != [True, True]
        if holds == self._holds:
            return
        self._holds = holds
        if holds:
            self.source.hold()
        elif not self.link.clogged():
            self.source.let_go()

    def stop_timers(self) -> None:
        super().stop_timers()
        self._arriving.stop()
        self._leaving.stop()


def _moved(data: bytes | memoryview, attributes: Attributes | None) -> int:
    """Return how many bytes a message moves, whatever way they take."""
    size = len(data)
    if attributes is None:
        return size
    view, direct = attributes.view, attributes.direct
    if view is not None and not view.mode & ViewMode.RETURNED:
        size += view.length
    if direct is not None and direct.ranges[0][2] & DIRECT_DATA:
        size += direct.ranges[0][1]
    return size


def _brought(message: Arrived) -> int:
    """Return how many bytes a received message moved, whatever way they took."""
    size = message.size
    if isinstance(message, RichMessage):
        view = message.own_view
        if view is not None and view.record is not None and not message.view_is_data:
            size += view.length
    return size
