"""Sending, as a user sees it: requests, datagrams, shared memory to fill, reserves.

Belongs here: `RequestingPort`, the half of a communication port that sends. Never here: how it travels (`_sending`,
`_transfers`).
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Final, Literal, overload

from ..errors import MessageTooLong, QuotaExceeded
from ..handles import close_all
from ..wire import SectionKind
from ._contexts import SecurityContext
from ._extras import Extras
from ._message import Message
from ._receipt import Receipt, Reserve, take_reserve
from ._receive import ReceivePoint
from ._sharing import PortView
from ._source import slot_here
from ._ways import check_way

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from typing_extensions import Buffer

    from ..handles import Handle
    from ..link import Waiter
    from ..memory import View
    from ..security import SecurityQos
    from ._channel import Channel
    from ._direct import DirectBuffer
    from ._pending import PendingRequest
    from ._sent import SentRequest
    from ._ways import Way

__all__ = ["DEFAULT", "Default", "RequestingPort"]


class Default(enum.Enum):
    """Stands for "as the limits of the port say"."""

    DEFAULT = "..."

    def __repr__(self) -> str:
        return "..."


DEFAULT: Final = Default.DEFAULT


class RequestingPort(ReceivePoint):
    """The half of a communication port that sends."""

    _channel: Channel
    _contexts = 0

    # -- sending -----------------------------------------------------------------------------------------------------

    async def request(
        self,
        data: Buffer = b"",
        *,
        timeout: float | Default | None = DEFAULT,
        context: object = None,
        view: View | None = None,
        direct: DirectBuffer | Sequence[DirectBuffer] | None = None,
        handles: Sequence[Handle] = (),
        reserve: Reserve | None = None,
        security: SecurityContext | None = None,
    ) -> Message:
        """Send a message and wait for its reply. Waits for room as well when the quota is used up.

        Cancelling withdraws the request: the handler on the other side is cancelled, a late reply is dropped, and its
        handles and views are given back.

        Args:
            data: the payload, copied: up to ``limits.view_threshold`` bytes through the connection, up to
                ``limits.max_view_size`` through shared memory.
            timeout: time for everything, in seconds; ``None`` for no end; by default ``limits.request_timeout``.
            context: a cookie that the reply shows as its ``context``; it never travels.
            view: shared memory from `allocate` that goes with it, without a copy; when there is no data it is the data.
            direct: memory of this process that the receiver may read, or write, until it answers.
            handles: descriptors that go with it; consumed, whether that works or not.
            reserve: room that was kept for it.
            security: what the receiver may do with our identity for this message; by default what ``connect`` allowed.

        Returns:
            The reply.

        Raises:
            RemoteFault: the other side answered with a fault.
            DeadlineExceeded: no reply came in time; the other side has been told.
            MessageTooLong: the payload is too long; nothing was sent.
            HandleRefused: the other side takes no handles, not so many, or handles of the reply were lost.
            AccessDenied: ``direct`` was given, and one of the sides does not allow direct access; or the security
                context was revoked, deleted, or belongs to another port.
            QuotaExceeded: there are too many sections for one more view.
            Disconnected: the connection ended before the reply came.
            PortClosed: the port was closed on this side.
            ForkedPort: called from another process, thread or event loop.
        """
        channel = self._channel
        if type(data) is not bytes:
            data = channel.payload(data)
        seconds = channel.request_timeout if timeout is DEFAULT else timeout
        create_waiter = self._loop.create_waiter
        waiter = create_waiter()
        if view is not None or direct is not None or handles or reserve is not None or security is not None:
            pending = None
            if view is not None and direct is None and reserve is None and security is None and not handles:
                pending = channel.start_lending(data, view, seconds, context, waiter)
            if pending is None:
                extras = channel.extras(view=view, direct=direct, handles=handles, security=security)
                pending = await self._start_with(data, extras, seconds, context, waiter, reserve)
        else:
            try:
                pending = channel.start(data, seconds, context, waiter)
            except (QuotaExceeded, MessageTooLong):
                pending = await channel.start_later(data, Extras(), seconds, context, waiter)
        slot = slot_here()
        if slot is not None:
            slot.leave()
        try:
            await waiter
        except BaseException:
            channel.abandon(pending)
            raise
        finally:
            if slot is not None:
                slot.enter()
        outcome = pending.outcome
        return outcome if isinstance(outcome, Message) else pending.result()

    async def _start_with(
        self,
        data: bytes | memoryview,
        extras: Extras,
        timeout: float | None,
        context: object,
        waiter: Waiter,
        reserve: Reserve | None,
    ) -> SentRequest:
        channel = self._channel
        try:
            channel.check_usable()
            if reserve is None:
                try:
                    return channel.start_with(data, extras, timeout, context, waiter=waiter)
                except QuotaExceeded:
                    return await channel.start_later(data, extras, timeout, context, waiter)
            take_reserve(reserve, channel, len(data))
            return channel.start_with(data, extras, timeout, context, waiter=waiter, certain=True)
        except BaseException:
            close_all(extras.handles)
            raise

    def start_request(
        self,
        data: Buffer = b"",
        *,
        timeout: float | Default | None = DEFAULT,
        context: object = None,
        view: View | None = None,
        direct: DirectBuffer | Sequence[DirectBuffer] | None = None,
        handles: Sequence[Handle] = (),
        reserve: Reserve | None = None,
        security: SecurityContext | None = None,
        transfer: Way = "auto",
    ) -> PendingRequest:
        """Send a message and return at once; await the result for the reply.

        Args:
            data: the payload; see `request`.
            timeout: time for the reply, in seconds; ``None`` for no end; by default ``limits.request_timeout``.
            context: a cookie that the reply shows as its ``context``; it never travels.
            view: see `request`.
            direct: see `request`.
            handles: see `request`.
            reserve: room that was kept for it: then this cannot fail for want of room.
            security: see `request`.
            transfer: how the data travels: ``"auto"`` as its length says, ``"inline"`` through the connection, up to
                ``limits.max_message_length`` bytes, ``"view"`` through shared memory, whatever its length.

        Returns:
            The request, to be awaited or cancelled.

        Raises:
            QuotaExceeded: the quota is used up; `request` waits instead.
            MessageTooLong: the payload is too long; nothing was sent.
            HandleRefused: the other side takes no handles, or not so many.
            AccessDenied: ``direct`` was given, and one of the sides does not allow direct access; or the security
                context was revoked, deleted, or belongs to another port.
            Disconnected: the connection is over.
            PortClosed: the port was closed on this side.
            ForkedPort: called from another process, thread or event loop.
            ValueError: ``transfer`` is none of the three.
        """
        channel = self._channel
        seconds = channel.request_timeout if timeout is DEFAULT else timeout
        payload = channel.payload(data)
        extras = channel.extras(view=view, direct=direct, handles=handles, security=security)
        try:
            check_way(transfer)
            extras.way = transfer
            if reserve is not None:
                channel.check_usable()
                take_reserve(reserve, channel, len(payload))
                return channel.start_with(payload, extras, seconds, context, certain=True)
            return channel.start_with(payload, extras, seconds, context)
        except BaseException:
            close_all(extras.handles)
            raise

    @overload
    async def post(
        self,
        data: Buffer = b"",
        *,
        timeout: float | Default | None = DEFAULT,
        view: View | None = None,
        handles: Sequence[Handle] = (),
        reserve: Reserve | None = None,
        security: SecurityContext | None = None,
        transfer: Way = "auto",
        receipt: Literal[False] = False,
    ) -> None: ...

    @overload
    async def post(
        self,
        data: Buffer = b"",
        *,
        timeout: float | Default | None = DEFAULT,
        view: View | None = None,
        handles: Sequence[Handle] = (),
        reserve: Reserve | None = None,
        security: SecurityContext | None = None,
        transfer: Way = "auto",
        receipt: Literal[True],
    ) -> Receipt: ...

    async def post(
        self,
        data: Buffer = b"",
        *,
        timeout: float | Default | None = DEFAULT,
        view: View | None = None,
        handles: Sequence[Handle] = (),
        reserve: Reserve | None = None,
        security: SecurityContext | None = None,
        transfer: Way = "auto",
        receipt: bool = False,
    ) -> Receipt | None:
        """Send a message that wants no reply. Waits for room when the quota is used up.

        The message is queued wholly or not at all, also when this is cancelled. Datagrams that were queued when the
        connection ends may be lost; ask with a request when that matters, or for a receipt.

        Args:
            data: the payload; see `request`.
            timeout: time to wait for room, in seconds; ``None`` for no end; by default ``limits.request_timeout``.
            view: see `request`.
            handles: see `request`.
            reserve: room that was kept for it: then it is queued at once.
            security: see `request`.
            transfer: see `start_request`.
            receipt: ask the receiver to tell when it takes the message out of its queue.

        Returns:
            With ``receipt=True`` a `Receipt`, to be awaited.

        Raises:
            DeadlineExceeded: there was no room in time; nothing was sent.
            MessageTooLong: the payload is too long; nothing was sent.
            HandleRefused: the other side takes no handles, or not so many.
            AccessDenied: the security context was revoked, deleted, or belongs to another port.
            QuotaExceeded: there are too many sections for one more view.
            Disconnected: the connection is over.
            PortClosed: the port was closed on this side.
            ForkedPort: called from another process, thread or event loop.
        """
        plain = view is None and not handles and reserve is None and security is None and transfer == "auto"
        if plain and not receipt:
            await self.post_batch((data,), timeout=timeout)
            return None
        channel = self._channel
        payload = channel.payload(data)
        extras = channel.extras(view=view, handles=handles, security=security, receipt=receipt)
        try:
            check_way(transfer)
            extras.way = transfer
            channel.check_usable()
            if reserve is not None:
                take_reserve(reserve, channel, len(payload))
                return channel.post_with(payload, extras, certain=True)
            await self._loop.checkpoint()
            return await channel.post_later(payload, extras, self._deadline(timeout))
        except BaseException:
            close_all(extras.handles)
            raise

    def _deadline(self, timeout: float | Default | None) -> float:
        seconds = self._channel.request_timeout if timeout is DEFAULT else timeout
        return math.inf if seconds is None else self._loop.time() + seconds

    async def post_batch(self, batch: Iterable[Buffer], *, timeout: float | Default | None = DEFAULT) -> None:
        """Send messages that want no reply; those for which there is room leave together.

        Every single message is queued wholly or not at all. Cancelling, and an error, may leave the first ones queued
        and the others not.

        Args:
            batch: the payloads; see `request`.
            timeout: time to wait for room for all of them, in seconds; ``None`` for no end; by default
                ``limits.request_timeout``.

        Raises:
            DeadlineExceeded: there was no room for all in time.
            MessageTooLong: a payload is too long; those before it are queued.
            Disconnected: the connection is over.
            PortClosed: the port was closed on this side.
            ForkedPort: called from another process, thread or event loop.
            TypeError: ``batch`` is one message, or holds what is no bytes.
        """
        channel = self._channel
        channel.check_usable()
        if isinstance(batch, (bytes, bytearray, memoryview, str)):
            raise TypeError(f"post_batch() takes a list of messages, not {type(batch).__name__}; use post() for one")
        await self._loop.checkpoint()
        deadline = self._deadline(timeout)
        for data in batch:
            payload = data if type(data) is bytes else channel.payload(data)
            try:
                channel.post(payload)
            except (QuotaExceeded, MessageTooLong):
                await channel.post_later(payload, Extras(), deadline)

    def create_security_context(self, qos: SecurityQos) -> SecurityContext:
        """Make a context that says what the other side may do with our identity for the messages it goes with.

        Args:
            qos: the level that counts for these messages instead of the one that `connect` was given.

        Returns:
            The context, to be given as ``security=``; `SecurityContext.revoke` takes it back.

        Raises:
            Disconnected: the connection is over.
            PortClosed: the port was closed on this side.
            ForkedPort: called from another process, thread or event loop.
        """
        self._channel.check_usable()
        self._contexts += 1
        return SecurityContext(self._channel, self._contexts, qos)

    # -- shared memory and reserves ----------------------------------------------------------------------------------

    async def allocate(
        self,
        size: int,
        *,
        mode: Literal["live", "sealed", "shared"] = "live",
        timeout: float | Default | None = DEFAULT,
    ) -> View:
        """Return shared memory to fill and to send with ``view=``, without any copy. Waits for room when it is used up.

        The memory is zero or whatever this port had sent in it before. It belongs to the port; give it back with
        ``with view:``, with ``release()``, or by forgetting it. It goes back for good when no message that lent it is
        still held by the other side either.

        Cancelling leaves nothing behind.

        Args:
            size: bytes.
            mode: who may still write once it is sent. ``"live"``: this side only, at any time, so a receiver that does
                not trust it works on a copy. ``"sealed"``: nobody; it can be sent once, and a receiver uses it in place
                whoever sent it. ``"shared"``: both sides, so a reply can be written into it.
            timeout: time to wait for room, in seconds; ``None`` for no end; by default ``limits.request_timeout``.

        Returns:
            The view, writable.

        Raises:
            DeadlineExceeded: there was no room in time.
            MessageTooLong: views may not be that long (``limits.max_view_size``), or are off.
            OutOfSharedMemory: the system has no room.
            ValueError: the size is not positive, or the mode is unknown.
            Disconnected: the connection is over.
            PortClosed: the port was closed on this side.
            ForkedPort: called from another process, thread or event loop.
        """
        if size < 1:
            raise ValueError(f"a view holds at least one byte, not {size}")
        try:
            kind = SectionKind[mode.upper()]
        except (KeyError, AttributeError):
            raise ValueError(f"mode must be 'live', 'sealed' or 'shared', not {mode!r}") from None
        channel = self._channel
        channel.check_usable()
        await self._loop.checkpoint()
        return await channel.allocate_view(size, kind, self._deadline(timeout))

    def allocated(self, view: View) -> bool:
        """Return whether a view was allocated on this connection and was not released, so that it can travel here.

        Args:
            view: any view.
        """
        return isinstance(view, PortView) and self._channel.allocated(view)

    def reserve(self, size: int) -> Reserve:
        """Keep room for one message, so that sending it later cannot fail for want of room.

        Args:
            size: longest data of the message, in bytes; at most ``limits.max_message_length``.

        Returns:
            The reserve, to be used once or closed.

        Raises:
            QuotaExceeded: there is no room to be kept now.
            MessageTooLong: no message may be that long.
            Disconnected: the connection is over.
            PortClosed: the port was closed on this side.
            ForkedPort: called from another process, thread or event loop.
        """
        self._channel.check_usable()
        return Reserve(self._channel, size)
