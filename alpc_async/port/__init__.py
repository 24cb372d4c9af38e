"""Ports and messages: what a user opens, sends and receives.

Belongs here: connection ports, communication ports, messages, and the queue they wait in. Never here: bytes and frames
(wire), sockets and loops (link), deciding who may (security), pools (completion).
"""

from ._arrived import Arrived as Arrived
from ._arrived import arrived as arrived
from ._channel import Channel as Channel
from ._communication import CommunicationPort as CommunicationPort
from ._communication import PortAttribute as PortAttribute
from ._connection import ConnectionPort as ConnectionPort
from ._contexts import DO_NOT_IMPERSONATE as DO_NOT_IMPERSONATE
from ._contexts import SecurityContext as SecurityContext
from ._counters import ConnectionPortStatistics as ConnectionPortStatistics
from ._counters import PortStatistics as PortStatistics
from ._direct import DirectAccess as DirectAccess
from ._direct import DirectBuffer as DirectBuffer
from ._impersonation import Caller as Caller
from ._impersonation import Impersonation as Impersonation
from ._inherited import inheritable_pair as inheritable_pair
from ._inherited import inherited_port as inherited_port
from ._message import Completion as Completion
from ._message import Message as Message
from ._message import MessageType as MessageType
from ._message import Posted as Posted
from ._message import Transfer as Transfer
from ._message import as_bytes as as_bytes
from ._open import Opening as Opening
from ._open import PortPair as PortPair
from ._open import check_arguments as check_arguments
from ._open import connect as connect
from ._open import listen as listen
from ._open import open_connection as open_connection
from ._open import open_pair as open_pair
from ._open import port_pair as port_pair
from ._pending import CancelOutcome as CancelOutcome
from ._pending import PendingRequest as PendingRequest
from ._queue import QUANTUM as QUANTUM
from ._queue import PacketQueue as PacketQueue
from ._queue import Seat as Seat
from ._receipt import Receipt as Receipt
from ._receipt import Reserve as Reserve
from ._receive import DEFAULT_BATCH as DEFAULT_BATCH
from ._receive import ReceivePoint as ReceivePoint
from ._receive import close_now as close_now
from ._receive import redirect as redirect
from ._requesting import DEFAULT as DEFAULT
from ._requesting import Default as Default
from ._requesting import RequestingPort as RequestingPort
from ._sent import SentRequest as SentRequest
from ._source import Slot as Slot
from ._source import Source as Source
from ._source import current_slot as current_slot
from ._source import slot_here as slot_here
from ._starting import starter as starter
from ._streams import PortByteStream as PortByteStream
from ._streams import PortObjectStream as PortObjectStream
from ._ways import Way as Way
from ._ways import check_way as check_way
