"""Accepting: fairness, shortage of descriptors, failing callbacks, and the end."""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, cast

import anyio
import pytest

from alpc_async.link import current_loop
from alpc_async.link._listener import Listener, ListenerStatistics

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from alpc_async.link import Loop, TimerHandle


class Timer:
    """A timer that a test fires."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the callback."""
        self.callback = None


class Watch:
    """The part of a loop that a listener uses, turned by hand, with a clock that stands still."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}
        self.timers: list[tuple[float, Timer]] = []

    def as_loop(self) -> Loop:
        """Return this as what a listener asks for."""
        return cast("Loop", cast("object", self))

    def time(self) -> float:
        """Return a fixed time."""
        return 100.0

    def call_at(self, when: float, callback: Callable[[], None], /) -> TimerHandle:
        """Keep a timer for `fire`."""
        timer = Timer(callback)
        self.timers.append((when, timer))
        return timer

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> None:
        """Keep a callback for `turn`."""
        self.readers[fd] = callback

    def remove_reader(self, fd: int, /) -> None:
        """Forget the callback of a descriptor."""
        self.readers.pop(fd, None)

    def turn(self) -> None:
        """Tell everybody who watches that there is something to read."""
        for callback in list(self.readers.values()):
            callback()

    def fire(self) -> None:
        """Run the newest timer."""
        callback = self.timers[-1][1].callback
        assert callback is not None
        callback()


class FailingSocket(socket.socket):
    """A listening socket whose next accepts fail as planned."""

    plan: list[int]
    accepts: int = 0

    def accept(self) -> tuple[socket.socket, object]:
        """Fail as planned, else accept."""
        self.accepts += 1
        if self.plan:
            code = self.plan.pop(0)
            raise OSError(code, os.strerror(code))
        return super().accept()


class Scene:
    """A listening socket and its clients, closed with the block."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = str(path / "s")
        self.stack = stack
        self.socket = FailingSocket(socket.AF_UNIX)
        self.socket.plan = []
        stack.callback(self.socket.close)
        self.socket.setblocking(False)
        self.socket.bind(self.path)
        self.socket.listen(512)
        self.taken: list[socket.socket] = []

    def client(self) -> socket.socket:
        """Connect a client."""
        client = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        client.settimeout(5)
        client.connect(self.path)
        return client

    def take(self, sock: socket.socket) -> None:
        """Keep an accepted connection."""
        self.taken.append(self.stack.enter_context(sock))


@pytest.fixture
def scene(runtime_directory: Path) -> Iterator[Scene]:
    """A listening socket without a listener."""
    with ExitStack() as stack:
        yield Scene(runtime_directory, stack)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that no event announces; the watchdog bounds it."""
    while not condition():  # noqa: ASYNC110  # counters of the code under test announce nothing
        await anyio.sleep(0.001)


@contextmanager
def no_more_descriptors() -> Generator[None]:
    """Let every new descriptor fail with EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_connections_are_handed_over(scene: Scene) -> None:
    """Connections made before and after the start are handed over, non-blocking and not inherited."""
    clients = [scene.client() for _ in range(3)]
    listener = Listener(current_loop(), scene.socket, scene.take)
    await until(lambda: len(scene.taken) == 3)
    clients.append(scene.client())
    await until(lambda: len(scene.taken) == 4)
    listener.stop()
    for client, taken in zip(clients, scene.taken, strict=True):
        assert not taken.getblocking()
        assert not taken.get_inheritable()
        taken.send(b"x")
        assert client.recv(1) == b"x"
    assert listener.statistics() == ListenerStatistics(accepted=4, paused=0, aborted=0)


async def test_a_crowd_does_not_hold_up_the_others(scene: Scene) -> None:
    """Other callbacks run before a crowd of connections has been accepted to the end."""
    loop = current_loop()
    seen: list[int] = []

    def take(sock: socket.socket) -> None:
        if not scene.taken:
            loop.call_soon(lambda: seen.append(len(scene.taken)))
        scene.take(sock)

    for _ in range(20):
        scene.client()
    listener = Listener(loop, scene.socket, take, max_per_turn=2)
    await until(lambda: len(scene.taken) == 20)
    listener.stop()
    assert 0 < seen[0] < 20


@pytest.mark.parametrize(("waiting", "calls"), [(0, 1), (2, 3), (3, 3), (7, 3)])
def test_a_turn_is_bounded(waiting: int, calls: int, scene: Scene) -> None:
    """One turn makes as many accept calls as allowed, fewer when the backlog is empty before."""
    watch = Watch()
    for _ in range(waiting):
        scene.client()
    listener = Listener(watch.as_loop(), scene.socket, scene.take, max_per_turn=3)
    watch.turn()
    listener.stop()
    assert scene.socket.accepts == calls
    assert len(scene.taken) == min(waiting, 3)


async def test_running_out_of_descriptors_pauses(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """When no descriptor is left the listener waits without spinning, says so once, and then takes everybody."""
    for _ in range(3):
        scene.client()
    with no_more_descriptors():
        listener = Listener(current_loop(), scene.socket, scene.take)
        await until(lambda: listener.statistics().paused == 2)
        assert scene.taken == []
        assert scene.socket.accepts == 2
    await until(lambda: len(scene.taken) == 3)
    listener.stop()
    assert listener.statistics().accepted == 3
    assert [(record.name, record.levelname) for record in caplog.records] == [("alpc_async.link", "WARNING")]
    assert (
        caplog.records[0].getMessage() == "cannot accept connections: Too many open files; trying again until it works"
    )


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EINVAL])
def test_pauses_grow_and_start_over(code: int, scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """While a shortage lasts pauses grow from 0.1 s to 1 s and nothing is tried in between; then they start over."""
    watch = Watch()
    scene.client()
    scene.socket.plan = [code] * 6
    listener = Listener(watch.as_loop(), scene.socket, scene.take)
    for attempt in range(1, 7):
        watch.turn()
        assert watch.readers == {}
        watch.turn()
        assert scene.socket.accepts == attempt
        watch.fire()
    assert [round(when - watch.time(), 6) for when, _ in watch.timers] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert len(caplog.records) == 1
    watch.turn()
    assert len(scene.taken) == 1
    scene.socket.plan = [code]
    watch.turn()
    assert round(watch.timers[-1][0] - watch.time(), 6) == 0.1
    assert len(caplog.records) == 2
    assert listener.statistics() == ListenerStatistics(accepted=1, paused=7, aborted=0)
    listener.stop()


def test_a_shortage_in_the_middle_of_a_turn_is_the_same_shortage(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """Taking one connection between two failures does not start a new episode."""
    watch = Watch()
    scene.client()
    scene.client()

    def take(sock: socket.socket) -> None:
        scene.socket.plan = [errno.EMFILE]
        scene.take(sock)

    listener = Listener(watch.as_loop(), scene.socket, take)
    scene.socket.plan = [errno.EMFILE]
    watch.turn()
    watch.fire()
    watch.turn()
    listener.stop()
    assert listener.statistics() == ListenerStatistics(accepted=1, paused=2, aborted=0)
    assert round(watch.timers[-1][0] - watch.time(), 6) == 0.2
    assert len(caplog.records) == 1


async def test_a_lost_connection_does_not_matter(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """A connection that is gone before it is accepted is counted, and the next is taken in the same turn."""
    scene.client()
    scene.socket.plan = [errno.ECONNABORTED, errno.EPROTO]
    listener = Listener(current_loop(), scene.socket, scene.take)
    await until(lambda: len(scene.taken) == 1)
    listener.stop()
    assert listener.statistics() == ListenerStatistics(accepted=1, paused=0, aborted=2)
    assert caplog.records == []


async def test_a_failing_callback_costs_one_connection(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """When the callback raises, its connection is closed, the error is logged, and the next one is taken."""

    def take(sock: socket.socket) -> None:
        if sock.recv(1) == b"b":
            raise ValueError("bad")
        scene.take(sock)

    bad, good = scene.client(), scene.client()
    bad.send(b"b")
    good.send(b"g")
    listener = Listener(current_loop(), scene.socket, take)
    await until(lambda: len(scene.taken) == 1)
    listener.stop()
    assert bad.recv(1) == b""
    assert listener.statistics() == ListenerStatistics(accepted=1, paused=0, aborted=1)
    assert [(record.levelno, record.exc_info is not None) for record in caplog.records] == [(logging.ERROR, True)]


async def test_stop_closes_the_socket_and_can_be_repeated(scene: Scene) -> None:
    """After stop nobody can connect, those who wait are told, and stopping again does nothing."""
    loop = current_loop()
    listener = Listener(loop, scene.socket, scene.take)
    waiting = scene.client()
    listener.stop()
    listener.stop()
    assert scene.socket.fileno() == -1
    with pytest.raises(ConnectionRefusedError):
        scene.client()
    with pytest.raises(ConnectionResetError):
        waiting.recv(1)
    await anyio.wait_all_tasks_blocked()
    assert scene.taken == []


async def test_stop_within_a_callback_takes_no_more(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """A callback that stops the listener has got the last connection, and nothing is reported."""

    def take(sock: socket.socket) -> None:
        scene.take(sock)
        listener.stop()

    scene.client()
    scene.client()
    listener = Listener(current_loop(), scene.socket, take)
    await until(lambda: bool(scene.taken))
    await anyio.wait_all_tasks_blocked()
    assert listener.statistics() == ListenerStatistics(accepted=1, paused=0, aborted=0)
    assert caplog.records == []


def test_stop_during_a_pause_ends_it(scene: Scene) -> None:
    """A stopped listener does not come back when its pause is over, not even with a timer that is running already."""
    watch = Watch()
    scene.socket.plan = [errno.EMFILE]
    listener = Listener(watch.as_loop(), scene.socket, scene.take)
    watch.turn()
    late = watch.timers[-1][1].callback
    listener.stop()
    assert watch.timers[-1][1].callback is None
    assert late is not None
    late()
    assert watch.readers == {}


def stop_in_child(listener: Listener) -> int:
    """Stop the listener in a forked child, and return the child's exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            listener.stop()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def test_stop_in_a_forked_child_leaves_the_parent_alone(scene: Scene) -> None:
    """A child that closes what it inherited does not make the parent deaf, although they share the kernel's watch."""
    listener = Listener(current_loop(), scene.socket, scene.take)
    scene.client()
    await until(lambda: len(scene.taken) == 1)
    assert stop_in_child(listener) == 0
    scene.client()
    await until(lambda: len(scene.taken) == 2)
    listener.stop()
