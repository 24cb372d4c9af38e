"""Errors: each is what generic code expects, keeps its facts, and says what happened and what to do."""

from __future__ import annotations

import copy
import errno
import inspect

import anyio
import pytest

from alpc_async import contract_errors, errors, memory_errors

PORT = "port 'acme.printer'"

CASES: list[tuple[errors.AlpcError, type[Exception], list[str]]] = [
    (errors.PortClosed(port=PORT), anyio.ClosedResourceError, [PORT, "closed on this side"]),
    (errors.Disconnected(port=PORT, reason="it died"), anyio.BrokenResourceError, [PORT, "it died", "connect again"]),
    (errors.ForkedPort(port=PORT), RuntimeError, [PORT, "open a port of your own here"]),
    (errors.PortAssociated(port=PORT, receiver="the pool"), anyio.BusyResourceError, [PORT, "arrive at the pool"]),
    (errors.InvalidName(name="a/b", reason="it has a slash"), ValueError, ["'a/b'", "it has a slash", "letters"]),
    (
        errors.UnsafeDirectory(path="/x", reason="anybody can write"),
        PermissionError,
        ["/x", "anybody", "ALPC_RUNTIME_DIR"],
    ),
    (errors.NameNotFound(name="n", directories=("/a", "/b")), FileNotFoundError, ["'n'", "/a, /b", "start the server"]),
    (errors.NameCollision(name="n", directory="/a"), FileExistsError, ["'n'", "/a", "choose another"]),
    (errors.AccessDenied(what="connect", reason="uid 5"), PermissionError, ["access denied: connect: uid 5"]),
    (
        errors.ServerIdentityMismatch(name="n", identity="uid 5", required="uid 0"),
        PermissionError,
        ["'n'", "uid 5", "uid 0", "nothing was sent", "server="],
    ),
    (
        errors.ConnectionRefused(name="n", status=16, reason="full", data=b"later"),
        ConnectionRefusedError,
        ["'n'", "full", "and said b'later'"],
    ),
    (errors.MessageTooLong(port=PORT, size=9, limit=8), ValueError, ["9 bytes", "the 8", "PortLimits.max_message"]),
    (
        errors.QuotaExceeded(port=PORT, setting="max_pool_usage", limit=8),
        errors.AlpcError,
        ["quota of 8", "PortLimits.max_pool_usage", "wait for room"],
    ),
    (errors.ReplyMismatch(port=PORT, message_id=3, reason="answered"), errors.AlpcError, ["message 3", "answered"]),
    (errors.RequestCancelled(port=PORT, message_id=3), errors.AlpcError, ["request 3", "cancelled by its owner"]),
    (
        errors.DeadlineExceeded(what="it", timeout=2.5, setting="timeout="),
        TimeoutError,
        ["it did not finish within 2.5 s", "timeout="],
    ),
    (errors.ProtocolViolation(rule="be nice", detail="was not"), errors.AlpcError, ["be nice (was not)"]),
    (errors.RemoteFault(status=1001, reason="no paper"), errors.AlpcError, ["status 1001", "no paper"]),
    (errors.WorkerDied(status=9, exit_status=-9), errors.RemoteFault, ["status -9", "replaced"]),
    (
        errors.InterpretersMissing(python="3.11.7", lacks="the module m"),
        NotImplementedError,
        ["Python 3.11.7", "the module m", "3.14", "kind='process'"],
    ),
    (errors.HandlerNotLoaded(target="m:f", reason="no"), ImportError, ["m:f", "interpreter: no", "kind='process'"]),
    (memory_errors.UnsafeSection(rule="be sealed", detail="0x3"), errors.AlpcError, ["be sealed (0x3)", "not mapped"]),
    (
        memory_errors.OutOfSharedMemory(size=9, reason="full"),
        MemoryError,
        ["9 bytes", "full", "max_total_section_size"],
    ),
    (memory_errors.ViewReleased(what="view of 9 bytes"), ValueError, ["view of 9 bytes", "was released", "copy"]),
    (memory_errors.ViewInUse(what="view of 9 bytes"), BufferError, ["view of 9 bytes", "still used", "delete those"]),
    (memory_errors.DirectDenied(pid=7, reason="no"), PermissionError, ["process 7", "no", "send a view"]),
    (memory_errors.DirectFailed(pid=7, reason="it exited", copied=3), OSError, ["process 7", "it exited"]),
    (memory_errors.DirectOver(port=PORT, message_id=9), errors.AlpcError, [PORT, "request 9", "copy before you reply"]),
    (
        memory_errors.DirectRange(offset=5, size=6, length=7, reason="not declared as writable"),
        ValueError,
        ["6 bytes at 5 of the 7", "not declared as writable", "ask the client"],
    ),
    (memory_errors.HandleRefused(port=PORT, reason="too many"), PermissionError, [PORT, "too many"]),
    (
        contract_errors.InvalidInterface(interface="I", method="m", parameter="p", reason="no annotation"),
        TypeError,
        ["I.m, parameter 'p': no annotation"],
    ),
    (
        contract_errors.OutcomeUnknown(method="I.m", reason="it died"),
        anyio.BrokenResourceError,
        ["I.m may or may not", "it died", "@alpc.idempotent"],
    ),
    (
        contract_errors.UnknownInterface(interface="I", uuid="u", version=(1, 2), offered="it serves 1.1"),
        LookupError,
        ["I 1.2 (u)", "it serves 1.1", "at least"],
    ),
    (
        contract_errors.TypeMismatch(where="I.m, argument 'p'", detail="no int"),
        TypeError,
        ["I.m, argument 'p': no int"],
    ),
    (memory_errors.UnsuitableHandle(kind="SOCKET", reason="send a file"), ValueError, ["SOCKET", "send a file"]),
]


@pytest.mark.parametrize(("error", "kind", "words"), CASES, ids=[type(case[0]).__name__ for case in CASES])
def test_what_an_error_is_and_says(error: errors.AlpcError, kind: type[Exception], words: list[str]) -> None:
    """Generic code can catch it, and the text has the facts."""
    assert isinstance(error, errors.AlpcError)
    assert isinstance(error, kind)
    for word in words:
        assert word in str(error)


@pytest.mark.parametrize("error", [case[0] for case in CASES], ids=[type(case[0]).__name__ for case in CASES])
def test_every_fact_is_a_field(error: errors.AlpcError) -> None:
    """What the error was made of can be read from it."""
    facts = inspect.signature(type(error).__init__).parameters.keys() - {"self"}
    assert facts
    assert facts <= vars(error).keys()


@pytest.mark.parametrize("error", [case[0] for case in CASES], ids=[type(case[0]).__name__ for case in CASES])
def test_an_error_survives_a_copy(error: errors.AlpcError) -> None:
    """An error that a function raises in a pool of processes arrives as what it was; else it would end the pool."""
    again = copy.copy(error)
    assert (type(again), str(again), again.args, vars(again)) == (type(error), str(error), error.args, vars(error))
    assert getattr(again, "errno", None) == getattr(error, "errno", None)


def test_every_error_is_listed_and_tested() -> None:
    """The modules export all errors, and each is in the table above."""
    found: set[type] = set()
    for module in (errors, contract_errors, memory_errors):
        defined = {
            value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module.__name__
        }
        assert {kind.__name__ for kind in defined} == set(module.__all__)
        for name in module.__all__:
            assert name in (module.__doc__ or "")
        found |= defined
    assert found - {errors.AlpcError} == {type(case[0]) for case in CASES}


def test_numbers_of_the_system() -> None:
    """Errors that are also system errors have the number that fits."""
    numbers = {type(error).__name__: error.errno for error, _, _ in CASES if isinstance(error, OSError)}
    assert numbers == {
        "UnsafeDirectory": errno.EPERM,
        "NameNotFound": errno.ENOENT,
        "NameCollision": errno.EADDRINUSE,
        "AccessDenied": errno.EACCES,
        "ServerIdentityMismatch": errno.EACCES,
        "ConnectionRefused": errno.ECONNREFUSED,
        "DeadlineExceeded": errno.ETIMEDOUT,
        "DirectDenied": errno.EPERM,
        "DirectFailed": errno.EFAULT,
        "HandleRefused": errno.EPERM,
    }


def test_optional_parts_of_texts() -> None:
    """What is not known is not said; what is long is cut."""
    missing = str(errors.HandlerNotLoaded(target="m:f", reason="no", kind="process"))
    assert missing.startswith("the handler m:f cannot be loaded in a process: no; name a plain function")
    assert "may have seen" not in str(errors.Disconnected(port=PORT, reason="x"))
    assert "may have seen" in str(errors.Disconnected(port=PORT, reason="x", sent=True))
    assert "said" not in str(errors.ConnectionRefused(name="n", status=16, reason="full"))
    assert str(errors.ProtocolViolation(rule="be nice")) == "protocol violation: be nice"
    assert len(str(errors.InvalidName(name="x" * 5000, reason="long"))) < 400


def test_violations_compare_by_what_they_say() -> None:
    """Two reports of one violation are equal, and nothing else is."""
    violation = errors.ProtocolViolation(rule="r", detail="d")
    assert violation == errors.ProtocolViolation(rule="r", detail="d")
    assert hash(violation) == hash(errors.ProtocolViolation(rule="r", detail="d"))
    assert violation != errors.ProtocolViolation(rule="r", detail="e")
    assert violation != errors.ProtocolViolation(rule="q", detail="d")
    assert violation != "r"
