"""How much the handlers of a pool compute, in processor time: the rest of their time they wait.

Belongs here: `ThreadMeter` and `ProcessMeter`. Never here: what follows from it (`_sizing`).
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..link import processor_time_of_process, processor_time_of_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Computed", "ProcessMeter", "ThreadMeter"]

_Target = TypeVar("_Target")
_Result = TypeVar("_Result")


class Computed(NamedTuple):
    """Processor time since the last look.

    Attributes:
        handlers: that of the handlers, in seconds.
        others: that of everything else in this process, its event loop above all, in seconds.
    """

    handlers: float
    others: float


class ThreadMeter:
    """Counts the processor time of handlers that run in threads of this process, which others use in between."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[int, float] = {}
        self._seconds = 0.0
        self._process = time.process_time()

    def call(self, handler: Callable[[_Target], _Result], target: _Target) -> _Result:
        """Call a handler in this thread and count what it computes.

        Args:
            handler: the handler.
            target: what it gets.

        Returns:
            What it returns.
        """
        thread = threading.get_native_id()
        self._since[thread] = time.thread_time()
        try:
            return handler(target)
        finally:
            with self._lock:
                self._seconds += time.thread_time() - self._since.pop(thread)

    def take(self) -> Computed:
        """Return what was computed since the last call, also by handlers that still run."""
        with self._lock:
            seconds, self._seconds = self._seconds, 0.0
            for thread, since in list(self._since.items()):
                now = processor_time_of_thread(thread)
                if now is not None:
                    seconds += now - since
                    self._since[thread] = now
        before, self._process = self._process, time.process_time()
        return Computed(seconds, max(0.0, self._process - before - seconds))


class ProcessMeter:
    """Counts the processor time of child processes that do nothing but run handlers."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}
        self._process = time.process_time()

    def take(self, processes: Iterable[int]) -> Computed:
        """Return what these processes computed since the last call; a new one has computed nothing yet.

        Args:
            processes: their ids.
        """
        times = {process: processor_time_of_process(process) for process in processes}
        seen, self._seen = self._seen, {process: now for process, now in times.items() if now is not None}
        seconds = sum(now - seen.get(process, now) for process, now in self._seen.items())
        before, self._process = self._process, time.process_time()
        return Computed(seconds, self._process - before)
