"""What a handler gets that does not run in the event loop: messages that can be answered from a thread.

Belongs here: `BlockingMessage`, and `Bridge`, which carries calls into the event loop. Never here: the threads.

The bridge collects calls of all threads and wakes the loop once for as many as have come until it turns.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from ..errors import MessageTooLong, ReplyMismatch
from ..handles import EventFlag
from ..port import arrived, as_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from ..handles import Handle
    from ..link import Loop
    from ..memory import View
    from ..port import DirectAccess, Message, MessageType, Transfer
    from ..security import Identity

__all__ = ["BlockingMessage", "Bridge"]

_logger = logging.getLogger("alpc_async.completion")


class Bridge:
    """Carries calls from threads into the event loop, in batches and in order.

    Args:
        loop: the running loop.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._flag = EventFlag()
        self._lock = threading.Lock()
        self._closed = False
        loop.add_reader(self._flag.fileno(), self.carry)

    def call(self, function: Callable[[], object]) -> None:
        """Have a function called in the event loop; from any thread, without waiting for it.

        Args:
            function: the function; dropped when the bridge was closed.
        """
        self._calls.append(function)
        with self._lock:
            self._flag.set(True)

    def carry(self) -> None:
        """Make the calls that have come; only in the event loop."""
        with self._lock:
            self._flag.set(False)
        calls = self._calls
        while calls:
            try:
                calls.popleft()()
            except Exception:
                _logger.exception("what a handler in a thread asked for failed")

    def close(self) -> None:
        """Make the calls that have come, and take no more. Closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        self.carry()
        self._loop.remove_reader(self._flag.fileno())
        with self._lock:
            self._flag.close()


class BlockingMessage:
    """A message in a handler that blocks: what can be read of a `Message` from its thread, and answers from there.

    What changes a connection, or lets a client in, belongs to the event loop and is not here.

    Args:
        message: the message.
        bridge: carries the answer.
        data: the payload, where it is not that of the message.
        sender: who sent it, likewise.
        key: completion key, likewise.
    """

    def __init__(
        self,
        message: Message,
        bridge: Bridge,
        *,
        data: bytes | None = None,
        sender: Identity | None = None,
        key: object = None,
    ) -> None:
        self._message = message
        self._channel = arrived(message).channel
        self._bridge = bridge
        self._answered = False
        self.data = message.data if data is None else data
        self.sender = message.sender if sender is None else sender
        self.key = message.key if sender is None else key

    @property
    def type(self) -> MessageType:
        """What it is."""
        return self._message.type

    @property
    def id(self) -> int:
        """Number of the message among those of its sender on this connection."""
        return self._message.id

    @property
    def sequence(self) -> int:
        """Position of the message among those of its sender on this connection, from 1, without gaps."""
        return self._message.sequence

    @property
    def size(self) -> int:
        """Length of ``data`` in bytes."""
        return len(self.data)

    @property
    def context(self) -> Any:
        """The local cookie of the message, else that of its port; see `Message.context`."""
        return self._message.context

    @property
    def transfer(self) -> Transfer:
        """How the data travelled."""
        return self._message.transfer

    @property
    def view(self) -> View | None:
        """The shared memory that came with the message, or ``None``; see `Message.view`."""
        return self._message.view

    @property
    def direct(self) -> DirectAccess | None:
        """Memory of the sender that may be read or written while this request is open, or ``None``."""
        return self._message.direct

    @property
    def handles(self) -> tuple[Handle, ...]:
        """The handles that came with the message; they end with `release`, so duplicate what you keep."""
        return self._message.handles

    @property
    def value(self) -> None:
        """Nothing; posted packets have one."""
        return

    @property
    def message(self) -> BlockingMessage:
        """Itself, so that handlers can tell messages from posted packets."""
        return self

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more; look at it from time to time in a long handler."""
        return self._message.cancelled

    @property
    def deadline(self) -> float:
        """When the sender stops waiting, on the clock of the event loop, in seconds; infinity for never."""
        return self._message.deadline

    @property
    def answered(self) -> bool:
        """Whether it was answered."""
        return self._answered or self._message.answered

    def reply(self, data: Buffer = b"") -> None:
        """Answer the request, from any thread. Dropped when nobody waits for it any more.

        Args:
            data: the payload; copied.

        Raises:
            ReplyMismatch: it is not a request, or this handler has answered it.
            MessageTooLong: the payload is longer than this port's own limit.
        """
        payload = as_bytes(data)
        message = self._message
        limit = message.port.limits.max_message_length
        if len(payload) > limit and len(payload) > self._channel.own_limits.max_message_length:
            raise MessageTooLong(port=self._channel.label, size=len(payload), limit=limit)
        self._answer(lambda: None if message.answered else message.reply(payload))

    def fail(self, status: int, reason: str) -> None:
        """Answer the request with a fault, from any thread.

        Args:
            status: a `Status`, or a number of the service's own (from 1000).
            reason: a sentence for the caller; never put a traceback here.

        Raises:
            ReplyMismatch: it is not a request, or this handler has answered it.
            ValueError: the status is not a number from 1 to 2³² - 1.
        """
        if not 0 < status < 2**32:
            raise ValueError(f"a status is a number from 1 to {2**32 - 1}, not {status!r}")
        message = self._message
        self._answer(lambda: None if message.answered else message.fail(status, reason))

    def release(self) -> None:
        """Give up what the message holds, from any thread."""
        self._bridge.call(self._message.release)

    def _answer(self, answer: Callable[[], object]) -> None:
        message = self._message
        if self._answered or message.type.value != "request":
            reason = "it has been answered already" if self._answered else f"it is a {message.type.name} message"
            raise ReplyMismatch(port=self._channel.label, message_id=message.id, reason=reason)
        self._answered = True
        self._bridge.call(answer)

    def __enter__(self) -> BlockingMessage:
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return repr(self._message)
