"""Measures how far a flood of one user delays the requests of another one. Run it as root.

    python docs/decisions/0017_user_pace.py [--rounds 5] [--seconds 2] [--connections 4]

For each setting a polite client of one user sends a request every millisecond, first alone and then beside a client of
another user that sends as fast as its quotas allow. Printed are the median and the 99th percentile of both, and the
median over the rounds of the ratio of the percentiles.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import anyio
import anyio.to_thread

import alpc_async as alpc

FLOODER, POLITE = 54_321, 54_322
SETTINGS: dict[str, dict[str, int]] = {
    "no limit": {"max_user_shared_rate": 0},
    "max_user_shared_rate=5000": {"max_user_shared_rate": 5000},
    "max_user_shared_rate=4000, the default": {},
    "max_user_shared_rate=10000": {"max_user_shared_rate": 10_000},
    "max_user_shared_rate=20000": {"max_user_shared_rate": 20_000},
    "max_user_rate=2000": {"max_user_rate": 2000},
}

BEGIN = """
import json, os, sys, time
from contextlib import AsyncExitStack
import anyio, anyio._backends._asyncio, asyncio
import alpc_async as alpc
uid, argument = int(sys.argv[1]), float(sys.argv[2])
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
"""

POLITE_CLIENT = f"""{BEGIN}
async def main():
    async with alpc.connect("fair", server=alpc.ANYONE) as port:
        for _ in range(100):
            await port.request(b"x")
        taken = []
        end = time.monotonic() + argument
        while time.monotonic() < end:
            began = time.perf_counter()
            await port.request(b"x" * 64)
            taken.append(time.perf_counter() - began)
            await anyio.sleep(0.001)
        taken.sort()
        print(json.dumps([taken[len(taken) // 2], taken[len(taken) * 99 // 100]]))
anyio.run(main)
"""

FLOOD = f"""{BEGIN}
async def flood(port):
    while True:
        try:
            while True:
                port.start_request(b"x" * 64, timeout=None)
        except alpc.QuotaExceeded:
            await port.request(b"x" * 64, timeout=None)
async def main():
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        for _ in range(int(argument)):
            tasks.start_soon(flood, await stack.enter_async_context(alpc.connect("fair", server=alpc.ANYONE)))
        print("up", flush=True)
anyio.run(main)
"""


def start(code: str, uid: int, argument: float) -> subprocess.Popen[str]:
    """Start a client of another user."""
    return subprocess.Popen(  # noqa: S603  # our own interpreter with fixed code
        [sys.executable, "-c", code, str(uid), str(argument)], stdout=subprocess.PIPE, text=True
    )


async def polite(seconds: float) -> tuple[float, float]:
    """Return the median and the 99th percentile of a polite client, in seconds."""
    with start(POLITE_CLIENT, POLITE, seconds) as process:
        output, _ = await anyio.to_thread.run_sync(process.communicate)
    median, percentile = json.loads(output)
    return median, percentile


async def serve(port: alpc.ConnectionPort) -> None:
    """Answer every request with its payload."""
    async for batch in port:
        for message in batch:
            if message.type is alpc.MessageType.REQUEST:
                message.reply(message.data)


async def measure(limits: dict[str, int], arguments: Any) -> tuple[float, float, float, float, float]:
    """Return median and percentile alone, both beside a flood, and messages per second of the flood."""
    listening = alpc.listen("fair", security=alpc.ANYONE, limits=alpc.PortLimits(**limits))  # type: ignore[arg-type]  # whole numbers
    async with anyio.create_task_group() as tasks, listening as port:
        tasks.start_soon(serve, port)
        alone = await polite(arguments.seconds)
        with start(FLOOD, FLOODER, arguments.connections) as flood:
            assert flood.stdout is not None  # noqa: S101  # the pipe was asked for
            await anyio.to_thread.run_sync(flood.stdout.readline)
            before, began = port.statistics().messages_received, anyio.current_time()
            beside = await polite(arguments.seconds)
            rate = (port.statistics().messages_received - before) / (anyio.current_time() - began)
            flood.kill()
        tasks.cancel_scope.cancel()
    return (*alone, *beside, rate)


async def main(arguments: Any) -> None:
    """Measure every setting and print what came out."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o711)  # noqa: S103  # the clients are other users
        os.environ["ALPC_RUNTIME_DIR"] = directory
        measured: dict[str, list[tuple[float, float, float, float, float]]] = {name: [] for name in SETTINGS}
        for _ in range(arguments.rounds):
            # In turns, so that whatever else the machine does hits all of them alike.
            for name, limits in SETTINGS.items():
                measured[name].append(await measure(limits, arguments))
        for name, rounds in measured.items():
            ratio = statistics.median(row[3] / row[1] for row in rounds)
            medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
            alone, beside = (f"{medians[at] * 1e6:.0f} and {medians[at + 1] * 1e6:.0f} us" for at in (0, 2))
            words = f"alone {alone}; beside {medians[4]:.0f} messages/s {beside}; ratio of p99 {ratio:.1f}"
            print(f"{name}: {words}")  # noqa: T201  # the result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--connections", type=int, default=4)
    anyio.run(main, parser.parse_args())
