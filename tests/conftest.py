"""What every test gets: an event loop by fixture id, a directory of port names of its own, and a check for leaks.

Belongs here: fixtures and options that hold for the whole suite. Never here: helpers of one layer.

The loop of a test is started by anyio's plugin when the first asynchronous fixture or the test itself needs it, and
stopped when the last of them is done. The leak check is a synchronous fixture that stands before all of those, so both
of its counts happen while no loop of the test exists, and the comparison needs no exceptions for descriptors of loops.
A fixture of a wider scope stands before the check in turn, and is in both counts.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import sys
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import pytest

from alpc_async.testing import LeakCounter

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


class _Loop(NamedTuple):
    backend: str
    options: dict[str, Any]
    module: str


_LOOPS = {
    "asyncio": _Loop("asyncio", {"use_uvloop": False}, "asyncio"),
    "asyncio+uvloop": _Loop("asyncio", {"use_uvloop": True}, "uvloop"),
    "trio": _Loop("trio", {}, "trio"),
}
_FAILED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--loop`` and ``--loops-in-turn``, which restrict asynchronous tests to some of the event loops."""
    parser.addoption(
        "--loop",
        action="append",
        choices=list(_LOOPS),
        help="run asynchronous tests on this event loop only; may be repeated (default: all)",
    )
    parser.addoption(
        "--loops-in-turn",
        action="store_true",
        help="run each asynchronous test on one event loop, which differs between tests and between Pythons",
    )


def pytest_configure() -> None:
    """Let programs that the tests start be interrupted, also where the suite runs in the background of a shell.

    A shell has its background jobs ignore SIGINT, programs inherit that, and Python then leaves the signal ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests of event loops that were not asked for; tests without a loop stay."""
    chosen: list[str] = config.getoption("--loop") or list(_LOOPS)
    in_turn = bool(config.getoption("--loops-in-turn"))
    kept: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    for item in items:
        callspec = item.callspec if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
        loop: object = callspec.params.get("anyio_backend") if callspec else None
        wanted = not isinstance(loop, str) or (loop == _turn(item, loop, chosen) if in_turn else loop in chosen)
        (kept if wanted else deselected).append(item)
    if deselected:
        items[:] = kept
        config.hook.pytest_deselected(items=deselected)


def _turn(item: pytest.Item, loop: str, loops: list[str]) -> str:
    # The same for every process of a run; the next Python takes the next loop.
    name, _, ids = item.nodeid.partition("[")
    others = ids.removesuffix("]").split("-")
    others.remove(loop)
    test = "-".join([name, *others])
    return loops[(zlib.crc32(test.encode()) + sys.version_info.minor) % len(loops)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note whether a test failed, for the leak check."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


def _is_installed(loop: _Loop) -> bool:
    return importlib.util.find_spec(loop.module) is not None


# The scope is that of anyio's own fixture: Hypothesis refuses to share a function's fixture among its examples.
@pytest.fixture(scope="module", params=list(_LOOPS))
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The event loop of an asynchronous test, in the form that anyio's plugin takes."""
    loop = _LOOPS[request.param]
    if not _is_installed(loop):
        pytest.skip(f"{loop.module} is not installed; it comes with the extra {loop.module!r}")
    return loop.backend, loop.options


@pytest.fixture(scope="session", autouse=True)
def _loops_are_warm() -> None:
    """Run every installed loop once: libuv opens a pipe for signals at its first use and keeps it to the end."""
    for loop in _LOOPS.values():
        if _is_installed(loop):
            anyio.run(anyio.sleep, 0, backend=loop.backend, backend_options=loop.options)


@pytest.fixture(autouse=True)
def _nothing_is_left_open(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a descriptor open or a shared section mapped, and name what it left."""
    counter = LeakCounter()
    yield
    # The traceback of a failed test keeps its variables alive; what they hold says nothing about the code.
    if request.node.stash.get(_FAILED, False):
        return
    left = counter.left()
    if left:
        pytest.fail("the test left open: " + "; ".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def runtime_directory(_nothing_is_left_open: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of port names that only this test uses, short enough for the address of a socket."""
    path = tempfile.mkdtemp(prefix="alpc-")
    monkeypatch.setenv("ALPC_RUNTIME_DIR", path)
    yield Path(path)
    shutil.rmtree(path)
