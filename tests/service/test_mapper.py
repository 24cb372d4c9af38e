"""Finding services by their interface, and starting them on demand.

Belongs here: the endpoint mapper. Never here: its command line.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import anyio
import pytest

import alpc_async as alpc
from alpc_async.testing import service_pair
from tests.port.support import WAIT, until
from tests.service.contracts import NAME, Counter, CounterServer, Files, FilesServer

ROOT = Path(__file__).parents[2]
FILES = "0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c01"


async def test_a_client_finds_a_service_by_its_interface() -> None:
    """A client that knows no name is told it by the mapper, as long as the registration is held."""
    async with (
        alpc.serve(alpc.MAPPER_NAME, alpc.EndpointMapperServer()),
        alpc.connect(alpc.MAPPER_NAME, alpc.EndpointMapper) as mapper,
    ):
        with pytest.raises(alpc.UnknownInterface, match="the endpoint mapper knows no port"):
            await alpc.connect(interface=Files)
        async with alpc.serve(NAME, FilesServer(), CounterServer(1)) as port:
            async with alpc.register(port, "files of acme") as registered:
                assert len(registered.registrations) == 2
                async with alpc.connect(interface=Files) as files, alpc.connect(interface=Counter) as counter:
                    assert await files.size(b"x") == 1
                    assert await counter.add(1) == 2
                (endpoint,) = await alpc.find_endpoints(Files)
                assert (endpoint.uuid, endpoint.version, endpoint.name) == (FILES, (1, 2), NAME)
                assert endpoint.annotation == "files of acme"
                assert await registered.registrations[0].endpoint() == endpoint
                assert len(await mapper.endpoints()) == 2
            while await mapper.endpoints():
                await anyio.lowlevel.checkpoint()
            with pytest.raises(alpc.UnknownInterface):
                await alpc.connect(interface=Files)


async def test_versions_are_minded() -> None:
    """Only endpoints of the same major and at least the same minor version are found."""
    server = alpc.EndpointMapperServer()
    async with service_pair(alpc.EndpointMapper, server) as mapper:
        held = [await mapper.register(FILES, version, f"n{version[1]}") for version in ((1, 0), (1, 3), (2, 0))]
        for version, expected in (((1, 0), ["n3", "n0"]), ((1, 1), ["n3"]), ((2, 0), ["n0"]), ((3, 0), [])):
            assert [endpoint.name for endpoint in await mapper.find(FILES, version)] == expected
        assert len(held) == 3


async def test_nobody_stands_before_another() -> None:
    """Everybody is told the endpoints of the own user first, then those of root, then others, however they came."""
    server = alpc.EndpointMapperServer()
    pairs = {
        uid: await service_pair(alpc.EndpointMapper, server, identity=alpc.Identity(uid=uid, gid=uid))
        for uid in (0, 1000, 1001)
    }
    held = [await pairs[uid].register(FILES, (1, 0), f"of.{uid}") for uid in (1000, 0, 1001)]
    for uid, expected in (
        (1000, ["of.1000", "of.0", "of.1001"]),
        (1001, ["of.1001", "of.0", "of.1000"]),
        (0, ["of.0", "of.1001", "of.1000"]),
    ):
        assert [endpoint.name for endpoint in await pairs[uid].find(FILES, (1, 0))] == expected
    assert len(held) == 3
    for mapper in pairs.values():
        await mapper.aclose()


SERVER = f"""
import pathlib, sys
with pathlib.Path(sys.argv[1]).open("a") as starts:
    starts.write("started ")
sys.path.insert(0, {str(ROOT)!r})
import anyio
import alpc_async as alpc
from tests.service.contracts import FilesServer

async def main():
    async with alpc.serve({NAME!r}, FilesServer()) as port, alpc.register(port):
        await port.wait_stopped()

anyio.run(main)
"""


async def test_a_server_is_started_on_demand_once(tmp_path: Path) -> None:
    """Many clients that ask for an interface at once start its server once, and all of them are served."""
    starts = tmp_path / "starts"
    activations = {FILES: alpc.Activation([sys.executable, "-c", SERVER, str(starts)], timeout=30.0)}
    sizes: list[int] = []

    async def use() -> None:
        async with alpc.connect(interface=Files) as files:
            sizes.append(await files.size(b"abc"))

    async with alpc.serve(alpc.MAPPER_NAME, alpc.EndpointMapperServer(activations)):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(use)
        assert sizes == [3] * 5
        assert starts.read_text() == "started "
        assert len(await alpc.find_endpoints(Files)) == 1
        async with alpc.connect(NAME, alpc.Management) as management:
            await management.stop(0.0)
        async with alpc.connect(alpc.MAPPER_NAME, alpc.EndpointMapper) as mapper:
            while await mapper.endpoints():
                await anyio.lowlevel.checkpoint()


async def test_a_socket_of_a_service_manager_is_told() -> None:
    """An interface whose socket a service manager holds has its port name without a registration, unless not wanted."""
    server = alpc.EndpointMapperServer({FILES.upper(): alpc.Activation(name=NAME)})
    own = os.geteuid()
    async with service_pair(alpc.EndpointMapper, server) as mapper:
        (endpoint,) = await mapper.find(FILES, (1, 1))
        assert (endpoint.uuid, endpoint.version, endpoint.name, endpoint.uid) == (FILES, (1, 1), NAME, own)
        assert await mapper.find(FILES, (1, 1), activate=False) == []
        assert await mapper.endpoints() == []
        held = await mapper.register(FILES, (1, 1), "own")
        assert [endpoint.name for endpoint in await mapper.find(FILES, (1, 1))] == ["own"]
        await held.aclose()
    with pytest.raises(ValueError, match="a command, or the name"):
        alpc.Activation()


async def test_a_stranger_does_not_keep_a_server_from_starting() -> None:
    """A registration of another user is told after the server that the mapper knows how to start, not instead of it."""
    server = alpc.EndpointMapperServer({FILES: alpc.Activation(name=NAME)})
    stranger = await service_pair(alpc.EndpointMapper, server, identity=alpc.Identity(uid=4711, gid=4711))
    caller = await service_pair(alpc.EndpointMapper, server, identity=alpc.Identity(uid=4712, gid=4712))
    held = await stranger.register(FILES, (1, 0), "of.a.stranger")
    assert [endpoint.name for endpoint in await caller.find(FILES, (1, 0))] == [NAME, "of.a.stranger"]
    assert [endpoint.name for endpoint in await stranger.find(FILES, (1, 0))] == ["of.a.stranger"]
    assert held is not None
    await caller.aclose()
    await stranger.aclose()


@pytest.mark.parametrize(
    ("command", "timeout", "told"),
    [
        ([sys.executable, "-c", "raise SystemExit(3)"], 20.0, "ended with status 3 before it registered"),
        ([sys.executable, "-c", "import time; time.sleep(3)"], 0.1, "did not register within 0.1 s"),
        (["/nowhere/at/all"], 20.0, "cannot be started: .*No such file"),
    ],
    ids=["ended", "late", "missing"],
)
async def test_a_server_that_does_not_come_is_given_up(
    command: list[str], timeout: float, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A command that ends, or does not register in time, or is not there is reported; the client hears of nobody."""
    activations = {FILES: alpc.Activation(command, timeout=timeout)}
    async with alpc.serve(alpc.MAPPER_NAME, alpc.EndpointMapperServer(activations)):
        with anyio.fail_after(WAIT), pytest.raises(alpc.UnknownInterface):
            await alpc.connect(interface=Files)
    assert re.search(told, caplog.text)
    caplog.clear()


async def test_a_user_has_a_number_of_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has as many as there may be gets no more until one is taken back; what is said of one is short."""
    monkeypatch.setattr("alpc_async.service._mapper.MAX_ENDPOINTS", 2)
    server = alpc.EndpointMapperServer()
    mapper = await service_pair(alpc.EndpointMapper, server, identity=alpc.Identity(uid=1000, gid=1000))
    other = await service_pair(alpc.EndpointMapper, server, identity=alpc.Identity(uid=1001, gid=1001))
    first = await mapper.register(FILES, (1, 0), "a", "x" * 100)
    second = await mapper.register(FILES, (1, 0), "b")
    assert (await first.endpoint()).annotation == "x" * 64
    with pytest.raises(alpc.RemoteFault, match="2 registrations already"):
        await mapper.register(FILES, (1, 0), "c")
    third = await other.register(FILES, (1, 0), "d")
    await second.aclose()
    await until(lambda: len(server._table) == 2)  # pyright: ignore[reportPrivateUsage]  # released in the background
    assert (await (await mapper.register(FILES, (1, 0), "c")).endpoint()).name == "c"
    assert (await third.endpoint()).uid == 1001
    await mapper.aclose()
    await other.aclose()


def test_a_port_name_is_needed_without_an_interface() -> None:
    """Connecting to nothing in particular is a mistake of the caller."""
    with pytest.raises(TypeError, match="needs the name of a port"):
        alpc.connect()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]  # the mistake
