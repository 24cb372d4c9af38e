"""A client of the demo: a program that reads files, sends their content, and checks the digests that come back.

Belongs here: checking files against a server, and what a client's process does. Never here: which files there are.

Files are read without leaving the event loop: the content of a regular file never depends on another process, and a
piece takes less time to read than a thread takes to answer.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import msgspec

from .. import AlpcError, connect
from ._demo_child import ChildStatus, run_child
from ._demo_files import RegularFile
from ._demo_messages import DIGEST, DIGEST_LIMITS, FILES_PER_BATCH, HEADER, Kind, Ready, Report, Trouble, Work, encode
from ._demo_ways import Ways
from ._histogram import Histogram

if TYPE_CHECKING:
    from anyio.abc import ObjectReceiveStream, ObjectSendStream

    from .. import CommunicationPort, Message
    from ._demo_ways import TransferName

__all__ = ["FILES_IN_FLIGHT", "FileChecker", "work"]

FILES_IN_FLIGHT: Final = 24
"""Files that a client has under way at the same time, each with one request; this is what makes batches."""

REPORT_INTERVAL: Final = 0.2
"""Seconds between two reports that a client gives unasked.

They feed the progress bar, and show the client whether the parent is still there.
"""


class _File:
    """A file under way."""

    __slots__ = ("digest", "path")

    def __init__(self, path: bytes) -> None:
        self.path = path
        self.digest = hashlib.sha256()


class FileChecker:
    """Sends files to a server piece by piece, compares digests, and counts.

    Attributes:
        histogram: the latencies of all requests.

    Args:
        port: the connection to the server.
        transfer: how content travels; ``"auto"`` decides by the size of the file.
    """

    def __init__(self, port: CommunicationPort, transfer: TransferName = "auto") -> None:
        self.histogram = Histogram()
        self._port = port
        self._ways = Ways(port, transfer, self._request)
        self._numbers = itertools.count(1)
        self._news = Report()

    async def check(self, path: bytes) -> None:
        """Check one file; what came of it is in the next report. Cancelling leaves the file unchecked.

        Args:
            path: the file. When it cannot be read that is reported and is no error.

        Raises:
            RemoteFault: the server cannot do its work.
            Disconnected: the server is gone.
        """
        number = next(self._numbers)
        try:
            source = RegularFile(path)
        except OSError as error:
            self._note_trouble(path, error)
            return
        file = _File(path)
        with source:
            await self._check_content(number, source, file)

    async def _check_content(self, number: int, source: RegularFile, file: _File) -> None:
        way = self._ways.choose(source.left)
        while True:
            try:
                sent = await self._ways.send(way, number, source, file.digest)
            except OSError as error:
                # What is no AlpcError comes from reading the file.
                if isinstance(error, AlpcError):
                    raise
                self._note_trouble(file.path, error)
                await self._port.post(HEADER.pack(number, Kind.FORGET, 0))
                return
            if sent.last:
                self._compare(sent.reply, file)
                return

    async def _request(self, data: bytes, size: int, **more: Any) -> Message:
        began = time.perf_counter()
        reply = await self._port.request(data, **more)
        self.histogram.record((time.perf_counter() - began) * 1e6)
        self._news.requests += 1
        self._news.size += size
        return reply

    def _compare(self, reply: Message, file: _File) -> None:
        self._news.files += 1
        if reply.data != file.digest.digest():
            self._news.mismatched.append(file.path)

    def _note_trouble(self, path: bytes, error: OSError) -> None:
        self._news.unreadable.append(Trouble(path, error.strerror or str(error)))

    def take_report(self) -> Report:
        """Return what happened since the last call."""
        news, self._news = self._news, Report()
        return news


async def work(control: CommunicationPort) -> ChildStatus:
    """Check the files that the parent hands out until there are no more. Cancelling stops at once.

    Args:
        control: the port to the parent.

    Raises:
        Disconnected: the parent or the server is gone; in the middle of the work a report notices it soon.
    """
    # The parent answers when the server listens; it watches over the time that this takes.
    begin = await control.request(encode(Ready("client")), timeout=None)
    transfer = cast("TransferName", bytes(begin.data).decode())
    async with connect(DIGEST, limits=DIGEST_LIMITS) as port:
        await _check_all(control, FileChecker(port, transfer))
    return ChildStatus.DONE


async def _check_all(control: CommunicationPort, checker: FileChecker) -> None:
    feed, paths = anyio.create_memory_object_stream[bytes](FILES_PER_BATCH // 2)
    async with anyio.create_task_group() as reporting:
        reporting.start_soon(_report_regularly, control, checker)
        async with anyio.create_task_group() as checking, feed:
            with paths:
                for _ in range(FILES_IN_FLIGHT):
                    checking.start_soon(_check_each, checker, paths.clone())
            await _fetch(control, checker, feed)
        reporting.cancel_scope.cancel()
    last = checker.take_report()
    last.histogram = checker.histogram.to_bytes()
    await control.request(encode(last), timeout=None)


async def _fetch(control: CommunicationPort, checker: FileChecker, feed: ObjectSendStream[bytes]) -> None:
    while True:
        # All clients get their first work together, when the last of them has asked for it.
        reply = await control.request(encode(checker.take_report()), timeout=None)
        batch = msgspec.msgpack.decode(reply.data, type=Work)
        if not batch.paths:
            return
        for path in batch.paths:
            await feed.send(path)


async def _check_each(checker: FileChecker, paths: ObjectReceiveStream[bytes]) -> None:
    async with paths:
        async for path in paths:
            await checker.check(path)


async def _report_regularly(control: CommunicationPort, checker: FileChecker) -> None:
    while True:
        await anyio.sleep(REPORT_INTERVAL)
        await control.post(encode(checker.take_report()))


if __name__ == "__main__":
    run_child(work)
