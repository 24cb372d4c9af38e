"""Access lists: what they decide, against a reference that takes no short cuts, and how they are written down.

Belongs here: lists, their text and their files. Never here: ports that use them (tests/port/test_admission).
"""

from __future__ import annotations

import grp
import os
import pwd
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpc_async.errors import AccessDenied
from alpc_async.security import (
    ANYONE,
    SAME_USER_OR_ROOT,
    Access,
    Entry,
    Identity,
    Policy,
    SecurityDescriptor,
    SocketAccess,
    allow,
    assess,
    deny,
    require,
    socket_access,
)
from tests.security.processes import NOBODY, as_root

if TYPE_CHECKING:
    from pathlib import Path

OWN = 1000
ALICE = Identity(uid=1001, gid=7, groups=(8, 9), pid=42)


@pytest.fixture
def own_user(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make our effective user 1000, whoever runs the tests."""
    monkeypatch.setattr(os, "geteuid", lambda: OWN)
    return OWN


# ----------------------------------------------------------------------------------------------------------- evaluating

numbers = st.integers(0, 3)
labels = st.sampled_from(["system", "user"])
subjects = st.one_of(
    numbers.map("user:{}".format),
    numbers.map("group:{}".format),
    labels.map("label:{}".format),
    st.sampled_from(["same-user", "root", "everyone"]),
)
rights = st.integers(1, 255).map(Access)
entries = st.builds(allow, subjects, rights) | st.builds(deny, subjects, rights)
identities = st.builds(
    Identity,
    uid=numbers,
    gid=numbers,
    groups=st.frozensets(numbers).map(tuple),
    pid=st.integers(0, 1),
    label=st.none() | labels,
    overflow_uid=st.none() | numbers,
    overflow_gid=st.none() | numbers,
    changed=st.booleans(),
)


def reference(listed: list[Entry], who: Identity, right: Access) -> bool:
    """Decide as the documentation says: write down everything that the identity is, then look for the first match."""
    names = {"everyone"}
    if who.pid > 0 and who.uid != who.overflow_uid and who.gid != who.overflow_gid:
        names.add(f"user:{who.uid}")
        names |= {f"group:{group}" for group in {who.gid, *who.groups} if group != who.overflow_gid}
        names |= {f"label:{who.label}"} if who.label is not None else set()
        names |= {"same-user"} if who.uid == os.geteuid() else set()
        names |= {"root"} if who.uid == 0 else set()
    # Groups and label of a sender who took the connection over are unknown, which must not help it.
    hidden = {*(f"group:{group}" for group in range(4)), "label:system", "label:user"}
    unknown: set[str] = hidden if who.changed else set()
    verdicts = [
        entry.allowed
        for entry in listed
        if entry.rights & right
        and (str(entry.subject) in names or (not entry.allowed and str(entry.subject) in unknown))
    ]
    return bool(verdicts) and verdicts[0]


@given(st.lists(entries, max_size=6), identities, st.sampled_from(list(Access)))
def test_the_first_entry_that_matches_decides(listed: list[Entry], who: Identity, right: Access) -> None:
    """Every list decides on every right of everybody as the reference does."""
    descriptor = SecurityDescriptor(listed)
    decision = descriptor.explain(who, right)
    assert decision.allowed == reference(listed, who, right)
    assert (right in descriptor.granted(who)) == decision.allowed
    if decision.position is None:
        assert decision.rule == "no entry"
    else:
        assert decision.rule == str(listed[decision.position - 1])
    verdict = descriptor.judge(who)
    assert (verdict is None) == descriptor.explain(who, Access.CONNECT).allowed
    assert SecurityDescriptor(listed, enforce=False).judge(who) is None


@given(st.lists(entries, max_size=6), identities, rights)
def test_several_rights_are_given_together_or_not(listed: list[Entry], who: Identity, wanted: Access) -> None:
    """Asking about several rights at once is asking about each of them."""
    decision = SecurityDescriptor(listed).explain(who, wanted)
    assert decision.allowed == all(reference(listed, who, right) for right in Access if right in wanted)
    assert decision.right in wanted


@pytest.mark.parametrize(
    "who",
    [
        Identity(uid=0, gid=0, pid=0),
        Identity(uid=NOBODY, gid=7, pid=5, overflow_uid=NOBODY),
        Identity(uid=0, gid=NOBODY, pid=5, overflow_gid=NOBODY),
    ],
)
def test_whoever_cannot_be_identified_is_nobody_but_everyone(who: Identity) -> None:
    """Overflow numbers and pid 0 match no entry about a user, group, label or root, for and against them."""
    named = [f"user:{who.uid}", f"group:{who.gid}", "root", "same-user"]
    assert SecurityDescriptor([allow(subject) for subject in named]).granted(who) == Access(0)
    admitting = SecurityDescriptor([*(deny(subject) for subject in named), allow("everyone")])
    assert Access.CONNECT in admitting.granted(who)
    assert "cannot be identified" in SecurityDescriptor([]).explain(who).reason


def test_connecting_brings_sending_along_unless_it_is_denied_first() -> None:
    """Who may connect may send inline and in views; a denial in front of it makes a listener."""
    assert SecurityDescriptor([allow("user:1001", Access.CONNECT)]).granted(ALICE) == (
        Access.CONNECT | Access.SEND | Access.VIEWS
    )
    listening = SecurityDescriptor([deny("group:8", Access.SEND), allow("user:1001")])
    assert listening.granted(ALICE) == Access.CONNECT | Access.VIEWS
    assert allow("user:1001", Access.CONTROL).rights == Access.CONTROL


@pytest.mark.usefixtures("own_user")
@pytest.mark.parametrize(
    ("listed", "reason", "position"),
    [
        (
            [deny("group:3"), allow("user:1001", Access.SEND)],
            "no entry gives connect to uid 1001 gid 7 (pid 42)",
            None,
        ),
        (
            [deny("group:9"), allow("user:1001")],
            "entry 1 (deny group:9 all) denies connect to uid 1001 gid 7 (pid 42)",
            1,
        ),
        (
            [deny("group:3"), allow("user:1001")],
            "entry 2 (allow user:1001 connect,send,views) gives connect to uid 1001 gid 7 (pid 42)",
            2,
        ),
    ],
)
def test_an_explanation_names_the_entry_and_the_reason(listed: list[Entry], reason: str, position: int | None) -> None:
    """The decision says in one sentence which entry decided about whom."""
    decision = SecurityDescriptor(listed).explain(ALICE)
    assert (decision.reason, decision.position) == (reason, position)


def test_names_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users and groups may be named; the entry holds the number of the time when it was made."""
    user, group = pwd.getpwuid(0).pw_name, grp.getgrgid(0).gr_name
    listed = [allow(f"user:{user}"), deny(f"group:{group}")]
    monkeypatch.delattr(pwd, "getpwnam")
    assert listed == [allow("user:0"), deny("group:0")]
    assert listed[0].subject.given == user


def test_lists_are_values() -> None:
    """Equal lists are equal and hash alike, and cannot be changed."""
    one, same, other = (SecurityDescriptor([allow(subject)]) for subject in ("root", "root", "everyone"))
    assert one == same != other
    assert len({one, same, other, SecurityDescriptor([allow("root")], enforce=False)}) == 3
    with pytest.raises(AttributeError):
        setattr(one, "entries", ())  # noqa: B010  # the checkers know that this fails


@pytest.mark.parametrize(
    ("maker", "arguments", "error", "text"),
    [
        (allow, ("alice",), ValueError, "'alice' is no subject; write user:NAME"),
        (allow, ("root:0",), ValueError, "root takes no value"),
        (allow, ("user",), ValueError, "user needs a value"),
        (allow, ("user: 1",), ValueError, "empty or has spaces"),
        (allow, ("label:",), ValueError, "empty or has spaces"),
        (allow, ("user:no-such-user-here",), ValueError, "no user is named"),
        (allow, ("user:4294967295",), ValueError, "out of range"),
        (deny, ("group:99999999999",), ValueError, "no group is named"),
        (deny, ("everyone", Access(0)), ValueError, "at least one right"),
        (allow, ("everyone", 3), TypeError, "members of alpc.Access"),
        (SecurityDescriptor, (["allow everyone"],), TypeError, "consists of"),
        (SecurityDescriptor([]).explain, (ALICE, Access(0)), ValueError, "at least one right"),
    ],
)
def test_mistakes_are_found_where_they_are_made(maker: Any, arguments: tuple[Any, ...], error: Any, text: str) -> None:
    """An entry that means nothing is an error at once."""
    with pytest.raises(error, match=text):
        maker(*arguments)


# ----------------------------------------------------------------------------------------------------------------- text

LIST = """
# who prints
allow user:0 connect,send    # root
deny group:8; allow same-user all

allow everyone connect, send
"""


def test_a_list_is_read_from_text() -> None:
    """Lines, semicolons, comments and lists of rights mean the entries that they look like."""
    assert SecurityDescriptor.from_text(LIST).entries == (
        allow("user:0", Access.CONNECT | Access.SEND),
        deny("group:8"),
        allow("same-user", ~Access(0)),
        allow("everyone"),
    )
    assert SecurityDescriptor.from_text("") == SecurityDescriptor([])
    assert not SecurityDescriptor.from_text("allow root", enforce=False).enforce


@given(st.lists(entries, max_size=6))
def test_text_is_read_back_as_written(listed: list[Entry]) -> None:
    """Writing a list down and reading it gives the same list."""
    assert SecurityDescriptor.from_text("\n".join(map(str, listed))).entries == tuple(listed)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("permit root", "line 1: an entry begins with allow or deny, not with 'permit'"),
        ("\nallow", "line 2: allow needs a subject"),
        ("allow root fly", "line 1: 'fly' is no right; there are connect, send"),
        ("allow root ,", "line 1: '' is no right"),
        ("allow nobody-at-all", "line 1: 'nobody-at-all' is no subject"),
        ("#" * 70_000, "at most 65536 characters"),
        ("allow root\n" * 1025, "at most 1024 entries"),
    ],
)
def test_text_that_is_no_list(text: str, complaint: str) -> None:
    """The error says which line, and why."""
    with pytest.raises(ValueError, match=complaint):
        SecurityDescriptor.from_text(text)


@given(st.text(max_size=200) | st.text("alowdeny :,;#\nroteusgp01", max_size=60))
def test_any_text_is_a_list_or_a_value_error(text: str) -> None:
    """Nothing else comes out of the parser, whatever goes in."""
    try:
        entries = SecurityDescriptor.from_text(text).entries
    except ValueError:
        return
    assert SecurityDescriptor.from_text("\n".join(map(str, entries))).entries == entries


TOML = """
enforce = false
[[entry]]
allow = "user:0"
rights = ["connect", "impersonate"]
[[entry]]
deny = "group:8"
[ports.printer]
entry = [{ allow = "label:system_u:object_r:printer (enforce)" }]
"""


def test_a_list_is_read_from_toml(tmp_path: Path) -> None:
    """A file, or a table in it, is a list; a label may hold what text could not."""
    path = tmp_path / "access.toml"
    path.write_text(TOML.replace("[ports.printer]", "[other.printer]").split("[other")[0])
    assert SecurityDescriptor.from_toml(str(path)) == SecurityDescriptor(
        [allow("user:0", Access.CONNECT | Access.IMPERSONATE), deny("group:8")], enforce=False
    )
    path.write_text(TOML)
    assert SecurityDescriptor.from_toml(str(path), table="ports.printer") == SecurityDescriptor(
        [allow("label:system_u:object_r:printer (enforce)")]
    )


@pytest.mark.parametrize(
    ("text", "table", "complaint"),
    [
        ("entry = 3", "", r"Expected `array`, got `int` - at `\$.entry`"),
        ("enforce = 1", "", r"Expected `bool`, got `int` - at `\$.enforce`"),
        ("entries = []", "", "contains unknown field `entries`"),
        ("entry = [1]", "", r"at `\$.entry\[0\]`"),
        ("entry = [{rights = []}]", "", "entry 1: an entry has either allow or deny"),
        ("entry = [{allow = 'root', deny = 'root'}]", "", "entry 1: an entry has either allow or deny"),
        ("entry = [{allow = 'root', right = []}]", "", "unknown field `right`"),
        ("entry = [{allow = 'root', rights = 'send'}]", "", "Expected `array | null`, got `str`"),
        ("entry = [{allow = 'root', rights = []}]", "", "entry 1: an entry decides on at least one right"),
        ("entry = [{allow = 'root', rights = ['fly']}]", "", "entry 1: 'fly' is no right"),
        ("entry = [{allow = 'root'}, {deny = 'x'}]", "", "entry 2: 'x' is no subject"),
        ("entry = [", "", "access.toml: "),
        ("a.b = 1", "a.b", "Expected `object`, got `int`"),
        ("a.b = 1", "a.b.c", "Expected `object`, got `int`"),
        ("a.b = 1", "a.c", "there is no table 'a.c'"),
        ("#" * 70_000, "", "more than 65536 bytes"),
    ],
)
def test_files_that_are_no_list(text: str, table: str, complaint: str, tmp_path: Path) -> None:
    """The error names the file and the entry."""
    path = tmp_path / "access.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        SecurityDescriptor.from_toml(str(path), table=table)


def test_a_file_that_others_can_write_is_not_believed(tmp_path: Path) -> None:
    """A list that another user could change would let that user decide."""
    path = tmp_path / "access.toml"
    path.write_text("")
    path.chmod(0o664)
    with pytest.raises(AccessDenied, match="its mode 0664 lets others write it"):
        SecurityDescriptor.from_toml(str(path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AccessDenied, match="it is not a file"):
        SecurityDescriptor.from_toml(str(tmp_path / "pipe"))


@as_root
def test_a_file_of_another_user_is_not_believed(tmp_path: Path) -> None:
    """Its owner could change it at any time."""
    path = tmp_path / "access.toml"
    path.write_text("")
    os.chown(path, NOBODY, -1)
    with pytest.raises(AccessDenied, match=f"it belongs to uid {NOBODY}"):
        SecurityDescriptor.from_toml(str(path))


# --------------------------------------------------------------------------------------------- what the kernel enforces

closed, everybody = SocketAccess(0o600), SocketAccess(0o666)


def listed_on_it(users: set[int], groups: set[int] | None = None) -> SocketAccess:
    """Return the permissions of a file with an access list."""
    return SocketAccess(0o600, users=frozenset(users), groups=frozenset(groups or ()))


@pytest.mark.usefixtures("own_user")
@pytest.mark.parametrize(
    ("policy", "access"),
    [
        (SAME_USER_OR_ROOT, closed),
        (ANYONE, everybody),
        (require(uid=0), closed),
        (require(uid=1001), listed_on_it({1001})),
        (require(group=5), SocketAccess(0o660, 5)),
        (require(gid=5), SocketAccess(0o660, 5)),
        (require(uid=1001, group=5), SocketAccess(0o660, 5)),
        (require(label="x"), everybody),
        (SecurityDescriptor([]), closed),
        (SecurityDescriptor([allow("same-user"), allow("root"), allow(f"user:{OWN}"), allow("user:0")]), closed),
        (SecurityDescriptor([allow("user:1001", Access.SEND)]), closed),
        (SecurityDescriptor([deny("user:1001")]), closed),
        (SecurityDescriptor([allow("root"), allow("group:5"), allow("group:5", ~Access(0))]), SocketAccess(0o660, 5)),
        (SecurityDescriptor([deny("user:7"), allow("group:5")]), SocketAccess(0o660, 5)),
        (SecurityDescriptor([allow("group:5"), deny("everyone"), allow("user:1001")]), SocketAccess(0o660, 5)),
        (SecurityDescriptor([allow("group:5"), allow("group:6")]), listed_on_it(set(), {5, 6})),
        (SecurityDescriptor([allow("group:5"), allow("user:1001")]), listed_on_it({1001}, {5})),
        (SecurityDescriptor([allow("user:1001"), allow("root")]), listed_on_it({1001})),
        (SecurityDescriptor([allow("user:1001"), allow("label:x")]), everybody),
        (SecurityDescriptor([allow("user:1001")], enforce=False), everybody),
        (SecurityDescriptor([allow("label:x")]), everybody),
        (SecurityDescriptor([allow("everyone")]), everybody),
        (SecurityDescriptor([allow("root")], enforce=False), everybody),
        (SecurityDescriptor([allow("group:5")], enforce=False), everybody),
    ],
    ids=str,
)
def test_the_socket_is_as_closed_as_the_policy_lets_it_be(policy: Policy, access: SocketAccess) -> None:
    """The permissions of the socket file are the narrowest that keep nobody out whom the policy might admit."""
    assert socket_access(policy) == access
    assert policy.admits_others is (access != closed)


@pytest.mark.usefixtures("own_user")
@given(st.lists(entries, max_size=6), identities)
def test_the_socket_keeps_nobody_out_whom_the_list_admits(listed: list[Entry], who: Identity) -> None:
    """Whoever the list lets connect is root, our user, or allowed by mode, group and access list of the file."""
    descriptor = SecurityDescriptor(listed)
    access = socket_access(descriptor)
    if descriptor.explain(who).allowed:
        groups = access.groups if access.gid is None else {access.gid}
        member = any(map(who.in_group, groups))
        assert who.uid in {0, OWN} or access == everybody or who.uid in access.users or member


def test_any_policy_can_be_asked_about_any_right() -> None:
    """A policy without entries gives everything to whom it lets in, and its decision names it."""
    assert assess(ANYONE, ALICE, Access.CONTROL).allowed
    decision = assess(require(uid=5), ALICE, Access.SEND)
    assert (decision.refuses, decision.rule) == (True, "uid 5")
    assert not assess(SecurityDescriptor([], enforce=False), ALICE, Access.SEND).refuses
