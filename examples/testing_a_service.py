"""Tests of a service without a socket, a name or a second process, and with faults between the two sides.

With pytest, each function that begins with ``test_`` is a test that anyio's plugin runs on every event loop.
"""

from __future__ import annotations

import argparse

import anyio
import pytest

import alpc_async as alpc
from alpc_async.testing import Disconnect, Split, assert_no_leaks, memory_port_pair


async def serve(port: alpc.CommunicationPort) -> None:
    """Be the service under test: say how long each request is."""
    async for batch in port:
        for message in batch:
            if message.type is alpc.MessageType.REQUEST:
                message.reply(b"%d" % len(message.data))


async def test_it_answers() -> None:
    """The service says how long a request is, also when the bytes of it arrive one by one."""
    for faults in ((), (Split(1),)):
        async with anyio.create_task_group() as tasks, memory_port_pair(left=faults, right=faults) as (client, server):
            tasks.start_soon(serve, server)
            assert (await client.request(b"four")).data == b"4"  # noqa: S101  # this is how a test speaks


async def test_its_client_notices_the_end() -> None:
    """A client whose connection breaks within a reply gets an error, and does not wait for its timeout."""
    async with anyio.create_task_group() as tasks, memory_port_pair(left=(Disconnect(10),)) as (client, server):
        tasks.start_soon(serve, server)
        with pytest.raises(alpc.Disconnected) as caught:
            await client.request(b"four", timeout=None)
        assert caught.value.sent  # noqa: S101  # the service may have done its work


async def main() -> None:
    """Run the tests without pytest."""
    for test in (test_it_answers, test_its_client_notices_the_end):
        with assert_no_leaks():
            await test()
        print("passed:", test.__name__)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
