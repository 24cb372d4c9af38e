"""Policies judge identities: the truth tables and the sentences.

Belongs here: decisions on given facts. Never here: sockets and processes (test_identity).
"""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alpc_async.security import ANYONE, SAME_USER_OR_ROOT, Identity, Policy, require

OWN = 1000


@pytest.fixture
def own_user(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make our effective user 1000, whoever runs the tests."""
    monkeypatch.setattr(os, "geteuid", lambda: OWN)
    return OWN


def identity(uid: int, *, gid: int = 7, pid: int = 42, overflow_uid: int | None = None) -> Identity:
    """Make up an identity with two supplementary groups."""
    return Identity(uid=uid, gid=gid, groups=(8, 9), pid=pid, overflow_uid=overflow_uid)


@pytest.mark.usefixtures("own_user")
@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (identity(OWN), None),
        (identity(0), None),
        (identity(1001), "uid 1001 is neither our own user (1000) nor root"),
        (identity(65_534), "uid 65534 is neither our own user (1000) nor root"),
        (identity(OWN, pid=0), "outside our process namespace"),
        (identity(0, pid=0), "outside our process namespace"),
        (identity(OWN, overflow_uid=OWN), "outside our user namespace"),
        (identity(65_534, overflow_uid=65_534), "outside our user namespace"),
        (Identity(uid=0, gid=65_534, pid=42, overflow_gid=65_534), "outside our user namespace"),
    ],
)
def test_the_default_policy_allows_our_user_and_root_only(who: Identity, reason: str | None) -> None:
    """Our own user and root pass when they are identified; everybody else is refused with a reason."""
    verdict = SAME_USER_OR_ROOT.judge(who)
    if reason is None:
        assert verdict is None
    else:
        assert verdict is not None
        assert reason in verdict


def test_the_default_policy_follows_a_change_of_our_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The own user is the one at the time of the judgement, not of the import."""
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    assert SAME_USER_OR_ROOT.judge(identity(1001)) is None
    assert SAME_USER_OR_ROOT.judge(identity(OWN)) is not None


@pytest.mark.parametrize("who", [identity(0), identity(54_321), identity(65_534, pid=0, overflow_uid=65_534)])
def test_anyone_is_anyone(who: Identity) -> None:
    """The explicit policy allows also whoever cannot be identified."""
    assert ANYONE.judge(who) is None


numbers = st.integers(0, 4)
wanted = st.none() | numbers
labels = st.sampled_from(["system", "user"])


@given(
    uid=wanted,
    gid=wanted,
    group=wanted,
    label=st.none() | labels,
    who=st.builds(
        Identity,
        uid=numbers,
        gid=numbers,
        groups=st.frozensets(numbers).map(tuple),
        pid=st.integers(0, 1),
        label=st.none() | labels,
        overflow_uid=wanted,
        overflow_gid=wanted,
    ),
)
@example(uid=None, gid=3, group=None, label=None, who=Identity(uid=1, gid=3, pid=1, overflow_gid=3))
def test_require_allows_exactly_those_with_every_given_fact(
    uid: int | None, gid: int | None, group: int | None, label: str | None, who: Identity
) -> None:
    """All given facts must hold, facts not given do not matter, and a stand-in for unmapped ids never matches."""
    if (uid, gid, group, label) == (None, None, None, None):
        with pytest.raises(ValueError, match="at least one"):
            require(uid=uid, gid=gid, group=group, label=label)
        return
    users = {who.uid} - {who.overflow_uid}
    groups = {who.gid, *who.groups} - {who.overflow_gid}
    expected = (
        (uid is None or uid in users)
        and (gid is None or (gid == who.gid and gid in groups))
        and (group is None or group in groups)
        and (label is None or label == who.label)
    )
    verdict = require(uid=uid, gid=gid, group=group, label=label).judge(who)
    assert (verdict is None) == expected
    assert verdict is None or "required" in verdict


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (require(uid=5), "uid 5 is required, but this is uid 6 gid 7 (pid 42)"),
        (require(gid=8), "gid 8 is required, but this is uid 6 gid 7 (pid 42)"),
        (require(group=10), "group 10 is required, but uid 6 gid 7 (pid 42) is not in it"),
        (require(label="x"), "label 'x' is required, but uid 6 gid 7 (pid 42) has None"),
    ],
)
def test_a_refusal_names_the_missing_fact(policy: Policy, reason: str) -> None:
    """The reason says which fact was required and who came instead."""
    assert policy.judge(identity(6)) == reason


def test_names_are_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user and a group may be named; the policy holds the numbers of the time when it was made."""
    user, group = pwd.getpwuid(0), grp.getgrgid(0)
    policy = require(uid=user.pw_name, group=group.gr_name)
    monkeypatch.delattr(pwd, "getpwnam")
    monkeypatch.delattr(grp, "getgrnam")
    assert policy == require(uid=0, group=0)
    assert policy.judge(Identity(uid=0, gid=0, pid=1)) is None
    assert str(policy) == f"uid 0 ({user.pw_name}) and group 0 ({group.gr_name})"


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"uid": "no-such-user-here"}, "no user is named 'no-such-user-here'"),
        ({"group": "no-such-group-here"}, "no group is named 'no-such-group-here'"),
        ({"uid": -1}, "uid -1 is out of range"),
        ({"uid": 2**32 - 1}, "uid 4294967295 is out of range"),
        ({"gid": 2**32}, "gid 4294967296 is out of range"),
        ({"group": -5}, "group -5 is out of range"),
        ({"label": ""}, "empty label"),
        ({}, "at least one"),
    ],
)
def test_impossible_requirements_are_refused_at_once(facts: dict[str, Any], message: str) -> None:
    """A requirement that nobody could meet, or that is empty, is an error where it is written."""
    with pytest.raises(ValueError, match=message):
        require(**facts)


@pytest.mark.usefixtures("own_user")
@pytest.mark.parametrize(
    ("policy", "others"),
    [
        (SAME_USER_OR_ROOT, False),
        (ANYONE, True),
        (require(uid=0), False),
        (require(uid=OWN, group=5), False),
        (require(uid=1001), True),
        (require(group=0), True),
        (require(gid=0), True),
        (require(label="x"), True),
    ],
)
def test_the_socket_is_opened_to_others_only_where_the_policy_could_allow_them(policy: Policy, *, others: bool) -> None:
    """A policy tells whether any user but ours and root could pass."""
    assert policy.admits_others is others


@pytest.mark.parametrize(
    ("policy", "words", "code"),
    [
        (SAME_USER_OR_ROOT, "the same user or root", "SAME_USER_OR_ROOT"),
        (ANYONE, "anyone", "ANYONE"),
        (require(uid=0, group=27), "uid 0 and group 27", "require(uid=0, group=27)"),
        (require(gid=2, label="x"), "gid 2 and label 'x'", "require(gid=2, label='x')"),
    ],
)
def test_policies_say_what_they_require(policy: Policy, words: str, code: str) -> None:
    """The text of a policy completes an error message, its repr is the code that makes it."""
    assert (str(policy), repr(policy)) == (words, code)


def test_policies_are_values() -> None:
    """Policies with the same facts are equal and hash alike, and cannot be changed."""
    assert len({require(uid=1), require(uid=1), require(uid=2), require(group=1), ANYONE, SAME_USER_OR_ROOT}) == 5
    policy = require(uid=1)
    for fact in ("uid", "gid", "group", "label"):
        with pytest.raises(FrozenInstanceError):
            setattr(policy, fact, 0)
    assert policy == require(uid=1)
