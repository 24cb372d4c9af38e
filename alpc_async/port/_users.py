"""What the clients of one user hold together: connections, handshakes, and room for messages.

Belongs here: the accounts of users, and what is left for one more connection. Never here: judging users (security),
connections by themselves (`_channel`).

Room for messages is divided when a connection is made, not counted message by message: each connection is promised a
quota, and the promises of one user never add up to more than the user's share. So a user cannot make us hold more,
however many connections and processes it has, and a message costs nothing more for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ..errors import QuotaExceeded
from ..handles import descriptor_limit
from ..security import Access, BucketTable
from ._pace import Activity, Pace
from ._tally import HandleTally

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..limits import PortLimits
    from ..link import Loop
    from ..security import Identity

__all__ = ["Account", "Users", "restricted"]

LEAST_MESSAGES: Final = 16
"""Messages in flight that every connection gets, however many its user has."""

USER_SHARE: Final = 0.75
"""Part of the descriptors of this process that one user may take: with the usual 1,024 of them the clients of one user
could otherwise keep everybody else out, and the program from opening a file."""

UNIDENTIFIED: Final = None
"""The account that all share whom nobody can tell apart."""


class Account:
    """What one user holds.

    Attributes:
        connections: its connections.
        pool: payload bytes promised to them.
        messages: messages promised to them.
        sections: shared sections that they hold.
        section_size: bytes of those together.
        lent: bytes of sections that we made for them.
        handles: the received descriptors that nobody has taken or closed.
        pace: how fast it may send, or ``None`` for as fast as it likes; see `Users.pace`.
    """

    __slots__ = ("connections", "handles", "lent", "messages", "pace", "pool", "section_size", "sections")

    def __init__(self, handles: HandleTally) -> None:
        self.connections = 0
        self.pool = 0
        self.messages = 0
        self.sections = 0
        self.section_size = 0
        self.lent = 0
        self.handles = handles
        self.pace: Pace | None = None

    @property
    def descriptors(self) -> int:
        """Descriptors of this process that are open for the user, received handles aside: two for each connection."""
        return 2 * self.connections + self.sections


class Users:
    """The accounts of all users of one port.

    Args:
        limits: those of the port.
        loop: the running loop; only asked where users have a pace.
        repace: called when all users may have another `pace` from now on.
    """

    def __init__(self, limits: PortLimits, loop: Loop | None = None, repace: Callable[[], None] | None = None) -> None:
        self._limits = limits
        self._loop = loop
        self._repace = repace
        self._connected = 0
        self._activity = Activity()
        rate = float(limits.max_user_handshakes)
        self._handshakes = BucketTable(rate=rate, burst=rate)
        self._accounts: dict[int | None, Account] = {}
        self._lingering: set[int | None] = set()
        self.most_descriptors = int(descriptor_limit() * USER_SHARE)
        """Descriptors of this process that one user may take, whatever the limits say."""

    @staticmethod
    def key(identity: Identity) -> int | None:
        """Return whose account a peer is on."""
        return identity.uid if identity.identified else UNIDENTIFIED

    def refusal(self, uid: int | None, now: float) -> str:
        """Count a handshake, and return the limit that refuses it, or nothing.

        It costs next to nothing, because whoever floods is refused here, before anything is made for it.

        Args:
            uid: the user, or ``None`` for one that cannot be identified.
            now: the time in seconds.
        """
        if not self._handshakes.of(uid).take(now):
            return "max_user_handshakes"
        account = self._accounts.get(uid)
        if account is None:
            return ""
        if account.connections >= self._limits.max_user_connections:
            return "max_user_connections"
        if account.handles.held > account.handles.limit:
            return "max_user_handles"
        return "RLIMIT_NOFILE" if account.descriptors + account.handles.held > self.most_descriptors - 2 else ""

    def open(self, key: int | None) -> PortLimits | None:
        """Count a connection and promise it quotas.

        Args:
            key: whose it is.

        Returns:
            The limits to offer, or ``None`` when the user has as many connections as it may. `close` takes it back.
        """
        limits = self._limits
        self._forget_lingering()
        account = self._accounts.get(key) or self._new_account()
        if account.connections >= limits.max_user_connections:
            return None
        others = limits.max_user_connections - account.connections - 1
        longest = limits.max_message_length
        pool = _share(limits.max_pool_usage, limits.max_user_pool_usage - account.pool, longest, others)
        left = limits.max_user_messages - account.messages
        messages = _share(limits.max_outstanding_messages, left, LEAST_MESSAGES, others)
        if pool < longest or messages < 1:
            return None
        self._accounts[key] = account
        account.connections += 1
        account.pool += pool
        account.messages += messages
        self._bound_handles(account)
        if account.connections == 1:
            self._count_users(1)
        if pool == limits.max_pool_usage and messages == limits.max_outstanding_messages:
            return limits
        return msgspec.structs.replace(limits, max_pool_usage=pool, max_outstanding_messages=messages)

    def exhausted(self, key: int | None) -> str:
        """Return the limit because of which `open` refuses a user.

        Args:
            key: whose account it is.
        """
        account = self._accounts.get(key)
        full = account is not None and account.connections >= self._limits.max_user_connections
        return "max_user_connections" if full else "max_user_messages"

    def _new_account(self) -> Account:
        return Account(HandleTally(self._limits.max_user_handles))

    def pace(self, key: int | None) -> Pace | None:
        """Return how fast a user with connections may send, or ``None`` for as fast as it likes.

        That changes when the port comes to have several users, or one again; then ``repace`` is called.

        Args:
            key: whose it is.
        """
        account = self._accounts[key]
        limits = self._limits
        shared_rate = limits.max_user_shared_rate if self._connected > 1 else 0
        rates: tuple[float, float] = float(limits.max_user_rate), float(shared_rate)
        if account.pace is not None and account.pace.rates != rates:
            account.pace.end()
            account.pace = None
        if account.pace is None and any(rates) and self._loop is not None:
            account.pace = Pace(self._loop, *rates, self._activity)
        return account.pace

    def _count_users(self, more: int) -> None:
        shared = self._connected > 1
        self._connected += more
        if shared != (self._connected > 1) and self._limits.max_user_shared_rate and self._repace is not None:
            self._repace()

    def _bound_handles(self, account: Account) -> None:
        room = self.most_descriptors - account.descriptors
        account.handles.limit = max(self._limits.max_handles, min(self._limits.max_user_handles, room))

    def handles(self, key: int | None) -> HandleTally:
        """Return what counts the handles of a user with connections.

        Args:
            key: whose they are.
        """
        return self._accounts[key].handles

    def close(self, key: int | None, promised: PortLimits) -> None:
        """Take back what `open` promised.

        Args:
            key: whose connection it was.
            promised: what `open` returned for it.
        """
        account = self._accounts[key]
        account.connections -= 1
        account.pool -= promised.max_pool_usage
        account.messages -= promised.max_outstanding_messages
        self._bound_handles(account)
        if not account.connections:
            self._count_users(-1)
        self._forget(key, account)

    def share(self, key: int | None, sections: int, size: int, port: str) -> None:
        """Count sections that a user shares, or takes back.

        Args:
            key: whose they are.
            sections: how many more, or less.
            size: bytes more, or less.
            port: what the port calls itself, for the error.

        Raises:
            QuotaExceeded: it shares more than it may; they count all the same, until they are taken back.
        """
        account = self._accounts.setdefault(key, self._new_account())
        account.sections += sections
        account.section_size += size
        self._bound_handles(account)
        self._forget(key, account)
        if sections <= 0:
            return
        limits = self._limits
        if account.sections > limits.max_user_sections or account.descriptors > self.most_descriptors:
            raise QuotaExceeded(port=port, setting="max_user_sections", limit=limits.max_user_sections)
        if account.section_size > limits.max_user_section_size:
            raise QuotaExceeded(port=port, setting="max_user_section_size", limit=limits.max_user_section_size)

    def lend(self, key: int | None, size: int, port: str) -> None:
        """Count memory that is shared with a user, or was given up.

        What was lent stays with the user for as long as it likes, so it is the user's, like what it shares with us.

        Args:
            key: who gets it.
            size: bytes more, or less.
            port: what the port calls itself, for the error.

        Raises:
            QuotaExceeded: it would have more than it may; nothing has changed.
        """
        account = self._accounts.setdefault(key, self._new_account())
        limit = self._limits.max_user_section_size
        if size > 0 and account.lent + size > limit:
            self._forget(key, account)
            raise QuotaExceeded(port=port, setting="max_user_section_size", limit=limit)
        account.lent += size
        self._forget(key, account)

    def _forget(self, key: int | None, account: Account) -> None:
        # Sections count until the last view of them is gone, which may be after the connection, and handles likewise.
        if account.connections or account.sections or account.lent:
            return
        if account.handles.held:
            self._lingering.add(key)
        else:
            del self._accounts[key]

    def _forget_lingering(self) -> None:
        # Handles are given back without a word to this, from any thread.
        lingering, self._lingering = self._lingering, set()
        for key in lingering:
            account = self._accounts.get(key)
            # It may have been forgotten with the last section.
            if account is not None:
                self._forget(key, account)


def restricted(limits: PortLimits, rights: Access) -> PortLimits:
    """Return limits in which what a client has no right to is switched off for its connection, in both directions.

    Args:
        limits: those that would be offered.
        rights: what the client may do.
    """
    off: dict[str, int | bool] = {}
    if Access.HANDLES not in rights:
        off["max_handles"] = 0
    if Access.VIEWS not in rights:
        off["max_view_size"] = 0
    if Access.DIRECT not in rights:
        off["direct"] = False
    return msgspec.structs.replace(limits, **off) if off else limits


def _share(wanted: int, left: int, least: int, others: int) -> int:
    """Return what one more connection gets: what it wants, but no more than leaves enough for the others.

    Half of what is spare after each connection that may still come got its least. So the first connections get all
    they want, and later ones less and less, instead of nothing from one moment to the next.

    Args:
        wanted: the quota of a connection.
        left: what is left of the user's share.
        least: what a connection cannot do without.
        others: connections that the user may still open.
    """
    least = min(least, wanted)
    spare = max(0, left - (others + 1) * least)
    return min(wanted, left, least + (spare + 1) // 2)
