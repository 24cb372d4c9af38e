"""A server for the demo that never begins, and does not end when it is asked to.

Belongs here: deafness. Never here: serving.
"""

from __future__ import annotations

import signal
import sys

signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.stderr.write("listening to nobody\n")
sys.stderr.flush()
while True:
    signal.pause()
