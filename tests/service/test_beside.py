"""Handles and views as arguments and results: who owns them, what is refused, what a cancellation leaves.

Belongs here: `alpc.Handle` and `alpc.View` in contracts. Never here: handles and views of plain messages (`tests/port`,
`tests/memory`).
"""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator  # noqa: TC003  # contracts are read at run time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import alpc_async as alpc
from alpc_async import blocking
from alpc_async.service import find_breaks
from alpc_async.testing import LeakCounter
from tests.port.support import until
from tests.service.vault import LIMITS, NAME, UUID, Labelled, Vault, VaultServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with some lines."""
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\n")
    return path


Served = tuple[VaultServer, Vault]


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    """A served vault with one client."""
    server = VaultServer()
    async with (
        alpc.serve(NAME, server, limits=LIMITS) as server.service,
        alpc.connect(NAME, Vault, limits=LIMITS) as vault,
    ):
        yield server, vault


# ------------------------------------------------------------------------------------------------------------- handles


async def test_a_handle_is_an_argument(served: Served, file: Path) -> None:
    """A handle arrives as one of the handler's own, and the caller's is consumed."""
    _, vault = served
    handle = alpc.Handle.open(file)
    assert await vault.read(handle, size=3) == b"one"
    assert handle.closed


async def test_handles_may_be_inside_of_other_values(served: Served, file: Path) -> None:
    """Handles cross in records, lists and optional parameters, each in its place."""
    _, vault = served
    other = file.with_name("other")
    other.write_bytes(b"other")
    handles = [alpc.Handle.open(path) for path in (file, other, other)]
    records = [Labelled("first", handles[0]), Labelled("second", handles[1])]
    found = await vault.many(records, spare=handles[2])
    assert found == {"first": b"one\ntwo\n", "second": b"other", "spare": b"other"}
    assert all(handle.closed for handle in handles)
    assert await vault.many([]) == {}


async def test_a_handle_is_a_result(served: Served, file: Path) -> None:
    """A returned handle belongs to the caller, and the handler's is consumed; one may go there and back."""
    _, vault = served
    with await vault.open(str(file)) as handle, await vault.swap(handle.duplicate()) as again:
        assert os.pread(handle.fileno(), 3, 0) == b"one"
        assert os.pread(again.fileno(), 3, 4) == b"two"


async def test_one_way_calls_and_streams_take_handles(served: Served, file: Path) -> None:
    """A handle goes along with a one-way call and with the call that opens a stream, which consumes it when it ends."""
    server, vault = served
    with await alpc.port_of(vault).allocate(4) as view:
        view.data[:] = b"view"
        await vault.drop(alpc.Handle.open(file), view)
    await until(lambda: server.dropped == [b"one\ntwo\nview"])
    assert [line async for line in vault.lines(alpc.Handle.open(file))] == [b"one", b"two"]
    handle = alpc.Handle.open(file)
    never_begun: Any = vault.lines(handle)
    await never_begun.aclose()
    assert handle.closed


async def test_a_call_that_fails_consumes_its_handles(served: Served, file: Path) -> None:
    """Handles are closed when the arguments do not fit, when the proxy is closed, and when the call is turned away."""
    _, vault = served
    anything: Any = vault
    handle = alpc.Handle.open(file)
    with pytest.raises(alpc.TypeMismatch, match=r"Vault\.read, argument 'size'"):
        await anything.read(handle, "x")
    assert handle.closed
    with pytest.raises(alpc.TypeMismatch, match=r"Vault\.read, argument 'file'.*is closed"):
        await vault.read(handle)
    for arguments in ((), (5,), ("x",), (None,)):
        with pytest.raises(alpc.TypeMismatch, match=r"Vault\.read"):
            await anything.read(*arguments)
    handle, other = alpc.Handle.open(file), alpc.Handle.open(file)
    with pytest.raises(alpc.TypeMismatch, match=r"Vault\.read"):
        await anything.read(handle, 1, other)
    assert handle.closed
    assert other.closed
    handle = alpc.Handle.open(file)
    with pytest.raises(alpc.TypeMismatch, match=r"Vault\.many, argument 'spare'.*given twice|argument 'files'.*twice"):
        await vault.many([Labelled("a", handle)], handle)
    assert handle.closed
    handle = alpc.Handle.open(file)
    with pytest.raises(alpc.TypeMismatch, match=r"Vault\.plain"):
        await anything.plain(handle)
    handle.close()
    handle = alpc.Handle.open(file)
    with pytest.raises(alpc.TypeMismatch, match=r"Vault\.lines"):
        anything.lines(file=handle, more=1)
    assert handle.closed
    await vault.aclose()
    handle = alpc.Handle.open(file)
    with pytest.raises(alpc.PortClosed):
        await vault.read(handle)
    assert handle.closed


async def test_handles_need_limits_that_allow_them(file: Path) -> None:
    """Without handles on either side, or with too many, a call is refused; an answer fails with a status."""
    async with alpc.serve(NAME, VaultServer(), limits=LIMITS):
        async with alpc.connect(NAME, Vault) as vault:
            handle = alpc.Handle.open(file)
            with pytest.raises(alpc.HandleRefused, match="max_handles"):
                await vault.read(handle)
            assert handle.closed
            with pytest.raises(alpc.RemoteFault, match="max_handles") as caught:
                await vault.open(str(file))
            assert caught.value.status == alpc.Status.HANDLES_REFUSED
            assert await vault.plain("works") == "works"
        async with alpc.connect(NAME, Vault, limits=LIMITS) as vault:
            handles = [alpc.Handle.open(file) for _ in range(5)]
            with pytest.raises(alpc.HandleRefused, match="5 with one message"):
                await vault.many([Labelled(str(number), handle) for number, handle in enumerate(handles)])
            assert all(handle.closed for handle in handles)
            with pytest.raises(alpc.RemoteFault) as caught:
                await vault.read(alpc.Handle.open("/dev/null", os.O_RDONLY))
            assert caught.value.status == alpc.Status.HANDLES_REFUSED


@pytest.mark.parametrize("how", ["type", "closed"])
async def test_a_wrong_result_closes_its_handles(served: Served, how: str) -> None:
    """A handler that gives a handle where none belongs, or a closed one, fails the call; nothing is left open."""
    _, vault = served
    with pytest.raises(alpc.RemoteFault) as caught:
        await vault.wrong(how)
    assert caught.value.status == alpc.Status.BAD_RESULT


async def test_a_connection_is_no_argument(served: Served) -> None:
    """A connection that was given up for passing on is refused, and closed, as an argument."""
    _, vault = served
    async with alpc.port_pair() as pair:
        handle = await pair.left.hand_over()
        with pytest.raises(alpc.TypeMismatch, match="a message of its own"):
            await vault.read(handle)
        assert handle.closed


# --------------------------------------------------------------------------------------------------------------- views


async def test_a_view_is_an_argument(served: Served) -> None:
    """A view arrives without a copy, is released when the call ends, and stays the caller's to use again."""
    server, vault = served
    port = alpc.port_of(vault)
    with await port.allocate(4) as view:
        for value in (1, 2):
            view.data[:] = bytes([value] * 4)
            assert await vault.total(view, "note") == 4 * value
            assert server.seen[-1].released
    with pytest.raises(alpc.TypeMismatch, match=r"Vault\.total, argument 'data'.*was released"):
        await vault.total(view)


async def test_a_view_can_be_kept(served: Served) -> None:
    """A handler that keeps a view holds it beyond the end of the call, and releases it itself."""
    server, vault = served
    with await alpc.port_of(vault).allocate(4) as view:
        view.data[:] = b"kept"
        await vault.keep(view)
    (kept,) = server.kept
    assert bytes(kept.data) == b"kept"
    kept.release()


async def test_a_view_in_use_goes_back_later(served: Served) -> None:
    """A buffer that the handler still holds keeps the memory alive after the call; nothing else fails."""
    server, vault = served

    class Holding(VaultServer):
        async def total(self, data: alpc.View, note: str = "") -> int:
            self.part = data.data[:2]
            return 0

    holding = Holding()
    server.total = holding.total  # type: ignore[method-assign]  # what a handler holds is what is tested
    with await alpc.port_of(vault).allocate(4) as view:
        view.data[:] = b"part"
        await vault.total(view)
        assert bytes(holding.part) == b"pa"
        holding.part.release()


async def test_a_view_is_a_result(served: Served) -> None:
    """A returned view belongs to the caller; the handler's own is given up with the answer."""
    server, vault = served
    with await vault.fill(5) as view:
        assert bytes(view.data) == bytes(range(5))
    assert server.seen[0].released


async def test_a_view_goes_there_and_back(served: Served) -> None:
    """A view that both sides may write can be returned by the call that it was an argument of."""
    _, vault = served
    with await alpc.port_of(vault).allocate(5, mode="shared") as view:
        view.data[:] = b"shout"
        with await vault.upper(view) as back:
            assert bytes(back.data) == b"SHOUT"


async def test_views_of_others_are_refused(served: Served) -> None:
    """A view of another connection cannot be an argument here, and the text says what to do."""
    _, vault = served
    async with alpc.connect(NAME, Vault, limits=LIMITS) as other:
        with await alpc.port_of(other).allocate(4) as view:
            with pytest.raises(alpc.TypeMismatch, match=r"Vault\.total, argument 'data'.*port_of"):
                await vault.total(view)
            assert await other.total(view) == 0


# --------------------------------------------------------------------------------------------------------- cancellation


async def test_cancelling_leaves_nothing(served: Served, file: Path) -> None:
    """A call that is cancelled closes its handle here; there the handler owns it, and the view has gone back."""
    server, vault = served
    handle = alpc.Handle.open(file)
    with await alpc.port_of(vault).allocate(4) as view:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(vault.hang, handle, view)
            await until(lambda: server.started == 1)
            tasks.cancel_scope.cancel()
        assert handle.closed
        await until(lambda: server.seen[0].released)
        assert not server.handles[0].closed
        server.handles[0].close()


@pytest.mark.parametrize("method", ["read", "swap", "open", "fill", "total", "upper"])
async def test_cancelling_at_every_moment(served: Served, file: Path, method: str) -> None:
    """Wherever a call is cancelled, no descriptor and no shared memory is left, neither here nor there."""
    server, vault = served
    port = alpc.port_of(vault)
    (other,) = server.service.connections
    counter = LeakCounter()
    for turns in range(14):
        view = await port.allocate(4, mode="live" if method != "upper" else "shared")
        given: dict[str, Any] = {"open": str(file), "fill": 5, "total": view, "upper": view}
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(getattr(vault, method), given.get(method) or alpc.Handle.open(file))
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
        view.release()
    assert await vault.plain("x") == "x"
    gc.collect()
    await until(lambda: port.statistics().lent == other.statistics().lent == 0)
    # Sections are kept for a while.
    await until(lambda: not [left for left in counter.left() if str(file) in left], str(counter.left()))


# ----------------------------------------------------------------------------------------------------------- contracts


def declare_given() -> type[alpc.Interface]:
    """Declare a parameter that is a stream of handles."""

    class Given(alpc.Interface, uuid=UUID):
        async def files(self, given: AsyncIterator[alpc.Handle]) -> None: ...

    return Given


def declare_taken() -> type[alpc.Interface]:
    """Declare a stream of results with views in its items."""

    class Taken(alpc.Interface, uuid=UUID):
        def files(self) -> AsyncIterator[list[alpc.View]]: ...

    return Taken


def declare_again() -> type[alpc.Interface]:
    """Declare an idempotent method that takes a handle."""

    class Again(alpc.Interface, uuid=UUID):
        @alpc.idempotent
        async def read(self, name: str, file: alpc.Handle) -> None: ...

    return Again


def test_what_a_contract_cannot_have() -> None:
    """Items of streams and idempotent calls have no handles or views, and the error names method and parameter."""
    with pytest.raises(alpc.InvalidInterface, match=r"(?s)files.*given.*items of a stream"):
        declare_given()
    with pytest.raises(alpc.InvalidInterface, match=r"(?s)files.*items of a stream"):
        declare_taken()
    with pytest.raises(alpc.InvalidInterface, match=r"(?s)read.*file.*repeated"):
        declare_again()


def test_handles_and_views_are_described() -> None:
    """The description says what travels beside the values, and exchanging one for the other is a break."""

    class Before(alpc.Interface, uuid=UUID):
        async def read(self, file: alpc.Handle) -> int: ...

    class After(alpc.Interface, uuid=UUID):
        async def read(self, file: alpc.View) -> int: ...

    old, new = alpc.describe_interface(Before), alpc.describe_interface(After)
    assert old.methods[0].parameters[0].schema == {"x-alpc-beside": "handle"}
    assert find_breaks(old, old) == []
    assert find_breaks(old, new) == ["Before.read: parameter 'file': it was a handle and is a view"]


def test_blocking_clients_pass_handles(file: Path) -> None:
    """The blocking client passes handles and takes them like the asynchronous one."""

    async def main() -> None:
        async with alpc.serve(NAME, VaultServer(), limits=LIMITS):
            await anyio.to_thread.run_sync(call)

    def call() -> None:
        with blocking.connect(NAME, Vault, limits=LIMITS) as vault:
            assert vault.read(alpc.Handle.open(file), 3) == b"one"
            with vault.call(Vault.open, str(file)) as handle:
                assert os.pread(handle.fileno(), 3, 0) == b"one"

    anyio.run(main)
