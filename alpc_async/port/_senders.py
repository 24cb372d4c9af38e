"""Noticing that somebody else sends on a connection, and what follows.

Belongs here: the reaction to a change of sender. Never here: where the facts come from (link), judging (security).

The kernel says with each receive who sent the bytes. It says the *real* user and group, and the process; the identity
of a connection has the *effective* ones of whoever called ``connect``. Whoever connects while the two differ, as a
set-user-ID program does, therefore counts as changed from the first byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..security import sender_identity
from ..wire import Status

if TYPE_CHECKING:
    from ..security import Gate
    from ._channel import Channel

__all__ = ["note_sender"]


def note_sender(channel: Channel, gate: Gate, pid: int, uid: int, gid: int) -> None:
    """Take note of who sent the bytes that follow; ends the connection when that is not to be.

    Args:
        channel: the connection.
        gate: judges the sender.
        pid: process id.
        uid: real user id.
        gid: real group id.
    """
    sender = sender_identity(channel.peer, pid, uid, gid)
    if sender is (channel.origin or channel.peer):
        return
    channel.counters.sender_changes += 1
    if not channel.follows_senders:
        reason = f"a message came from {sender}, and the connection was made by {channel.peer}"
        gate.note("send as somebody else", rule="tracking='static'", reason=reason)
        channel.hang_up(Status.SENDER_CHANGED, reason)
    elif channel.endpoint.partial:
        reason = f"{sender} sent the rest of a frame that somebody else began"
        gate.note("send as somebody else", rule="one sender per frame", reason=reason)
        channel.hang_up(Status.SENDER_CHANGED, reason)
    elif gate.admit(sender) is not None:
        channel.hang_up(Status.ACCESS_DENIED, f"the server's security policy does not admit {sender}")
    else:
        channel.follow(sender)
