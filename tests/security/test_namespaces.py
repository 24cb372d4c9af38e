"""Peers outside our user or process namespace are not taken for somebody else.

Belongs here: what is concluded from maps and overflow numbers, seen by real processes in real namespaces.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alpc_async.security import own_identity
from tests.security.processes import NOBODY, STRANGER, WAIT, all_mapped, as_root, server_of

REPOSITORY = Path(__file__).resolve().parents[2]

# Starts in a namespace of its own, connects when told to, and says whom it sees there.
OBSERVER = """
import json, socket, sys
from alpc_async.security import SAME_USER_OR_ROOT, peer_identity, require
print("up", flush=True)
sys.stdin.readline()
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
peer = peer_identity(sock)
print(json.dumps({
    "uid": peer.uid, "pid": peer.pid, "identified": peer.identified, "text": str(peer),
    "in_overflow_group": peer.in_group(65534), "default": SAME_USER_OR_ROOT.judge(peer),
    "root": require(uid=0).judge(peer), "nobody": require(uid=65534).judge(peer),
}))
peer.close()
sock.close()
"""


def observe(path: str, *namespace: str, maps: str = "") -> dict[str, Any]:
    """Let a process in a new namespace connect to the socket and say whom it sees there.

    Args:
        path: the socket.
        namespace: options of ``unshare``.
        maps: what to write as the maps of users and groups of a new user namespace.
    """
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, *namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"this machine does not let us run unshare {' '.join(namespace)}")
    command = [unshare, *namespace, sys.executable, "-c", OBSERVER, path]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() == "up\n" and maps:
                for kind in ("uid", "gid"):
                    Path(f"/proc/{process.pid}/{kind}_map").write_text(maps)
            answer, complaint = process.communicate("go\n", timeout=WAIT)
        finally:
            process.kill()
    assert process.returncode == 0, complaint
    seen: dict[str, Any] = json.loads(answer)
    return seen


@as_root
@all_mapped
def test_a_user_from_outside_the_user_namespace_is_not_nobody(path: str) -> None:
    """In a user namespace that maps only root, a server of another user has the overflow number and is no user."""
    with server_of(path, STRANGER) as pid:
        seen = observe(path, "--user", maps="0 0 1")
    assert seen["uid"] == NOBODY
    assert seen["pid"] == pid
    assert not seen["identified"]
    assert not seen["in_overflow_group"]
    assert "not mapped into this user namespace" in seen["text"]
    assert "user namespace" in seen["default"]
    assert seen["root"] is not None
    assert seen["nobody"] is not None


@as_root
@all_mapped
def test_a_map_that_covers_the_overflow_number_proves_nothing(path: str) -> None:
    """A container that has a nobody of its own still cannot tell it from the users outside."""
    with server_of(path, STRANGER):
        seen = observe(path, "--user", maps="0 200000 65536")
    assert (seen["uid"], seen["identified"]) == (NOBODY, False)
    assert seen["nobody"] is not None


@as_root
def test_a_process_outside_the_process_namespace_has_no_pid(path: str) -> None:
    """Seen from a new process namespace the server has pid 0: the default refuses it, its uid still counts."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        seen = observe(path, "--pid", "--fork")
    assert (seen["uid"], seen["pid"], seen["identified"]) == (0, 0, False)
    assert seen["text"] == "uid 0 gid 0 (pid not visible from here)"
    assert "process namespace" in seen["default"]
    assert seen["root"] is None


@pytest.mark.parametrize(
    ("files", "overflow"),
    [
        ({"/proc/self/uid_map": b"0 0 4294967295\n"}, None),
        ({"/proc/self/uid_map": b"0 0 1000\n1000 1000 4294966295\n"}, None),
        ({"/proc/self/uid_map": b"0 0 4294967294\n", "/proc/sys/kernel/overflowuid": b"65534\n"}, 65_534),
        ({"/proc/self/uid_map": b"0 1000 1\n", "/proc/sys/kernel/overflowuid": b"4242\n"}, 4242),
        ({"/proc/self/uid_map": b"", "/proc/sys/kernel/overflowuid": b"4242\n"}, 4242),
        ({"/proc/self/uid_map": b"0 1000 1\n"}, 65_534),
        ({"/proc/self/uid_map": b"0 0\n"}, 65_534),
        ({}, 65_534),
    ],
)
def test_the_overflow_number_counts_unless_every_user_is_mapped(
    files: dict[str, bytes], overflow: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only a map of the whole range tells nobody apart; an unreadable one counts as incomplete."""
    really_open = os.open
    for name, content in files.items():
        (tmp_path / name.replace("/", "-")).write_bytes(content)

    def open_instead(name: str, flags: int) -> int:
        return really_open(tmp_path / name.replace("/", "-"), flags)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_instead)
        own = own_identity()
    assert own.overflow_uid == overflow
    assert own.overflow_gid == 65_534
