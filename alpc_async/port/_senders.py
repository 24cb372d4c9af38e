"""Noticing that somebody else sends on a connection, and what follows.

Belongs here: the reaction to a change of sender. Never here: where the facts come from (link), judging (security).

The kernel says with each receive who sent the bytes. It says the *real* user and group, and the process; the identity
of a connection has the *effective* ones of whoever called ``connect``. Whoever connects while the two differ, as a
set-user-ID program does, therefore counts as changed from the first byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..handles import dispose
from ..security import is_sender, sender_identity
from ..wire import Status

if TYPE_CHECKING:
    from ..handles import Handle
    from ..security import Gate, Identity
    from ._channel import Channel

__all__ = ["note_sender"]


def note_sender(channel: Channel, gate: Gate, facts: tuple[int, int, int], process: Handle | None) -> None:
    """Take note of who sent the bytes that follow; ends the connection when that is not to be.

    Args:
        channel: the connection.
        gate: judges the sender.
        facts: (process id, real user id, real group id).
        process: a pidfd of the process, or ``None``; consumed.
    """
    if is_sender(channel.peer, facts, process):
        sender = channel.peer
        if process is not None:
            process.close()
    else:
        sender = sender_identity(channel.peer, facts, _counted(channel, process))
    if sender is (channel.origin or channel.peer):
        return
    channel.counters.sender_changes += 1
    if _admits(channel, gate, sender):
        channel.follow(sender)
    else:
        sender.close()


def _admits(channel: Channel, gate: Gate, sender: Identity) -> bool:
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
        return True
    return False


def _counted(channel: Channel, process: Handle | None) -> Handle | None:
    """Return what pins a sender, counted for the user of the connection, or ``None`` when that user has too many.

    Each message keeps what pins its sender, and a client may let as many processes send as it likes.
    """
    if process is None or channel.handle_tally is None:
        return process
    counted = channel.handle_tally.take([process])
    if counted is None:
        dispose([process])
        return None
    return counted[0]
