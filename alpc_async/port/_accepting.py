"""The beginning of a connection on the side of the server, and what was agreed about identity.

Belongs here: waiting for a greeting, accepting and refusing, the quality of service of the other side. Never here: what
is received afterwards, and how a connection ends (`_channel`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ..errors import Disconnected, MessageTooLong
from ..security import ImpersonationLevel, SecurityQos, anonymous_identity
from ..wire import Greeted, State, Status
from ._arrivals import ArrivingChannel

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link import Link, Loop, TimerHandle
    from ..security import Gate, Identity
    from ..wire import Endpoint, Event
    from ._communication import CommunicationPort
    from ._sent import SentRequest
    from ._source import Source

__all__ = ["AcceptingChannel"]

_logger = logging.getLogger("alpc_async.port")

MOST_REVOKED: Final = 1024
"""Revoked security contexts that are remembered by number; with more of them on one connection, none counts."""


class AcceptingChannel(ArrivingChannel):
    """The beginning of a connection. Arguments like `SendingChannel`."""

    __slots__ = (
        "_connect_reply",
        "_greeting_timer",
        "_revoked",
        "connect_data",
        "gate",
        "on_greeting",
        "opened",
        "peer_qos",
        "port",
        "refused",
        "shown",
    )

    port: CommunicationPort

    def __init__(self, endpoint: Endpoint[SentRequest], link: Link, loop: Loop, peer: Identity, source: Source) -> None:
        super().__init__(endpoint, link, loop, peer, source)
        self.gate: Gate | None = None
        self.shown = peer
        self.peer_qos = SecurityQos()
        self._revoked: set[int] = set()
        self.connect_data = b""
        self.opened = False
        self.refused = False
        self.on_greeting: Callable[[Event[SentRequest]], None] | None = None
        self._connect_reply = b""
        self._greeting_timer: TimerHandle | None = None

    def hang_up(self, status: int, reason: str) -> None:
        """End the connection from this side because of what the other one does."""
        raise NotImplementedError

    def finish(self, reason: str, *, quiet: bool = False) -> None:
        """End the connection."""
        raise NotImplementedError

    def await_greeting(self, greeted: Callable[[Greeted], None]) -> None:
        """Give the client ``limits.handshake_timeout`` seconds to say HELLO.

        Args:
            greeted: called when it does.
        """

        def answer(event: Event[SentRequest]) -> None:
            self.on_greeting = None
            self.stop_greeting_timer()
            if isinstance(event, Greeted):
                self.connect_data = event.data
                self.try_memory(event.cookie)
                greeted(event)

        self.on_greeting = answer
        timeout = self.endpoint.limits.handshake_timeout
        self._greeting_timer = self.loop.call_at(self.loop.time() + timeout, self._greeting_late)

    def _greeting_late(self) -> None:
        self.counters.violations += 1
        timeout = self.endpoint.limits.handshake_timeout
        self.complain("handshake", "PortLimits.handshake_timeout", f"{self.peer} did not finish it in {timeout:g} s")
        self.hang_up(Status.HANDSHAKE_TIMEOUT, "the handshake was not finished in time")

    def note_qos(self, level: int, dynamic: bool) -> SecurityQos:
        """Note what the other side lets us do with its identity, and return it.

        Args:
            level: number of an `ImpersonationLevel`.
            dynamic: whether its identity may change.
        """
        self.peer_qos = SecurityQos(ImpersonationLevel(level), "dynamic" if dynamic else "static")
        if level == ImpersonationLevel.ANONYMOUS:
            self.shown = anonymous_identity()
        return self.peer_qos

    def has_revoked(self, context: int) -> bool:
        """Return whether the other side has revoked a security context of its own.

        Args:
            context: its number; 0 for that of the connection, which cannot be revoked.
        """
        return context in self._revoked or (context > 0 and len(self._revoked) >= MOST_REVOKED)

    def note_revoked(self, context: int) -> None:
        """Note that the other side has revoked a security context of its own.

        Args:
            context: its number.
        """
        if len(self._revoked) < MOST_REVOKED:
            self._revoked.add(context)

    def complain(self, what: str, rule: str, reason: str) -> None:
        """Note that something was refused to the other side.

        Args:
            what: what.
            rule: what decided.
            reason: the whole of it in one sentence.
        """
        if self.gate is not None:
            self.gate.note(what, rule=rule, reason=reason)
        else:
            _logger.warning("%s: %s refused: %s", self.label, what, reason)

    def stop_greeting_timer(self) -> None:
        """Note that the client said what it had to say, or never will."""
        if self._greeting_timer is not None:
            self._greeting_timer.cancel()
            self._greeting_timer = None

    def accept(self, data: bytes, context: object, *, complete: bool) -> None:
        """Let the client in, at once or when `complete` is called."""
        self._check_connect_data(data)
        self.port.context = context
        self._connect_reply = data
        if complete:
            self.complete()

    def _check_connect_data(self, data: bytes) -> None:
        # What a client does, going away or taking less than we do, is no error of the server that answers it.
        if not isinstance(self.ending, Disconnected):
            self.check_usable()
        limit = self.own_limits.max_connect_data
        if len(data) > limit:
            raise MessageTooLong(port=self.label, size=len(data), limit=limit, setting="max_connect_data")

    def complete(self) -> None:
        """Release a client that was accepted with ``complete=False``."""
        if isinstance(self.ending, Disconnected):
            return
        self.check_usable()
        if self.endpoint.state is not State.GREETED:
            return
        if len(self._connect_reply) > self.endpoint.limits.max_connect_data:
            self.hang_up(Status.REPLY_TOO_LONG, "the client takes too little connect data (max_connect_data)")
            return
        self.endpoint.accept(self._connect_reply)
        self.opened = True
        self.settle_limits()
        self.link.request_flush()

    def refuse(self, status: int, data: bytes) -> None:
        """Turn the client away."""
        self._check_connect_data(data)
        if self.ending is None and self.endpoint.state < State.OPEN:
            self.endpoint.refuse(status, data[: self.endpoint.limits.max_connect_data])
            self.refused = True
            self.link.flush()
            self.finish("the connection request was refused", quiet=True)
