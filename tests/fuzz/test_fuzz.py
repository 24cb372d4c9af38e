"""The fuzz session itself: its targets hold for what they begin with, and it finds what it should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alpc_async.wire import Endpoint, Request, Role, State, Ticket
from tests.fuzz.mutation import fuzz
from tests.fuzz.targets import TARGETS, check_stream, seeds

if TYPE_CHECKING:
    from collections.abc import Callable

    from alpc_async.wire import Event

RUN = Path(__file__).with_name("run.py")


@pytest.mark.parametrize("target", list(TARGETS))
def test_a_target_holds(target: str) -> None:
    """The invariant holds for every seed and a few hundred mutations of them."""
    count, finding = fuzz(TARGETS[target], seeds(target), seed=7, seconds=30.0, executions=200)
    assert finding is None
    assert count == 200


def test_a_broken_invariant_is_found() -> None:
    """A parser that fails for a certain byte is caught, the same way in every run."""

    def check(data: bytes) -> None:
        if b"\xff" in data:
            raise ValueError("of a test")

    runs = [fuzz(check, [b"harmless"], seed=3, seconds=30.0) for _ in range(2)]
    assert runs[0][0] == runs[1][0]
    finding = runs[0][1]
    assert finding is not None
    assert b"\xff" in finding.data
    assert isinstance(finding.error, ValueError)


def test_a_difference_between_splits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The invariant notices an endpoint that loses what comes in pieces."""

    def forgetful(self: Endpoint[Ticket], data: bytes) -> list[Event[Ticket]]:
        self._rest.clear()  # pyright: ignore[reportPrivateUsage]  # the mistake is made here
        return receive(self, data)

    receive: Callable[[Endpoint[Ticket], bytes], list[Event[Ticket]]] = Endpoint[Ticket].receive_data

    monkeypatch.setattr(Endpoint, "receive_data", forgetful)
    with pytest.raises(AssertionError, match="differ from the whole"):
        check_stream(Role.SERVER, State.OPEN, seeds("server-open")[-1] + seeds("server-open")[10])


@pytest.mark.parametrize("way", ["receive_single", "_receive_lent", "receive_pair"])
def test_the_short_ways_are_taken(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the target about short ways begins with takes each of them, so that they are compared with the long one."""
    taken = 0
    short: Callable[..., object] = getattr(Endpoint[Ticket], way)

    def counted(self: Endpoint[Ticket], *arguments: object) -> object:
        nonlocal taken
        found = short(self, *arguments)
        taken += found is not None
        return found

    monkeypatch.setattr(Endpoint, way, counted)
    for data in seeds("alone"):
        TARGETS["alone"](data)
    assert taken > 0


def test_a_short_way_that_does_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target about short ways notices one that takes a request and forgets to count it."""

    def careless(self: Endpoint[Ticket], data: bytes) -> Event[Ticket] | None:
        event = short(self, data)
        self.inflow.free_messages += isinstance(event, Request)
        return event

    short: Callable[[Endpoint[Ticket], bytes], Event[Ticket] | None] = Endpoint[Ticket].receive_single

    monkeypatch.setattr(Endpoint, "receive_single", careless)
    with pytest.raises(AssertionError):
        TARGETS["alone"](seeds("alone")[0])


def test_the_command(tmp_path: Path) -> None:
    """The session runs a target in a process of its own and reports executions and the outcome."""
    command = [sys.executable, str(RUN), "--target", "server-open", "--seconds", "0.2", "--engine", "mutation"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "executions in 0.2 s (mutation, seed 1)" in done.stdout
    assert "server-open: nothing found" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_target(tmp_path: Path) -> None:
    """A name that is no target is refused with the names of those that there are."""
    command = [sys.executable, str(RUN), "--target", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "server-handshake" in done.stderr
