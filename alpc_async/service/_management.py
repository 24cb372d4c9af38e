"""The interfaces that every service port has beside those that it serves: what is there, and how it is doing.

Belongs here: `Introspection`, `Management`, their servers, and who may use them. Never here: what they report about.

Introspection needs the right INTROSPECT and management the right CONTROL where the port is guarded by a
`SecurityDescriptor`; with any other policy both are for the same user and root.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec

from ..security import SAME_USER_OR_ROOT, Access, Policy, SecurityDescriptor
from ._fingerprint import contract_fingerprint
from ._interface import Interface, contract_of, idempotent
from ._objects import Root
from ._schema import InterfaceSchema, describe_contract
from ._statistics import ServiceStatistics  # noqa: TC001  # contracts are read at run time

if TYPE_CHECKING:
    from ..security import Identity
    from ._service import Service

__all__ = [
    "BUILT_IN",
    "Health",
    "InterfaceSummary",
    "Introspection",
    "LiveCall",
    "Management",
    "add_management",
]


class InterfaceSummary(msgspec.Struct, frozen=True):
    """One interface that a port serves.

    Attributes:
        name: name of the class.
        uuid: its identity.
        version: major and minor.
        fingerprint: digest of its contract.
        methods: number of its methods.
        doc: first line of its docstring.
    """

    name: str
    uuid: str
    version: tuple[int, int]
    fingerprint: str
    methods: int
    doc: str


class LiveCall(msgspec.Struct, frozen=True):
    """A call that is being handled.

    Attributes:
        interface: name of the interface.
        method: name of the method.
        peer: who called, for people to read.
        uid: the caller's user.
        age: since when it is being handled, in seconds.
        left: until its deadline, in seconds; ``None`` for no end.
    """

    interface: str
    method: str
    peer: str
    uid: int
    age: float
    left: float | None


class Health(msgspec.Struct, frozen=True):
    """Whether a service works.

    Attributes:
        state: ``"serving"`` or ``"draining"``.
        since: for how long it has been open, in seconds.
    """

    state: Literal["serving", "draining"]
    since: float


class Introspection(Interface, uuid="a1b0c6de-2f0a-4b52-9a53-7d2b8c1f4e01", version=(1, 0)):
    """What a port serves, and which calls are under way."""

    @idempotent
    async def interfaces(self) -> list[InterfaceSummary]:
        """Return what the port serves, these two interfaces excluded. Cancelling changes nothing."""
        raise NotImplementedError

    @idempotent
    async def describe(self, uuid: str) -> InterfaceSchema | None:
        """Return the description of an interface, or nothing when the port does not serve it.

        Cancelling changes nothing.

        Args:
            uuid: identity of the interface.
        """
        raise NotImplementedError

    @idempotent
    async def calls(self, most: int = 100) -> list[LiveCall]:
        """Return the calls that are being handled, the oldest first, this one excluded. Cancelling changes nothing.

        Args:
            most: how many at most.
        """
        raise NotImplementedError


class Management(Interface, uuid="a1b0c6de-2f0a-4b52-9a53-7d2b8c1f4e02", version=(1, 0)):
    """How a service is doing, and stopping it."""

    @idempotent
    async def statistics(self) -> ServiceStatistics:
        """Return what the service has done so far, and what it holds now. Cancelling changes nothing."""
        raise NotImplementedError

    @idempotent
    async def health(self) -> Health:
        """Return whether the service takes calls. Cancelling changes nothing."""
        raise NotImplementedError

    async def stop(self, grace: float = 5.0) -> None:
        """Take no new calls, give those that run some time, then end the service. Cancelling does not take it back.

        Args:
            grace: how long, in seconds.
        """
        raise NotImplementedError


class RightPolicy:
    """Lets in who has a right at a port.

    Args:
        security: the policy of the port.
        right: the right.
    """

    admits_others = True

    def __init__(self, security: Policy, right: Access) -> None:
        self._security = security
        self._right = right

    def judge(self, identity: Identity) -> str | None:
        """Return why the identity is refused, in words, or ``None`` when it is allowed.

        Args:
            identity: the facts from the kernel.
        """
        if not isinstance(self._security, SecurityDescriptor):
            return SAME_USER_OR_ROOT.judge(identity)
        if self._right in self._security.granted(identity):
            return None
        return f"the access list does not give {identity} the right {self._right.words}"

    def __str__(self) -> str:
        return f"the right {self._right.words}"


class IntrospectionServer(Introspection):
    """Tells about a service, once it knows it."""

    service: Service

    async def interfaces(self) -> list[InterfaceSummary]:
        contracts = [root.contract for root in self.service.served()]
        return [
            InterfaceSummary(
                contract.name,
                contract.uuid,
                contract.version,
                contract_fingerprint(contract),
                len(contract.methods),
                contract.doc.partition("\n")[0],
            )
            for contract in contracts
        ]

    async def describe(self, uuid: str) -> InterfaceSchema | None:
        found = [root for root in self.service.served() if root.contract.uuid == uuid.lower()]
        return describe_contract(found[0].contract) if found else None

    async def calls(self, most: int = 100) -> list[LiveCall]:
        now = self.service.now()
        found = [
            LiveCall(
                call.interface,
                call.method,
                str(call.peer),
                call.peer.uid,
                now - started,
                None if call.deadline == math.inf else max(0.0, call.deadline - now),
            )
            for call, started in self.service.calls()
            if call.interface != "Introspection"
        ]
        return sorted(found, key=lambda live: -live.age)[: max(0, most)]


class ManagementServer(Management):
    """Manages a service, once it knows it."""

    service: Service

    async def statistics(self) -> ServiceStatistics:
        return self.service.statistics()

    async def health(self) -> Health:
        return Health("draining" if self.service.stopping else "serving", self.service.now() - self.service.opened_at)

    async def stop(self, grace: float = 5.0) -> None:
        self.service.stop_soon(grace)


def add_management(roots: dict[str, Root], security: Policy) -> tuple[IntrospectionServer, ManagementServer]:
    """Add both interfaces to what a port serves.

    Args:
        roots: what it serves, by uuid; changed in place, where it does not serve them itself.
        security: the policy of the port.

    Returns:
        The two servers, which still have to be told the service.
    """
    servers = IntrospectionServer(), ManagementServer()
    for interface, server, right in (
        (Introspection, servers[0], Access.INTROSPECT),
        (Management, servers[1], Access.CONTROL),
    ):
        contract = contract_of(interface)
        roots.setdefault(contract.uuid, Root(server, contract, RightPolicy(security, right)))
    return servers


BUILT_IN = frozenset({"a1b0c6de-2f0a-4b52-9a53-7d2b8c1f4e01", "a1b0c6de-2f0a-4b52-9a53-7d2b8c1f4e02"})
"""The uuids of the interfaces that every port has."""
