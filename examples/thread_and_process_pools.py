"""Two pools behind two keys: one whose handlers block, one whose handlers compute in processes of their own."""

from __future__ import annotations

import argparse
import hashlib
import time
from typing import Any

import anyio

import alpc_async as alpc


def wait_for_disk(message: alpc.BlockingMessage) -> None:
    """Block, as reading a slow disk would; runs in a thread."""
    time.sleep(0.01)
    message.reply(b"read " + message.data)


def digest(message: Any) -> None:
    """Compute; runs in a process, which imports this function by its name."""
    message.reply(hashlib.sha256(message.data).hexdigest().encode())


async def main() -> None:
    """Ask both pools."""
    async with (
        alpc.CompletionPort() as blocking,
        alpc.CompletionPort() as computing,
        alpc.listen("demo.disk", completion_port=blocking),
        alpc.listen("demo.digest", completion_port=computing),
        alpc.WorkerPool(blocking, wait_for_disk, kind="thread", maximum=32) as threads,
        alpc.WorkerPool(computing, "thread_and_process_pools:digest", kind="process", maximum=2),
        alpc.connect("demo.disk") as disk,
        alpc.connect("demo.digest") as hasher,
    ):
        pending = [disk.start_request(b"block %d" % number) for number in range(20)]
        print((await pending[-1]).data.decode())
        print((await hasher.request(b"alpc")).data.decode()[:16])
        await threads.wait_idle()
        print(f"handled in threads: {threads.statistics().handled}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--backend", default="asyncio", choices=["asyncio", "trio"])
    anyio.run(main, backend=arguments.parse_args().backend)
