"""Who is at the other end, and may they: identities from the kernel and the policies that judge them.

Belongs here: reading the facts about a peer, and deciding on them. Never here: moving bytes, deciding when a
connection is judged, or any fact that the peer says about itself.
"""

from __future__ import annotations

from ._access import Access as Access
from ._access import Entry as Entry
from ._access import allow as allow
from ._access import deny as deny
from ._admission import SocketAccess as SocketAccess
from ._admission import assess as assess
from ._admission import rights_of as rights_of
from ._admission import socket_access as socket_access
from ._audit import AuditRecord as AuditRecord
from ._audit import AuditTrail as AuditTrail
from ._buckets import BucketTable as BucketTable
from ._descriptor import Decision as Decision
from ._descriptor import SecurityDescriptor as SecurityDescriptor
from ._features import KernelFeatures as KernelFeatures
from ._features import kernel_features as kernel_features
from ._gate import Gate as Gate
from ._identity import Identity as Identity
from ._identity import anonymous_identity as anonymous_identity
from ._impersonation import CallerThread as CallerThread
from ._peer import is_sender as is_sender
from ._peer import own_identity as own_identity
from ._peer import peer_identity as peer_identity
from ._peer import peer_user as peer_user
from ._peer import sender_identity as sender_identity
from ._policy import ANYONE as ANYONE
from ._policy import SAME_USER_OR_ROOT as SAME_USER_OR_ROOT
from ._policy import Policy as Policy
from ._policy import require as require
from ._qos import ImpersonationLevel as ImpersonationLevel
from ._qos import SecurityQos as SecurityQos
from ._surroundings import Surroundings as Surroundings
from ._surroundings import surroundings as surroundings

__all__ = [
    "ANYONE",
    "SAME_USER_OR_ROOT",
    "Access",
    "AuditRecord",
    "AuditTrail",
    "BucketTable",
    "CallerThread",
    "Decision",
    "Entry",
    "Gate",
    "Identity",
    "ImpersonationLevel",
    "KernelFeatures",
    "Policy",
    "SecurityDescriptor",
    "SecurityQos",
    "SocketAccess",
    "Surroundings",
    "allow",
    "anonymous_identity",
    "assess",
    "deny",
    "is_sender",
    "kernel_features",
    "own_identity",
    "peer_identity",
    "peer_user",
    "require",
    "rights_of",
    "sender_identity",
    "socket_access",
    "surroundings",
]
