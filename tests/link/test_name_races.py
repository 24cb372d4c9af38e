"""Names and processes: collisions, races, killed owners and forked children."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from alpc_async.errors import NameCollision
from alpc_async.link._names import NameLease
from tests.link.names import NAME, connect, helper, listener_pid, make_file

if TYPE_CHECKING:
    from pathlib import Path

ACQUIRE = f"""
    from alpc_async.errors import NameCollision
    from alpc_async.link._names import NameLease
    try:
        NameLease.acquire({NAME!r})
    except NameCollision:
        print("NameCollision", flush=True)
"""


def test_a_held_name_collides_in_the_same_process(runtime_directory: Path) -> None:
    """A second lease of a name fails while the first lives, also in one process, and does not harm the first."""
    with NameLease.acquire(NAME) as lease:
        with pytest.raises(NameCollision):
            NameLease.acquire(NAME)
        with pytest.raises(NameCollision) as caught:
            NameLease.acquire(NAME)
        assert (caught.value.name, caught.value.directory) == (NAME, str(runtime_directory))
        with helper(ACQUIRE) as other:
            assert other.hear() == "NameCollision"
        assert (runtime_directory / f"{NAME}.lock").exists()
        assert lease.directory == str(runtime_directory)


HOLD = f"""
    import sys
    from alpc_async.link._names import NameLease
    lease = NameLease.acquire({NAME!r})
    sock = lease.bind(0o600, 8)
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_does_not_block_its_name(runtime_directory: Path) -> None:
    """What a process leaves behind when it is killed neither blocks the name nor survives its next owner."""
    with helper(HOLD) as server:
        assert server.hear() == "ready"
        with pytest.raises(NameCollision):
            NameLease.acquire(NAME)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    assert sorted(os.listdir(runtime_directory)) == [NAME, f"{NAME}.lock"]
    with pytest.raises(ConnectionRefusedError):
        connect(runtime_directory)
    with NameLease.acquire(NAME) as lease, lease.bind(0o600, 1):
        assert listener_pid(runtime_directory) == os.getpid()
    assert list(runtime_directory.iterdir()) == []


HOLD_AND_FORK = f"""
    import os, signal, sys
    from alpc_async.link._names import NameLease
    lease = NameLease.acquire({NAME!r})
    sock = lease.bind(0o600, 8)
    if os.fork() == 0:
        print(sock.fileno(), lease.release(), flush=True)
        sys.stdin.read()
        os._exit(0)
    signal.pause()
"""


def test_a_forked_child_neither_keeps_nor_removes_the_name(runtime_directory: Path) -> None:
    """A forked child cannot release its parent's name, and does not hold it any longer than the parent lives."""
    with helper(HOLD_AND_FORK) as server:
        assert server.hear() == "-1 None"
        assert listener_pid(runtime_directory) == server.process.pid
        with pytest.raises(NameCollision):
            NameLease.acquire(NAME)
        server.process.kill()
        server.process.wait()
        with pytest.raises(ConnectionRefusedError):
            connect(runtime_directory)
        with NameLease.acquire(NAME) as lease, lease.bind(0o600, 1):
            assert listener_pid(runtime_directory) == os.getpid()


RACE = f"""
    import sys, time
    from alpc_async.errors import NameCollision
    from alpc_async.link._names import NameLease
    print("ready", flush=True)
    for line in sys.stdin:
        start = float(line)
        while time.monotonic() < start:
            pass
        try:
            lease = NameLease.acquire({NAME!r})
        except NameCollision:
            print("lost", flush=True)
            sys.stdin.readline()
        else:
            sock = lease.bind(0o600, 8)
            print("won", flush=True)
            sys.stdin.readline()
            sock.close()
            lease.release()
        print("over", flush=True)
"""


def test_exactly_one_process_wins_each_race(runtime_directory: Path) -> None:
    """Of four processes that take one name at the same moment exactly one gets it, whatever lies in its place."""
    with ExitStack() as stack:
        racers = [stack.enter_context(helper(RACE)) for _ in range(4)]
        assert [racer.hear() for racer in racers] == ["ready"] * 4
        for number in range(200):
            if number % 2:
                make_file(runtime_directory / NAME, "socket")
                make_file(runtime_directory / f"{NAME}.lock", "file")
            start = time.monotonic() + 0.002
            for racer in racers:
                racer.say(repr(start))
            answers = [racer.hear() for racer in racers]
            assert sorted(answers) == ["lost", "lost", "lost", "won"]
            assert listener_pid(runtime_directory) == racers[answers.index("won")].process.pid
            for racer in racers:
                racer.say("over")
            assert [racer.hear() for racer in racers] == ["over"] * 4
            assert list(runtime_directory.iterdir()) == []


CHURN = f"""
    import fcntl, os, sys, time
    from alpc_async.errors import NameCollision
    from alpc_async.link._names import NameLease
    marker = os.path.join(os.environ["ALPC_RUNTIME_DIR"], "held")
    flock = fcntl.flock
    def hesitate(fd, operation):
        time.sleep(0.0001)
        flock(fd, operation)
    fcntl.flock = hesitate
    print("ready", flush=True)
    sys.stdin.readline()
    held = 0
    for _ in range(800):
        try:
            lease = NameLease.acquire({NAME!r})
        except NameCollision:
            continue
        os.mkdir(marker)
        time.sleep(0.0002)
        os.rmdir(marker)
        lease.release()
        held += 1
    print(held, flush=True)
"""


def test_no_two_processes_hold_a_name_while_it_changes_hands(runtime_directory: Path) -> None:
    """A lock file that its holder removes between the opening and the locking of others never serves two of them."""
    with ExitStack() as stack:
        racers = [stack.enter_context(helper(CHURN)) for _ in range(4)]
        assert [racer.hear() for racer in racers] == ["ready"] * 4
        for racer in racers:
            racer.say("go")
        held = [int(racer.hear() or -1) for racer in racers]
    assert min(held) > 0
    assert list(runtime_directory.iterdir()) == []
