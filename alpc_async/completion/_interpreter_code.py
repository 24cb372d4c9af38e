"""What runs inside an interpreter of a worker: loaded there by its path, without the package around it.

Belongs here: importing a handler and calling it. Never here: any import that is not of the standard library, since
extension modules of others commonly refuse to be loaded in more than one interpreter.
"""

from __future__ import annotations

import importlib
import traceback
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["InterpreterMessage", "load", "run"]


class InterpreterMessage:
    """A message, or a posted packet, in a handler that runs in an interpreter of its own.

    Attributes:
        data: the payload.
        key: completion key, where it is a plain value.
        sender: who sent it: ``uid``, ``gid``, ``groups``, ``pid`` and ``label``; ``None`` for a posted packet.
        deadline: when the sender stops waiting, on the clock of ``time.monotonic``, in seconds; infinity for never.
    """

    def __init__(self, data: bytes, key: object, sender: tuple[Any, ...] | None, deadline: float, flag: Any) -> None:
        self.data = data
        self.key = key
        names = ("uid", "gid", "groups", "pid", "label")
        self.sender = SimpleNamespace(**dict(zip(names, sender, strict=True))) if sender is not None else None
        self.deadline = deadline
        self.answer: tuple[int, int, bytes] = (2, 0, b"")
        self._flag = flag

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more; look at it from time to time in a long handler."""
        return bool(self._flag[0])

    def reply(self, data: Any = b"") -> None:
        """Answer the request; sent when the handler returns.

        Args:
            data: the payload; copied.
        """
        self.answer = (0, 0, bytes(memoryview(data)))

    def fail(self, status: int, reason: str) -> None:
        """Answer the request with a fault; sent when the handler returns.

        Args:
            status: a `Status`, or a number of the service's own (from 1000).
            reason: a sentence for the caller.
        """
        self.answer = (1, status, reason.encode())


def load(target: str) -> Callable[[Any], object]:
    """Return the function that is named as ``module:function``."""
    module, _, name = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{target} is not a function")
    return found  # type: ignore[no-any-return]  # whatever the name leads to


def run(handler: Callable[[Any], object], work: tuple[Any, ...], flag: Any) -> tuple[int, int, bytes]:
    """Call the handler, and return the outcome as a number of `Outcome`, the status of a fault, and the payload."""
    data, key, sender, deadline = work
    message = InterpreterMessage(data, key, sender, deadline, flag)
    try:
        handler(message)
    except Exception:
        return (3, 0, traceback.format_exc().encode())
    return message.answer
