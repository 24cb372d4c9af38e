"""What a service manager of the systemd kind wants to hear.

Belongs here: ``sd_notify``. Never here: sockets that it passes (link).
"""

from __future__ import annotations

import os
import socket
import time

__all__ = ["notify"]


def notify(*lines: str) -> bool:
    """Tell the service manager something, if there is one (sd_notify(3)).

    Args:
        lines: assignments such as ``"READY=1"``.

    Returns:
        Whether there is one.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if "RELOADING=1" in lines:
        lines = (*lines, f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            sock.send("\n".join(lines).encode())
        except OSError:
            return False
    return True
