"""A link over a connected stream socket.

Belongs here: receiving, sending, partial writes, water marks and the one terminal state of a socket. Never here: what
the bytes mean.

Receiving: the descriptor is registered once. Each time it is readable one receive call fills the loop's buffer; the
call is never repeated until it fails, because the failing call costs more than coming back through the loop, and
coming back keeps one busy connection from holding up the others. Reading never pauses: what a peer may send is bounded
by the credit that the protocol gave it, so replies are never stuck behind requests that nobody takes.

Sending: everything that was queued during a turn of the loop leaves in one call. What the kernel does not take waits
for writability. When a write fails the output is dropped, what the peer had sent before is still received, and then
the link ends.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import TYPE_CHECKING, Final, TypeAlias

from ..handles import Handle, close_all, dispose
from ..wire import Carrier
from ._ancillary import (
    CONTROL_SIZE,
    RECEIVE_FLAGS,
    TRUNCATED,
    allow_rights,
    bytes_waiting,
    control_messages,
    refuse_rights,
    report_senders,
    rights,
)
from ._sender import SendingLink

if TYPE_CHECKING:
    from ._ancillary import Ancillary, ControlMessages
    from ._link import LinkOwner
    from ._loop import Loop

__all__ = ["SocketLink", "StreamSocket", "socket_pair"]

StreamSocket: TypeAlias = socket.socket
"""A connected or listening socket, for layers that may hold one without calling it."""

SEND_GROUP: Final = 256 * 1024
"""Bytes of frames joined for one send call: more than the kernel's default socket buffer of 208 KiB takes at once."""

SHORT_RECEIVE: Final = 16 * 1024
"""Bytes that a receive asks for when the one before brought fewer; they come as an object of their own.

Taking many short payloads out of bytes is quicker than out of a view of the loop's buffer, where most of what is long
would be copied twice.
"""

_GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN})
"""Errors of a send that mean the connection, whatever was sent."""

FINAL_RECEIVES: Final = 64
"""Receive calls made for a peer that is dead or unreachable: 16 MiB, far more than a socket holds; somebody else who
still holds the peer's socket must not keep the link alive for ever."""


class SocketLink(SendingLink):
    """A link over a connected, non-blocking stream socket, which it owns from now on.

    Args:
        sock: the socket.
        loop: the running loop.
        high_water: unsent bytes above which the link is clogged.
        low_water: unsent bytes at which it is free again.
        senders: ask the kernel who sent the bytes, and tell the owner when that changes.
    """

    def __init__(
        self, sock: socket.socket, loop: Loop, *, high_water: int, low_water: int, senders: bool = False
    ) -> None:
        super().__init__(loop, high_water=high_water, low_water=low_water)
        self._socket = sock
        if senders:
            report_senders(sock)
        self._buffer = loop.receive_buffer
        self._buffers = (loop.receive_buffer,)
        # Nothing can come beside the bytes: receiving them alone costs less.
        self._plain = not senders
        # What came beside the bytes last time; nearly always the same comes again.
        self._usual: Ancillary = []
        self._short = SHORT_RECEIVE
        self._last = 0
        """Bytes of the last receive: after few, the next one most likely brings few as well."""
        # A group is out of the owner's hands, so it must not hold more than the marks allow to be unsent.
        self._group_limit = min(SEND_GROUP, high_water)
        self._broken: OSError | None = None
        self._ready = False
        """Whether there is an owner, nothing waits for room, and no send has failed."""

    def start(self, owner: LinkOwner, /) -> None:
        self._owner = owner
        self._ready = True
        self._loop.add_reader(self._socket.fileno(), self._receive)

    def pause(self, paused: bool) -> None:
        """Receive nothing for a while, so that the other side has to wait, or go on.

        Args:
            paused: ``False`` goes on.
        """
        if self._owner is None:
            return
        if paused:
            self._loop.remove_reader(self._socket.fileno())
        else:
            self._loop.add_reader(self._socket.fileno(), self._receive)

    def receive_at_most(self, size: int) -> None:
        """Take no more than so many bytes with one receive, so that one of them never takes long to handle.

        Args:
            size: most bytes; 0 for as many as the loop's buffer holds.
        """
        whole = self._loop.receive_buffer
        self._buffer = whole[:size] if size else whole
        self._buffers = (self._buffer,)
        self._short = min(SHORT_RECEIVE, len(self._buffer))

    def fileno(self) -> int:
        return self._socket.fileno()

    def _receive(self) -> None:
        owner = self._owner
        if owner is None:
            return
        if self._plain:
            self._receive_plain(owner)
            return
        data: bytes | memoryview
        try:
            if self._last < self._short:
                data, ancillary, flags, _ = self._socket.recvmsg(self._short, CONTROL_SIZE, RECEIVE_FLAGS)
                count = len(data)
            else:
                count, ancillary, flags, _ = self._socket.recvmsg_into(self._buffers, CONTROL_SIZE, RECEIVE_FLAGS)
                data = self._buffer[:count]
        except OSError as error:
            self._receive_failed(error)
            return
        if not count:
            self._end(None)
            return
        self._last = count
        self._receives += 1
        self._bytes_received += count
        if (ancillary != self._usual or flags != RECEIVE_FLAGS) and not self._take_ancillary(ancillary, flags):
            return
        owner.data_received(data)

    def _receive_plain(self, owner: LinkOwner) -> None:
        data: bytes | memoryview
        try:
            if self._last < self._short:
                data = self._socket.recv(self._short)
                count = len(data)
            else:
                count = self._socket.recv_into(self._buffer)
                data = self._buffer[:count]
        except OSError as error:
            self._receive_failed(error)
            return
        if not count:
            self._end(None)
            return
        self._last = count
        self._receives += 1
        self._bytes_received += count
        owner.data_received(data)

    def _receive_failed(self, error: OSError) -> None:
        if isinstance(error, BlockingIOError | InterruptedError):
            return
        # An AF_UNIX peer that closes with unread input resets the connection; to us it has simply closed.
        self._end(None if isinstance(error, ConnectionResetError) else error)

    def _take_ancillary(self, ancillary: Ancillary, flags: int) -> bool:
        """Hand over what came beside the bytes; ``False`` when the owner wants no bytes any more."""
        found = control_messages(ancillary)
        self._note_sender(found)
        handles = found.handles
        owner = self._owner
        if owner is None:
            dispose(handles)
            return False
        if handles or flags & TRUNCATED:
            owner.handles_received(handles, bool(flags & TRUNCATED))
        return True

    def _note_sender(self, found: ControlMessages) -> None:
        if found.process is not None:
            # Nobody here asked for it; a socket that was passed on may have been told to bring it.
            found.process.close()
        if found.sender is not None and found.sender_entry != self._usual:
            self._usual = found.sender_entry
            if self._owner is not None:
                self._owner.sender_changed(*found.sender)

    def allow_handles(self) -> None:
        self._plain = False
        allow_rights(self._socket)

    def receive_rest(self) -> None:
        for _ in range(FINAL_RECEIVES):
            received = self._bytes_received
            self._receive()
            if self._owner is None or self._bytes_received == received:
                break
        if self._owner is not None:
            self._end(self._broken)

    def send_now(self) -> None:
        self.prompt = False
        owner = self._owner
        if owner is None or not self._ready:
            return
        group = owner.data_to_send(self._group_limit)
        if type(group) is bytes and not owner.unsent_output():
            if group:
                self.send_frame(group)
            return
        self._group, self._group_sent = group, 0
        self._send()

    def send_frame(self, frame: bytes, /) -> bool:
        self.prompt = False
        if not self._ready:
            return False
        try:
            sent = self._socket.send(frame)
        except OSError:
            # The usual way sees the same again, and knows what to do.
            sent = 0
        else:
            self._sends += 1
            self._bytes_sent += sent
        if sent < len(frame):
            self._group, self._group_sent = frame, sent
            self._send()
        return True

    def _send(self) -> None:
        owner = self._owner
        if owner is None or self._broken is not None:
            return
        while True:
            if self._group_sent == len(self._group):
                self._group = owner.data_to_send(self._group_limit)
                self._group_sent = 0
                if not self._group:
                    break
            group = self._group
            try:
                if type(group) is not bytes:
                    sent = self._send_carrier(group)
                elif self._group_sent:
                    sent = self._socket.send(memoryview(group)[self._group_sent :])
                else:
                    sent = self._socket.send(group)
            except (BlockingIOError, InterruptedError):
                self._wait_for_writability(True)
                self._check_drained()
                return
            except OSError as error:
                self._break(error)
                return
            self._sends += 1
            self._bytes_sent += sent
            self._group_sent += sent
            if sent == len(group) < self._group_limit and not owner.unsent_output():
                # The owner gave everything it had; asking again would only cost the call.
                break
        if self._waits_for_room:
            self._wait_for_writability(False)
            owner.link_flushed()
        if self._clogged:
            self._check_drained()

    def _send_carrier(self, carrier: bytes) -> int:
        # Not sent yet: once a byte of it has left, `_group` is plain bytes.
        handles = carrier.handles if isinstance(carrier, Carrier) else ()
        try:
            sent = self._socket.sendmsg((carrier,), rights(handles))
        except (BlockingIOError, InterruptedError):
            raise
        except OSError as error:
            if error.errno in _GONE or not isinstance(carrier, Carrier):
                raise
            # Too many are on their way, the other side takes none, or one of them is no descriptor any more. The
            # frame has to arrive all the same, and says that they were lost.
            self._group = carrier.without_handles(error.errno or errno.EIO)
            close_all(handles)
            return self._socket.send(self._group)
        self._group = bytes(carrier)
        close_all(handles)
        return sent

    def _wait_for_writability(self, wait: bool) -> None:
        if wait == self._waits_for_room:
            return
        self._waits_for_room = wait
        self._ready = not wait and self._broken is None
        if wait:
            self._loop.add_writer(self._socket.fileno(), self._send)
        else:
            self._loop.remove_writer(self._socket.fileno())

    def _break(self, error: OSError) -> None:
        # The failing send may have been asked for in the middle of a decision of the owner: end in a turn of its own.
        if self._broken is None:
            # Without its traceback, which would keep alive whatever the callers of the failing send were letting go.
            self._broken = error.with_traceback(None)
            self._ready = False
            self._wait_for_writability(False)
            self._loop.call_soon(self.receive_rest)

    def _end(self, error: OSError | None) -> None:
        owner = self._owner
        if owner is not None:
            self.close()
            owner.link_ended(error)

    def hand_over(self) -> Handle:
        """End the link and give its socket up, without a word to the other side.

        Returns:
            The descriptor, which belongs to the caller.
        """
        self._owner = None
        self._ready = False
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        return Handle(self._socket.detach())

    def close(self) -> None:
        self._owner = None
        self._ready = False
        fd = self._socket.fileno()
        if fd >= 0:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
            self._waits_for_room = False
            self._close_socket()
        self._drop_carrier()

    def _close_socket(self) -> None:
        # Descriptors that nobody has received are closed with the socket, in the thread that closes it, and that may
        # take as long as their sender likes (see `dispose`). Once it is shut nothing more can arrive.
        if not self._plain and not self._loop.forked:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            if bytes_waiting(self._socket):
                dispose([Handle(self._socket.detach())])
                return
        self._socket.close()


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets for two links: non-blocking and close-on-exec.

    Raises:
        OSError: no descriptors are left.
    """
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    left, right = socket.socketpair(socket.AF_UNIX, kind)
    refuse_rights(left)
    refuse_rights(right)
    return left, right
