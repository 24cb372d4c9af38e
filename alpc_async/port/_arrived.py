"""A received message as the layers see it: with the connection that it came through.

Belongs here: `Arrived`, what a `Message` does, and `arrived`, which leads from one to the other. Never here: what a
user may know of a message and is told about it (`_message`), messages that came with more than data (`_rich`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ReplyMismatch
from ..handles import close_all
from ..wire import Status
from ._impersonation import Impersonation
from ._message import Message, MessageType, as_bytes
from ._ways import check_way

if TYPE_CHECKING:
    from collections.abc import (
        Callable,  # msgspec reads annotations only to find class variables
        Sequence,
    )

    from typing_extensions import Buffer

    from ..handles import Handle
    from ..memory import View
    from ..security import Identity  # likewise
    from ..wire import SecurityRecord
    from ._channel import Channel  # likewise
    from ._communication import CommunicationPort
    from ._ways import Way

__all__ = ["Arrived", "arrived"]

_REQUEST = MessageType.REQUEST


class Arrived(Message, eq=False, kw_only=True):
    """A received message.

    Attributes:
        channel: the connection that it came through.
        own_context: the context that was assigned to it, or that of the request that it answers.
        on_cancel: called when the sender gives it up.
        origin: who sent it, where that is not who made the connection.
    """

    channel: Channel
    own_context: object = None
    on_cancel: Callable[[], None] | None = None
    origin: Identity | None = None

    @property
    def key(self) -> object:
        return self.channel.source.key

    @property
    def port(self) -> CommunicationPort:
        return self.channel.port

    @property
    def sender(self) -> Identity:
        return self.origin if self.origin is not None else self.channel.shown

    @property
    def context(self) -> Any:
        return self.own_context if self.own_context is not None else self.channel.port.context

    @context.setter
    def context(self, context: object) -> None:
        self.own_context = context

    # -- the queue -----------------------------------------------------------------------------------------------------

    @property
    def charge(self) -> int:
        """Bytes that the message takes of the quota."""
        return len(self.data)

    @property
    def effort(self) -> int:
        """Bytes that it makes this side handle, however they travelled."""
        return len(self.data)

    @property
    def counted(self) -> bool:
        """Whether the sender hears that the message is taken."""
        return self.type is MessageType.DATAGRAM

    def note_taken(self) -> None:
        """Tell the sender that the message is taken."""

    def let_go(self) -> None:
        """Give back what came with the message, because nobody will see it or all of it was seen."""

    def cancel(self) -> None:
        """Note that the sender gave the request up."""
        self.cancelled = True
        if self.on_cancel is not None:
            self.on_cancel()

    # -- what came with it ---------------------------------------------------------------------------------------------

    @property
    def permission(self) -> SecurityRecord | None:
        """What the sender said about this message alone."""
        return None

    def take_given_view(self) -> View | None:
        """Take the view out of the message that was sent beside its data."""
        return None

    # -- answers -------------------------------------------------------------------------------------------------------

    @property
    def unanswered(self) -> bool:
        """Whether this is a request whose sender still waits for the answer."""
        return self.type is _REQUEST and not (self.answered or self.cancelled) and self.channel.ending is None

    def reply(self, data: Buffer = b"", *, view: View | None = None, handles: Sequence[Handle] = ()) -> None:
        if view is not None or handles:
            self._reply_with(data, view, handles)
            return
        if self.answered or self.type is not _REQUEST:
            raise self._mismatch()
        self.channel.reply(self, data if type(data) is bytes else self.channel.payload(data))

    def reply_by(
        self, transfer: Way, data: Buffer, *, view: View | None = None, handles: Sequence[Handle] = ()
    ) -> None:
        """Answer the request in a way that its sender asked for; arguments and errors like `Message.reply`.

        Args:
            transfer: how the data travels: ``"auto"``, ``"inline"`` or ``"view"``, as for
                `CommunicationPort.start_request`.
            data: the payload.
            view: see `Message.reply`.
            handles: see `Message.reply`.

        Raises:
            MessageTooLong: the payload is too long for that way, or shared memory is off.
            ValueError: ``transfer`` is none of the three.
        """
        self._reply_with(data, view, handles, transfer)

    def _reply_with(self, data: Buffer, view: View | None, handles: Sequence[Handle], way: Way = "auto") -> None:
        extras = self.channel.extras(view=view, handles=handles)
        try:
            check_way(way)
            extras.way = way
            if self.answered or self.type is not _REQUEST:
                raise self._mismatch()
            self.channel.reply_extended(self, self.channel.payload(data), extras)
        except BaseException:
            close_all(extras.handles)
            raise

    def fail(self, status: int, reason: str) -> None:
        if self.answered or self.type is not _REQUEST:
            raise self._mismatch()
        if not 0 < status < 2**32:
            raise ValueError(f"a status is a number from 1 to {2**32 - 1}, not {status!r}")
        self.channel.fail(self, status, reason)

    def impersonate(self) -> Impersonation:
        return Impersonation(self)

    def release(self) -> None:
        if self.answered or self.channel.ending is not None:
            return
        if self.type is _REQUEST and not self.cancelled:
            self.channel.fail(self, Status.ABANDONED, "the receiver released the request without an answer")
        elif self.type is MessageType.CONNECTION_REQUEST:
            self.refuse(status=Status.ABANDONED)

    def accept(self, context: object = None, data: Buffer = b"", *, complete: bool = True) -> CommunicationPort:
        if self.answered or self.type is not MessageType.CONNECTION_REQUEST:
            raise self._mismatch()
        self.channel.accept(as_bytes(data), context, complete=complete)
        self.answered = True
        return self.channel.port

    def refuse(self, data: Buffer = b"", *, status: int = Status.REFUSED) -> None:
        if self.answered or self.type is not MessageType.CONNECTION_REQUEST:
            raise self._mismatch()
        self.channel.refuse(status, as_bytes(data))
        self.answered = True

    def _mismatch(self) -> ReplyMismatch:
        if self.answered and self.type in {_REQUEST, MessageType.CONNECTION_REQUEST}:
            reason = "it has been answered already"
        else:
            reason = (
                f"it is a {self.type.name} message, which is not waiting for this; look at message.type first, and "
                "reply to MessageType.REQUEST only"
            )
        return ReplyMismatch(port=self.channel.label, message_id=self.id, reason=reason)

    def __repr__(self) -> str:
        return f"<Message {self.type.value} {self.id} of {self.channel.label}, {self.size} bytes>"


def arrived(message: Message) -> Arrived:
    """Return a message as the layers see it.

    Args:
        message: a message that a port received.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(message, Arrived):
        raise TypeError(f"expected a message that a port received, not {type(message).__name__}")
    return message
