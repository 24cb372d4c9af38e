"""Accepting connections on a listening socket.

Belongs here: draining the backlog fairly, and living through a shortage of descriptors or memory. Never here: names
(`_names`), how many connections a port takes, or who may connect (port and security).

When the process or the machine is out of descriptors, the connection stays in the backlog and the socket stays
readable, so watching it on would spin. The listener looks away for a moment instead, longer each time.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ._inheritance import AcceptTurn
    from ._loop import Loop, TimerHandle

__all__ = ["Listener", "ListenerStatistics", "turn_away"]

ACCEPTS_PER_TURN: Final = 4
"""Connections accepted before other descriptors get their turn.

Taking one over, with the questions to the kernel about its peer, took up to 280 µs, so a flood of connections delays
those that are there by little more than a millisecond at a time.
"""

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 1.0
"""Seconds without accepting after a shortage: the first pause, doubled while the shortage lasts, up to the longest."""

_LOST: Final = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EINTR})
"""Errors of one connection, which is gone; the next may be fine."""

_logger = logging.getLogger("alpc_async.link")


class ListenerStatistics(msgspec.Struct, frozen=True):
    """What a listener has done so far.

    Attributes:
        accepted: connections handed over.
        paused: pauses made because descriptors or memory ran out.
        aborted: connections lost before or while they were handed over.
    """

    accepted: int
    paused: int
    aborted: int


class Listener:
    """Accepts connections from now on until `stop`.

    Args:
        loop: the running loop.
        sock: a listening, non-blocking socket; from now on it belongs to this listener.
        accepted: called with each connection, a non-blocking and close-on-exec socket, which then belongs to the
            callee. When it raises, the connection is closed, the error logged, and the listener goes on.
        max_per_turn: connections accepted before the loop goes on to other things.
        turn: tells when to leave a connection to other processes that accept on the same socket.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        accepted: Callable[[socket.socket], None],
        *,
        max_per_turn: int = ACCEPTS_PER_TURN,
        turn: AcceptTurn | None = None,
    ) -> None:
        self._turn = turn
        self._patient = False
        self._loop = loop
        self._socket = sock
        self._callback = accepted
        self._max_per_turn = max_per_turn
        self._fd = sock.fileno()
        self._pid = os.getpid()
        self._stopped = False
        self._timer: TimerHandle | None = None
        self._pause = FIRST_PAUSE
        self._accepted = 0
        self._paused = 0
        self._aborted = 0
        loop.add_reader(self._fd, self._drain)

    def statistics(self) -> ListenerStatistics:
        """Return what the listener has done so far."""
        return ListenerStatistics(self._accepted, self._paused, self._aborted)

    def stop(self) -> None:
        """Stop accepting and close the socket. Stopping again does nothing.

        Connections that were not accepted yet are reset by the kernel.
        """
        if self._stopped:
            return
        self._stopped = True
        # A forked child shares the parent's epoll instance: to stop watching there would stop the parent's watch.
        if os.getpid() == self._pid:
            self._loop.remove_reader(self._fd)
            if self._timer is not None:
                self._timer.cancel()
        self._socket.close()

    def _drain(self) -> None:
        for _ in range(self._max_per_turn):
            if self._stopped or self._timer is not None:
                return
            if self._turn is not None and self._left_to_others(self._turn):
                return
            try:
                connection, _address = self._socket.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in _LOST:
                    self._look_away(error)
                    return
                self._aborted += 1
            else:
                self._hand_over(connection)
        self._pause = FIRST_PAUSE

    def _left_to_others(self, turn: AcceptTurn) -> bool:
        # Once only: what nobody else has taken by then is ours.
        pause = 0.0 if self._patient else turn.pause()
        self._patient = bool(pause)
        if pause:
            self._loop.remove_reader(self._fd)
            self._timer = self._loop.call_at(self._loop.time() + pause, self._look_again)
        return self._patient

    def _hand_over(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            self._callback(connection)
        except OSError as error:
            # The last descriptor may have gone into the connection itself, with none left for what belongs to it.
            connection.close()
            self._aborted += 1
            self._look_away(error)
        except Exception:
            connection.close()
            self._aborted += 1
            _logger.exception("a new connection was closed because taking it over failed")
        else:
            self._accepted += 1

    def _look_away(self, error: OSError) -> None:
        # An error that is not known to be a shortage is treated as one: trying again at once would spin.
        if self._pause == FIRST_PAUSE:
            _logger.warning("cannot accept connections: %s; trying again until it works", error.strerror)
        self._paused += 1
        self._loop.remove_reader(self._fd)
        self._timer = self._loop.call_at(self._loop.time() + self._pause, self._look_again)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _look_again(self) -> None:
        self._timer = None
        if not self._stopped:
            self._loop.add_reader(self._fd, self._drain)


def turn_away(sock: socket.socket, last_words: bytes) -> None:
    """Say a few bytes on a new connection and close it, without anything that could wait or grow.

    Args:
        sock: the connection, non-blocking; closed afterwards.
        last_words: what to say; a new socket has room for it, and a peer that is gone is not missed.
    """
    with sock, contextlib.suppress(OSError):
        sock.send(last_words)
