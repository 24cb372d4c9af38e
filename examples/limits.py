"""Limits: agreed to the smaller value of both sides, and what happens at their edge."""

from __future__ import annotations

import argparse

import anyio

import alpc_async as alpc


async def main() -> None:
    """Offer different limits on both sides, and go over them."""
    offered = alpc.PortLimits(max_message_length=16 * 1024, max_view_size=1024 * 1024, max_outstanding_messages=8)
    async with (
        alpc.listen("demo.limits", limits=offered) as server,
        alpc.connect("demo.limits") as port,
    ):
        print("agreed:", port.limits.max_message_length, "bytes,", port.limits.max_outstanding_messages, "messages")
        try:
            await port.post(bytes(1025 * 1024))
        except alpc.MessageTooLong as error:
            print(f"too long: {error.size} bytes of {error.limit} ({error.setting})")
        pending = [port.start_request(b"x") for _ in range(8)]
        try:
            port.start_request(b"one more")
        except alpc.QuotaExceeded as error:
            print(f"quota used up: {error.limit} ({error.setting})")
        try:
            await port.post(b"one more", timeout=0.05)
        except alpc.DeadlineExceeded as error:
            print(f"no room within {error.timeout:.2f} s")
        for message in await server.receive_batch():
            message.reply()
        await pending[0]
        await port.post(b"one more")
        print("room again")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
