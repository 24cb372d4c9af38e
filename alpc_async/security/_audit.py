"""One record for every refusal, without letting whoever is refused fill the log.

Belongs here: `AuditRecord` and the trail that passes records on. Never here: deciding what is refused.

A healthy system records nothing. Records of one user are limited to a burst and then one per second; those that were
held back are counted in the next. All users who cannot be identified share one such budget, and so do all beyond the
first thousand, so that neither the log nor the bookkeeping grows with the number of attackers.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ._buckets import BucketTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._access import Access
    from ._identity import Identity

__all__ = ["AuditRecord", "AuditTrail"]

BURST: Final = 10
"""Records of one user that are passed on at once: enough to see a pattern."""

PER_SECOND: Final = 1.0
"""Records of one user per second afterwards: a day of flood is one file that can still be read."""

_logger = logging.getLogger("alpc_async.audit")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One refusal.

    Attributes:
        port: what the port calls itself.
        what: what was refused, such as ``"connect"`` or ``"impersonate"``.
        right: the right in question, or ``None`` where a quota or the protocol decided.
        rule: the entry, policy or setting that decided.
        reason: the whole of it in one sentence.
        uid: the user whom it was refused to, or ``None`` for one that cannot be identified.
        who: the facts from the kernel, or ``None`` where the user was turned away before they were asked for.
        enforced: ``False`` when it was allowed after all, because the access list only reports.
        suppressed: records about this user that were held back since the last one.
    """

    port: str
    what: str
    right: Access | None
    rule: str
    reason: str
    uid: int | None
    who: Identity | None
    enforced: bool = True
    suppressed: int = 0


class AuditTrail:
    """Where the records of one port go: to its hook, and to the logger ``alpc_async.audit`` as warnings.

    Args:
        port: what the port calls itself.
        hook: called with each record; must not block. What it raises is logged and goes no further.
        clock: returns the time, in seconds.
    """

    def __init__(self, port: str, hook: Callable[[AuditRecord], None] | None, clock: Callable[[], float]) -> None:
        self._port = port
        self._hook = hook
        self._clock = clock
        self._budgets = BucketTable(rate=PER_SECOND, burst=BURST)
        self.refusals = 0
        """Refusals so far, those that were held back included."""

    def note(
        self, who: Identity, what: str, *, rule: str, reason: str, right: Access | None = None, enforced: bool = True
    ) -> None:
        """Record a refusal.

        Args:
            who: whom it was refused to.
            what: what was refused.
            rule: what decided.
            reason: the whole of it in one sentence.
            right: the right in question.
            enforced: whether it was refused indeed.
        """
        self._note(who, who.uid if who.identified else None, what, rule, reason, right, enforced)

    def note_user(self, uid: int | None, what: str, *, rule: str, reason: str) -> None:
        """Record a refusal to a user of whom nothing else was asked.

        Args:
            uid: the user, or ``None`` for one that cannot be identified.
            what: what was refused.
            rule: what decided.
            reason: the whole of it in one sentence.
        """
        self._note(None, uid, what, rule, reason, None, True)

    def _note(
        self, who: Identity | None, uid: int | None, what: str, rule: str, reason: str, right: Access | None,
        enforced: bool,
    ) -> None:  # fmt: skip
        self.refusals += 1
        bucket = self._budgets.of(uid)
        if not bucket.take(self._clock()):
            bucket.turned_away += 1
            return
        suppressed, bucket.turned_away = bucket.turned_away, 0
        record = AuditRecord(
            port=self._port, what=what, right=right, rule=rule, reason=reason, uid=uid, who=who, enforced=enforced,
            suppressed=suppressed,
        )  # fmt: skip
        _logger.warning(
            "%s %s %s: %s%s", self._port, "refused" if enforced else "would refuse", what, reason,
            f" ({suppressed} more about this user)" if suppressed else "", extra={"alpc": record},
        )  # fmt: skip
        if self._hook is not None:
            try:
                self._hook(record)
            except Exception:
                _logger.exception("the audit hook of %s failed", self._port)
