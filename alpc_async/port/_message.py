"""What a port receives.

Belongs here: `Completion`, `Message` and their types. Never here: how they are queued or sent.

A message is itself the completion that a completion port hands out, so queueing one allocates nothing: a posted packet
is a `Completion` without a message, a message is one that has itself.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import ReplyMismatch
from ..handles import close_all
from ..memory_errors import UnsuitableHandle
from ..wire import Status
from ._impersonation import Impersonation
from ._ways import check_way

if TYPE_CHECKING:
    from collections.abc import (
        Callable,  # noqa: TC004  # msgspec reads annotations only to find class variables
        Sequence,
    )

    from typing_extensions import Buffer

    from ..handles import Handle
    from ..limits import PortLimits
    from ..memory import View
    from ..security import Identity  # noqa: TC004  # likewise
    from ..wire import SecurityRecord
    from ._channel import Channel  # noqa: TC004  # likewise
    from ._communication import CommunicationPort
    from ._direct import DirectAccess
    from ._ways import Way

__all__ = ["Completion", "Message", "MessageType", "Transfer", "as_bytes", "as_memory"]


class MessageType(enum.Enum):
    """What a message is. Only the first three can be sent; the framework makes the others."""

    REQUEST = "request"
    """Wants an answer: `Message.reply` or `Message.fail`."""
    REPLY = "reply"
    """The answer to a request of ours."""
    DATAGRAM = "datagram"
    """Wants no answer."""
    CONNECTION_REQUEST = "connection request"
    """A client wants to connect: `Message.accept` or `Message.refuse`. Only with ``accept="manual"``."""
    PORT_CLOSED = "port closed"
    """The connection is over; nothing follows from this port. ``data`` is the reason in words."""
    CLIENT_DIED = "client died"
    """The connection is over because the client's process ended; nothing follows from this port."""
    CANCELED = "canceled"
    """The owner gave up the request with this ``id``, which had been received; a reply would be dropped."""
    LOST_REPLY = "lost reply"
    """The reply to the request with this ``id`` was sent, but did not reach anybody who waited for it."""


class Transfer(enum.Enum):
    """How the data of a message travelled."""

    INLINE = "inline"
    """Copied through the connection."""
    VIEW = "view"
    """In a shared section."""
    DIRECT = "direct"
    """Read from the memory of the sender."""


_REQUEST = MessageType.REQUEST


class Completion(msgspec.Struct, eq=False):
    """One packet of a completion port: a received message, or a posted value.

    Attributes:
        key: completion key of the port that the message came from, or of the posted packet.
        message: the message, or ``None`` for a posted packet.
        value: the posted value, or ``None`` for a message.
        port: the port that the message came from, or ``None`` for a posted packet.
    """

    @property
    def key(self) -> object:
        raise NotImplementedError

    @property
    def message(self) -> Message | None:
        return None

    @property
    def value(self) -> Any:
        return None

    @property
    def port(self) -> CommunicationPort | None:
        return None


class Posted(Completion, eq=False):
    """A packet that was posted by hand."""

    posted_key: object
    posted_value: Any

    @property
    def key(self) -> object:
        return self.posted_key

    @property
    def value(self) -> Any:
        return self.posted_value


class Message(Completion, eq=False):
    """A received message. Usable as ``with message:``, which ends in `release`.

    Attributes:
        type: what it is.
        id: number of the message among those of its sender on this connection; a reply has the number of its request.
        data: the payload.
        deadline: when the sender stops waiting, on the clock of ``anyio.current_time``, in seconds; infinity for never.
        cancelled: whether the sender gave the request up, or is gone; a reply is dropped.
    """

    channel: Channel
    type: MessageType
    id: int
    data: bytes
    deadline: float = math.inf
    cancelled: bool = False
    answered: bool = False
    own_context: object = None
    on_cancel: Callable[[], None] | None = None
    origin: Identity | None = None

    @property
    def key(self) -> object:
        return self.channel.source.key

    @property
    def message(self) -> Message:
        return self

    @property
    def port(self) -> CommunicationPort:
        """The communication port that the message came through."""
        return self.channel.port

    @property
    def sender(self) -> Identity:
        """Who sent the message, as the kernel said.

        That is whoever made the connection: a message of anybody else ends it, unless the port was opened with
        ``qos=alpc.SecurityQos(tracking="dynamic")``. Then each message has its own sender.
        """
        return self.origin if self.origin is not None else self.channel.shown

    @property
    def sequence(self) -> int:
        """Position of the message among those of its sender on this connection, from 1, without gaps.

        Requests and datagrams count; the protocol checks that none is missing or repeated.
        """
        return self.id

    @property
    def transfer(self) -> Transfer:
        """How the data travelled."""
        return Transfer.INLINE

    @property
    def view(self) -> View | None:
        """The shared memory that came with the message, or ``None``; a lease that ends with `release`.

        Unless its section is sealed the sender can still change it: copy out what you decide on. Data that travelled
        as a view by itself can be read in place through this as well, when it is asked for before ``data``.
        """
        return None

    @property
    def direct(self) -> DirectAccess | None:
        """Memory of the sender that may be read or written while this request is open, or ``None``."""
        return None

    @property
    def handles(self) -> tuple[Handle, ...]:
        """The handles that came with the message. They belong to it and end with `release`; `take_handle` keeps one."""
        return ()

    def take_handle(self, index: int = 0) -> Handle:
        """Take one handle out of the message; it is the caller's to close from now on.

        Args:
            index: which one, from 0.

        Returns:
            The handle; the others stay with the message.

        Raises:
            UnsuitableHandle: there is no handle of that number.
            ValueError: it was taken or closed already.
        """
        raise UnsuitableHandle(kind="none", reason=f"message {self.id} came without handles, not with number {index}")

    def take_given_view(self) -> View | None:
        """Take the view out of the message that was sent beside its data; the framework calls this."""
        return None

    def take_port(
        self,
        index: int = 0,
        *,
        limits: PortLimits | None = None,  # noqa: ARG002  # for messages that have handles
    ) -> CommunicationPort:
        """Go on with a connection that came as one of the handles; see `CommunicationPort.hand_over`.

        What the other process said about the connection is believed; take ports only from a sender that you trust as
        much as the connection.

        Args:
            index: which handle, from 0.
            limits: what this process holds and waits for; what was agreed with the other end stays.

        Returns:
            The port, which is the caller's to close.

        Raises:
            UnsuitableHandle: there is no such handle, or it is no connection.
            ValueError: it was taken or closed already.
            OSError: the kernel does not say who is at the other end.
        """
        raise UnsuitableHandle(kind="none", reason=f"message {self.id} came without handles, not with number {index}")

    @property
    def size(self) -> int:
        """Length of ``data`` in bytes, told without copying data that travelled as a view."""
        return len(self.data)

    @property
    def charge(self) -> int:
        """Bytes that the message takes of the quota; the framework asks."""
        return len(self.data)

    @property
    def counted(self) -> bool:
        """Whether the sender hears that the message is taken; the framework asks."""
        return self.type is MessageType.DATAGRAM

    def note_taken(self) -> None:
        """Tell the sender that the message is taken; the framework calls this."""

    def let_go(self) -> None:
        """Give back what came with the message; the framework calls this when nobody will see it."""

    @property
    def context(self) -> Any:
        """A local cookie, which never travels.

        For a reply what was given to `CommunicationPort.request`; otherwise what was assigned here, else the
        ``context`` of the port.
        """
        return self.own_context if self.own_context is not None else self.channel.port.context

    @context.setter
    def context(self, context: object) -> None:
        self.own_context = context

    def reply(self, data: Buffer = b"", *, view: View | None = None, handles: Sequence[Handle] = ()) -> None:
        """Answer the request. Queued; what is queued in one turn of the loop leaves together, 32 messages at a time.

        When the sender has given the request up meanwhile, or the connection is over, the reply is dropped and counted:
        one client that goes away must not break a server in the middle of a batch. `cancelled` tells.

        Args:
            data: the payload, copied: up to ``limits.view_threshold`` bytes through the connection, up to
                ``limits.max_view_size`` through shared memory.
            view: shared memory that goes with it: one that was allocated on ``port``, or `view` of this very message,
                which then goes back to its owner with the reply and may not be used here any more.
            handles: descriptors that go with it; consumed, whether that works or not.

        Raises:
            ReplyMismatch: this is not a request, or it has been answered.
            MessageTooLong: the payload is longer than this port's own limit; the request still waits for its answer.
                When it is only longer than what the requester takes, the request fails with ``Status.REPLY_TOO_LONG``.
            HandleRefused: the requester takes no handles, or not so many; the request still waits for its answer.
            QuotaExceeded: there are too many sections for one more view; the request still waits for its answer.
            ForkedPort: called from another process, thread or event loop.
        """
        if view is not None or handles:
            self._reply_with(data, view, handles)
            return
        if self.answered or self.type is not _REQUEST:
            raise self._mismatch()
        self.channel.reply(self, data if type(data) is bytes else self.channel.payload(data))

    def reply_by(
        self, transfer: Way, data: Buffer, *, view: View | None = None, handles: Sequence[Handle] = ()
    ) -> None:
        """Answer the request in a way that its sender asked for; arguments and errors like `reply`.

        Args:
            transfer: how the data travels: ``"auto"``, ``"inline"`` or ``"view"``, as for
                `CommunicationPort.start_request`.
            data: the payload.
            view: see `reply`.
            handles: see `reply`.

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
        """Answer the request with a fault, which the caller sees as `RemoteFault`. Queued like `reply`.

        Args:
            status: a `Status`, or a number of the service's own (from 1000).
            reason: a sentence for the caller, cut to 4 KiB; never put a traceback here.

        Raises:
            ReplyMismatch: this is not a request, or it has been answered.
            ValueError: the status is not a number from 1 to 2³² - 1.
            ForkedPort: called from another process, thread or event loop.
        """
        if self.answered or self.type is not _REQUEST:
            raise self._mismatch()
        if not 0 < status < 2**32:
            raise ValueError(f"a status is a number from 1 to {2**32 - 1}, not {status!r}")
        self.channel.fail(self, status, reason)

    @property
    def unanswered(self) -> bool:
        """Whether this is a request whose sender still waits for the answer."""
        return self.type is _REQUEST and not (self.answered or self.cancelled) and self.channel.ending is None

    @property
    def permission(self) -> SecurityRecord | None:
        """What the sender said about this message alone; the framework reads this."""
        return None

    def impersonate(self) -> Impersonation:
        """Act as the sender of this request: ``async with message.impersonate() as caller: await caller.run(open, …)``.

        Functions run in a thread of their own that has the sender's user, groups and no capabilities. The sender must
        have allowed it with ``connect(qos=alpc.SecurityQos("impersonate"))`` or for this message, the port's access
        list must have IMPERSONATE for it, and this process needs the privilege, which root has. Everything is checked
        when the block is entered. Where the client can open what is needed and pass it on, prefer that.

        Returns:
            The block to enter.
        """
        return Impersonation(self)

    def release(self) -> None:
        """Give up what the message holds.

        A request that was not answered fails with ``Status.ABANDONED``, and a connection request that was not decided
        is refused with it. Does nothing the second time, for other types, and when the connection is over.
        """
        if self.answered or self.channel.ending is not None:
            return
        if self.type is _REQUEST and not self.cancelled:
            self.channel.fail(self, Status.ABANDONED, "the receiver released the request without an answer")
        elif self.type is MessageType.CONNECTION_REQUEST:
            self.refuse(status=Status.ABANDONED)

    def accept(self, context: object = None, data: Buffer = b"", *, complete: bool = True) -> CommunicationPort:
        """Let the client in.

        Args:
            context: the new port's ``context``: anything that shall come back with its messages.
            data: reply data, at most ``limits.max_connect_data`` bytes.
            complete: ``False`` leaves the client waiting until ``complete()`` is called on the returned port.

        Returns:
            The communication port of this client. When the client has gone away meanwhile it is disconnected already.

        Raises:
            ReplyMismatch: this is not a connection request, or it has been decided.
            MessageTooLong: the reply data is longer than this port's own limit.
            PortClosed: the connection port was closed on this side.
            ForkedPort: called from another process, thread or event loop.
        """
        if self.answered or self.type is not MessageType.CONNECTION_REQUEST:
            raise self._mismatch()
        self.channel.accept(as_bytes(data), context, complete=complete)
        self.answered = True
        return self.channel.port

    def refuse(self, data: Buffer = b"", *, status: int = Status.REFUSED) -> None:
        """Turn the client away; it sees `ConnectionRefused`. Does nothing when the client has gone away meanwhile.

        Args:
            data: reply data, at most ``limits.max_connect_data`` bytes.
            status: a `Status`, or a number of the service's own (from 1000).

        Raises:
            ReplyMismatch: this is not a connection request, or it has been decided.
            MessageTooLong: the reply data is longer than this port's own limit.
            PortClosed: the connection port was closed on this side.
            ForkedPort: called from another process, thread or event loop.
        """
        if self.answered or self.type is not MessageType.CONNECTION_REQUEST:
            raise self._mismatch()
        self.channel.refuse(status, as_bytes(data))
        self.answered = True

    def cancel(self) -> None:
        """Note that the sender gave the request up; the framework calls this."""
        self.cancelled = True
        if self.on_cancel is not None:
            self.on_cancel()

    def _mismatch(self) -> ReplyMismatch:
        if self.answered and self.type in {_REQUEST, MessageType.CONNECTION_REQUEST}:
            reason = "it has been answered already"
        else:
            reason = (
                f"it is a {self.type.name} message, which is not waiting for this; look at message.type first, and "
                "reply to MessageType.REQUEST only"
            )
        return ReplyMismatch(port=self.channel.label, message_id=self.id, reason=reason)

    def __enter__(self) -> Message:
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Message {self.type.value} {self.id} of {self.channel.label}, {self.size} bytes>"


def as_bytes(data: Buffer) -> bytes:
    """Return a copy of any buffer.

    Raises:
        TypeError: it is not a buffer; text has to be encoded first.
    """
    return data if isinstance(data, bytes) else as_memory(data).tobytes()


def as_memory(data: Buffer) -> memoryview:
    """Return any buffer as bytes in a row, copied only when they do not lie in a row.

    Raises:
        TypeError: it is not a buffer; text has to be encoded first.
    """
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"messages are bytes, not {type(data).__name__}; encode it first") from None
    if view.c_contiguous:
        return view.cast("B") if view.nbytes else memoryview(b"")
    return memoryview(view.tobytes())
