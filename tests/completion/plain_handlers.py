"""Handlers that import nothing but the standard library, for interpreters of worker pools.

Belongs here: plain functions of one message. Never here: imports that refuse to be loaded more than once.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

NAME = "plain_handlers"


def echo(message: Any) -> None:
    """Answer with the payload."""
    message.reply(message.data)


def describe(message: Any) -> None:
    """Answer with what the handler knows about the message."""
    left = message.deadline - time.monotonic()
    message.reply(f"{message.key} {message.sender.uid} {message.sender.pid} {0 < left < 60}".encode())


def misbehave(message: Any) -> None:
    """Do what the payload says."""
    if message.data == b"raise":
        raise ValueError("the secret detail")
    if message.data == b"fail":
        message.fail(1234, "not today")


def until_cancelled(message: Any) -> None:
    """Make a file with the name in the payload, and go on until nobody waits any more."""
    Path(message.data.decode()).touch()
    while not message.cancelled:
        time.sleep(0.001)
