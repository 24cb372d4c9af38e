"""Handlers that run in processes of worker pools, named as ``tests.completion.handlers:name``.

Belongs here: plain functions of one message. Never here: tests.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import time
from pathlib import Path
from typing import Any

NAME = "tests.completion.handlers"


def echo(message: Any) -> None:
    """Answer with the payload."""
    message.reply(message.data)


async def waits(message: Any) -> None:
    """Is no handler for a process."""
    message.reply(message.data)


def process(message: Any) -> None:
    """Answer with the id of the process that works on it, after so many milliseconds as the payload says."""
    time.sleep(int(message.data or b"0") / 1000)
    message.reply(b"%d" % os.getpid())


def stay(message: Any) -> None:
    """Make a file with the name in the payload, then do nothing else for a minute."""
    Path(message.data.decode()).touch()
    time.sleep(60)


def sender(message: Any) -> None:
    """Answer with what the handler knows about the message."""
    message.reply(f"{message.key} {message.sender.uid} {message.sender.pid} {message.cancelled}".encode())


def time_left(message: Any) -> None:
    """Answer with the deadline of the message."""
    message.reply(struct.pack("d", message.deadline))


def transfer(message: Any) -> None:
    """Answer with so many bytes as the payload has, and how it came in front."""
    message.reply(message.transfer.value.encode() + b" " + message.data)


def misbehave(message: Any) -> None:
    """Do what the payload says."""
    if message.data == b"raise":
        raise ValueError("the secret detail")
    if message.data == b"exit":
        os._exit(3)
    if message.data == b"crash":
        ctypes.string_at(0)
    if message.data == b"kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if message.data == b"fail":
        message.fail(1234, "not today")
    elif message.data != b"silent":
        message.reply(message.data)


def until_cancelled(message: Any) -> None:
    """Make a file with the name in the payload, and go on until nobody waits any more."""
    Path(message.data.decode()).touch()
    while not message.cancelled:
        time.sleep(0.001)


def burn(message: Any) -> None:
    """Compute for a few milliseconds."""
    value = 0
    for number in range(int(message.data)):
        value = (value * 31 + number) % 1_000_003
    message.reply(b"%d" % value)
