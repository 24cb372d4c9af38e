"""Which way the data of a message shall go, when somebody wants to say.

Belongs here: the names of the ways. Never here: going them (`_transfers`), telling which one was gone (`_message`).
"""

from __future__ import annotations

from typing import Literal

__all__ = ["Way", "check_way"]

Way = Literal["auto", "inline", "view"]
"""``"auto"`` as the length of the data says, ``"inline"`` through the connection, ``"view"`` through shared memory."""


def check_way(way: str) -> None:
    """Raise unless a way of moving data is one of those that can be asked for.

    Raises:
        ValueError: it is none.
    """
    if way not in ("auto", "inline", "view"):
        raise ValueError(f"transfer must be 'auto', 'inline' or 'view', not {way!r}")
