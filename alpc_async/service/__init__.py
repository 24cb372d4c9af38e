"""Typed services over ports: interfaces, proxies, streams, object references, faults.

Belongs here: everything that knows what a payload means. Never here: frames and sockets, who may connect, programs.
"""

from ._annotations import Buffer as Buffer
from ._call import Call as Call
from ._call import current_call as current_call
from ._client_end import bind_session as bind_session
from ._client_end import lone_session as lone_session
from ._connect import bind as bind
from ._connect import connect as connect
from ._connect import open_client as open_client
from ._dynamic import DeclaredFault as DeclaredFault
from ._dynamic import DynamicClient as DynamicClient
from ._evolution import find_breaks as find_breaks
from ._fault import Fault as Fault
from ._fingerprint import fingerprint as fingerprint
from ._implement import implement as implement
from ._interceptor import Intercepted as Intercepted
from ._interceptor import Interceptor as Interceptor
from ._interceptors import CallLogger as CallLogger
from ._interceptors import CallMeter as CallMeter
from ._interceptors import CallNumbers as CallNumbers
from ._interceptors import Retry as Retry
from ._interface import Interface as Interface
from ._interface import idempotent as idempotent
from ._interface import is_interface as is_interface
from ._interface import method as method
from ._interface import oneway as oneway
from ._interface import raises as raises
from ._management import Health as Health
from ._management import InterfaceSummary as InterfaceSummary
from ._management import Introspection as Introspection
from ._management import LiveCall as LiveCall
from ._management import Management as Management
from ._mapper import MAPPER_NAME as MAPPER_NAME
from ._mapper import Activation as Activation
from ._mapper import Endpoint as Endpoint
from ._mapper import EndpointMapper as EndpointMapper
from ._mapper import EndpointMapperServer as EndpointMapperServer
from ._mapper import Registration as Registration
from ._mapper import Registrations as Registrations
from ._mapper import find_endpoints as find_endpoints
from ._mapper import register as register
from ._pair import serve_connection as serve_connection
from ._proxy import check_is_interface as check_is_interface
from ._proxy import port_of as port_of
from ._proxy import with_options as with_options
from ._reconnect import Reconnect as Reconnect
from ._schema import FaultSchema as FaultSchema
from ._schema import InterfaceSchema as InterfaceSchema
from ._schema import MethodSchema as MethodSchema
from ._schema import ParameterSchema as ParameterSchema
from ._schema import describe_interface as describe_interface
from ._serve import ServicePort as ServicePort
from ._serve import serve as serve
from ._statistics import ServiceStatistics as ServiceStatistics
