"""What a port receives.

Belongs here: `Completion`, `Message` and their types: what users see of them. Never here: how they are queued or sent,
and what the layers need to know of a message (`_arrived`).

A message is itself the completion that a completion port hands out, so queueing one allocates nothing: a posted packet
is a `Completion` without a message, a message is one that has itself.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Any

import msgspec

from ..memory_errors import UnsuitableHandle
from ..wire import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from ..handles import Handle
    from ..limits import PortLimits
    from ..memory import View
    from ..security import Identity
    from ._communication import CommunicationPort
    from ._direct import DirectAccess
    from ._impersonation import Impersonation

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
    """A received message. Usable as ``with message:``, which ends in `release`. Made by a port.

    Attributes:
        type: what it is.
        id: number of the message among those of its sender on this connection; a reply has the number of its request.
        data: the payload.
        deadline: when the sender stops waiting, on the clock of ``anyio.current_time``, in seconds; infinity for never.
        cancelled: whether the sender gave the request up, or is gone; a reply is dropped.
        answered: whether it was answered, or the client was let in or turned away; ``True`` for every reply.
    """

    type: MessageType
    id: int
    data: bytes
    deadline: float = math.inf
    cancelled: bool = False
    answered: bool = False

    @property
    def message(self) -> Message:
        return self

    @property
    def port(self) -> CommunicationPort:
        """The communication port that the message came through."""
        raise NotImplementedError

    @property
    def sender(self) -> Identity:
        """Who sent the message, as the kernel said.

        That is whoever made the connection: a message of anybody else ends it, unless the port was opened with
        ``qos=alpc.SecurityQos(tracking="dynamic")``. Then each message has its own sender.
        """
        raise NotImplementedError

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
    def context(self) -> Any:
        """A local cookie, which never travels.

        For a reply what was given to `CommunicationPort.request`; otherwise what was assigned here, else the
        ``context`` of the port.
        """
        raise NotImplementedError

    @context.setter
    def context(self, context: object) -> None:
        raise NotImplementedError

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
        raise NotImplementedError

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
        raise NotImplementedError

    def impersonate(self) -> Impersonation:
        """Act as the sender of this request: ``async with message.impersonate() as caller: await caller.run(open, …)``.

        Functions run in a thread of their own that has the sender's user, groups and no capabilities. The sender must
        have allowed it with ``connect(qos=alpc.SecurityQos("impersonate"))`` or for this message, the port's access
        list must have IMPERSONATE for it, and this process needs the privilege, which root has. Everything is checked
        when the block is entered. Where the client can open what is needed and pass it on, prefer that.

        Returns:
            The block to enter.
        """
        raise NotImplementedError

    def release(self) -> None:
        """Give up what the message holds.

        A request that was not answered fails with ``Status.ABANDONED``, and a connection request that was not decided
        is refused with it. Does nothing the second time, for other types, and when the connection is over.
        """
        raise NotImplementedError

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
        raise NotImplementedError

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
        raise NotImplementedError

    def __enter__(self) -> Message:
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()


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
