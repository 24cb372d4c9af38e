"""Interceptors for common purposes: log calls, measure them, repeat them.

Belongs here: interceptors that need nothing of the framework but its public protocol. Never here: that protocol
(`_interceptor`).
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec

from ..errors import ConnectionRefused, Disconnected, NameNotFound, RemoteFault
from ..wire import Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._interceptor import Intercepted

__all__ = ["CallLogger", "CallMeter", "CallNumbers", "Retry"]


class CallLogger:
    """Logs every call that it stands around: its method, how long it took, and how it ended.

    Works on both sides. A stream is logged when it has been opened.

    Args:
        logger: where to.
        level: for calls that end well; others are logged as warnings.
    """

    def __init__(self, logger: logging.Logger, level: int = logging.INFO) -> None:
        self._logger = logger
        self._level = level

    async def __call__(self, call: Intercepted, proceed: Callable[[], Awaitable[Any]], /) -> Any:
        """Log one call. Cancelling is logged and goes on."""
        began = time.perf_counter()
        try:
            result = await proceed()
        except BaseException as error:
            seconds = time.perf_counter() - began
            self._logger.warning(
                "%s.%s ended with %s after %.6f s", call.interface, call.method, type(error).__name__, seconds
            )
            raise
        self._logger.log(self._level, "%s.%s took %.6f s", call.interface, call.method, time.perf_counter() - began)
        return result


class CallNumbers(msgspec.Struct):
    """What a `CallMeter` knows about one method.

    Attributes:
        calls: calls that have ended.
        errors: those that ended with an error, cancelled ones included.
        seconds: how long all of them took together.
        longest: how long the longest took, in seconds.
    """

    calls: int = 0
    errors: int = 0
    seconds: float = 0.0
    longest: float = 0.0


class CallMeter:
    """Counts and times the calls that it stands around. Works on both sides.

    Attributes:
        numbers: by interface and method, such as ``"Digest.sha256"``.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, CallNumbers] = {}

    async def __call__(self, call: Intercepted, proceed: Callable[[], Awaitable[Any]], /) -> Any:
        """Measure one call. Cancelling counts as an error and goes on."""
        began = time.perf_counter()
        errors = 1
        try:
            result = await proceed()
            errors = 0
        finally:
            seconds = time.perf_counter() - began
            # The methods of a contract are known, so a peer cannot make this grow.
            found = self.numbers.setdefault(f"{call.interface}.{call.method}", CallNumbers())
            found.calls += 1
            found.errors += errors
            found.seconds += seconds
            found.longest = max(found.longest, seconds)
        return result


_TRANSIENT: Final = frozenset({Status.DRAINING, Status.ABANDONED})


class Retry:
    """Repeats idempotent calls of a client that were lost or turned away, with growing pauses. Others are left alone.

    Args:
        attempts: how often a call is made at most.
        pause: before the first repetition, in seconds; doubled each time, and shortened by up to a half at random, so
            that many clients do not come back at the same moment.
        longest: longest pause, in seconds.

    Raises:
        ValueError: ``attempts`` is not positive, or a pause is negative.
    """

    def __init__(self, attempts: int = 3, *, pause: float = 0.05, longest: float = 2.0) -> None:
        if attempts < 1 or pause < 0 or longest < 0:
            raise ValueError("attempts must be at least 1, and pauses not negative")
        self._attempts = attempts
        self._pause = pause
        self._longest = longest

    async def __call__(self, call: Intercepted, proceed: Callable[[], Awaitable[Any]], /) -> Any:
        """Make one call, up to so many times. Cancelling ends it at once."""
        pause = self._pause
        for _ in range(self._attempts - 1):
            try:
                return await proceed()
            except (Disconnected, NameNotFound, ConnectionRefused):
                if not call.idempotent:
                    raise
            except RemoteFault as fault:
                if not call.idempotent or fault.status not in _TRANSIENT:
                    raise
            await anyio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # spreads load, keeps no secret
            pause = min(2 * pause, self._longest)
        return await proceed()
