"""The endpoint mapper: which port serves an interface, and starting the server when none does.

Belongs here: the interface of the mapper, its server, registering with it, finding through it. Never here: the command
line.

A registration is an object that the mapper returns: it ends when it is released, or when the connection that holds it
does. Registrations of different users stand side by side, and everybody is told those of the own user first, then those
of root, then those of the user of the mapper, then the others; so nobody can put a port of his own in front of
another's. Who really serves there is checked by the client as for every other connection.
"""

from __future__ import annotations

import logging
from contextvars import Context
from typing import TYPE_CHECKING, Final

import anyio
import msgspec

from ..contract_errors import UnknownInterface
from ..errors import AccessDenied, AlpcError
from ..link import current_loop
from ..port import Opening
from ..port import connect as connect_port
from ..security import SAME_USER_OR_ROOT, own_identity
from ._call import current_call
from ._connect import open_client
from ._interface import Interface, contract_of, idempotent
from ._serve import ServicePort, served_by

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from anyio.abc import Process

    from ..port import CommunicationPort
    from ..security import Policy

__all__ = [
    "MAPPER_NAME",
    "Activation",
    "Endpoint",
    "EndpointMapper",
    "EndpointMapperServer",
    "Registration",
    "Registrations",
    "connect_found",
    "find_endpoints",
    "register",
]

_logger = logging.getLogger("alpc_async.service")

MAPPER_NAME: Final = "alpc.endpoints"
"""The port name of the endpoint mapper."""

MAX_ENDPOINTS: Final = 1024
"""Registrations that one user may have.

Source: a few per service. Attack: a user that registers without end would fill the memory of the mapper. Slack: some
hundred services.
"""

_ROOT: Final = 0


class Endpoint(msgspec.Struct, frozen=True):
    """Where an interface is served.

    Attributes:
        uuid: identity of the interface.
        version: major and minor.
        name: the port name.
        uid: the user who registered it, as the kernel says.
        annotation: words for people, at most 64 characters.
    """

    uuid: str
    version: tuple[int, int]
    name: str
    uid: int
    annotation: str = ""


class Registration(Interface, uuid="a1b0c6de-2f0a-4b52-9a53-7d2b8c1f4e11", version=(1, 0)):
    """A registration, for as long as somebody holds it."""

    async def endpoint(self) -> Endpoint:
        """Return what is registered. Cancelling changes nothing."""
        raise NotImplementedError


class EndpointMapper(Interface, uuid="a1b0c6de-2f0a-4b52-9a53-7d2b8c1f4e10", version=(1, 0)):
    """Knows which ports serve which interfaces."""

    async def register(self, uuid: str, version: tuple[int, int], name: str, annotation: str = "") -> Registration:
        """Tell that a port serves an interface, until the registration is released. Cancelling takes it back.

        Args:
            uuid: identity of the interface.
            version: major and minor.
            name: the port name.
            annotation: words for people; cut to 64 characters.

        Raises:
            AccessDenied: at the mapper: the user has too many registrations; the caller sees a `RemoteFault`.
        """
        raise NotImplementedError

    @idempotent
    async def find(self, uuid: str, version: tuple[int, int], activate: bool = True) -> list[Endpoint]:
        """Return where an interface is served in a version that fits. Cancelling does not stop a server that starts.

        Args:
            uuid: identity of the interface.
            version: major and minor that the client has.
            activate: start the server when none is there and it is known how.

        Returns:
            The endpoints of the caller's user first, then those of root, then others; the newest first among equals.
        """
        raise NotImplementedError

    @idempotent
    async def endpoints(self) -> list[Endpoint]:
        """Return everything that is registered. Cancelling changes nothing."""
        raise NotImplementedError


class Activation(msgspec.Struct, frozen=True):
    """How the server of an interface is started: by a command, or by a service manager that holds its socket.

    A server that is started by a command has to register with the mapper, and ends with it. One that a service manager
    starts has its port name, since clients start it by connecting.

    Attributes:
        command: program and arguments.
        timeout: time until it has registered, in seconds.
        name: the port name whose socket a service manager holds, instead of a command.

    Raises:
        ValueError: there is neither a command nor a name, or both.
    """

    command: list[str] = []
    timeout: float = 10.0
    name: str = ""

    def __post_init__(self) -> None:
        if bool(self.command) is bool(self.name):
            raise ValueError("an activation has a command, or the name of a port whose socket a service manager holds")


class RegistrationServer(Registration):
    """One registration in the mapper's table."""

    def __init__(self, endpoint: Endpoint, remove: Callable[[RegistrationServer], None]) -> None:
        self.registered = endpoint
        self._remove = remove

    async def endpoint(self) -> Endpoint:
        return self.registered

    async def rundown(self) -> None:
        self._remove(self)


class EndpointMapperServer(EndpointMapper):
    """The endpoint mapper, to be served as `MAPPER_NAME`.

    Args:
        activations: how servers are started on demand, by the uuid of their interface.
    """

    def __init__(self, activations: Mapping[str, Activation] | None = None) -> None:
        self._activations = {uuid.lower(): activation for uuid, activation in (activations or {}).items()}
        self._table: list[RegistrationServer] = []
        self._starting: dict[str, anyio.Lock] = {}
        self._registered = anyio.Event()
        self._uid = own_identity().uid

    async def register(self, uuid: str, version: tuple[int, int], name: str, annotation: str = "") -> Registration:
        uid = current_call().peer.uid
        if sum(entry.registered.uid == uid for entry in self._table) >= MAX_ENDPOINTS:
            reason = f"user {uid} has {MAX_ENDPOINTS} registrations already"
            raise AccessDenied(what=f"register {name}", reason=reason)
        entry = RegistrationServer(Endpoint(uuid.lower(), version, name, uid, annotation[:64]), self._table.remove)
        self._table.append(entry)
        self._registered.set()
        self._registered = anyio.Event()
        return entry

    async def find(self, uuid: str, version: tuple[int, int], activate: bool = True) -> list[Endpoint]:
        uuid, uid = uuid.lower(), current_call().peer.uid
        found = self._matching(uuid, version, uid)
        activation = self._activations.get(uuid)
        if activation is None or not activate or self._trusted(found, uid):
            return found
        if activation.name:
            started = Endpoint(uuid, version, activation.name, self._uid, "started by the first who connects")
            return [started, *found]
        # Whoever asks meanwhile waits for the same start.
        async with self._starting.setdefault(uuid, anyio.Lock()):
            if not self._trusted(self._matching(uuid, version, uid), uid):
                await self._activate(activation, lambda: self._trusted(self._matching(uuid, version, uid), uid))
            return self._matching(uuid, version, uid)

    def _trusted(self, found: list[Endpoint], uid: int) -> bool:
        # A stranger who registers an interface must not keep the server from being started that we know of.
        return any(endpoint.uid in (uid, _ROOT, self._uid) for endpoint in found)

    def _matching(self, uuid: str, version: tuple[int, int], uid: int) -> list[Endpoint]:
        found = [
            entry.registered
            for entry in reversed(self._table)
            if entry.registered.uuid == uuid
            and entry.registered.version[0] == version[0]
            and entry.registered.version[1] >= version[1]
        ]
        return sorted(
            found,
            key=lambda endpoint: (endpoint.uid != uid, endpoint.uid != _ROOT, endpoint.uid != self._uid),
        )

    async def _activate(self, activation: Activation, look: Callable[[], bool]) -> None:
        program = activation.command[0]
        _logger.info("starting %s", program)
        try:
            process = await anyio.open_process(activation.command, stdin=None, stdout=None, stderr=None)
        except OSError as error:
            _logger.error("%s cannot be started: %s", program, error)
            return
        current_loop().spawn(lambda: _look_after(process), name="alpc_async activation", context=Context())
        with anyio.move_on_after(activation.timeout):
            while not look() and process.returncode is None:
                registered = self._registered
                with anyio.move_on_after(0.2):
                    await registered.wait()
        if look():
            return
        if process.returncode is None:
            _logger.error("%s did not register within %g s (Activation.timeout)", program, activation.timeout)
        else:
            _logger.error("%s ended with status %d before it registered", program, process.returncode)

    async def endpoints(self) -> list[Endpoint]:
        return [entry.registered for entry in self._table]


async def _look_after(process: Process) -> None:
    # A started server ends with its mapper: closing waits for it, and kills it when the wait is cancelled.
    async with process:
        await process.wait()


class Registrations:
    """The registrations of one port, closed together."""

    def __init__(self, mapper: EndpointMapper, registrations: list[Registration]) -> None:
        self._mapper = mapper
        self.registrations = registrations

    async def aclose(self) -> None:
        """Take the registrations back. Completes also when cancelled; may be repeated."""
        await self._mapper.aclose()


def register(port: ServicePort, annotation: str = "", *, mapper: str = MAPPER_NAME) -> Opening[Registrations]:
    """Register everything that a port serves with the endpoint mapper, so that clients find it by its interface.

    ::

        async with alpc.serve("demo.digest", DigestServer()) as port, alpc.register(port):
            await port.wait_stopped()

    Args:
        port: the port.
        annotation: words for people, at most 64 characters.
        mapper: the port name of the endpoint mapper.

    Returns:
        The registrations, to be entered or awaited; they end with the block, with ``aclose()``, or with this process.
        Cancelling that leaves nothing behind.

    Raises:
        NameNotFound: when opened: no endpoint mapper runs; and whatever else `connect` raises.
    """

    async def open_registrations() -> Registrations:
        proxy = await _open_mapper(mapper)
        try:
            found = [
                await proxy.register(root.contract.uuid, root.contract.version, port.name, annotation)
                for root in served_by(port)
            ]
        except BaseException:
            await proxy.aclose()
            raise
        return Registrations(proxy, found)

    return Opening(open_registrations, f"alpc.register({port!r})")


async def _open_mapper(name: str) -> EndpointMapper:
    return await open_client(await connect_port(name, server=SAME_USER_OR_ROOT), EndpointMapper)


async def find_endpoints(interface: type[Interface], *, mapper: str = MAPPER_NAME) -> list[Endpoint]:
    """Return where an interface is served, as the endpoint mapper knows. Cancelling changes nothing.

    Args:
        interface: the interface.
        mapper: the port name of the endpoint mapper.

    Raises:
        NameNotFound: no endpoint mapper runs; and whatever else `connect` raises.
    """
    contract = contract_of(interface)
    async with await _open_mapper(mapper) as proxy:
        return await proxy.find(contract.uuid, contract.version)


async def connect_found(
    interface: type[Interface], server: Policy, connect: Callable[[str], Awaitable[CommunicationPort]]
) -> CommunicationPort:
    """Connect to the first endpoint of an interface that can be reached.

    Args:
        interface: the interface.
        server: who the server must be, for the message.
        connect: connects to a name.

    Raises:
        UnknownInterface: nobody serves it; or the error of the last endpoint, when none can be reached.
    """
    contract = contract_of(interface)
    endpoints: Sequence[Endpoint] = await find_endpoints(interface)
    error: AlpcError | None = None
    for endpoint in endpoints:
        try:
            return await connect(endpoint.name)
        except AlpcError as failure:
            error = failure
    raise error or UnknownInterface(
        interface=contract.name,
        uuid=contract.uuid,
        version=contract.version,
        offered=f"the endpoint mapper knows no port of {server} that serves it",
    )
