"""A port as a stream of anyio: of objects, or of bytes.

Belongs here: `PortObjectStream`, `PortByteStream`. Never here: what a port can do beyond that.

Each datagram is one object, or a piece of the bytes. The end of one direction is a request, so whoever ends it knows
when the other side has seen everything before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.abc import ByteStream, ObjectStream

from ..errors import Disconnected
from ._message import MessageType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._communication import CommunicationPort
    from ._pending import PendingRequest

__all__ = ["PortByteStream", "PortObjectStream"]

_END: Final = b"end of stream"
PIECE: Final = 64 * 1024
"""Most bytes in one datagram of a byte stream: what a port takes by default."""


class _Half:
    """What both kinds of stream share: sending with an end, receiving up to it."""

    def __init__(self, port: CommunicationPort) -> None:
        self._port = port
        self._ending: PendingRequest | None = None
        self._ended = False
        self._sending = False
        self._receiving = False

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The facts about the port, for ``extra()``."""
        return self._port.extra_attributes

    async def _send(self, pieces: list[bytes]) -> None:
        if self._sending:
            raise anyio.BusyResourceError("sending to")
        if self._ending is not None:
            raise anyio.ClosedResourceError("the sending direction was ended with send_eof()")
        self._sending = True
        try:
            await self._port.post_batch(pieces, timeout=None)
        finally:
            self._sending = False

    async def _receive(self) -> bytes:
        if self._receiving:
            raise anyio.BusyResourceError("receiving from")
        self._receiving = True
        try:
            while True:
                if self._ended:
                    await anyio.lowlevel.checkpoint()
                    self._port.check_open()
                    raise anyio.EndOfStream
                try:
                    message = await self._port.receive()
                except Disconnected:
                    self._ended = True
                    continue
                if message.type is MessageType.DATAGRAM:
                    return bytes(message.data)
                if message.type is MessageType.REQUEST:
                    message.reply()
                    self._ended = True
                elif message.type is MessageType.CLIENT_DIED:
                    raise anyio.BrokenResourceError(f"the process at the other end of {self._port!r} has ended")
                elif message.type is MessageType.PORT_CLOSED:
                    self._ended = True
        finally:
            self._receiving = False

    async def send_eof(self) -> None:
        """Tell the other side that nothing more will be sent; receiving goes on. May be repeated.

        Raises:
            anyio.BusyResourceError: another task is sending.
            Disconnected: the connection is over.
            PortClosed: the stream was closed on this side.
        """
        if self._sending:
            raise anyio.BusyResourceError("sending to")
        if self._ending is None:
            self._ending = self._port.start_request(_END, timeout=None)
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close the port. Always completes, also when cancelled; may be repeated."""
        await self._port.aclose()


class PortObjectStream(_Half, ObjectStream[bytes]):
    """A port as a stream of byte strings; made by `CommunicationPort.object_stream`.

    Args:
        port: the port, which belongs to the stream from now on.
    """

    async def send(self, item: bytes) -> None:
        """Send one object; wait while the quota is used up. It is sent wholly or, when cancelled, not at all.

        Args:
            item: at most ``limits.max_message_length`` bytes, or more where the port sends views.

        Raises:
            anyio.BusyResourceError: another task is sending.
            Disconnected: the connection is over.
            PortClosed: the stream was closed on this side.
        """
        await self._send([item])

    async def receive(self) -> bytes:
        """Return the next object; wait if there is none. Cancelling loses nothing.

        Raises:
            anyio.EndOfStream: the other side has ended its direction, or closed the stream.
            anyio.BrokenResourceError: the process at the other end has ended.
            anyio.BusyResourceError: another task is receiving.
            PortClosed: the stream was closed on this side.
        """
        return await self._receive()


class PortByteStream(_Half, ByteStream):
    """A port as a stream of bytes; made by `CommunicationPort.byte_stream`.

    Args:
        port: the port, which belongs to the stream from now on.
    """

    def __init__(self, port: CommunicationPort) -> None:
        super().__init__(port)
        self._rest = b""

    async def send(self, item: bytes) -> None:
        """Send bytes; wait while the quota is used up. When cancelled a part of them may have been sent.

        Args:
            item: any number of bytes.

        Raises:
            anyio.BusyResourceError: another task is sending.
            Disconnected: the connection is over.
            PortClosed: the stream was closed on this side.
        """
        view = memoryview(item)
        await self._send([bytes(view[at : at + PIECE]) for at in range(0, len(view), PIECE)])

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return bytes, at least one; wait if there are none. Cancelling loses nothing.

        Args:
            max_bytes: most bytes to return.

        Raises:
            anyio.EndOfStream: the other side has ended its direction, or closed the stream.
            anyio.BrokenResourceError: the process at the other end has ended.
            anyio.BusyResourceError: another task is receiving.
            PortClosed: the stream was closed on this side.
            ValueError: ``max_bytes`` is not positive.
            TypeError: ``max_bytes`` is not a whole number.
        """
        if not isinstance(max_bytes, int):
            raise TypeError(f"max_bytes must be a whole number, not {max_bytes!r}")
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        if self._rest:
            await anyio.lowlevel.checkpoint()
        else:
            self._rest = await self._receive()
        taken, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return taken
