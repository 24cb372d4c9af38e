"""The parent's part in the protocol of the demo: who gets which files, and what everybody reported.

Belongs here: the control port's messages and the sums. Never here: processes, terminals and signals.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

import anyio
import msgspec

from .. import Message, MessageType
from ._demo_messages import FILES_PER_BATCH, Report, ServerReport, Work, decode_control, encode
from ._histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

    from .. import CommunicationPort, ConnectionPort
    from ._demo_files import FoundFiles

__all__ = ["Conductor", "Totals"]

ASKING_TIMEOUT: Final = 10.0
"""Seconds that the server has to tell its statistics."""


class Totals(msgspec.Struct):
    """What all clients reported so far.

    Attributes:
        found: all files that are to be checked.
        files: files whose digests were compared.
        size: bytes of content that were sent.
        requests: requests that were answered.
        mismatched: files whose digests differed.
        unreadable: how many files, directories and links could not be read.
    """

    found: int
    files: int = 0
    size: int = 0
    requests: int = 0
    mismatched: list[bytes] = []
    unreadable: int = 0


class Conductor:
    """Hands files out and adds reports up.

    The clock runs from when all clients have asked for work, and the first gets some, until the last report.

    Attributes:
        totals: the sums so far.
        histogram: the latencies that clients reported with their last report.
        ready: set when the server and all clients can begin, which is when they do.
        done: set when all clients have given their last report.

    Args:
        found: what is to be checked; files that clients cannot read are added to what is unreadable.
        clients: how many clients there are.
        progress: called with the sums whenever they change.
        transfer: what clients are told about how content travels.
    """

    def __init__(
        self, found: FoundFiles, clients: int, progress: Callable[[Totals], None], transfer: str = "auto"
    ) -> None:
        self._begin = transfer.encode()
        self.totals = Totals(len(found.paths), unreadable=len(found.unreadable))
        self.histogram = Histogram()
        self.ready = anyio.Event()
        self.done = anyio.Event()
        self._found = found
        self._left = deque(found.paths)
        self._clients = clients
        self._progress = progress
        self._server: CommunicationPort | None = None
        self._early: list[Message] = []
        self._starters: list[Message] = []
        self._finished = 0
        self._began = 0.0
        self._ended = 0.0

    @property
    def elapsed(self) -> float:
        """How long checking all files took, in seconds, once it is done."""
        return self._ended - self._began

    async def conduct(self, control: ConnectionPort) -> None:
        """Answer everybody until the control port is closed. Cancelling leaves requests unanswered.

        Args:
            control: the port that all children connect to.
        """
        async for batch in control:
            for message in batch:
                if message.type in (MessageType.REQUEST, MessageType.DATAGRAM):
                    self._handle(message)

    async def ask_server(self) -> ServerReport:
        """Return what the server did. Cancelling withdraws the question.

        Raises:
            Disconnected: the server is gone.
            DeadlineExceeded: it does not answer.
        """
        if self._server is None:
            raise RuntimeError("the server is not there yet; wait for Conductor.ready")
        reply = await self._server.request(timeout=ASKING_TIMEOUT)
        return msgspec.msgpack.decode(reply.data, type=ServerReport)

    def _handle(self, message: Message) -> None:
        news = decode_control(message.data)
        if isinstance(news, Report):
            self._add(news)
            if message.type is MessageType.REQUEST:
                self._answer_report(message, news)
        elif news.role == "server":
            self._server = message.port
            for waiting in (message, *self._early):
                waiting.reply(self._begin)
        elif self._server is None:
            self._early.append(message)
        else:
            message.reply(self._begin)

    def _answer_report(self, message: Message, report: Report) -> None:
        if report.histogram:
            self._finish(message, report)
        elif self.ready.is_set():
            self._give_work(message)
        else:
            self._starters.append(message)
            if len(self._starters) == self._clients:
                self.ready.set()
                self._began = time.perf_counter()
                for starter in self._starters:
                    self._give_work(starter)

    def _give_work(self, message: Message) -> None:
        # Towards the end the batches get smaller, so that no client is left with much while the others have nothing.
        share = min(FILES_PER_BATCH, len(self._left) // (2 * self._clients) + 1, len(self._left))
        message.reply(encode(Work([self._left.popleft() for _ in range(share)])))

    def _finish(self, message: Message, report: Report) -> None:
        self.histogram.merge(Histogram.from_bytes(report.histogram))
        message.reply()
        self._finished += 1
        if self._finished == self._clients:
            self._ended = time.perf_counter()
            self.done.set()

    def _add(self, report: Report) -> None:
        totals = self.totals
        totals.files += report.files
        totals.size += report.size
        totals.requests += report.requests
        totals.mismatched.extend(report.mismatched)
        totals.unreadable += len(report.unreadable)
        self._found.unreadable.extend(report.unreadable)
        self._progress(totals)
