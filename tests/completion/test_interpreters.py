"""Pools of interpreters: what is missing is named, and handlers run where nothing is missing.

Interpreters are there from CPython 3.14 on. With the real ones the tests run there; everywhere they run with a stand-in
that runs everything in this interpreter.
"""

from __future__ import annotations

import importlib.util
import queue
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

import alpc_async as alpc
from alpc_async import Status
from alpc_async.completion._interpreter_code import run as run_inside
from alpc_async.completion._interpreters import CODE, MODULE, find_interpreters
from tests.completion.plain_handlers import NAME
from tests.completion.test_pools import pool_of
from tests.port.support import WAIT, until

PRESENT = importlib.util.find_spec(MODULE) is not None


class ExecutionFailed(Exception):
    """Code in an interpreter raised an exception."""


class Interpreter:
    """Stands in for an interpreter: names of its own, in this one."""

    closed = 0

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}

    def prepare_main(self, **names: Any) -> None:
        """Set variables."""
        self.names.update(names)

    def exec(self, code: str) -> None:
        """Run code."""
        try:
            exec(code.replace("sys.path[:] = list(alpc_path)", ""), self.names)  # noqa: S102  # that is what it is for
        except Exception as error:
            raise ExecutionFailed(f"{type(error).__name__}: {error}") from None

    def close(self) -> None:
        """Count that it was closed."""
        Interpreter.closed += 1


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.skipif(not PRESENT, reason="needs 3.14"))])
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Provide the module for interpreters, and a place where the handlers are found."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    if request.param == "stand-in":
        stand_in = ModuleType(MODULE)
        vars(stand_in).update(create=Interpreter, create_queue=queue.Queue, ExecutionFailed=ExecutionFailed)
        monkeypatch.setitem(sys.modules, MODULE, stand_in)
        monkeypatch.setattr(Interpreter, "closed", 0)
    return str(request.param)


def interpreters(handler: str, **options: Any) -> Any:
    """Run a pool of interpreters with one of the plain handlers."""
    return pool_of(f"{NAME}:{handler}", kind="interpreter", **options)


async def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the module, or a part of it, the pool says which, and what to do; private modules do not count."""
    monkeypatch.setitem(sys.modules, MODULE, None)
    monkeypatch.setitem(sys.modules, "_interpreters", ModuleType("_interpreters"))
    async with alpc.CompletionPort() as completion_port:
        with pytest.raises(alpc.InterpretersMissing, match="kind='process'") as caught:
            alpc.WorkerPool(completion_port, "m:f", kind="interpreter")
    assert caught.value.lacks == "the module concurrent.interpreters"
    assert caught.value.python == sys.version.split()[0]
    partly = ModuleType(MODULE)
    vars(partly).update(create=Interpreter, ExecutionFailed=ExecutionFailed)
    monkeypatch.setitem(sys.modules, MODULE, partly)
    with pytest.raises(alpc.InterpretersMissing) as caught:
        find_interpreters()
    assert caught.value.lacks == "concurrent.interpreters.create_queue"


async def test_a_handler_is_named(module: str) -> None:
    """A function itself cannot be taken to an interpreter."""
    del module
    async with alpc.CompletionPort() as completion_port:
        for handler in ("no colon", print):
            with pytest.raises(TypeError, match="module:function"):
                alpc.WorkerPool(completion_port, handler, kind="interpreter")


async def test_interpreters_answer(module: str) -> None:
    """Every request gets its own answer, and every interpreter is closed at the end."""
    async with interpreters("echo", minimum=2, maximum=2) as (pool, left, _):
        pending = [left.start_request(b"%d" % number * 1000) for number in range(20)]
        assert [(await request).data for request in pending] == [b"%d" % number * 1000 for number in range(20)]
        await pool.wait_idle()
        assert (pool.statistics().handled, pool.statistics().failed) == (20, 0)
    if module == "stand-in":
        assert Interpreter.closed == 2


async def test_a_handler_in_an_interpreter_knows_the_message(module: str) -> None:
    """Key, sender and deadline reach it."""
    del module
    async with interpreters("describe") as (_, left, _completion_port):
        *_, answer = (await left.request(b"", timeout=30)).data.decode().rsplit(" ", 3)
        assert answer == "True"


async def test_errors_cross_from_an_interpreter(module: str, caplog: pytest.LogCaptureFixture) -> None:
    """An exception fails its request and is logged here; a fault is passed on; silence leaves the request open."""
    del module
    async with interpreters("misbehave") as (pool, left, _):
        with pytest.raises(alpc.RemoteFault) as caught:
            await left.request(b"raise")
        assert caught.value.status == Status.HANDLER_FAILED
        assert "secret" not in caught.value.reason
        with pytest.raises(alpc.RemoteFault, match="not today") as caught:
            await left.request(b"fail")
        assert caught.value.status == 1234
        with pytest.raises(alpc.DeadlineExceeded):
            await left.request(b"silent", timeout=0.1)
        assert pool.statistics().failed == 1
    assert "the secret detail" in str(caplog.records[0].exc_info)


async def test_a_handler_in_an_interpreter_sees_a_cancellation(module: str, tmp_path: Path) -> None:
    """It ends by itself, also when the pool ends before it does."""
    mark = tmp_path / "begun"
    async with interpreters("until_cancelled", maximum=1) as (pool, left, _):
        pending = left.start_request(str(mark).encode(), timeout=None)
        await until(mark.exists)
        pending.cancel()
        with anyio.fail_after(WAIT):
            await pool.wait_idle()
        assert pool.statistics().cancelled == 1
        mark.unlink()
        left.start_request(str(mark).encode(), timeout=None)
        await until(mark.exists)
    if module == "stand-in":
        await until(lambda: Interpreter.closed == 1)


async def test_a_handler_that_cannot_be_loaded_is_seen_at_once(module: str) -> None:
    """The pool cannot be entered, and says what the interpreter said."""
    async with alpc.CompletionPort() as completion_port:
        with pytest.raises(alpc.HandlerNotLoaded, match="missing") as caught:
            async with alpc.WorkerPool(completion_port, f"{NAME}:missing", kind="interpreter"):
                pass
    assert caught.value.target == f"{NAME}:missing"
    assert "kind='process'" in str(caught.value)
    if module == "stand-in":
        assert Interpreter.closed == 1


def test_the_code_inside_needs_nothing_but_the_standard_library() -> None:
    """It is loaded by its path, so nothing of this package and of others may be imported by it."""
    code = CODE.read_text()
    assert "from ." not in code
    assert "alpc_async" not in code
    answer = run_inside(lambda message: message.reply(memoryview(b"a")), (b"", None, None, 1.0), bytearray(1))
    assert answer == (0, 0, b"a")
