"""Refusals are recorded, and nobody can fill the log with them.

Belongs here: trails and token buckets on a clock of the test. Never here: ports (tests/port/test_admission).
"""

from __future__ import annotations

import logging
from dataclasses import FrozenInstanceError, dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpc_async.security import Access, AuditRecord, AuditTrail, BucketTable, Identity
from tests.security.processes import NOBODY

ALICE = Identity(uid=1001, gid=7, pid=42)
STRANGER = Identity(uid=NOBODY, gid=7, pid=0)


@dataclass
class Scene:
    """A trail whose time stands still until the test moves it."""

    now: float = 100.0
    records: list[AuditRecord] = field(default_factory=list)

    def trail(self) -> AuditTrail:
        """Return a new trail."""
        return AuditTrail("port 'x'", self.records.append, lambda: self.now)

    def refuse(self, trail: AuditTrail, who: Identity, times: int = 1) -> None:
        """Refuse something a number of times."""
        for _ in range(times):
            trail.note(who, "connect", rule="entry", reason="because", right=Access.CONNECT)


def test_a_record_says_who_what_and_which_rule(caplog: pytest.LogCaptureFixture) -> None:
    """The hook and the logger get the same frozen record."""
    scene = Scene()
    scene.refuse(scene.trail(), ALICE)
    (record,) = scene.records
    assert record == AuditRecord(
        port="port 'x'", what="connect", right=Access.CONNECT, rule="entry", reason="because", uid=1001, who=ALICE
    )
    (logged,) = caplog.records
    assert (logged.name, logged.levelno) == ("alpc_async.audit", logging.WARNING)
    assert logged.getMessage() == "port 'x' refused connect: because"
    assert vars(logged)["alpc"] is record
    with pytest.raises(FrozenInstanceError):
        setattr(record, "rule", "")  # noqa: B010  # the checkers know that this fails


def test_what_is_only_reported_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """A list that is tried out records what it would refuse, in other words."""
    scene = Scene()
    scene.trail().note(ALICE, "send", rule="no entry", reason="because", enforced=False)
    assert not scene.records[0].enforced
    assert caplog.messages == ["port 'x' would refuse send: because"]


def test_a_flood_is_cut_and_counted() -> None:
    """A user gets ten records, then one a second, each with the number of those that were held back."""
    scene = Scene()
    trail = scene.trail()
    scene.refuse(trail, ALICE, 1000)
    assert [record.suppressed for record in scene.records] == [0] * 10
    scene.now += 1.0
    scene.refuse(trail, ALICE, 5)
    assert [record.suppressed for record in scene.records[10:]] == [990]
    scene.now += 1.0
    scene.refuse(trail, ALICE)
    assert scene.records[-1].suppressed == 4
    assert trail.refusals == 1006


def test_a_flood_of_one_user_hides_nobody_else() -> None:
    """Each user has records of its own; those whom nobody can tell apart have them together."""
    scene = Scene()
    trail = scene.trail()
    scene.refuse(trail, ALICE, 100)
    scene.refuse(trail, STRANGER, 7)
    scene.refuse(trail, Identity(uid=5, gid=5, pid=0), 7)
    scene.refuse(trail, Identity(uid=1002, gid=7, pid=42))
    assert [record.uid for record in scene.records[10:]] == [None] * 10 + [1002]


def test_a_failing_hook_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What the hook raises is logged, and the refusal stands."""

    def fail(record: AuditRecord) -> None:
        raise ValueError("of a test")

    AuditTrail("port 'x'", fail, lambda: 0.0).note(ALICE, "connect", rule="entry", reason="because")
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert "of a test" in caplog.text


def test_many_users_take_no_more_memory_than_a_thousand() -> None:
    """Users beyond the first thousand share a bucket, until some of those have not been seen for long enough."""
    table = BucketTable(rate=1.0, burst=2.0)
    for uid in range(1024):
        table.of(uid).take(100.0)
    shared = table.of(None)
    assert table.of(1024) is table.of(2000) is shared
    table.of(5).take(200.0)
    newcomer = table.of(1024)
    assert newcomer is not shared
    assert table.of(1024) is newcomer


@given(st.integers(1, 5), st.integers(1, 5), st.lists(st.sampled_from([-1.0, 0.0, 0.25, 1.0, 10.0]), max_size=40))
def test_a_bucket_gives_no_more_than_its_rate(rate: int, burst: int, steps: list[float]) -> None:
    """In any span of time no more tokens are given than the burst and what came back in it; a clock may go back."""
    bucket = BucketTable(rate=float(rate), burst=float(burst)).of(1)
    now = latest = 0.0
    taken = int(bucket.take(now))
    for step in steps:
        now += step
        latest = max(latest, now)
        taken += bucket.take(now)
        assert taken <= burst + latest * rate
    assert bucket.take(latest + burst / rate + 1.0)
