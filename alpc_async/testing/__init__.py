"""The public test kit: links without sockets, faults on plan, contracts that any link or port must keep, leak counters.

Belongs here: what a test of this package, of a new link, or of a program that uses ports needs. Never here: tests, or
anything that a program needs while it serves.
"""

from ._check_link import check_link as check_link
from ._check_port import check_port as check_port
from ._faulty import FaultyLink as FaultyLink
from ._leaks import LeakCounter as LeakCounter
from ._leaks import assert_no_leaks as assert_no_leaks
from ._memory import LinkPair as LinkPair
from ._memory import MemoryLink as MemoryLink
from ._memory import memory_link_pair as memory_link_pair
from ._pair import memory_port_pair as memory_port_pair
from ._plan import Corrupt as Corrupt
from ._plan import Delay as Delay
from ._plan import Disconnect as Disconnect
from ._plan import Drop as Drop
from ._plan import DropFrame as DropFrame
from ._plan import Fault as Fault
from ._plan import Silence as Silence
from ._plan import Split as Split
from ._plan import random_plan as random_plan
from ._recorder import Recorder as Recorder
from ._service import service_pair as service_pair
