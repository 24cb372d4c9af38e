"""Seeing that the process of a client has ended.

Belongs here: `DeathWatch`. Never here: what is done about it.

A process that ends closes its sockets first and becomes "ended" for its pidfd a moment later, so the end of the
connection alone does not tell whether the process closed it or died. And the socket of a dead process can stay open in
another one that inherited it, so the connection may not end at all. Both are settled by the pidfd, which the kernel
pinned when the connection was made; without one (before Linux 6.5) a death is reported as a closed port.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link import Loop, TimerHandle
    from ..security import Identity

__all__ = ["DEATH_GRACE", "DeathWatch"]

DEATH_GRACE: Final = 0.1
"""Seconds that a process which closed its socket is given to be seen as ended.

The kernel does both within the same exit, normally well below a millisecond apart; the rest is slack for a machine
under load. Only the report waits, never a caller.
"""


class DeathWatch:
    """Watches the process behind one connection.

    Args:
        loop: the running loop.
        peer: the process; nothing is watched when the kernel did not pin it.
        died: called once when the process ends.
    """

    def __init__(self, loop: Loop, peer: Identity, died: Callable[[], None]) -> None:
        self._loop = loop
        self._peer = peer
        self._timer: TimerHandle | None = None
        self._fd = -1
        if peer.pinned is not None and not peer.pinned.closed:
            self._fd = peer.pinned.fileno()
            loop.add_reader(self._fd, died)

    def decide(self, report: Callable[[bool], None]) -> None:
        """Find out whether the process died, now that its connection has ended; `stop` follows by itself.

        Args:
            report: called with the answer, at once or within `DEATH_GRACE` seconds.
        """
        ended = self._peer.process_ended()
        if self._fd < 0 or ended is None or ended:
            self.stop()
            report(bool(ended))
            return

        def answer() -> None:
            ended = self._peer.process_ended()
            self.stop()
            report(bool(ended))

        self._loop.remove_reader(self._fd)
        self._loop.add_reader(self._fd, answer)
        self._timer = self._loop.call_at(self._loop.time() + DEATH_GRACE, answer)

    def stop(self) -> None:
        """Stop watching and give the descriptor back. Stopping again does nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._fd = -1
        self._peer.close()
