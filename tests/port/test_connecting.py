"""Coming together: names, connect data, accepting and refusing, who may, and what a failed attempt leaves behind."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

import alpc_async as alpc
from alpc_async import MessageType, PortLimits, Status
from tests.port.support import NAME, WAIT, connected, echo_server, raw_peer, serve, until

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from anyio.abc import TaskGroup

SHORT = PortLimits(max_connect_data=16)


class Attempt:
    """A connect that runs in a task of its own."""

    def __init__(self, tasks: TaskGroup, **options: Any) -> None:
        self.port: alpc.CommunicationPort | None = None
        self.error: alpc.AlpcError | None = None
        self.scope = anyio.CancelScope()
        self._options = options
        tasks.start_soon(self._run)

    async def _run(self) -> None:
        with self.scope:
            try:
                self.port = await alpc.connect(NAME, **self._options)
            except alpc.AlpcError as error:
                self.error = error

    @property
    def over(self) -> bool:
        """Whether it succeeded or failed."""
        return self.port is not None or self.error is not None


@contextmanager
def silent_listener(path: Path) -> Generator[socket.socket]:
    """Listen as something that is no port and answers nobody."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield listener


async def test_a_named_port_serves_many_clients_from_one_place() -> None:
    """The messages of all clients are received from the connection port; each knows its own client."""
    async with alpc.listen(NAME) as server, anyio.create_task_group() as tasks:
        clients = [await alpc.connect(NAME) for _ in range(5)]
        pending = [client.start_request(b"%d" % number) for number, client in enumerate(clients)]
        messages: list[alpc.Message] = []
        while len(messages) < 5:
            messages += await server.receive_batch()
        assert len({message.port for message in messages}) == 5
        assert {message.port for message in messages} == set(server.connections)
        assert all(message.sender.pid == os.getpid() and message.sender.uid == os.geteuid() for message in messages)
        for message in messages:
            message.reply(b"re " + message.data)
        assert [(await request).data for request in pending] == [b"re %d" % number for number in range(5)]
        for client in clients:
            tasks.start_soon(client.aclose)


async def test_a_port_is_awaited_or_entered() -> None:
    """Awaiting leaves the closing to the caller, entering closes at the end of the block."""
    server = await alpc.listen(NAME)
    async with alpc.connect(NAME) as entered:
        states = [entered.connected]
    states.append(entered.connected)
    assert states == [True, False]
    awaited = await alpc.connect(NAME)
    await awaited.aclose()
    await server.aclose()
    left, right = await alpc.port_pair()
    await left.aclose()
    await right.aclose()


async def test_nobody_listens() -> None:
    """Connecting to a name that nobody has is NameNotFound, before and after there was a port."""
    with pytest.raises(alpc.NameNotFound):
        await alpc.connect(NAME)
    async with alpc.listen(NAME):
        pass
    with pytest.raises(alpc.NameNotFound) as caught:
        await alpc.connect(NAME)
    assert caught.value.name == NAME


async def test_a_live_name_is_not_taken() -> None:
    """A second port of the same name is NameCollision and the first goes on; once it is closed the name is free."""
    async with alpc.listen(NAME) as first, anyio.create_task_group() as tasks:
        with pytest.raises(alpc.NameCollision) as caught:
            await alpc.listen(NAME)
        assert caught.value.name == NAME
        tasks.start_soon(serve, first)
        async with alpc.connect(NAME) as client:
            assert (await client.request(b"still there")).data == b"still there"
        await first.aclose()
    async with alpc.listen(NAME):
        pass


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 81, "nul\0"])
async def test_what_is_not_a_name(name: str) -> None:
    """Both sides refuse what is not a port name."""
    with pytest.raises(alpc.InvalidName):
        await alpc.listen(name)
    with pytest.raises(alpc.InvalidName):
        await alpc.connect(name)


def test_unknown_ways_to_accept_are_refused() -> None:
    """A misspelt accept mode is a ValueError at once."""
    with pytest.raises(ValueError, match="manuel"):
        alpc.listen(NAME, accept=cast("Any", "manuel"))


# -- accepting ---------------------------------------------------------------------------------------------------------


async def test_data_goes_both_ways_while_connecting() -> None:
    """The server sees the client's connect data, the client the server's, and the context belongs to the new port."""
    async with alpc.listen(NAME, accept="manual", limits=SHORT) as server, anyio.create_task_group() as tasks:
        attempt = Attempt(tasks, data=bytearray(b"from the client"))
        request = await server.receive()
        assert (request.type, request.data) == (MessageType.CONNECTION_REQUEST, b"from the client")
        assert request.sender.pid == os.getpid()
        assert len(server.connections) == 0
        there = request.accept("cookie", bytes(16))
        assert list(server.connections) == [there]
        await until(lambda: attempt.over)
        assert attempt.port is not None
        assert attempt.port.connect_data == bytes(16)
        assert there.connect_data == b"from the client"
        await attempt.port.post(b"x")
        message = await server.receive()
        assert (message.port, message.context) == (there, "cookie")
        await attempt.port.aclose()


async def test_connect_data_without_a_question() -> None:
    """A port that accepts by itself shows the connect data on the client's port."""
    async with alpc.listen(NAME) as server, alpc.connect(NAME, data=b"hello") as client:
        await client.post(b"x")
        assert (await server.receive()).port.connect_data == b"hello"
        assert client.connect_data == b""


async def test_connect_data_that_is_too_long_on_our_side() -> None:
    """Connect data over one's own limit is refused before it is sent, and nothing stays open."""
    async with alpc.listen(NAME, accept="manual") as server:
        with pytest.raises(alpc.MessageTooLong) as caught:
            await alpc.connect(NAME, data=bytes(17), limits=SHORT)
        assert (caught.value.size, caught.value.limit, caught.value.setting) == (17, 16, "max_connect_data")
        await until(lambda: server.statistics().connections == 0)


async def test_connect_data_that_is_too_long_for_the_server() -> None:
    """Connect data over the server's limit ends the attempt, and the server goes on."""
    async with echo_server(limits=SHORT) as server:
        with pytest.raises(alpc.AlpcError):
            await alpc.connect(NAME, data=bytes(5000), limits=PortLimits(max_connect_data=8192))
        with pytest.raises(alpc.AlpcError):
            await alpc.connect(NAME, data=bytes(17))
        async with alpc.connect(NAME, data=bytes(16)) as client:
            assert (await client.request(b"x")).data == b"x"
        await server.aclose()


async def test_reply_data_that_is_too_long_leaves_the_question_open() -> None:
    """Accepting or refusing with too much data is MessageTooLong; the client still waits and can be let in."""
    async with alpc.listen(NAME, accept="manual", limits=SHORT) as server, anyio.create_task_group() as tasks:
        attempt = Attempt(tasks)
        request = await server.receive()
        for decide in (lambda: request.accept(data=bytes(17)), lambda: request.refuse(bytes(17))):
            with pytest.raises(alpc.MessageTooLong):
                decide()
        assert not attempt.over
        request.accept(data=b"welcome")
        await until(lambda: attempt.over)
        assert attempt.port is not None
        assert attempt.port.connect_data == b"welcome"
        await attempt.port.aclose()


@pytest.mark.parametrize("status", [int(Status.REFUSED), 1007])
async def test_a_refused_client_knows_why(status: int) -> None:
    """The client gets ConnectionRefused with status and data; the server has no connection and counts it."""
    async with alpc.listen(NAME, accept="manual") as server, anyio.create_task_group() as tasks:
        attempt = Attempt(tasks)
        (await server.receive()).refuse(b"not today", status=status)
        await until(lambda: attempt.over)
        assert isinstance(attempt.error, alpc.ConnectionRefused)
        assert (attempt.error.name, attempt.error.status, attempt.error.data) == (NAME, status, b"not today")
        assert (server.connections, server.statistics().connections) == ((), 0)
        assert server.statistics().refused == 1


async def test_a_connection_request_is_decided_once() -> None:
    """After a decision, both accepting and refusing are ReplyMismatch; it is never a request that takes a reply."""
    async with alpc.listen(NAME, accept="manual") as server, anyio.create_task_group() as tasks:
        for decision in ("accept", "refuse"):
            attempt = Attempt(tasks)
            request = await server.receive()
            with pytest.raises(alpc.ReplyMismatch):
                request.reply()
            getattr(request, decision)()
            for again in (request.accept, request.refuse):
                with pytest.raises(alpc.ReplyMismatch):
                    again()
            await until(lambda attempt=attempt: attempt.over)  # type: ignore[misc]  # bound now
            if attempt.port is not None:
                await attempt.port.aclose()
                assert (await server.receive()).type is MessageType.PORT_CLOSED


async def test_accepting_in_two_steps() -> None:
    """The client waits until the server completes, and messages flow only then; completing again does nothing."""
    async with alpc.listen(NAME, accept="manual") as server, anyio.create_task_group() as tasks:
        attempt = Attempt(tasks)
        there = (await server.receive()).accept("cookie", b"data", complete=False)
        with anyio.move_on_after(0.05):
            await until(lambda: attempt.over)
        assert not attempt.over
        assert there.context == "cookie"
        there.complete()
        there.complete()
        await until(lambda: attempt.over)
        assert attempt.port is not None
        assert attempt.port.connect_data == b"data"
        await there.post(b"to you")
        assert (await attempt.port.receive()).data == b"to you"
        await attempt.port.aclose()


async def test_a_client_that_left_before_the_decision() -> None:
    """Deciding about a client that has gone raises nothing, since its going must not break the server."""
    async with alpc.listen(NAME, accept="manual") as server, anyio.create_task_group() as tasks:
        requests: list[alpc.Message] = []
        attempts: list[Attempt] = []
        for _ in range(3):
            attempts.append(Attempt(tasks))
            requests.append(await server.receive())
        half = requests[2].accept(complete=False)
        for attempt in attempts:
            attempt.scope.cancel()
        await until(lambda: server.statistics().connections == 0)
        late = requests[0].accept()
        requests[1].refuse()
        half.complete()
        for port in (late, half):
            assert not port.connected
            with pytest.raises(alpc.Disconnected):
                await port.request(b"")
        assert server.statistics().accepted == 0


async def test_a_question_whose_client_left_is_not_asked() -> None:
    """A connection request that nobody has taken yet goes away with its client."""
    async with alpc.listen(NAME, accept="manual") as server, anyio.create_task_group() as tasks:
        attempt = Attempt(tasks)
        await until(lambda: server.statistics().queued == 1)
        attempt.scope.cancel()
        await until(lambda: server.statistics().connections == 0)
        second = Attempt(tasks, data=b"second")
        request = await server.receive()
        assert request.data == b"second"
        request.refuse()
        await until(lambda: second.over)


async def test_a_server_that_does_not_decide() -> None:
    """The client gives up after its timeout, and the server is rid of it."""
    async with alpc.listen(NAME, accept="manual") as server:
        with pytest.raises(alpc.DeadlineExceeded) as caught:
            await alpc.connect(NAME, timeout=0.05)
        assert caught.value.timeout == 0.05
        await until(lambda: server.statistics().connections == 0)


async def test_a_listener_that_never_answers(runtime_directory: Path) -> None:
    """Connecting to a listener that accepts nobody, and to one with a full backlog, ends with the timeout."""
    with silent_listener(runtime_directory / NAME) as listener:
        with pytest.raises(alpc.DeadlineExceeded):
            await alpc.connect(NAME, timeout=0.05)
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as filler:
            filler.setblocking(False)
            filler.connect_ex(str(runtime_directory / NAME))
            with pytest.raises(alpc.DeadlineExceeded):
                await alpc.connect(NAME, timeout=0.05)


async def test_a_listener_that_is_no_port(runtime_directory: Path) -> None:
    """What answers in another language is a ProtocolViolation, and what hangs up is Disconnected."""
    with silent_listener(runtime_directory / NAME) as listener:

        def answer(reply: bytes) -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(1000)
                sock.sendall(reply)

        for reply, expected in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", alpc.ProtocolViolation),
            (b"", alpc.Disconnected),
        ):
            thread = threading.Thread(target=answer, args=(reply,))
            thread.start()
            with pytest.raises(expected):
                await alpc.connect(NAME)
            thread.join()


async def test_a_port_for_one_client() -> None:
    """After stop_listening nobody else can connect, the name is free, and who is connected stays."""
    async with alpc.listen(NAME) as server, alpc.connect(NAME) as client:
        await client.post(b"first")
        assert (await server.receive()).data == b"first"
        server.stop_listening()
        server.stop_listening()
        with pytest.raises(alpc.NameNotFound):
            await alpc.connect(NAME)
        await client.post(b"still here")
        assert (await server.receive()).data == b"still here"
        async with alpc.listen(NAME) as successor, alpc.connect(NAME) as other:
            await other.post(b"to the successor")
            assert (await successor.receive()).data == b"to the successor"


async def test_connections_over_the_limit_are_refused() -> None:
    """One client too many is refused with the reason; when another leaves there is room again."""
    limits = PortLimits(max_connections=2)
    async with alpc.listen(NAME, limits=limits) as server, alpc.connect(NAME), alpc.connect(NAME) as second:
        with pytest.raises(alpc.ConnectionRefused, match="max_connections") as caught:
            await alpc.connect(NAME)
        assert caught.value.status == Status.TOO_MANY_CONNECTIONS
        assert server.statistics().refused == 1
        await second.aclose()
        await until(lambda: server.statistics().connections == 1)
        async with alpc.connect(NAME):
            assert server.statistics().connections == 2


async def test_what_a_connection_port_counts() -> None:
    """Connections count as accepted while they last and afterwards; traffic of ended ones stays in the sums."""
    async with echo_server() as server:
        async with alpc.connect(NAME) as client:
            await client.request(b"12345678")
            assert (server.statistics().accepted, server.statistics().connections) == (1, 1)
            during = server.statistics()
        await until(lambda: server.statistics().connections == 0)
        after = server.statistics()
        assert (after.accepted, after.connections, after.refused, after.violations) == (1, 0, 0, 0)
        assert during.bytes_received >= 8
        assert after.bytes_received >= during.bytes_received
        assert after.bytes_sent >= during.bytes_sent > 8
        assert after.sends >= during.sends >= 2
        assert after.receives >= during.receives >= 2
        assert after.messages_received >= 2
        assert after.largest_batch >= 1
        await server.aclose()


# -- who may -----------------------------------------------------------------------------------------------------------


async def test_a_client_that_the_policy_refuses_is_told() -> None:
    """The client gets AccessDenied, the server counts the refusal and has read nothing of it."""
    async with alpc.listen(NAME, security=alpc.require(gid=54_321)) as server:
        with pytest.raises(alpc.AccessDenied):
            await alpc.connect(NAME)
        assert (server.statistics().refused, server.statistics().connections) == (1, 0)
        assert server.statistics().bytes_received == 0


async def test_nothing_is_sent_to_the_wrong_server(runtime_directory: Path) -> None:
    """A server that is not who the client requires is left before a byte is sent to it."""
    with silent_listener(runtime_directory / NAME) as listener:
        with pytest.raises(alpc.ServerIdentityMismatch) as caught:
            await alpc.connect(NAME, server=alpc.require(uid=54_321), data=b"secret")
        assert (caught.value.name, f"uid {os.geteuid()}" in str(caught.value.identity)) == (NAME, True)
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(WAIT)
            assert sock.recv(1000) == b""


async def test_both_ends_know_each_other() -> None:
    """Identities come from the kernel on both sides, and each side's peer stays readable after the end."""
    async with connected() as (server, client):
        await client.post(b"")
        message = await server.receive()
        for identity in (client.peer, message.port.peer):
            assert (identity.uid, identity.gid, identity.pid) == (os.geteuid(), os.getegid(), os.getpid())
        assert message.sender is message.port.peer
        await client.aclose()
        assert client.peer.uid == os.geteuid()


async def test_frames_before_the_welcome_are_violations(runtime_directory: Path) -> None:
    """A client that sends messages before it was let in is thrown out, also while the decision is open."""
    async with alpc.listen(NAME, accept="manual") as server:
        with raw_peer(runtime_directory) as peer:
            peer.endpoint.hello(b"")
            hello = peer.endpoint.data_to_send(1 << 20)
            peer.endpoint.open_pair(PortLimits())
            peer.endpoint.datagram(b"too early")
            await peer.say(hello)
            request = await server.receive()
            await peer.flush()
            await peer.hear_the_end()
            await until(lambda: server.statistics().connections == 0)
            assert server.statistics().violations == 1
            assert not request.accept().connected
