"""The protocol without input and output: bytes in, events out; commands in, bytes out.

Belongs here: frames, states, ids, quotas, deadlines as numbers. Never here: a socket, a clock, a task; this layer
imports none of ``socket``, ``os``, ``time``, ``asyncio``, ``trio`` and ``anyio``.
"""

from ._attributes import DIRECT_DATA as DIRECT_DATA
from ._attributes import DIRECT_WRITABLE as DIRECT_WRITABLE
from ._attributes import Attributes as Attributes
from ._attributes import DirectRecord as DirectRecord
from ._attributes import HandleRecord as HandleRecord
from ._attributes import SecurityRecord as SecurityRecord
from ._attributes import ViewMode as ViewMode
from ._attributes import ViewRecord as ViewRecord
from ._carrier import Carrier as Carrier
from ._ceilings import MAX_DIRECT_RANGES as MAX_DIRECT_RANGES
from ._ceilings import MAX_GREETING_OVERHEAD as MAX_GREETING_OVERHEAD
from ._ceilings import MAX_REASON_LENGTH as MAX_REASON_LENGTH
from ._ceilings import MAX_TIMEOUT_MS as MAX_TIMEOUT_MS
from ._endpoint import Endpoint as Endpoint
from ._events import CancelRequested as CancelRequested
from ._events import Datagram as Datagram
from ._events import Event as Event
from ._events import Extended as Extended
from ._events import Faulted as Faulted
from ._events import Greeted as Greeted
from ._events import PeerClosed as PeerClosed
from ._events import Refused as Refused
from ._events import Released as Released
from ._events import Replied as Replied
from ._events import ReplyLost as ReplyLost
from ._events import Request as Request
from ._events import Revoked as Revoked
from ._events import SectionGone as SectionGone
from ._events import SectionOffered as SectionOffered
from ._events import Taken as Taken
from ._events import Ticket as Ticket
from ._events import TicketT as TicketT
from ._events import TimedOut as TimedOut
from ._events import Violated as Violated
from ._events import Welcomed as Welcomed
from ._frames import APPLICATION_STATUS as APPLICATION_STATUS
from ._frames import HEADER_SIZE as HEADER_SIZE
from ._frames import MAGIC as MAGIC
from ._frames import MAX_HANDLES_PER_FRAME as MAX_HANDLES_PER_FRAME
from ._frames import VERSION as VERSION
from ._frames import Attribute as Attribute
from ._frames import FrameType as FrameType
from ._frames import SectionKind as SectionKind
from ._frames import Status as Status
from ._frames import pack as pack
from ._frames import status_of as status_of
from ._frames import unpack_header as unpack_header
from ._passing import PassedState as PassedState
from ._passing import pass_state as pass_state
from ._passing import resume as resume
from ._states import RECEIVABLE as RECEIVABLE
from ._states import SENDABLE as SENDABLE
from ._states import Role as Role
from ._states import State as State
