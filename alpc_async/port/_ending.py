"""The one way in which a connection ends.

Belongs here: noticing the end, telling everybody who waits, letting what is queued leave first. Never here: what
arrives before (`_channel`).

A connection ends once, in `EndingChannel.finish`, in this order: what was received before stays receivable; reports of
lost replies; cancellations of requests that were not answered; the closing message; and every caller that still waits
gets its error at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Disconnected, PortClosed
from ..handles import close_all, dispose
from ..wire import Status
from ._accepting import AcceptingChannel
from ._arrived import Arrived
from ._death import DeathWatch
from ._message import MessageType
from ._sending import wake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..link import Link, Loop, Waiter
    from ..security import Identity
    from ..wire import Endpoint, Request
    from ._channel import Channel
    from ._pace import Pace
    from ._sent import SentRequest
    from ._source import Source

__all__ = ["EndingChannel"]


class EndingChannel(AcceptingChannel):
    """The end of a connection. Arguments like `SendingChannel`."""

    __slots__ = ("_death", "_drained", "draining", "on_end", "origin", "pace", "report_lost_replies", "reporting")

    def __init__(self, endpoint: Endpoint[SentRequest], link: Link, loop: Loop, peer: Identity, source: Source) -> None:
        super().__init__(endpoint, link, loop, peer, source)
        self.report_lost_replies = True
        self.reporting = False
        self.pace: Pace | None = None
        self.on_end: Callable[[Channel], None] | None = None
        self._drained: list[Waiter] = []
        self._death: DeathWatch | None = None
        self.draining = False
        self.origin: Identity | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is under way: no open request of either side, nothing received waits, all is sent."""
        if self.ending is not None:
            return not self.source.packets
        endpoint = self.endpoint
        busy = endpoint.outflow.pending or endpoint.inflow.owed or self.source.packets
        return not busy and not self.link.unsent()

    def watch_peer(self) -> None:
        """End the connection when the peer's process ends, even if another process still holds its socket."""
        self._death = DeathWatch(self.loop, self.peer, self.link.receive_rest)

    def _cut_slow_reader(self) -> None:
        self.hang_up(Status.SLOW_READER, "the other side does not read its replies (PortLimits.max_unsent)")

    def hang_up(self, status: int, reason: str) -> None:
        """End the connection from this side because of what the other one does."""
        if self.ending is None:
            self.endpoint.close(status, reason)
            self.link.flush()
            self.finish(reason)

    async def say_goodbye(self, flush: bool) -> None:
        """Tell the other side that nothing more will come, and let what is queued leave.

        Args:
            flush: ``False`` drops what is queued.
        """
        self.closing = True
        self._in_turn = False
        if not flush:
            close_all(self.endpoint.drop_output())
        self.endpoint.close()
        self.link.flush()
        if flush and self.link.unsent() and self.ending is None:
            waiter = self.loop.create_waiter()
            self._drained.append(waiter)
            timeout = self.endpoint.limits.close_timeout
            timer = self.loop.call_at(self.loop.time() + timeout, lambda: wake(waiter))
            try:
                await waiter
            finally:
                timer.cancel()
                if waiter in self._drained:
                    self._drained.remove(waiter)
        else:
            await self.loop.checkpoint()

    def link_flushed(self) -> None:
        while self._drained:
            wake(self._drained.pop())

    def finish(
        self,
        reason: str,
        *,
        closed: bool = False,
        quiet: bool = False,
        peer_silent: bool = False,
        cause: Exception | None = None,
    ) -> None:
        """End the connection: close the link, and tell everybody who waits for something from it.

        Args:
            reason: why, in words.
            closed: this side closed the port, so later use raises `PortClosed`.
            quiet: queue no notices.
            peer_silent: the other side ended without saying goodbye; its process may have died.
            cause: the error behind it, if there is one.
        """
        if self.ending is not None:
            return
        self.ending = PortClosed(port=self.label) if closed else Disconnected(port=self.label, reason=reason)
        self.ending.__cause__ = cause
        self._in_turn = False
        self.link.close()
        self.stop_greeting_timer()
        self.stop_timers()
        self.link_flushed()
        lost = self.endpoint.lost_replies(*self.link.unsent_frames())
        close_all(self.endpoint.drop_output())
        leases, receipts, handles = self.endpoint.end_sharing()
        dispose(handles)
        tickets, requests = self.endpoint.abort()
        if not quiet:
            for message_id in lost:
                self._report_lost_reply(message_id)
        self._cancel_requests(requests, quiet=quiet)
        for pending in tickets:
            pending.finish(self.ending_error(sent=True))
        while self._room:
            wake(self._room.pop(0).waiter)
        for record in receipts:
            self.note_receipt(record)
        self.end_transfers(leases)
        self.source.let_go()
        self.reporting = True
        if self._death is not None and peer_silent and self.opened:
            self._death.decide(lambda died: self._report_end(reason, quiet=quiet, died=died))
        else:
            self._report_end(reason, quiet=quiet, died=False)

    def _cancel_requests(self, requests: Iterable[Request], *, quiet: bool) -> None:
        for request in requests:
            message = request.context
            if isinstance(message, Arrived):
                message.cancel()
                if not quiet:
                    self.source.put([Arrived(MessageType.CANCELED, message.id, b"", channel=self.as_channel())])

    def _report_end(self, reason: str, *, quiet: bool, died: bool) -> None:
        self.reporting = False
        if self._death is not None:
            self._death.stop()
        self.peer.close()
        if self.origin is not None:
            self.origin.close()
        if self.opened and not quiet:
            kind = MessageType.CLIENT_DIED if died else MessageType.PORT_CLOSED
            self.source.put([Arrived(kind, 0, reason.encode(), channel=self.as_channel())])
        if self.pace is not None and self.source.throttle is not None:
            self.pace.forget(self.source.throttle)
        if self.on_end is not None:
            self.on_end(self.as_channel())

    def close(self) -> None:
        """Forget what was received and not taken, after the port was closed on this side."""
        if isinstance(self.ending, Disconnected):
            self.ending = PortClosed(port=self.label)
        if self.reporting:
            self._report_end("", quiet=True, died=False)
        self.source.clear()

    def _report_lost_reply(self, message_id: int) -> None:
        if self.report_lost_replies:
            self._notify(MessageType.LOST_REPLY, message_id)

    def _notify(self, kind: MessageType, message_id: int) -> None:
        # Notices need no credit, so they are bounded here: a peer must not fill our memory by sending and cancelling.
        if len(self.source.packets) >= self.endpoint.limits.max_outstanding_messages:
            self.counters.dropped_notices += 1
        else:
            self.source.put([Arrived(kind, message_id, b"", channel=self.as_channel())])
