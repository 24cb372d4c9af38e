"""Moving bytes: event loops, sockets, names, listening and connecting.

Belongs here: everything that touches a socket or an event loop. Never here: what the bytes mean (wire), who may talk to
whom (security), messages (port). asyncio and trio are named in ``_asyncio`` and ``_trio`` and nowhere else.
"""

from ._ancillary import adopt_socket as adopt_socket
from ._blocking import BlockingLoop as BlockingLoop
from ._child import ChildProcess as ChildProcess
from ._child import die_with_parent as die_with_parent
from ._child import inherit_socket as inherit_socket
from ._child import usable_processors as usable_processors
from ._clocks import processor_time_of_process as processor_time_of_process
from ._clocks import processor_time_of_thread as processor_time_of_thread
from ._dial import dial as dial
from ._directory import search_directories as search_directories
from ._inheritance import AcceptTurn as AcceptTurn
from ._inheritance import InheritedName as InheritedName
from ._inheritance import accept_table as accept_table
from ._inheritance import clear_turn as clear_turn
from ._inheritance import inheritance as inheritance
from ._inheritance import inherited_name as inherited_name
from ._inheritance import manager_sockets as manager_sockets
from ._inheritance import supervisor_sockets as supervisor_sockets
from ._link import Link as Link
from ._link import LinkOwner as LinkOwner
from ._link import LinkStatistics as LinkStatistics
from ._listener import Listener as Listener
from ._listener import ListenerStatistics as ListenerStatistics
from ._listener import turn_away as turn_away
from ._loop import Loop as Loop
from ._loop import TimerHandle as TimerHandle
from ._loop import Waiter as Waiter
from ._loop import current_loop as current_loop
from ._names import NameLease as NameLease
from ._names import check_name as check_name
from ._pinning import PinningLink as PinningLink
from ._sender import SendingLink as SendingLink
from ._stream import SocketLink as SocketLink
from ._stream import StreamSocket as StreamSocket
from ._stream import socket_pair as socket_pair
