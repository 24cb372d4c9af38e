"""Ports and their access lists, audit trails and limits per user, with clients of this process.

Belongs here: what one user meets. Never here: lists by themselves (tests/security), clients of other users
(tests/security/test_other_users).
"""

from __future__ import annotations

import os
import stat
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import alpc_async as alpc
from alpc_async.handles import Handle
from alpc_async.limits import PortLimits
from alpc_async.port._pace import Activity, Pace
from alpc_async.port._users import Users
from tests.port.support import NAME, WAIT, echo_server, raw_peer, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOBODY = 65_534
OTHER = os.geteuid() + 1


# --------------------------------------------------------------------------------------------------------- access lists


async def test_a_port_takes_an_access_list() -> None:
    """Whoever the list admits is served; a healthy port records nothing."""
    records: list[alpc.AuditRecord] = []
    admit = alpc.SecurityDescriptor([alpc.deny(f"user:{OTHER}"), alpc.allow("same-user", alpc.Access.CONNECT)])
    async with echo_server(security=admit, audit=records.append) as server, alpc.connect(NAME, server=admit) as client:
        assert (await client.request(b"hello")).data == b"hello"
        assert client.is_connected_to(admit)
        assert server.statistics().refusals == 0
    assert records == []


async def test_a_list_that_admits_nobody_refuses_with_a_record() -> None:
    """The client gets AccessDenied, and the record names it, the right and the deciding rule."""
    records: list[alpc.AuditRecord] = []
    async with echo_server(security=alpc.SecurityDescriptor([]), audit=records.append) as server:
        with pytest.raises(alpc.AccessDenied):
            await alpc.connect(NAME)
        await until(lambda: server.statistics().connections == 0)
        assert (server.statistics().refused, server.statistics().refusals) == (1, 1)
    (record,) = records
    assert (record.what, record.right, record.rule, record.enforced) == (
        "connect",
        alpc.Access.CONNECT,
        "no entry",
        True,
    )
    assert record.who is not None
    assert record.who.uid == record.uid == os.geteuid()
    assert record.port == f"port {NAME!r}"


async def test_a_list_on_trial_refuses_nobody_and_reports() -> None:
    """With enforce=False connecting and sending work, and each is recorded as what would be refused."""
    records: list[alpc.AuditRecord] = []
    trial = alpc.SecurityDescriptor([], enforce=False)
    async with echo_server(security=trial, audit=records.append), alpc.connect(NAME) as client:
        assert (await client.request(b"hello")).data == b"hello"
    assert [(record.what, record.enforced) for record in records] == [("connect", False), ("send", False)]


async def test_a_client_without_the_right_to_send_may_listen() -> None:
    """Its requests fail with ACCESS_DENIED, its datagrams vanish and give their room back, and it hears the server."""
    limits = PortLimits(max_outstanding_messages=2)
    records: list[alpc.AuditRecord] = []
    listeners = alpc.SecurityDescriptor([alpc.deny("same-user", alpc.Access.SEND), alpc.allow("same-user")])
    async with (
        alpc.listen(NAME, security=listeners, limits=limits, audit=records.append) as server,
        alpc.connect(NAME, limits=limits) as client,
    ):
        with pytest.raises(alpc.RemoteFault) as caught:
            await client.request(b"hello")
        assert caught.value.status == alpc.Status.ACCESS_DENIED
        with anyio.fail_after(WAIT):
            for _ in range(10):
                await client.post(b"hello")
        await until(lambda: server.statistics().refusals == 11)
        await server.connections[0].post(b"news")
        assert (await client.receive()).data == b"news"
        assert server.statistics().queued == 0
    assert {(record.what, record.right) for record in records} == {("send", alpc.Access.SEND)}
    assert len(records) == 10


@pytest.mark.parametrize(
    ("rights", "views", "handles", "direct"),
    [
        (alpc.Access.CONNECT, True, False, False),
        (alpc.Access.CONNECT | alpc.Access.HANDLES, True, True, False),
        (alpc.Access.CONNECT | alpc.Access.DIRECT, True, False, True),
        (~alpc.Access(0), True, True, True),
    ],
    ids=str,
)
async def test_ways_of_moving_data_take_a_right(
    rights: alpc.Access, *, views: bool, handles: bool, direct: bool
) -> None:
    """What the list does not give is switched off for the connection, whatever both sides' limits allow."""
    limits = PortLimits(max_handles=4, handle_kinds=alpc.HandleKind.PIPE, direct=True)
    admit = alpc.SecurityDescriptor([alpc.allow("same-user", rights)])
    async with echo_server(security=admit, limits=limits), alpc.connect(NAME, limits=limits) as client:
        assert (await client.request(bytes(100_000))).data == bytes(100_000) if views else True
        assert bool(client.limits.max_view_size) is views
        assert bool(client.limits.max_handles) is handles
        buffer = alpc.DirectBuffer(bytearray(10))
        if direct:
            await client.request(b"hello", direct=buffer)
        else:
            with pytest.raises(alpc.AccessDenied):
                await client.request(b"hello", direct=buffer)
    without_views = alpc.SecurityDescriptor(
        [alpc.deny("same-user", alpc.Access.VIEWS), alpc.allow("same-user", rights)]
    )
    async with echo_server(security=without_views, limits=limits), alpc.connect(NAME, limits=limits) as client:
        assert client.limits.max_view_size == 0


@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        (None, 0o600),
        (alpc.ANYONE, 0o666),
        (alpc.SecurityDescriptor([alpc.allow(f"group:{os.getegid()}")]), 0o660),
        (alpc.SecurityDescriptor([alpc.allow(f"user:{OTHER}")]), 0o660),
        (alpc.SecurityDescriptor([alpc.allow("label:x")]), 0o666),
    ],
    ids=str,
)
async def test_the_socket_file_lets_through_whom_the_policy_may_admit(
    policy: alpc.Policy | None, mode: int, runtime_directory: Path
) -> None:
    """The mode and the group of the file follow from the policy; with an access list, the mode shows its mask."""
    async with alpc.listen(NAME, security=policy):
        found = (runtime_directory / NAME).stat()
    assert stat.S_IMODE(found.st_mode) == mode
    assert found.st_gid == os.getegid()


# ------------------------------------------------------------------------------------------------------ limits per user


async def test_one_user_has_only_so_many_connections() -> None:
    """One more is refused with USER_LIMIT and a record, and is welcome once another has gone."""
    records: list[alpc.AuditRecord] = []
    async with AsyncExitStack() as stack:
        limits = PortLimits(max_user_connections=2)
        server = await stack.enter_async_context(echo_server(limits=limits, audit=records.append))
        first = await alpc.connect(NAME)
        await stack.enter_async_context(alpc.connect(NAME))
        with pytest.raises(alpc.ConnectionRefused, match="max_user_connections") as caught:
            await alpc.connect(NAME)
        assert caught.value.status == alpc.Status.USER_LIMIT
        await first.aclose()
        await until(lambda: server.statistics().connections == 1)
        await stack.enter_async_context(alpc.connect(NAME))
    assert [record.rule for record in records] == ["PortLimits.max_user_connections"]


async def test_one_user_connects_only_so_often() -> None:
    """A user that knocks too often is turned away before anything is made for it, and recorded.

    Whether nobody is nobody would have to be found out first, so it counts among those who cannot be identified.
    """
    records: list[alpc.AuditRecord] = []
    async with echo_server(limits=PortLimits(max_user_handshakes=3), audit=records.append) as server:
        statuses: list[int] = []
        for _ in range(20):
            try:
                async with alpc.connect(NAME) as client:
                    await client.request(b"hello")
            except alpc.ConnectionRefused as error:
                statuses.append(error.status)
        assert len(statuses) >= 10
        assert set(statuses) == {alpc.Status.USER_LIMIT}
        assert server.statistics().refused == len(statuses)
        assert server.statistics().accepted + len(statuses) == 20
    assert {(record.rule, record.uid, record.who) for record in records} == {
        ("PortLimits.max_user_handshakes", os.geteuid() if os.geteuid() != NOBODY else None, None)
    }


async def test_the_room_of_a_user_is_divided_among_its_connections() -> None:
    """Later connections agree on smaller quotas, every one can send its longest message, and room comes back."""
    limits = PortLimits(
        max_message_length=1000, max_connect_data=100, max_pool_usage=8000, max_outstanding_messages=64,
        max_user_connections=8, max_user_pool_usage=20_000, max_user_messages=200,
    )  # fmt: skip
    async with echo_server(limits=limits) as server:
        for _ in range(2):
            async with AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(alpc.connect(NAME)) for _ in range(8)]
                pools = [client.limits.max_pool_usage for client in clients]
                messages = [client.limits.max_outstanding_messages for client in clients]
                assert pools == sorted(pools, reverse=True)
                assert (pools[0], messages[0]) == (7000, 52)
                assert (min(pools), min(messages)) >= (1000, 16)
                assert sum(pools) <= 20_000
                assert sum(messages) <= 200
                assert [(await client.request(bytes(1000))).data for client in clients] == [bytes(1000)] * 8
            await until(lambda: server.statistics().connections == 0)


@given(
    st.builds(
        PortLimits,
        max_message_length=st.integers(1, 100),
        max_connect_data=st.just(1),
        max_pool_usage=st.integers(100, 1000),
        max_outstanding_messages=st.integers(1, 100),
        max_user_connections=st.integers(1, 20),
        max_user_pool_usage=st.integers(1, 5000),
        max_user_messages=st.integers(1, 500),
    ),
    st.lists(st.integers(0, 3), max_size=60),
)
def test_promises_never_add_up_to_more_than_the_share(limits: PortLimits, steps: list[int]) -> None:
    """However a user opens and closes connections, what they may have in flight together stays within its share."""
    users = Users(limits)
    held: list[PortLimits] = []
    for step in steps:
        if step:
            promised = users.open(7)
            if promised is not None:
                held.append(promised)
        elif held:
            users.close(7, held.pop(0))
        assert len(held) <= limits.max_user_connections
        assert sum(promised.max_pool_usage for promised in held) <= limits.max_user_pool_usage
        assert sum(promised.max_outstanding_messages for promised in held) <= limits.max_user_messages
    enough = (
        limits.max_user_pool_usage >= limits.max_user_connections * limits.max_message_length
        and limits.max_user_messages >= limits.max_user_connections * 16
    )
    if enough:
        held += iter_open(users, limits.max_user_connections - len(held))
        assert len(held) == limits.max_user_connections
    for promised in held:
        users.close(7, promised)
    assert users.open(7) == Users(limits).open(7)


def iter_open(users: Users, count: int) -> Iterator[PortLimits]:
    """Open a number of connections, as far as that works."""
    for _ in range(count):
        promised = users.open(7)
        if promised is not None:
            yield promised


async def test_a_user_has_a_pace(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """Messages of one user are taken no faster than its rate, over all of its connections, and all are taken."""
    limits = PortLimits(max_user_rate=200)
    async with echo_server(limits=limits) as server, alpc.connect(NAME) as one, alpc.connect(NAME) as other:
        began = anyio.current_time()
        for _ in range(30):
            await one.request(b"hello")
            await other.request(b"hello")
        # Four at once, and each connection is stopped only by what came over the rate.
        assert anyio.current_time() - began > (60 - 4 - 4) / 200
        assert server.statistics().refusals == 0
        # Whoever keeps to the rate is not held up.
        await one.request(b"again")


async def test_handshakes_that_are_not_finished_do_not_flood_the_log(runtime_directory: Path) -> None:
    """A hundred clients that say nothing make ten records, and are counted all the same."""
    records: list[alpc.AuditRecord] = []
    limits = PortLimits(handshake_timeout=0.05)
    async with echo_server(limits=limits, audit=records.append) as server, AsyncExitStack() as stack:
        for _ in range(100):
            stack.enter_context(raw_peer(runtime_directory))
        await until(lambda: server.statistics().refusals == 100)
    assert len(records) == 10
    assert {(record.what, record.rule) for record in records} == {("handshake", "PortLimits.handshake_timeout")}


def test_an_account_that_lingers_may_be_forgotten_before_it_is_looked_at() -> None:
    """What a user left behind is given back and its last section goes, and then it connects again."""
    users = Users(PortLimits(max_user_handles=4))
    promised = users.open(7)
    assert promised is not None
    (handle,) = users.handles(7).add([Handle(os.eventfd(0))])
    users.share(7, 1, 1, "a port")
    users.close(7, promised)
    users.share(7, -1, -1, "a port")
    handle.close()
    users.share(7, 0, 0, "a port")
    assert users.open(7) == promised


def test_users_that_share_a_port_have_a_pace() -> None:
    """While more than one user is connected both rates are kept in view; alone, its own one only."""
    changes: list[str] = []
    loop: Any = SteadyLoop()
    users = Users(PortLimits(max_user_shared_rate=100, max_user_rate=200), loop, lambda: changes.append("repace"))
    promised = [users.open(7), users.open(7)]
    alone = users.pace(7)
    assert alone is not None
    assert (alone.rates, changes) == ((200, 0), [])
    other = users.open(8)
    assert changes == ["repace"]
    paces = [users.pace(key) for key in (7, 8)]
    assert [pace.rates for pace in paces if pace is not None] == [(200, 100)] * 2
    assert users.pace(7) is paces[0]
    for key, limits in ((8, other), (7, promised[0])):
        assert limits is not None
        users.close(key, limits)
    assert changes == ["repace"] * 2
    again = users.pace(7)
    assert again is not None
    assert again.rates == (200, 0)


def test_a_user_alone_has_no_pace_by_default() -> None:
    """Nothing is counted for it, until another user comes, and when that one has left."""
    users = Users(PortLimits(), cast("Any", SteadyLoop()))
    users.open(7)
    assert users.pace(7) is None
    promised = users.open(8)
    assert promised is not None
    assert users.pace(7) is not None
    users.close(8, promised)
    assert users.pace(7) is None


def test_a_user_is_slowed_only_while_another_one_is_active() -> None:
    """The shared rate counts for a second after the last message of anybody else, and stops nobody for longer."""
    loop = SteadyLoop()
    activity = Activity()
    paces = [Pace(cast("Any", loop), 0, 10, activity) for _ in range(3)]
    calls: list[bool] = []
    paces[0].count(calls.append, 1000)
    assert calls == []
    loop.now = 0.5
    paces[1].count(calls.append, 1)
    paces[2].count(calls.append, 1)
    loop.now = 1.0
    paces[0].count(calls.append, 1000)
    assert (calls, loop.due) == ([True], [1.5])
    loop.now = 1.4
    paces[1].count(lambda _: None, 1)
    loop.now = 1.5
    loop.callbacks.pop()()
    # Somebody was active meanwhile, so it goes on waiting.
    assert (calls, loop.due[1:]) == ([True], [2.4])
    loop.now = 2.4
    loop.callbacks.pop()()
    assert calls == [True, False]
    paces[0].count(calls.append, 1000)
    assert calls == [True, False]


def test_one_user_does_not_take_all_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections, sections and handles of a user together stay within three quarters of what the process may open."""
    monkeypatch.setattr("alpc_async.port._users.descriptor_limit", lambda: 40)
    users = Users(PortLimits(max_user_handles=20))
    opened = 0
    while not users.refusal(7, 0.0):
        assert users.open(7) is not None
        opened += 1
    assert (opened, users.refusal(7, 0.0), users.refusal(8, 0.0)) == (15, "RLIMIT_NOFILE", "")
    assert users.handles(7).limit == 0
    with pytest.raises(alpc.QuotaExceeded, match="max_user_sections"):
        users.share(7, 1, 1, "a port")
    users.open(8)
    assert users.handles(8).limit == 20


def test_a_pace_that_ends_holds_nobody_up() -> None:
    """Connections that were stopped go on at once, and no timer is left."""
    loop = SteadyLoop()
    pace = Pace(cast("Any", loop), 10)
    calls: list[bool] = []
    pace.count(calls.append, 5)
    assert (calls, loop.timers) == ([True], 1)
    pace.end()
    assert (calls, loop.timers) == ([True, False], 0)
    pace.end()


class SteadyLoop:
    """A loop whose clock stands until it is set, and that counts its timers."""

    def __init__(self) -> None:
        self.timers = 0
        self.now = 0.0
        self.due: list[float] = []
        self.callbacks: list[Callable[[], None]] = []

    def time(self) -> float:
        """Return the time."""
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> SteadyLoop:
        """Count a timer."""
        self.timers += 1
        self.due.append(when)
        self.callbacks.append(callback)
        return self

    def cancel(self) -> None:
        """Count it out."""
        self.timers -= 1
