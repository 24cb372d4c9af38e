"""Token buckets by user: so much at once, so much per second.

Belongs here: counting. Never here: clocks, and what is counted.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Bucket", "BucketTable"]

MAX_USERS: Final = 1024
"""Users that have a bucket of their own at once. A user may have thousands of subordinate uids (``/etc/subuid``), and
must not make us remember each of them."""


class Bucket:
    """What one user may still do.

    Args:
        rate: tokens that come back per second.
        burst: tokens that it holds.

    Attributes:
        turned_away: for its user to count with.
    """

    __slots__ = ("_burst", "_rate", "_time", "_tokens", "turned_away")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._time: float | None = None
        self.turned_away = 0

    def take(self, now: float) -> bool:
        """Take one token, if there is one.

        Args:
            now: the time in seconds; a clock that stands or goes back gives nothing.
        """
        self._refill(now)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _refill(self, now: float) -> None:
        if self._time is not None and now > self._time:
            self._tokens = min(self._burst, self._tokens + (now - self._time) * self._rate)
        self._time = now if self._time is None else max(self._time, now)

    @property
    def last(self) -> float:
        """When a token was last asked for, in seconds."""
        return self._time or 0.0

    def full(self, now: float) -> bool:
        """Return whether nothing is missing, so that a new bucket would do as well.

        Args:
            now: the time in seconds.
        """
        self._refill(now)
        return self._tokens >= self._burst and not self.turned_away


class BucketTable:
    """One bucket for each user.

    Args:
        rate: tokens that come back per second.
        burst: tokens that a bucket holds.
    """

    def __init__(self, *, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[int, Bucket] = {}
        self._shared = Bucket(rate, burst)

    def of(self, uid: int | None) -> Bucket:
        """Return the bucket of a user.

        Args:
            uid: the user, or ``None`` for one that cannot be identified: those share one bucket.
        """
        if uid is None:
            return self._shared
        bucket = self._buckets.get(uid)
        if bucket is None:
            if len(self._buckets) >= MAX_USERS:
                self._forget_idle()
            if len(self._buckets) >= MAX_USERS:
                return self._shared
            bucket = self._buckets[uid] = Bucket(self._rate, self._burst)
        return bucket

    def _forget_idle(self) -> None:
        now = max((bucket.last for bucket in self._buckets.values()), default=0.0)
        self._buckets = {uid: bucket for uid, bucket in self._buckets.items() if not bucket.full(now)}
