"""Who is at the other end, and may they: identities from the kernel and the policies that judge them.

Belongs here: reading the facts about a peer, and deciding on them. Never here: moving bytes, deciding when a
connection is judged, or any fact that the peer says about itself.
"""

from __future__ import annotations

from ._identity import Identity as Identity
from ._peer import own_identity as own_identity
from ._peer import peer_identity as peer_identity
from ._policy import ANYONE as ANYONE
from ._policy import SAME_USER_OR_ROOT as SAME_USER_OR_ROOT
from ._policy import Policy as Policy
from ._policy import require as require

__all__ = ["ANYONE", "SAME_USER_OR_ROOT", "Identity", "Policy", "own_identity", "peer_identity", "require"]
