"""The command line as a whole: how it is started, what it offers, and what it says when something is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio.lowlevel
import pytest

import alpc_async as alpc
from alpc_async.tools import _backends

ROOT = Path(__file__).parents[2]


def run(*arguments: str, without: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, as if a module were not installed."""
    hide = f"sys.modules[{without!r}] = None; " if without else ""
    code = f"import sys; {hide}from alpc_async.tools import main; sys.argv[0] = 'alpc'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=50
    )


def test_the_version_is_that_of_the_library() -> None:
    """``python -m alpc_async --version`` prints the version and succeeds."""
    command = [sys.executable, "-m", "alpc_async", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, alpc.__version__, "")


def test_the_help_names_every_command() -> None:
    """The help lists the demo and the benchmark."""
    done = run("--help")
    assert done.returncode == 0
    assert "demo" in done.stdout
    assert "bench" in done.stdout


@pytest.mark.parametrize("module", ["cyclopts", "rich"])
def test_without_the_extra_one_line_says_how_to_get_it(module: str) -> None:
    """When a dependency of the command line is missing, one line names the extra, and the status is 2."""
    done = run("demo", without=module)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert module in done.stderr
    assert "pip install 'alpc-async[cli]'" in done.stderr


@pytest.mark.parametrize("backend", ["uvloop", "trio"])
def test_an_event_loop_that_is_not_installed_is_named_with_its_extra(backend: str) -> None:
    """Asking for a missing event loop is an error of usage that names the extra."""
    done = run("demo", "--backend", backend, without=backend)
    assert done.returncode == 2
    assert f"pip install 'alpc-async[{backend}]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("--backend", "curio"), ("--clients", "0"), ("--clients", "65"), ("--clients", "two"), ("/no/such/path",)],
    ids=["backend", "no-clients", "many-clients", "word", "path"],
)
def test_wrong_arguments_of_the_demo_are_refused(arguments: tuple[str, ...]) -> None:
    """A wrong argument fails before anything is started, with a message and without a traceback."""
    done = run("demo", *arguments)
    assert done.returncode not in (0, 130)
    message = done.stdout + done.stderr
    assert arguments[-1] in message
    assert "Traceback" not in message


def test_every_installed_event_loop_runs() -> None:
    """`run` returns what the function returns, on each event loop by its name."""

    async def double(value: int) -> int:
        await anyio.lowlevel.checkpoint()
        return 2 * value

    for name in _backends.installed():
        assert _backends.run(name, double, 21) == 42


def test_an_unknown_event_loop_is_refused() -> None:
    """A name that is no event loop is an error that names those that are."""
    with pytest.raises(ValueError, match="asyncio, uvloop, trio"):
        _backends.require("curio")
