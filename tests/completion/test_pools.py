"""Worker pools: who runs a handler, how many at a time, and how handlers end."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.lowlevel
import pytest

import alpc_async as alpc
from alpc_async import MessageType, Status
from alpc_async.wire import Faulted
from tests.port.support import NAME, WAIT, connected, raw_peer, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    Handler = Callable[[Any], Awaitable[object]]


@asynccontextmanager
async def pool_of(
    handler: Handler | Callable[[Any], object] | str, **options: Any
) -> AsyncGenerator[tuple[alpc.WorkerPool, alpc.CommunicationPort, alpc.CompletionPort]]:
    """Run a pool behind one end of a port pair; give the pool, the other end and the completion port."""
    async with alpc.port_pair() as (left, right), alpc.CompletionPort() as completion_port:
        completion_port.associate(right, "key")
        async with alpc.WorkerPool(completion_port, handler, **options) as pool:
            yield pool, left, completion_port


async def echo(message: alpc.Message) -> None:
    """Answer with the payload."""
    message.reply(message.data)


async def slow_echo(message: alpc.Message) -> None:
    """Answer with the payload after letting others run."""
    await anyio.lowlevel.checkpoint()
    message.reply(message.data)


class Gate:
    """A handler that holds every message until the gate opens."""

    def __init__(self) -> None:
        self.open = anyio.Event()
        self.inside = 0
        self.most = 0
        self.stopped: list[bytes] = []

    async def __call__(self, message: alpc.Message) -> None:
        """Hold the message, then answer with its payload."""
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.open.wait()
            message.reply(message.data)
        except anyio.get_cancelled_exc_class():
            self.stopped.append(message.data)
            raise
        finally:
            self.inside -= 1


@pytest.mark.parametrize("handler", [echo, slow_echo])
async def test_requests_are_answered(handler: Handler) -> None:
    """Every request of many callers at once gets its own answer."""
    async with pool_of(handler) as (pool, left, _):
        pending = [left.start_request(b"%d" % number) for number in range(200)]
        assert [(await request).data for request in pending] == [b"%d" % number for number in range(200)]
        await pool.wait_idle()
        statistics = pool.statistics()
        assert (statistics.handled, statistics.failed, statistics.cancelled, statistics.running) == (200, 0, 0, 0)


async def test_a_handler_that_never_suspends_needs_one_worker() -> None:
    """One worker drains the queue; at most one more is woken to be there if the first should wait."""
    async with alpc.CompletionPort() as completion_port:
        for number in range(1000):
            completion_port.post(number)
        order: list[object] = []

        async def handle(packet: alpc.Completion) -> None:
            order.append(packet.key)

        async with alpc.WorkerPool(completion_port, handle) as pool:
            await pool.wait_idle()
            assert pool.statistics().started <= 2
        assert order == list(range(1000))


async def test_handlers_that_suspend_run_at_the_same_time_up_to_the_maximum() -> None:
    """As many handlers as maximum are in flight, the rest waits its turn, and all are answered."""
    gate = Gate()
    async with pool_of(gate, maximum=4) as (pool, left, _):
        pending = [left.start_request(b"%d" % number) for number in range(10)]
        await until(lambda: gate.inside == 4)
        await anyio.wait_all_tasks_blocked()
        assert (gate.inside, pool.statistics().running, pool.statistics().size) == (4, 4, 4)
        gate.open.set()
        assert [(await request).data for request in pending] == [b"%d" % number for number in range(10)]
        assert gate.most == 4
        assert (pool.statistics().started, pool.statistics().largest_size) == (4, 4)


async def test_a_handler_that_waits_does_not_hold_the_next_message_up() -> None:
    """With one worker waiting in a handler, the next message is handled by another."""
    gate = Gate()

    async def handle(message: alpc.Message) -> None:
        await (gate(message) if message.data == b"waits" else echo(message))

    async with pool_of(handle) as (_, left, _completion_port):
        first = left.start_request(b"waits")
        await until(lambda: gate.inside == 1)
        assert (await left.request(b"passes", timeout=WAIT)).data == b"passes"
        assert not first.done
        gate.open.set()
        assert (await first).data == b"waits"


async def test_the_minimum_is_there_from_the_beginning() -> None:
    """A pool starts with its minimum of workers and goes back to waiting with them."""
    async with pool_of(echo, minimum=3, maximum=3) as (pool, left, _):
        await until(lambda: pool.statistics().idle == 3)
        assert (pool.statistics().size, pool.statistics().started) == (3, 3)
        await left.request(b"x")
        await until(lambda: pool.statistics().idle == 3)


async def test_a_pool_takes_packets_of_a_completion_port_only() -> None:
    """A port in its place is a mistake that says what to do with it."""

    async def handle(message: alpc.Message) -> None:
        message.reply()

    async with alpc.port_pair() as (port, _):
        taken_for_one: Any = port
        text = r"alpc\.CompletionPort, not CommunicationPort; associate ports with one"
        with pytest.raises(TypeError, match=text):
            alpc.WorkerPool(taken_for_one, handle)
        with pytest.raises(TypeError, match=text):
            alpc.WorkerPool(taken_for_one, print, kind="thread")


@pytest.mark.parametrize(("minimum", "maximum"), [(0, 1), (2, 1), (-1, 5)])
async def test_a_pool_without_workers_is_a_mistake(minimum: int, maximum: int) -> None:
    """Sizes that do not fit together are a ValueError."""
    async with alpc.CompletionPort() as completion_port:
        with pytest.raises(ValueError, match="minimum"):
            alpc.WorkerPool(completion_port, echo, minimum=minimum, maximum=maximum)
        with pytest.raises(ValueError, match="fibre"):
            alpc.WorkerPool(completion_port, echo, kind=cast("Any", "fibre"))


async def test_a_handler_that_fails_fails_its_request_only(caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets HANDLER_FAILED without a detail, the log has the error, and the worker goes on."""

    async def handle(message: alpc.Message) -> None:
        if message.data == b"bad":
            raise ValueError("the secret detail")
        await echo(message)

    async with pool_of(handle) as (pool, left, _):
        with caplog.at_level(logging.ERROR, "alpc_async"), pytest.raises(alpc.RemoteFault) as caught:
            await left.request(b"bad")
        assert caught.value.status == Status.HANDLER_FAILED
        assert "secret" not in caught.value.reason
        (record,) = caplog.records
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ValueError)
        assert (await left.request(b"good")).data == b"good"
        statistics = pool.statistics()
        assert (statistics.failed, statistics.handled, statistics.cancelled) == (1, 1, 0)


async def test_a_handler_may_fail_after_its_answer_or_without_a_request(caplog: pytest.LogCaptureFixture) -> None:
    """An error after the reply, of a datagram, or of a posted packet is logged and harms nobody."""

    async def handle(packet: alpc.Completion) -> None:
        message = packet.message
        if message is not None and message.type is MessageType.REQUEST:
            message.reply(b"answered")
        raise RuntimeError("afterwards")

    async with pool_of(handle) as (pool, left, completion_port):
        assert (await left.request(b"")).data == b"answered"
        await left.post(b"")
        completion_port.post("by hand")
        await until(lambda: pool.statistics().failed == 3)
        assert (await left.request(b"")).data == b"answered"
    assert len(caplog.records) == 4


async def test_a_handler_may_fail_for_a_client_that_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    """A failure that nobody can be told does not end the worker, nor does a reply that nobody waits for."""
    gone = anyio.Event()

    async def handle(message: alpc.Message) -> None:
        with anyio.CancelScope(shield=True):
            await gone.wait()
        if message.data == b"fails":
            raise RuntimeError("too late to tell")
        message.reply(b"too late")

    async with alpc.CompletionPort() as completion_port, alpc.port_pair() as other, connected() as (server, client):
        completion_port.associate(server)
        completion_port.associate(other.right)
        async with alpc.WorkerPool(completion_port, handle) as pool:
            client.start_request(b"fails")
            client.start_request(b"replies")
            await until(lambda: pool.statistics().running == 2)
            await client.aclose()
            await until(lambda: server.statistics().connections == 0)
            gone.set()
            await pool.wait_idle()
            assert (await other.left.request(b"", timeout=WAIT)).data == b"too late"
            assert pool.statistics().failed == 1


async def test_cancelling_a_message_cancels_its_handler_only() -> None:
    """When one of several callers gives up, its handler alone is cancelled and its worker replaced."""
    gate = Gate()
    async with pool_of(gate, maximum=3) as (pool, left, _):
        pending = [left.start_request(b"%d" % number) for number in range(3)]
        await until(lambda: gate.inside == 3)
        pending[1].cancel()
        await until(lambda: gate.stopped)
        assert gate.stopped == [b"1"]
        assert (gate.inside, pool.statistics().cancelled) == (2, 1)
        gate.open.set()
        assert [(await pending[index]).data for index in (0, 2)] == [b"0", b"2"]
        assert (await left.request(b"next")).data == b"next"
        await until(lambda: pool.statistics().size == 3)
        assert pool.statistics().started == 4


async def test_a_client_that_leaves_cancels_its_handlers() -> None:
    """All handlers of a connection that ended are cancelled; those of others go on."""
    gate = Gate()
    async with (
        alpc.CompletionPort() as completion_port,
        alpc.listen(NAME, completion_port=completion_port),
        alpc.WorkerPool(completion_port, gate) as pool,
        alpc.connect(NAME) as stays,
    ):
        async with alpc.connect(NAME) as leaves:
            leaves.start_request(b"leaves 1")
            leaves.start_request(b"leaves 2")
            kept = stays.start_request(b"stays")
            await until(lambda: gate.inside == 3)
        await until(lambda: len(gate.stopped) == 2)
        assert (sorted(gate.stopped), gate.inside) == ([b"leaves 1", b"leaves 2"], 1)
        gate.open.set()
        assert (await kept).data == b"stays"
        await pool.wait_idle()


async def test_a_deadline_cancels_the_handler() -> None:
    """At the deadline of its message a handler is cancelled, the caller gets DeadlineExceeded, others go on."""
    gate = Gate()
    async with pool_of(gate) as (pool, left, _):
        endless = left.start_request(b"endless", timeout=None)
        timed = [left.start_request(b"timed", timeout=seconds) for seconds in (0.09, 0.03, 0.06)]
        await until(lambda: gate.inside == 4)
        for request in timed:
            with pytest.raises((alpc.DeadlineExceeded, alpc.RemoteFault)) as caught:
                await request
            if isinstance(caught.value, alpc.RemoteFault):
                assert caught.value.status == Status.DEADLINE_PASSED
        await until(lambda: gate.inside == 1)
        assert gate.stopped == [b"timed"] * 3
        assert pool.statistics().cancelled == 3
        gate.open.set()
        assert (await endless).data == b"endless"


async def test_the_answer_at_the_deadline_says_so(runtime_directory: Path) -> None:
    """Whoever still listens after the deadline of its request is told that the handler was stopped because of it."""
    gate = Gate()
    async with (
        alpc.CompletionPort() as completion_port,
        alpc.listen(NAME, completion_port=completion_port),
        alpc.WorkerPool(completion_port, gate) as pool,
    ):
        with raw_peer(runtime_directory) as peer:
            await peer.greet()
            await peer.request(b"slow", timeout=0.05)
            await until(lambda: gate.inside == 1)
            (event,) = await peer.hear()
            assert isinstance(event, Faulted)
            assert event.status == Status.DEADLINE_PASSED
            assert event.reason == "the handler was stopped at the deadline"
        await until(lambda: pool.statistics().cancelled == 1)


async def test_a_handler_that_outlives_its_cancellation_takes_nobody_along() -> None:
    """When a cancelled handler ends by itself, the next message is handled as if nothing had happened."""
    inside = anyio.Event()
    proceed = anyio.Event()

    async def handle(message: alpc.Message) -> None:
        if message.data == b"shielded":
            with anyio.CancelScope(shield=True):
                inside.set()
                await proceed.wait()
        else:
            await anyio.sleep(0.001)
            message.reply(message.data)

    async with pool_of(handle, maximum=1) as (pool, left, _):
        cancelled = left.start_request(b"shielded")
        await inside.wait()
        following = [left.start_request(b"%d" % number) for number in range(3)]
        cancelled.cancel()
        await left.post(b"")
        await anyio.wait_all_tasks_blocked()
        proceed.set()
        with anyio.fail_after(WAIT):
            assert [(await request).data for request in following] == [b"0", b"1", b"2"]
        await until(lambda: pool.statistics().size == 1)


async def test_a_message_cancelled_before_its_turn_is_not_handled() -> None:
    """A request that is withdrawn while all workers are busy never reaches a handler."""
    gate = Gate()
    handled: list[bytes] = []

    async def handle(message: alpc.Message) -> None:
        handled.append(message.data)
        await gate(message)

    async with pool_of(handle, maximum=1) as (pool, left, _):
        first = left.start_request(b"first")
        await until(lambda: gate.inside == 1)
        withdrawn = left.start_request(b"withdrawn")
        last = left.start_request(b"last")
        withdrawn.cancel()
        gate.open.set()
        assert [(await request).data for request in (first, last)] == [b"first", b"last"]
        assert handled == [b"first", b"last"]
        assert pool.statistics().cancelled == 0


async def test_posted_packets_and_datagrams_reach_the_handler() -> None:
    """The handler gets messages as Message and posted packets as Completion."""
    got: list[tuple[object, object]] = []

    async def handle(packet: alpc.Completion) -> None:
        got.append((packet.key, packet.message.data if packet.message else packet.value))

    async with pool_of(handle) as (_, left, completion_port):
        await left.post(b"datagram")
        await until(lambda: len(got) == 1)
        completion_port.post("mine", 42)
        await until(lambda: len(got) == 2)
    assert got == [("key", b"datagram"), ("mine", 42)]


@pytest.mark.parametrize("notices", [False, True])
async def test_notices_reach_the_handler_when_asked_for(notices: bool) -> None:
    """Closed ports and lost replies are handed to the handler with notices=True, else dropped; CANCELED never is."""
    got: list[MessageType] = []

    async def handle(message: alpc.Message) -> None:
        got.append(message.type)
        if message.data == b"answer":
            message.reply(b"")

    async with pool_of(handle, notices=notices) as (pool, left, _):
        # The withdrawal reaches the other side after the answer was sent: the reply is lost.
        lost = left.start_request(b"answer")
        await until(lambda: got)
        lost.cancel()
        left.start_request(b"").cancel()
        await left.post(b"")
        await left.aclose()
        expected = MessageType.PORT_CLOSED if notices else MessageType.DATAGRAM
        await until(lambda: expected in got)
        await pool.wait_idle()
    assert (MessageType.PORT_CLOSED in got) is notices
    assert MessageType.CANCELED not in got
    assert set(got) - {MessageType.PORT_CLOSED, MessageType.LOST_REPLY} == {MessageType.REQUEST, MessageType.DATAGRAM}


async def test_leaving_the_block_cancels_what_runs() -> None:
    """Handlers that still run are cancelled and their callers are told; packets that wait stay in the queue."""
    gate = Gate()
    async with alpc.port_pair() as (left, right), alpc.CompletionPort() as completion_port:
        completion_port.associate(right)
        async with alpc.WorkerPool(completion_port, gate, maximum=1):
            running = left.start_request(b"running")
            await until(lambda: gate.inside == 1)
            waiting = left.start_request(b"waiting")
            await until(lambda: completion_port.statistics().queued == 1)
        assert gate.stopped == [b"running"]
        with pytest.raises(alpc.RemoteFault) as caught:
            await running
        assert caught.value.status == Status.ABANDONED
        async with alpc.WorkerPool(completion_port, echo):
            assert (await waiting).data == b"waiting"


async def test_an_error_of_the_block_is_not_hidden() -> None:
    """The exception of the body leaves the block, and no worker stays behind."""
    pools: list[alpc.WorkerPool] = []
    error = pytest.RaisesExc(RuntimeError, match="of the body")
    with pytest.RaisesGroup(error, allow_unwrapped=True, flatten_subgroups=True):
        async with pool_of(echo) as (pool, _left, _completion_port):
            pools.append(pool)
            raise RuntimeError("of the body")
    assert [pool.statistics().size for pool in pools] == [0]


async def test_waiting_for_an_idle_pool() -> None:
    """wait_idle returns when nothing waits and no handler runs, and can be cancelled."""
    gate = Gate()
    async with pool_of(gate) as (pool, left, _):
        await pool.wait_idle()
        pending = left.start_request(b"x")
        await until(lambda: gate.inside)
        with anyio.move_on_after(0.02) as scope:
            await pool.wait_idle()
        assert scope.cancelled_caught
        gate.open.set()
        with anyio.fail_after(WAIT):
            await pool.wait_idle()
        assert (await pending).data == b"x"


async def test_a_request_may_be_answered_after_its_handler() -> None:
    """A handler that returns without an answer leaves the request open for somebody else."""
    kept: list[alpc.Message] = []

    async def handle(message: alpc.Message) -> None:
        kept.append(message)

    async with pool_of(handle) as (pool, left, _):
        pending = left.start_request(b"x")
        await until(lambda: kept)
        await pool.wait_idle()
        kept[0].reply(b"later")
        assert (await pending).data == b"later"


async def test_a_busy_pool_lets_the_loop_turn() -> None:
    """Handlers that never suspend do not keep the replies of earlier ones from leaving, nor timers from firing."""
    limits = alpc.PortLimits(max_outstanding_messages=4096)
    async with alpc.port_pair(limits=limits) as (left, right), alpc.CompletionPort() as completion_port:
        completion_port.associate(right)
        pending = [left.start_request(b"x") for _ in range(2000)]
        await until(lambda: right.statistics().queued == 2000)
        done_early: list[int] = []
        handled = 0

        async def handle(message: alpc.Message) -> None:
            nonlocal handled
            handled += 1
            message.reply(b"")
            if handled == 2000:
                done_early.append(sum(request.done for request in pending))

        async with alpc.WorkerPool(completion_port, handle):
            for request in pending:
                await request
        assert done_early[0] > 0


async def test_batches_are_counted() -> None:
    """What a worker takes in a row, without an end of the queue or a turn of the loop between, counts as one batch."""
    async with alpc.port_pair() as (left, right), alpc.CompletionPort() as completion_port:
        completion_port.associate(right)
        pending = [left.start_request(b"") for _ in range(131)]
        await until(lambda: completion_port.statistics().queued == 131)
        async with alpc.WorkerPool(completion_port, echo, maximum=1) as pool:
            for request in pending:
                await request
            await pool.wait_idle()
            await left.request(b"")
            await until(lambda: pool.statistics().idle == 1)
            assert pool.statistics().batch_sizes == (1, 1, 0, 0, 0, 0, 0, 1)
