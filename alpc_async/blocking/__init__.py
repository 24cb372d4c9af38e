"""Calling services from programs without an event loop: scripts, threads, an interactive session.

::

    import alpc_async.blocking

    with alpc_async.blocking.connect("demo.digest", Digest) as digest:
        digest.call(Digest.sha256, b"...")      # typed: bytes
        digest.sha256(b"...")                   # the same, for those who type less

Belongs here: the blocking client. Never here: serving, callbacks from the server, anything that runs by itself.
"""

from ._client import BlockingClient as BlockingClient
from ._client import BlockingOpening as BlockingOpening
from ._client import BlockingStream as BlockingStream
from ._client import connect as connect
