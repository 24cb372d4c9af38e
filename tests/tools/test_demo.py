"""The demo as a program that runs to its end: real trees, real processes, figures.

Belongs here: what a user of the command sees. Never here: its parts (`test_demo_parts`) or early ends
(`test_demo_endings`).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Final

import pytest

from alpc_async.tools import _demo, _demo_processes, _demo_run
from alpc_async.tools._demo_messages import HEADER
from alpc_async.tools._demo_ways import PIECE
from tests.tools.demo_program import assert_nothing_left, run

ROOM: Final = 64 * 1024 - HEADER.size


def make_tree(root: Path) -> tuple[int, int, int]:
    """Make a tree with everything that is unusual about files; return its files, bytes and requests."""
    contents = {
        b"empty": b"",
        b"one byte": b"x",
        b"one inline limit": b"a" * ROOM,
        b"one byte more": b"b" * (ROOM + 1),
        b"several inline limits": os.urandom(3 * ROOM + 17),
        b"not \xff text": b"content",
        b"line\nbreak": b"content",
        b"[red]markup": b"content",
    }
    base = os.fsencode(root)
    os.makedirs(os.path.join(base, b"nothing", b"nested"))
    for name, content in contents.items():
        Path(os.fsdecode(os.path.join(base, name))).write_bytes(content)
    inner = root / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "deep").write_bytes(b"deep")
    (inner / "link to a file").symlink_to(root / "one byte")
    (inner / "link in a circle").symlink_to(root)
    (inner / "pipe").touch()
    (inner / "pipe").unlink()
    os.mkfifo(inner / "pipe")
    sizes = [len(content) for content in contents.values()] + [4, 1]
    return len(sizes), sum(sizes), sum(size // ROOM + 1 for size in sizes)


def test_every_file_of_a_tree_is_checked(backend: str, temporary: Path, tmp_path: Path) -> None:
    """The demo checks every file of a tree, prints one table, writes every figure, and leaves nothing behind."""
    files, size, requests = make_tree(tmp_path / "tree")
    options = ("--json", tmp_path / "figures.json", "--clients", "3", "--transfer", "inline")
    done = run(temporary, backend, tmp_path / "tree", *options)
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["found"], figures["files"], figures["bytes"]) == (files, files, size)
    assert (figures["requests"], figures["clients"], figures["backend"]) == (requests, 3, backend)
    assert (figures["matched"], figures["mismatched"], figures["unreadable"]) == (True, [], [])
    assert figures["skipped"] == 1
    assert figures["messages"] > requests
    # A message that comes in pieces takes several receives.
    assert 0 < figures["messages_per_receive_mean"] <= figures["messages_per_receive_max"]
    latency = figures["latency"]
    assert 0 < latency["minimum"] <= latency["p50"] <= latency["p99"] <= latency["p999"] <= latency["maximum"]
    assert latency["maximum"] / 1e6 <= figures["seconds"]
    assert figures["requests_per_second"] == pytest.approx(requests / figures["seconds"])
    assert figures["megabytes_per_second"] == pytest.approx(size / 1e6 / figures["seconds"])
    assert figures["machine"]["python"].endswith(".".join(map(str, sys.version_info[:3])))
    for row in (f"files {files}", f"bytes {size:,}", "requests/s", "MB/s", "p50 / p99 / p99.9, µs"):
        assert row in " ".join(done.stdout.replace("│", " ").split())
    assert_nothing_left(temporary)


@pytest.mark.parametrize("transfer", ["view", "direct", "handle", "auto"])
def test_every_way_of_moving_content(backend: str, temporary: Path, tmp_path: Path, transfer: str) -> None:
    """Whatever way the content of files takes, every digest matches, and the table has a row for each way used."""
    files, size, _ = make_tree(tmp_path / "tree")
    large = {"over a piece": 2 * PIECE + 1, "a whole piece": PIECE, "direct": 1024 * 1024, "a view": 1024 * 1024 - 1}
    for name, length in large.items():
        (tmp_path / "tree" / name).write_bytes(os.urandom(length))
        files, size = files + 1, size + length
    options = ("--json", tmp_path / "figures.json", "--transfer", transfer)
    done = run(temporary, backend, tmp_path / "tree", *options)
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["files"], figures["bytes"], figures["matched"]) == (files, size, True)
    ways = figures["server"]["ways"]
    assert set(ways) == ({"inline", "view", "direct"} if transfer == "auto" else {transfer})
    assert sum(way["size"] for way in ways.values()) == size
    assert sum(way["requests"] for way in ways.values()) == figures["requests"]
    for way in ways:
        assert f"{way}: requests / MB" in done.stdout
    assert_nothing_left(temporary)


def test_an_empty_directory_is_a_failure(backend: str, temporary: Path, tmp_path: Path) -> None:
    """Where there are no files nothing was checked, which the status says, and no latency is made up."""
    done = run(temporary, backend, tmp_path, "--json", tmp_path / "figures.json")
    assert done.returncode == 1
    assert done.stderr == "alpc demo: there was no file to check, so nothing was shown to work\n"
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["files"], figures["requests"], figures["latency"]) == (0, 0, None)
    assert_nothing_left(temporary)


def test_unreadable_files_are_listed_and_are_no_failure(backend: str, temporary: Path, tmp_path: Path) -> None:
    """A link to nothing, and a file that opens but cannot be read, are listed and counted; the rest is checked."""
    (tmp_path / "good").write_bytes(b"good")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    # The kernel lets a process open the memory of its own, and has nothing at address zero.
    (tmp_path / "memory").symlink_to("/proc/self/mem")
    done = run(temporary, backend, tmp_path, "--json", tmp_path / "figures.json")
    assert done.returncode == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["found"], figures["files"], figures["matched"]) == (2, 1, True)
    unreadable = {file["path"]: file["reason"] for file in figures["unreadable"]}
    assert unreadable == {
        str(tmp_path / "dangling"): "No such file or directory",
        str(tmp_path / "memory"): "Input/output error",
    }
    for path, reason in unreadable.items():
        assert f"unreadable: {path}: {reason}" in done.stderr
    assert_nothing_left(temporary)


def test_files_without_permission_are_unreadable(backend: str, temporary: Path, tmp_path: Path) -> None:
    """A file that may not be read and a directory that may not be entered are listed; the rest is checked."""
    (tmp_path / "public").write_bytes(b"public")
    (tmp_path / "private").write_bytes(b"private")
    (tmp_path / "private").chmod(0)
    (tmp_path / "closed").mkdir(0)
    ordinary: list[str] = []
    if os.geteuid() == 0:
        # Permissions bind root too once it has given up the capabilities that override them.
        ordinary = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
        if shutil.which("setpriv") is None:
            pytest.skip("root cannot give up capabilities without the command setpriv")
    done = run(temporary, backend, tmp_path, prefix=ordinary)
    assert done.returncode == 0, done.stderr
    assert f"unreadable: {tmp_path}/private: Permission denied" in done.stderr
    assert f"unreadable: {tmp_path}/closed: Permission denied" in done.stderr
    assert "public" not in done.stderr
    assert_nothing_left(temporary)


def test_a_wrong_digest_fails_the_demo(
    backend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a server that lies about one file in three, exactly these are listed, and the status is 1."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(9):
        (tree / f"file {number}").write_text(f"content {number}")
    plan = _demo_run.Plan(paths=[os.fsencode(tree)], backend=backend, server_module="lying_server")
    assert _demo.carry_out(plan, tmp_path / "figures.json") == 1
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["files"], figures["matched"], len(figures["mismatched"])) == (9, False, 3)
    errors = capsys.readouterr().err
    assert sorted(errors.splitlines()) == sorted(f"DIGEST DIFFERS: {path}" for path in figures["mismatched"])


def test_children_end_by_themselves(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a run every process ends with status 0 and without a signal."""
    ends: list[tuple[str, int | None, bool]] = []

    class Observed(_demo_processes.Children):
        async def stop(self) -> None:
            await super().stop()
            ends.extend((child.name, child.process.returncode, child.ended_by_us) for child in self._children)

    monkeypatch.setattr(_demo_run, "Children", Observed)
    assert _demo.carry_out(_demo_run.Plan(paths=[os.fsencode(__file__)], backend=backend)) == 0
    assert ends == [("server", 0, False), ("client 1", 0, False), ("client 2", 0, False)]


def test_figures_that_cannot_be_written_are_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file for the figures that is a directory fails the command, after the table has been printed."""
    plan = _demo_run.Plan(paths=[os.fsencode(__file__)], clients=1)
    assert _demo.carry_out(plan, tmp_path) == 1
    output = capsys.readouterr()
    assert "requests/s" in output.out
    assert "the figures cannot be written" in output.err
