"""The parts of the demo in one process: which files it finds, how it reads them, what server and clients agree on.

Belongs here: cases that cannot be brought about from outside. Never here: processes (`test_demo`).
"""

from __future__ import annotations

import hashlib
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

import alpc_async as alpc
from alpc_async.tools import _demo_client, _demo_files, _demo_processes, _demo_server
from alpc_async.tools._demo_messages import HEADER, Kind

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


@asynccontextmanager
async def digest_server() -> AsyncGenerator[alpc.CommunicationPort]:
    """A connection to a digest service in this process; the other end's context is the service's state."""
    async with (
        alpc.CompletionPort() as completion_port,
        alpc.listen("test.digest", completion_port=completion_port, accept="manual"),
        alpc.WorkerPool(completion_port, _demo_server.DigestService().handle),
        alpc.connect("test.digest") as port,
    ):
        yield port


async def test_digests_of_interleaved_files_do_not_mix() -> None:
    """Pieces of several files may come in any order between one another; each file gets its own digest."""
    async with digest_server() as port:
        for number in (1, 2):
            assert (await port.request(HEADER.pack(number, Kind.MORE, 0) + b"first")).data == b""
        second = await port.request(HEADER.pack(2, Kind.LAST, 0) + b"two")
        first = await port.request(HEADER.pack(1, Kind.LAST, 0) + b"one")
    assert first.data == hashlib.sha256(b"firstone").digest()
    assert second.data == hashlib.sha256(b"firsttwo").digest()


async def test_a_client_cannot_begin_files_without_end() -> None:
    """The server refuses one file too many, and takes files again when one is finished or forgotten."""
    async with digest_server() as port:
        for number in range(_demo_server.UNFINISHED_FILES):
            await port.request(HEADER.pack(number, Kind.MORE, 0))
        with pytest.raises(alpc.RemoteFault) as fault:
            await port.request(HEADER.pack(5000, Kind.MORE, 0))
        assert fault.value.status == _demo_server.TOO_MANY_FILES
        await port.post(HEADER.pack(7, Kind.FORGET, 0))
        assert (await port.request(HEADER.pack(5000, Kind.MORE, 0))).data == b""
        await port.request(HEADER.pack(8, Kind.LAST, 0))
        assert (await port.request(HEADER.pack(5001, Kind.MORE, 0))).data == b""


async def test_a_file_that_breaks_in_the_middle_is_reported_and_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When reading fails after the first piece, the file is unreadable and the server drops what it has of it."""
    path = tmp_path / "file"
    path.write_bytes(bytes(200_000))
    pieces = iter([0])

    class Breaking(_demo_files.RegularFile):
        def read(self, size: int) -> bytes:
            for _ in pieces:
                return super().read(size)
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(_demo_client, "RegularFile", Breaking)
    async with digest_server() as port:
        checker = _demo_client.FileChecker(port, "inline")
        await checker.check(os.fsencode(path))
        report = checker.take_report()
        # The file had number 1; a last piece with that number begins a new file if the old one is forgotten.
        reply = await port.request(HEADER.pack(1, Kind.LAST, 0) + b"new")
    assert (report.files, report.requests) == (0, 1)
    assert [(trouble.path, trouble.reason) for trouble in report.unreadable] == [
        (os.fsencode(path), "Input/output error")
    ]
    assert reply.data == hashlib.sha256(b"new").digest()


async def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    """A file that has become a pipe since the walk is reported at once, although nobody writes to the pipe."""
    os.mkfifo(tmp_path / "pipe")
    async with digest_server() as port:
        checker = _demo_client.FileChecker(port)
        await checker.check(os.fsencode(tmp_path / "pipe"))
        report = checker.take_report()
    assert [trouble.reason for trouble in report.unreadable] == ["it is not a regular file"]
    assert checker.histogram.count == 0


async def test_a_report_tells_only_the_news(tmp_path: Path) -> None:
    """Two reports in a row never count the same file twice."""
    (tmp_path / "file").write_bytes(b"content")
    async with digest_server() as port:
        checker = _demo_client.FileChecker(port)
        await checker.check(os.fsencode(tmp_path / "file"))
        first, second = checker.take_report(), checker.take_report()
    assert (first.files, first.size, first.requests, first.mismatched) == (1, 7, 1, [])
    assert (second.files, second.size, second.requests) == (0, 0, 0)


async def test_the_standard_library_comes_without_what_is_installed_beside_it() -> None:
    """By default the demo reads the library of the running Python: neither packages nor compiled caches."""
    found = await _demo_files.find_files([])
    names = {path.removeprefix(_demo_files.standard_library()) for path in found.paths}
    assert {b"/os.py", b"/json/decoder.py", b"/asyncio/events.py"} <= names
    assert not any(b"__pycache__" in name or b"-packages/" in name for name in names)


async def test_a_tree_that_is_named_is_walked_wholly(tmp_path: Path) -> None:
    """What is left out of the standard library is not left out anywhere else."""
    for name in ("__pycache__", "site-packages", ".hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    found = await _demo_files.find_files([os.fsencode(tmp_path)])
    assert found.paths == sorted(
        os.fsencode(tmp_path / name / "file") for name in ("__pycache__", "site-packages", ".hidden")
    )


async def test_a_walk_can_be_cancelled(tmp_path: Path) -> None:
    """Cancelling ends the walk of a large tree before its end."""
    for number in range(2000):
        (tmp_path / str(number)).touch()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await _demo_files.find_files([os.fsencode(tmp_path)])
    assert scope.cancelled_caught


@pytest.mark.parametrize("before", [None, "/somewhere"], ids=["unset", "set"])
def test_the_private_directory_is_gone_afterwards(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory of a run is the one for port names while it exists; then it is removed and nothing has changed."""
    monkeypatch.delenv("ALPC_RUNTIME_DIR")
    if before is not None:
        monkeypatch.setenv("ALPC_RUNTIME_DIR", before)
    with _demo_processes.private_directory() as directory:
        assert os.environ["ALPC_RUNTIME_DIR"] == str(directory)
        (directory / "file").touch(mode=0o600)
        assert directory.stat().st_mode & 0o777 == 0o700
    assert not directory.exists()
    assert os.environ.get("ALPC_RUNTIME_DIR") == before


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (b"/plain/path", "/plain/path"),
        ("/h\u00fctte".encode(), "/h\u00fctte"),
        (b"/\xff", "/\\xff"),
        (b"/a\nb\x1b[31m", "/a\\nb\\x1b[31m"),
        ("/\u202egnp.exe".encode(), "/\\u202egnp.exe"),
    ],
    ids=["plain", "text", "bytes", "controls", "direction"],
)
def test_a_path_is_printed_without_doing_anything_to_the_terminal(path: bytes, shown: str) -> None:
    """What is not printable text is escaped."""
    assert _demo_files.printable(path) == shown
