"""How the demo ends early: by a signal, by the death of a process, by a process that never begins.

Belongs here: endings. Never here: what a run to the end shows (`test_demo`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alpc_async.tools import _demo, _demo_processes, _demo_run
from tests.tools.demo_program import (
    PATIENCE,
    ROOT,
    arguments,
    assert_nothing_left,
    child,
    environment,
    processes_of,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A tree that takes much longer than any test; it has no content on the disk."""
    tree = tmp_path / "endless"
    tree.mkdir()
    for number in range(8):
        with (tree / f"file {number}").open("wb") as file:
            file.truncate(64 * 1024**3)
    return tree


@pytest.fixture
def running(backend: str, temporary: Path, endless: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo in the middle of its work, in a process group of its own."""
    program = subprocess.Popen(
        arguments(backend, endless),
        cwd=ROOT,
        env=environment(temporary),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    with program:
        client = child(temporary, "client")

        def is_reading() -> bool:
            try:
                return any(str(endless) in os.readlink(entry) for entry in Path(f"/proc/{client}/fd").iterdir())
            except FileNotFoundError:  # a descriptor was closed meanwhile
                return False

        wait_for(is_reading, "a client that reads")
        yield program
        program.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything(running: subprocess.Popen[str], temporary: Path, number: signal.Signals) -> None:
    """A signal to the parent ends the demo with the status of that signal, and nothing is left."""
    assert len(processes_of(temporary)) == 4
    running.send_signal(number)
    _, errors = running.communicate(timeout=PATIENCE)
    assert running.returncode == 128 + number
    assert errors == f"alpc demo: ended by {number.name}; nothing is left behind\n"
    assert_nothing_left(temporary)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_of_the_terminal_ends_everything(
    running: subprocess.Popen[str], temporary: Path, number: signal.Signals
) -> None:
    """A signal to the whole process group, as a terminal sends it, ends the demo like one to the parent."""
    os.killpg(running.pid, number)
    _, errors = running.communicate(timeout=PATIENCE)
    assert running.returncode == 128 + number
    assert errors == f"alpc demo: ended by {number.name}; nothing is left behind\n"
    assert_nothing_left(temporary)


def test_ctrl_c_while_processes_start_ends_everything(backend: str, temporary: Path, endless: Path) -> None:
    """A signal that comes before all processes have begun leaves nothing either."""
    with subprocess.Popen(
        arguments(backend, endless), cwd=ROOT, env=environment(temporary), stderr=subprocess.PIPE, text=True
    ) as program:
        child(temporary, "server")
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=PATIENCE)
    assert program.returncode == 130
    assert errors == "alpc demo: ended by SIGINT; nothing is left behind\n"
    assert_nothing_left(temporary)


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_child_that_dies_fails_the_demo(running: subprocess.Popen[str], temporary: Path, role: str) -> None:
    """When the server or a client is killed, the error says who and how, the status is 1, and nothing is left."""
    os.kill(child(temporary, role), signal.SIGKILL)
    _, errors = running.communicate(timeout=PATIENCE)
    assert running.returncode == 1
    assert errors.startswith(f"alpc demo: the {role}")
    assert "ended unexpectedly (killed by SIGKILL)" in errors
    assert_nothing_left(temporary)


def test_children_do_not_outlive_the_parent(running: subprocess.Popen[str], temporary: Path) -> None:
    """When the parent is killed, which it cannot tell anybody, its children see it and end themselves."""
    running.kill()
    running.wait(PATIENCE)
    wait_for(lambda: processes_of(temporary) == {}, "the end of all children")
    assert running.returncode == -signal.SIGKILL


def test_clients_end_with_the_parent_although_the_server_hangs(running: subprocess.Popen[str], temporary: Path) -> None:
    """A client that waits for a server that does not answer still sees that the parent is gone."""
    server = child(temporary, "server")
    os.kill(server, signal.SIGSTOP)
    try:
        running.kill()
        running.wait(PATIENCE)
        wait_for(lambda: set(processes_of(temporary)) == {server}, "the end of all clients")
        assert running.returncode == -signal.SIGKILL
    finally:
        os.kill(server, signal.SIGCONT)
    wait_for(lambda: processes_of(temporary) == {}, "the end of the server")


def test_a_server_that_never_begins_fails_the_demo(
    backend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """When a process does not begin in time the demo says so, and ends it even if it ignores being asked to."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    monkeypatch.setattr(_demo_run, "STARTUP_TIMEOUT", 0.25)
    monkeypatch.setattr(_demo_processes, "GRACE", 0.1)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    plan = _demo_run.Plan(paths=[os.fsencode(__file__)], backend=backend, clients=1, server_module="deaf_server")
    assert _demo.carry_out(plan) == 1
    assert capsys.readouterr().err == "alpc demo: not all processes had begun after 0.25 s\n"
    assert_nothing_left(tmp_path)


def test_a_server_that_crashes_is_quoted(
    backend: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When a process fails by itself, what it wrote is part of the error."""
    plan = _demo_run.Plan(paths=[os.fsencode(__file__)], backend=backend, server_module="no_such_module")
    assert _demo.carry_out(plan) == 1
    errors = capsys.readouterr().err
    assert "the server ended unexpectedly (exit status 1); it wrote:" in errors
    assert "No module named no_such_module" in errors
