"""Where the command `alpc` starts.

Belongs here: saying what is missing before anything else can fail. Never here: commands (`_cli`).
"""

from __future__ import annotations

import importlib.util
import signal
import sys
from typing import Final

__all__ = ["main"]

_NEEDED: Final = ("cyclopts", "rich")
_MISSING_STATUS: Final = 2
_INTERRUPTED_STATUS: Final = 128 + signal.SIGINT


def main() -> None:
    """Run the command line with the arguments of this process, and exit with its status.

    Raises:
        SystemExit: always; the status is 2 when the arguments are wrong or the extra ``cli`` is not installed.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        hint = f"alpc: the command line needs {' and '.join(missing)}: python3 -m pip install 'alpc-async[cli]'"
        print(hint, file=sys.stderr)
        sys.exit(_MISSING_STATUS)
    try:
        from ._cli import app

        app()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED_STATUS)
