"""The memory of the other process, as far as the connection is concerned.

Belongs here: whether direct access was agreed and works, the secret of this program, questions of the framework itself.
Never here: copying (`_direct`), or what else a message has (`_transfers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
import msgspec

from ..errors import AccessDenied
from ..handles import close_all
from ..memory import Cookie, may_hold_up, may_reach, read_process
from ..memory_errors import DirectDenied, DirectFailed
from ..wire import DIRECT_DATA, Role
from ._contexts import record_of
from ._direct import Declared, DirectBuffer, declare
from ._extras import Extras, take_handles
from ._replying import ReplyingChannel
from ._sharing import PortView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..handles import Handle
    from ..limits import PortLimits
    from ..link import Link, Loop
    from ..memory import View
    from ..security import Identity
    from ..wire import Endpoint
    from ._contexts import SecurityContext
    from ._message import Message
    from ._sent import SentRequest
    from ._source import Source

__all__ = ["ReachingChannel", "features_of"]

FEATURE_DIRECT: Final = 1
"""Bit of the handshake's features: this side allows direct access."""

FEATURE_REACHES: Final = 2
"""Bit likewise: the server can read the memory of the client, as it has found out when it was greeted."""

COPY_THREADS: Final = 4
"""Copies of one connection that run in threads at the same time."""

QUESTION_ROOM: Final = 64
"""Bytes in front of the data of a question of the framework itself; the question takes 32."""


def features_of(limits: PortLimits) -> int:
    """Return the optional parts of the protocol that a side with these limits offers."""
    return FEATURE_DIRECT | FEATURE_REACHES if limits.direct else 0


class ReachingChannel(ReplyingChannel):
    """Direct access on one connection. Arguments like `SendingChannel`."""

    __slots__ = ("_cookie", "_copy_limiter", "_reachable")

    def __init__(self, endpoint: Endpoint[SentRequest], link: Link, loop: Loop, peer: Identity, source: Source) -> None:
        super().__init__(endpoint, link, loop, peer, source)
        self._cookie: Cookie | None = None
        self._reachable: bool | None = None
        self._copy_limiter: anyio.CapacityLimiter | None = None

    def extras(
        self,
        *,
        view: View | None = None,
        direct: DirectBuffer | Sequence[DirectBuffer] | None = None,
        handles: Sequence[Handle] = (),
        security: SecurityContext | None = None,
        receipt: bool = False,
    ) -> Extras:
        """Return what a user wants to go with a message; the handles belong to it from now on.

        Raises:
            TypeError: one of them is of another type.
            AccessDenied: one of the sides does not allow direct access, or the security context cannot be used.
            ValueError: a handle is closed, or the buffers are too many.
        """
        taken = take_handles(handles)
        try:
            if view is not None and not isinstance(view, PortView):
                raise TypeError(f"view= takes what allocate() or message.view gave, not {type(view).__name__}")
            declared = self.declared(direct) if direct is not None else None
            record = record_of(security, self) if security is not None else None
        except BaseException:
            close_all(taken)
            raise
        states = [handle.state for handle in taken]
        return Extras(view=view, direct=declared, handles=taken, states=states, security=record, receipt=receipt)

    # -- direct memory -----------------------------------------------------------------------------------------------

    @property
    def direct_agreed(self) -> bool:
        """Whether both sides allow direct access."""
        return bool(self.endpoint.features & FEATURE_DIRECT)

    @property
    def reads_data(self) -> bool:
        """Whether the data of requests may be read from the memory of the other side."""
        return bool(self.endpoint.features & FEATURE_REACHES)

    def declared(self, direct: DirectBuffer | Sequence[DirectBuffer]) -> Declared:
        """Return what a request declares.

        Raises:
            AccessDenied: one of the sides does not allow direct access.
            ValueError: there are no buffers, or too many.
        """
        if not self.direct_agreed:
            raise AccessDenied(
                what=f"direct= on {self.label}",
                reason="PortLimits.direct is False on one of the sides; set it on both, or send the data as a view",
            )
        return declare(direct, self.cookie)

    @property
    def cookie(self) -> Cookie:
        """The secret of this program, made when first asked for."""
        if self._cookie is None:
            self._cookie = Cookie()
        return self._cookie

    def offer_memory(self) -> None:
        """Tell the server in our greeting how to find out whether it can read our memory."""
        if self.endpoint.features & FEATURE_REACHES:
            self.endpoint.cookie = self.cookie.address, self.cookie.value

    def try_memory(self, offered: tuple[int, bytes] | None) -> None:
        """Find out whether we can read the memory of the client, before it is told so.

        Args:
            offered: where its secret is and what it is; untrusted.
        """
        if not self.endpoint.features & FEATURE_REACHES:
            return
        try:
            # Data is read on the loop, see `can_reach`.
            reached = offered is not None and self.peer_is_ours and self.can_reach(Cookie.of_peer(*offered))
        except ValueError:
            reached = False
        if not reached:
            self.endpoint.features &= ~FEATURE_REACHES

    def data_extras(self, data: bytes | memoryview, extras: Extras) -> Extras | None:
        """Return the extras of a request whose data the server reads from our memory, or ``None`` for other ways."""
        limits = self.endpoint.limits
        if not self.endpoint.features & FEATURE_REACHES or self.endpoint.role is not Role.CLIENT:
            return None
        if len(data) < max(limits.direct_threshold, 1) or extras.direct is not None or extras.view is not None:
            return None
        if len(data) > max(limits.max_view_size, limits.max_message_length):
            return None
        declared = Declared([DirectBuffer(data)], self.cookie, flags=DIRECT_DATA)
        return msgspec.structs.replace(extras, direct=declared)

    def can_reach(self, cookie: Cookie) -> bool:
        """Return whether the memory of the other side can be reached directly; found out once.

        That of another user is not touched for that: a page may come from a file system that the user serves, and then
        reading it takes as long as that user likes.
        """
        if self._reachable is None:
            if not self.peer_is_ours:
                self._reachable = may_reach(self.peer_pid)
                return self._reachable
            try:
                read_process(self.peer_pid, cookie, cookie.address, bytearray(1))
            except (DirectDenied, DirectFailed):
                self._reachable = False
            else:
                self._reachable = True
        return self._reachable

    def note_unreachable(self) -> None:
        """Note that the system does not let us reach the memory of the other side after all."""
        self._reachable = False

    @property
    def peer_is_ours(self) -> bool:
        """Whether the other side is a process of our own user or of root, which could hold us up anyway."""
        return may_hold_up(self.peer.uid if self.sender is None else self.sender[1])

    @property
    def copy_limiter(self) -> anyio.CapacityLimiter:
        """Bounds the threads that copy for this connection, since each may hang for as long as the other side likes."""
        if self._copy_limiter is None:
            self._copy_limiter = anyio.CapacityLimiter(COPY_THREADS)
        return self._copy_limiter

    @property
    def peer_pid(self) -> int:
        """The process at the other end; what is read of it is checked by a secret of its own, not by this number."""
        return self.peer.pid if self.sender is None else self.sender[0]

    def detour_step(self, most: int) -> int:
        """Return how many bytes travel at once in answers to questions of the framework itself."""
        limits = self.endpoint.limits
        return min(most, max(limits.max_view_size, limits.max_message_length) - QUESTION_ROOM)

    async def ask_system(self, question: bytes) -> Message:
        """Send a request of the framework itself and wait for its reply; raises like `CommunicationPort.request`."""
        timeout = self.request_timeout
        extras = Extras(system=True)
        pending = await self.start_later(question, extras, timeout, None, None)
        try:
            return await pending
        except BaseException:
            self.abandon(pending)
            raise
