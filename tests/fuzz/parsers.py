"""Checks of the parsers that read no frames: attributes, control messages, access lists, limits, sections, peers.

Belongs here: one sentence of invariant for each, and inputs to begin with. Never here: how inputs are made
(`mutation`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket

from alpc_async.errors import AlpcError, ProtocolViolation
from alpc_async.handles import Handle
from alpc_async.link._ancillary import control_messages
from alpc_async.memory import Section
from alpc_async.security import Identity, SecurityDescriptor, allow, deny, peer_identity
from alpc_async.security._numbers import SO_PEERGROUPS, SO_PEERPIDFD
from alpc_async.security._text import entries_from_document
from alpc_async.wire import Attribute
from alpc_async.wire._attributes import take_attributes
from alpc_async.wire._greeting import Greeting, agree
from tests.security.processes import scripted
from tests.wire.endpoints import SMALL

__all__ = [
    "OWN_SEEDS",
    "check_ancillary",
    "check_attributes",
    "check_limits",
    "check_peer_options",
    "check_section",
    "check_security_text",
    "check_security_toml",
]

SOMEBODY = Identity(uid=1001, gid=7, groups=(8, 9), pid=42, label="a:b")


def check_attributes(data: bytes) -> None:
    """Any flags and payload give attributes that encode to the same bytes, or a violation, and never more than came."""
    flags, payload = (data[0] if data else 0) & 0xFC, data[1:]
    try:
        attributes, rest = take_attributes(flags, payload)
    except ProtocolViolation:
        return
    assert payload.endswith(rest)
    again, prefix = attributes.encode()
    # An empty list of handles, and MessagePack that is longer than it has to be, are read and not written.
    if attributes.handles or not flags & Attribute.HANDLES:
        assert again == flags
        assert take_attributes(again, prefix + rest) == (attributes, rest)


def check_ancillary(data: bytes) -> None:
    """Any control messages give a sender or none, and an owner for every descriptor."""
    entries: list[tuple[int, int, bytes]] = []
    at = 0
    while at + 2 < len(data):
        kind, length = data[at], data[at + 1] & 31
        level = socket.SOL_SOCKET if kind & 1 else socket.IPPROTO_IP
        # Numbers of descriptors that exist would be closed in earnest: only credentials and unknown kinds are made up.
        entries.append((level, socket.SCM_CREDENTIALS if kind & 2 else 99, data[at + 2 : at + 2 + length]))
        at += 2 + length
    sender, entry, handles, process = control_messages(entries)
    assert not handles
    assert process is None
    whole = [piece for piece in entries if piece[:2] == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)]
    right = [piece for piece in whole if len(piece[2]) == 12]
    assert (sender is None) == (not right)
    if sender is not None:
        assert entry == [right[-1]]
        assert sender[1] >= 0


def check_security_text(data: bytes) -> None:
    """Any text is an access list that is read back from its own text, or a ValueError."""
    text = data.decode("utf-8", "replace")
    try:
        descriptor = SecurityDescriptor.from_text(text)
    except ValueError:
        return
    again = SecurityDescriptor.from_text("\n".join(map(str, descriptor.entries)))
    assert again.entries == descriptor.entries
    decision = descriptor.explain(SOMEBODY)
    assert (descriptor.judge(SOMEBODY) is None) == decision.allowed


def check_security_toml(data: bytes) -> None:
    """Any document is an access list, or a ValueError."""
    try:
        entries, enforce = entries_from_document(data.decode("utf-8", "replace"), "")
    except ValueError:
        return
    SecurityDescriptor(entries, enforce=enforce).explain(SOMEBODY)


def check_limits(data: bytes) -> None:
    """Any limits that a peer names lead to agreed ones that are no greater than ours, or to a violation."""
    try:
        greeting = Greeting.decode(data)
        agreed = agree(greeting, SMALL)
    except ProtocolViolation:
        return
    for name, value in agreed.offer().items():
        assert value <= SMALL.offer()[name]
        assert value <= greeting.limits.get(name, value)
    assert agreed.agreed(agreed.offer()) == agreed


def check_section(data: bytes) -> None:
    """A memory file of any size with any seals is adopted only when it cannot shrink, and then can be read whole."""
    size = int.from_bytes(data[:3], "little") & 0xFFFF
    fd = os.memfd_create("fuzz", os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if data[3:4] != b"\0" else 0))
    handle = Handle(fd)
    os.ftruncate(fd, size)
    seals = data[4] & 0x1F if len(data) > 4 else 0
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    real = fcntl.fcntl(fd, fcntl.F_GET_SEALS) if data[3:4] != b"\0" else 0
    with handle:
        limit = 1 + int.from_bytes(data[5:8], "little")
        try:
            section = Section.adopt(Handle(os.dup(fd)), max_size=limit)
        except (AlpcError, ValueError, OSError):
            return
        try:
            assert real & fcntl.F_SEAL_SHRINK
            assert 0 < section.size <= min(limit, size)
            assert bytes(section.memory) == bytes(section.size)
        finally:
            section.close()


def check_peer_options(data: bytes) -> None:
    """Any answer of the kernel about groups, label and process is an identity, and nothing stays open."""
    end = 1 + 4 * min(data[0] % 64, len(data[1:]) // 4) if data else 0
    with scripted(
        {SO_PEERGROUPS: data[1:end], socket.SO_PEERSEC: data[end:][:64], SO_PEERPIDFD: errno.ENOPROTOOPT}
    ) as sock:
        identity = peer_identity(sock)
        assert list(identity.groups) == sorted(set(identity.groups))
        assert SecurityDescriptor([deny("label:x"), allow("everyone")]).judge(identity) in {
            None,
            f"entry 1 (deny label:x all) denies connect to {identity}",
        }


OWN_SEEDS: dict[str, tuple[bytes, ...]] = {
    "attributes": (
        bytes([0x80]) + bytes(8) + b"data",
        bytes([0x40]) + bytes(32),
        bytes([0x20]) + bytes(24) + (1).to_bytes(4, "little") + bytes(20),
        bytes([0x10]) + (4).to_bytes(4, "little") + b"\x91\x91\xc4\x00data",
        bytes([0xFC]) + bytes(100),
    ),
    "shared": (
        *(bytes([kind, 0, 0, 0, 1, 0]) + bytes(8) for kind in range(4, 17)),
        # A reply with attributes, to a request that is open.
        bytes([5, 128, 0, 0, 1]) + bytes(15),
    ),
    "ancillary": (b"\x03\x0c" + bytes(12), b"\x01\x04abcd\x03\x0c" + bytes(range(12))),
    "security-text": (
        b"allow user:0 connect,send # x\ndeny group:8; allow everyone all",
        b"allow label:a:b introspect\ndeny same-user\nallow root impersonate,control,views,handles,direct",
    ),
    "security-toml": (
        b"enforce = false\n[[entry]]\nallow = 'user:0'\nrights = ['connect']\n[[entry]]\ndeny = 'group:8'",
        b"entry = [{ allow = 'label:x y' }]",
    ),
    "section": (bytes([0, 16, 0, 1, 0x0E, 0xFF, 0xFF, 0]), bytes([1, 0, 0, 1, 2, 255, 0, 0]), bytes(8)),
    "peer-options": (bytes([2, 1, 0, 0, 0, 2, 0, 0, 0]) + b"label\0", bytes([0]) + b"\xff\xfe", b""),
}
"""Inputs to begin with, for the targets that read no frames."""
