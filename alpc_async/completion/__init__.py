"""Handing messages to whoever works on them: completion ports and worker pools.

Belongs here: waiting for many ports at once, and running handlers. Never here: connections and replies (port).
"""

from ..port import Completion as Completion
from ._blocking import BlockingMessage as BlockingMessage
from ._core import CompletionIterator as CompletionIterator
from ._law import PROCESSES as PROCESSES
from ._law import THREADS as THREADS
from ._law import Law as Law
from ._law import Tick as Tick
from ._pool import WorkerPool as WorkerPool
from ._port import CompletionPort as CompletionPort
from ._port import CompletionPortStatistics as CompletionPortStatistics
from ._port import core_of as core_of
from ._sizing import Sizer as Sizer
from ._statistics import WorkerPoolReport as WorkerPoolReport
from ._statistics import WorkerPoolStatistics as WorkerPoolStatistics
