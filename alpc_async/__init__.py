"""Local inter-process communication in the model of Windows ALPC, for asyncio, uvloop and trio on Linux.

Import it as ``import alpc_async as alpc``. Every public name is here; what lies below in packages is built in layers,
each used only by those above it::

    tools        command line, demo, benchmarks
    testing      the public test kit
    service      typed interfaces: proxies, streams, object references
    completion   completion ports and worker pools
    port         connection ports, communication ports, messages
    link         event loops, sockets, names              security  identity and policies
    memory       sections, views, direct copies
    wire         the protocol, without input and output
    errors, limits, handles, kinds
"""

from ._version import __version__ as __version__
from .completion import BlockingMessage as BlockingMessage
from .completion import Completion as Completion
from .completion import CompletionPort as CompletionPort
from .completion import CompletionPortStatistics as CompletionPortStatistics
from .completion import WorkerPool as WorkerPool
from .completion import WorkerPoolReport as WorkerPoolReport
from .completion import WorkerPoolStatistics as WorkerPoolStatistics
from .contract_errors import InvalidInterface as InvalidInterface
from .contract_errors import OutcomeUnknown as OutcomeUnknown
from .contract_errors import TypeMismatch as TypeMismatch
from .contract_errors import UnknownInterface as UnknownInterface
from .errors import AccessDenied as AccessDenied
from .errors import AlpcError as AlpcError
from .errors import ConnectionRefused as ConnectionRefused
from .errors import DeadlineExceeded as DeadlineExceeded
from .errors import Disconnected as Disconnected
from .errors import ForkedPort as ForkedPort
from .errors import InvalidName as InvalidName
from .errors import MessageTooLong as MessageTooLong
from .errors import NameCollision as NameCollision
from .errors import NameNotFound as NameNotFound
from .errors import PortAssociated as PortAssociated
from .errors import PortClosed as PortClosed
from .errors import ProtocolViolation as ProtocolViolation
from .errors import QuotaExceeded as QuotaExceeded
from .errors import RemoteFault as RemoteFault
from .errors import ReplyMismatch as ReplyMismatch
from .errors import RequestCancelled as RequestCancelled
from .errors import ServerIdentityMismatch as ServerIdentityMismatch
from .errors import UnsafeDirectory as UnsafeDirectory
from .errors import WorkerDied as WorkerDied
from .handles import Handle as Handle
from .handles import HandleKind as HandleKind
from .limits import PortLimits as PortLimits
from .memory_errors import DirectDenied as DirectDenied
from .memory_errors import DirectFailed as DirectFailed
from .memory_errors import DirectOver as DirectOver
from .memory_errors import DirectRange as DirectRange
from .memory_errors import HandleRefused as HandleRefused
from .memory_errors import OutOfSharedMemory as OutOfSharedMemory
from .memory_errors import UnsafeSection as UnsafeSection
from .memory_errors import UnsuitableHandle as UnsuitableHandle
from .memory_errors import ViewInUse as ViewInUse
from .memory_errors import ViewReleased as ViewReleased
from .port import DO_NOT_IMPERSONATE as DO_NOT_IMPERSONATE
from .port import Caller as Caller
from .port import CancelOutcome as CancelOutcome
from .port import CommunicationPort as CommunicationPort
from .port import ConnectionPort as ConnectionPort
from .port import ConnectionPortStatistics as ConnectionPortStatistics
from .port import DirectAccess as DirectAccess
from .port import DirectBuffer as DirectBuffer
from .port import Impersonation as Impersonation
from .port import Message as Message
from .port import MessageType as MessageType
from .port import Opening as Opening
from .port import PendingRequest as PendingRequest
from .port import PortAttribute as PortAttribute
from .port import PortByteStream as PortByteStream
from .port import PortObjectStream as PortObjectStream
from .port import PortPair as PortPair
from .port import PortStatistics as PortStatistics
from .port import Receipt as Receipt
from .port import Reserve as Reserve
from .port import SecurityContext as SecurityContext
from .port import Transfer as Transfer
from .port import listen as listen
from .port import port_pair as port_pair
from .security import ANYONE as ANYONE
from .security import SAME_USER_OR_ROOT as SAME_USER_OR_ROOT
from .security import Access as Access
from .security import AuditRecord as AuditRecord
from .security import Decision as Decision
from .security import Entry as Entry
from .security import Identity as Identity
from .security import ImpersonationLevel as ImpersonationLevel
from .security import KernelFeatures as KernelFeatures
from .security import Policy as Policy
from .security import SecurityDescriptor as SecurityDescriptor
from .security import SecurityQos as SecurityQos
from .security import Surroundings as Surroundings
from .security import allow as allow
from .security import deny as deny
from .security import kernel_features as kernel_features
from .security import require as require
from .security import surroundings as surroundings
from .service import MAPPER_NAME as MAPPER_NAME
from .service import Activation as Activation
from .service import Buffer as Buffer
from .service import Call as Call
from .service import CallLogger as CallLogger
from .service import CallMeter as CallMeter
from .service import CallNumbers as CallNumbers
from .service import Endpoint as Endpoint
from .service import EndpointMapper as EndpointMapper
from .service import EndpointMapperServer as EndpointMapperServer
from .service import Fault as Fault
from .service import FaultSchema as FaultSchema
from .service import Health as Health
from .service import Intercepted as Intercepted
from .service import Interceptor as Interceptor
from .service import Interface as Interface
from .service import InterfaceSchema as InterfaceSchema
from .service import InterfaceSummary as InterfaceSummary
from .service import Introspection as Introspection
from .service import LiveCall as LiveCall
from .service import Management as Management
from .service import MethodSchema as MethodSchema
from .service import ParameterSchema as ParameterSchema
from .service import Reconnect as Reconnect
from .service import Registration as Registration
from .service import Registrations as Registrations
from .service import Retry as Retry
from .service import ServicePort as ServicePort
from .service import ServiceStatistics as ServiceStatistics
from .service import bind as bind
from .service import connect as connect
from .service import current_call as current_call
from .service import describe_interface as describe_interface
from .service import find_endpoints as find_endpoints
from .service import idempotent as idempotent
from .service import implement as implement
from .service import method as method
from .service import oneway as oneway
from .service import raises as raises
from .service import register as register
from .service import serve as serve
from .service import with_options as with_options
from .wire import Status as Status
