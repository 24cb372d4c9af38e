"""The process of a worker, as seen from inside: ``python -m alpc_async.completion._child DESCRIPTOR MODULE:FUNCTION``.

Belongs here: what it does between its start and the end of its socket. Never here: starting and ending it.

The handler runs in a thread, so that the loop beside it hears of cancellations meanwhile.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from ..link import die_with_parent
from ..port import MessageType, as_bytes, inherited_port
from ..wire import Status
from ._envelope import LIMITS, Facts, Outcome, open_work, seal_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from ..port import Message, Transfer
    from ..security import Identity

__all__ = ["WorkMessage", "main"]


class WorkMessage:
    """A message, or a posted packet, in a handler that runs in a process.

    Attributes:
        data: the payload.
        key: completion key, where it is a plain value.
        sender: who sent it, as the pool was told by the kernel; ``None`` for a posted packet.
        deadline: when the sender stops waiting, on the clock of ``time.monotonic``, in seconds; infinity for never.
    """

    def __init__(self, message: Message, facts: Facts, data: bytes) -> None:
        self._message = message
        self.data = data
        self.key: Any = facts.key
        self.sender: Identity | None = facts.identity()
        self.deadline = facts.deadline
        self.answer: bytes | None = None

    @property
    def transfer(self) -> Transfer:
        """How the data came to this process."""
        return self._message.transfer

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more; look at it from time to time in a long handler."""
        return self._message.cancelled

    def reply(self, data: Buffer = b"") -> None:
        """Answer the request; sent when the handler returns.

        Args:
            data: the payload; copied.
        """
        self.answer = seal_answer(Outcome.REPLIED, as_bytes(data))

    def fail(self, status: int, reason: str) -> None:
        """Answer the request with a fault; sent when the handler returns.

        Args:
            status: a `Status`, or a number of the service's own (from 1000).
            reason: a sentence for the caller.
        """
        self.answer = seal_answer(Outcome.FAILED, reason.encode(), status)


def _resolve(target: str) -> Callable[[Any], object]:
    module, _, name = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{target} is not a function")
    if inspect.iscoroutinefunction(found):
        raise TypeError(f"{target} is async, and a plain function is needed")
    return found  # type: ignore[no-any-return]  # whatever the name leads to


def _call(handler: Callable[[Any], object], work: WorkMessage) -> bytes:
    try:
        handler(work)
    except Exception:
        return seal_answer(Outcome.RAISED, traceback.format_exc().encode())
    return work.answer if work.answer is not None else seal_answer(Outcome.SILENT, b"")


async def _serve(fd: int, target: str) -> None:
    try:
        handler = _resolve(target)
    except Exception as error:
        await _refuse(fd, f"{type(error).__name__}: {error}{_place(error)}")
        return
    async with inherited_port(fd, LIMITS) as port:
        async for batch in port:
            for message in batch:
                if message.type is not MessageType.REQUEST:
                    continue
                if not message.data:
                    message.reply()
                    continue
                work = WorkMessage(message, *open_work(message.data))
                message.reply(await to_thread.run_sync(_call, handler, work))


def _place(error: Exception) -> str:
    """Return where in the handler's own module, or in what that imports, an error came from."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return "" if last.filename == __file__ or last.filename.startswith("<") else f" ({last.filename}:{last.lineno})"


async def _refuse(fd: int, reason: str) -> None:
    """Tell the pool, which asks first whether the handler is there, that it is not."""
    async with inherited_port(fd, LIMITS) as port:
        (await port.receive()).fail(Status.HANDLER_FAILED, reason)
        await port.drain()


def main(fd: str, target: str) -> None:
    """Run the process of a worker.

    Args:
        fd: the inherited socket.
        target: the handler.
    """
    die_with_parent()
    anyio.run(_serve, int(fd), target)


if __name__ == "__main__":
    main(*sys.argv[1:])
