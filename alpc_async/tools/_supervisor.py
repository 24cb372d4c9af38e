"""The supervisor of ``alpc serve``: processes behind shared sockets, restarted, replaced one by one, and drained.

Belongs here: `Supervisor`. Never here: names and sockets (`_serve` gives them), what a process does (`_serve_child`).

Everything happens in one thread that waits for three things: signals, the ends of processes (by pidfd), and the lines
on which processes say that they are ready.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from ..link import accept_table, clear_turn, inheritance
from ._serve_child import MODULE
from ._systemd import notify

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

__all__ = ["Plan", "Supervisor"]

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 10.0
"""Seconds before a process that ended by itself is started again: the first pause, doubled up to the longest."""

OLD_AGE: Final = 10.0
"""Age in seconds at which a process that ends counts as a first failure again."""

FAREWELL: Final = 2.0
"""Seconds beyond grace and linger after which a process that drains is killed."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    Attributes:
        target: the factory of the service, as ``"module:factory"``.
        backend: event loop of each process.
        processes: how many.
        grace: time for requests that were received to be answered, in seconds.
        linger: time for clients to leave after that, in seconds.
    """

    target: str
    backend: str
    processes: int
    grace: float
    linger: float


class _Member:
    """One process."""

    def __init__(
        self, plan: Plan, seat: int, slot: int, inherited: tuple[int, ...], environment: dict[str, str]
    ) -> None:
        self.seat = seat
        self.slot = slot
        self.ready = False
        self.leaving = False
        self.kill_at = float("inf")
        self.started = time.monotonic()
        ours, theirs = socket.socketpair()
        with theirs:
            self.control = ours
            ours.setblocking(False)
            arguments = (plan.target, plan.backend, str(theirs.fileno()), str(plan.grace), str(plan.linger))
            self.process = subprocess.Popen(
                [sys.executable, "-m", MODULE, *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *inherited),
                env={**os.environ, **environment},
                process_group=0,
            )
        self.pidfd = os.pidfd_open(self.process.pid)

    def leave(self, patience: float) -> None:
        """Tell it to drain and end."""
        if not self.leaving:
            self.leaving = True
            self.kill_at = time.monotonic() + patience
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Give its descriptors back."""
        self.control.close()
        os.close(self.pidfd)


class Supervisor:
    """Runs processes until it is told to stop.

    Args:
        plan: what to run.
        sockets: listening sockets by name; they stay the caller's.
    """

    def __init__(self, plan: Plan, sockets: dict[str, int]) -> None:
        self._plan = plan
        self._sockets = sockets
        # Twice as many: while a process is replaced, the old and the new one are both there.
        self._table = accept_table(2 * plan.processes)
        self._members: list[_Member] = []
        self._pauses = [0.0] * plan.processes
        self._due: dict[int, float] = dict.fromkeys(range(plan.processes), 0.0)
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._rolling: list[int] = []
        self._announced = False
        self._failed = False

    def run(self) -> int:
        """Run until SIGTERM or SIGINT.

        Returns:
            Exit status: 0, or 1 when the service could not be started at all.
        """
        with self._signals() as pipe:
            try:
                self._selector.register(pipe, selectors.EVENT_READ, None)
                while not (self._stopping and not self._members):
                    self._start_due()
                    self._wait(pipe)
                    self._kill_overdue()
            finally:
                self._end_all()
        return int(self._failed)

    @contextmanager
    def _signals(self) -> Generator[int]:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

        def ignore(_number: int, _frame: FrameType | None) -> None:
            """The byte in the pipe is what counts."""

        before = {number: signal.signal(number, ignore) for number in wanted}
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)

    # -- starting ------------------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        now = time.monotonic()
        for seat, due in list(self._due.items()):
            if due <= now and not self._stopping:
                del self._due[seat]
                self._start(seat)

    def _start(self, seat: int) -> None:
        taken = {member.slot for member in self._members}
        slots = 2 * self._plan.processes
        slot = next(slot for slot in range(slots + 1) if slot not in taken)
        environment = inheritance(self._sockets, self._table, slot % slots, slots)
        inherited = (self._table.fileno(), *self._sockets.values())
        member = _Member(self._plan, seat, slot, inherited, environment)
        self._members.append(member)
        self._selector.register(member.control, selectors.EVENT_READ, member)
        self._selector.register(member.pidfd, selectors.EVENT_READ, member)

    # -- what happens --------------------------------------------------------------------------------------------------

    def _wait(self, pipe: int) -> None:
        times = [*self._due.values(), *(member.kill_at for member in self._members if member.leaving)]
        timeout = max(0.0, min(times) - time.monotonic()) if times else None

        for key, _ in self._selector.select(timeout):
            if key.fd == pipe:
                for number in os.read(pipe, 64):
                    self._signalled(number)
            elif isinstance(key.data, _Member) and key.data in self._members:
                if key.fd == key.data.pidfd:
                    self._ended(key.data)
                else:
                    self._heard(key.data)

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP:
            if not self._stopping and not self._rolling:
                notify("RELOADING=1", "STATUS=replacing the processes one by one")
                self._rolling = list(range(self._plan.processes))
                self._replace_next()
        elif not self._stopping:
            self._stop()

    def _stop(self) -> None:
        notify("STOPPING=1", "STATUS=draining")
        self._stopping = True
        self._due.clear()
        for member in self._members:
            self._dismiss(member)

    def _dismiss(self, member: _Member) -> None:
        member.leave(self._plan.grace + self._plan.linger + FAREWELL)

    def _heard(self, member: _Member) -> None:
        try:
            heard = member.control.recv(64)
        except OSError:
            heard = b""
        if not heard:
            self._selector.unregister(member.control)
            return
        member.ready = True
        self._pauses[member.seat] = 0.0
        # What held the seat before may go now that somebody else accepts.
        for other in self._members:
            if other is not member and other.seat == member.seat:
                self._dismiss(other)
        if member.seat in self._rolling[:1]:
            self._rolling.pop(0)
            self._replace_next()
        self._announce()

    def _announce(self) -> None:
        ready = {member.seat for member in self._members if member.ready and not member.leaving}
        if len(ready) == self._plan.processes and not self._rolling and not self._stopping:
            notify("READY=1", f"STATUS=serving with {self._plan.processes} processes")
            if not self._announced:
                self._announced = True
                print(f"alpc serve: {', '.join(self._sockets)} ready", file=sys.stderr, flush=True)

    def _replace_next(self) -> None:
        if self._rolling and self._rolling[0] not in self._due:
            self._start(self._rolling[0])

    def _ended(self, member: _Member) -> None:
        status = member.process.wait()
        self._members.remove(member)
        for watched in (member.control, member.pidfd):
            if watched in self._selector.get_map():
                self._selector.unregister(watched)
        member.close()
        clear_turn(self._table, member.slot % (2 * self._plan.processes))
        if member.leaving or self._stopping:
            return
        print(f"alpc serve: process {member.process.pid} ended with status {status}", file=sys.stderr, flush=True)
        if not self._announced and not any(other.ready for other in self._members):
            # It never worked: that is a mistake, and trying again would only hide it.
            self._failed = True
            self._stop()
            return
        replaced = any(other.seat == member.seat and not other.leaving for other in self._members)
        if replaced and member.seat not in self._rolling[:1]:
            return
        old = time.monotonic() - member.started > OLD_AGE
        pause = FIRST_PAUSE if old else min(max(FIRST_PAUSE, 2 * self._pauses[member.seat]), LONGEST_PAUSE)
        self._pauses[member.seat] = pause
        self._due[member.seat] = time.monotonic() + pause

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for member in self._members:
            if member.kill_at <= now:
                member.kill_at = float("inf")
                print(f"alpc serve: process {member.process.pid} does not end; killing it", file=sys.stderr)
                member.process.kill()

    def _end_all(self) -> None:
        for member in self._members:
            member.process.kill()
            member.process.wait()
            member.close()
        self._members.clear()
        self._selector.close()
        self._table.close()
