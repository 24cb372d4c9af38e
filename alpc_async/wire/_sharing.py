"""Sections, leases, descriptors and receipts: the tables that both sides keep about them, and their frames.

Belongs here: numbers of sections and leases, which descriptors arrived for which frame, who waits for a receipt. Never
here: memory and system calls; what is lent and what was received are records of the driver.

The *owner* of a section numbers it, says so in a SECTION frame, and lends ranges of it with messages; each lease has a
number of its own and comes back with a RELEASE frame, or with a reply that returns it. The *holder* may keep a lease as
long as it likes. The end of the connection ends everything.

Descriptors arrive beside the bytes, in batches: one for each send that carried some. SECTION and HANDLES frames take
them first-in first-out, each exactly one batch.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from ..errors import ProtocolViolation, QuotaExceeded
from ._attributes import VIEW_SIZE, Attributes, ViewMode, pack_lending, take_attributes
from ._carrier import Carrier
from ._ceilings import MAX_SECTIONS
from ._commands import Commands
from ._events import Released, SectionGone, SectionOffered, Taken, TicketT
from ._frames import HEADER_SIZE, Attribute, FrameType, SectionKind, pack, pack_header
from ._states import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..handles import Handle
    from ._attributes import ViewRecord

__all__ = ["LENDING", "SharingCommands"]

_SECTION: Final = int(FrameType.SECTION)
_SECTION_GONE: Final = int(FrameType.SECTION_GONE)
_RELEASE: Final = int(FrameType.RELEASE)
_TAKEN: Final = int(FrameType.TAKEN)
_OPEN: Final = State.OPEN

LENDING: Final = int(FrameType.REQUEST) | int(Attribute.VIEW) << 8
"""Kind of a request whose only attribute is a view."""

MAX_BATCHES: Final = 2
"""Batches of descriptors that wait for their frame: one for the frame that is arriving, one that came with its end."""


class SharingCommands(Commands[TicketT]):
    """The half of an endpoint that says things about sections, leases, descriptors and receipts.

    Arguments like `Commands`.
    """

    __slots__ = (
        "_basket",
        "_basket_announced",
        "_basket_lost",
        "_batches",
        "_foreign_sections",
        "_held",
        "_last_foreign_lease",
        "_last_foreign_section",
        "_leases",
        "_next_lease",
        "_next_section",
        "_receipts",
        "_receipts_owed",
        "_regular",
        "_sections",
    )

    def _reset_sharing(self) -> None:
        # What we lend.
        self._next_section = 1
        self._sections: set[int] = set()
        self._next_lease = 1
        self._leases: dict[int, object] = {}
        self._receipts: dict[int, object] = {}
        # What the other side lends, and what arrived beside the bytes.
        self._foreign_sections: set[int] = set()
        self._last_foreign_section = 0
        self._last_foreign_lease = 0
        self._held: set[int] = set()
        self._receipts_owed: set[int] = set()
        self._batches: deque[tuple[Sequence[Handle], bool]] = deque()
        self._basket: list[Handle] = []
        self._basket_announced = 0
        self._basket_lost = False

    # -- commands ----------------------------------------------------------------------------------------------------

    def check_sections(self) -> None:
        """Check that one more section may be shared.

        Raises:
            QuotaExceeded: so many sections are shared that the other side would take no more.
        """
        if len(self._sections) >= MAX_SECTIONS:
            raise QuotaExceeded(port=self.label, setting="max_total_section_size", limit=MAX_SECTIONS)

    def offer_section(self, handle: Handle, kind: SectionKind) -> int:
        """Share a section.

        Args:
            handle: its descriptor; from now on it belongs to the connection.
            kind: who may write to it.

        Returns:
            The number of the section.

        Raises:
            QuotaExceeded: `check_sections` would say so; the descriptor still belongs to the caller.
        """
        self.check_sections()
        self._command(_SECTION)
        number = self._next_section
        self._next_section = number + 1
        self._sections.add(number)
        self._queue_carrier(Carrier.of(_SECTION, number, kind, (handle,)))
        return number

    def retire_section(self, number: int) -> None:
        """Take a section back: nothing more will be lent of it."""
        self._sections.discard(number)
        if self.state is _OPEN:
            self.queue(pack(_SECTION_GONE, number, 0))

    def lend(self, record: object) -> int:
        """Note that a range is lent.

        Args:
            record: comes back in `Released`, or in the attributes of the reply that returns the lease.

        Returns:
            The number of the lease.
        """
        number = self._next_lease
        self._next_lease = number + 1
        self._leases[number] = record
        return number

    def request_lending(
        self,
        ticket: TicketT,
        data: bytes,
        now: float,
        timeout: float | None,
        record: object,
        place: tuple[int, int, int, int],
        alone: bool = False,
    ) -> bytes | None:
        """Send a request that lends a range and has nothing else: `lend` and `request` in one step.

        Args:
            ticket: see `request`.
            data: see `request`.
            now: see `request`.
            timeout: see `request`.
            record: see `lend`.
            place: (section, mode, offset, length) of the range, as in `ViewRecord`.
            alone: see `request`.

        Returns:
            The frame if it was given out, ``b""`` when it was queued. ``None``: nothing was done, and the two by
            themselves do it or say why not.
        """
        outflow = self.outflow
        size = VIEW_SIZE + len(data)
        if (
            self.state is not _OPEN
            or timeout is not self._timeout
            or len(data) > self.limits.max_message_length
            or size > outflow.free_bytes
            or not outflow.free_messages
        ):
            return None
        lease = self._next_lease
        self._next_lease = lease + 1
        self._leases[lease] = record
        outflow.free_messages -= 1
        outflow.free_bytes -= size
        message_id = outflow.next_id
        outflow.next_id = message_id + 1
        ticket.id = message_id
        ticket.size = size
        ticket.deadline = deadline = now + self._span
        if deadline < outflow.next_deadline:
            outflow.next_deadline = deadline
        outflow.pending[message_id] = ticket
        section, mode, offset, length = place
        frame = pack_lending(size, LENDING, message_id, self._timeout_ms, section, mode, lease, offset, length) + data
        if alone and not self.frames:
            return frame
        self.frames.append(frame)
        self.output_size += HEADER_SIZE + size
        return b""

    @property
    def leases(self) -> int:
        """Leases that the other side holds."""
        return len(self._leases)

    @property
    def shares(self) -> bool:
        """Whether this side shares memory, or a receipt or descriptors are under way."""
        return bool(
            self._sections or self._leases or self._receipts or self._receipts_owed or self._batches or self._basket
        )

    @property
    def borrows(self) -> bool:
        """Whether the other side shares memory."""
        return bool(self._foreign_sections or self._held)

    @property
    def shared_numbers(self) -> tuple[int, int, int, int]:
        """The numbers with which another process can go on; assigned, it goes on with them."""
        return self._next_section, self._next_lease, self._last_foreign_section, self._last_foreign_lease

    @shared_numbers.setter
    def shared_numbers(self, numbers: tuple[int, int, int, int]) -> None:
        self._next_section, self._next_lease, self._last_foreign_section, self._last_foreign_lease = numbers

    def withdraw(self, lease: int) -> object:
        """Forget a lease that was never sent; return its record."""
        return self._leases.pop(lease, None)

    def release(self, lease: int, *, lost: bool = False) -> None:
        """Give a lease of the other side back. Does nothing when that was done, or the connection is over.

        Args:
            lease: its number.
            lost: the section never arrived, so that its owner has to share it again.
        """
        if lease in self._held:
            self._held.discard(lease)
            if self.state is _OPEN:
                # `queue`, without the call.
                self.frames.append(pack_header(0, _RELEASE, lease, lost))
                self.output_size += HEADER_SIZE

    def give_back(self, lease: int) -> None:
        """Note that a lease of the other side goes back with a message that says so."""
        self._held.discard(lease)

    def hold(self, lease: int) -> None:
        """Undo `give_back`, because the message was not sent."""
        self._held.add(lease)

    def expect_receipt(self, message_id: int, record: object) -> None:
        """Note who waits for the receipt of a message that was sent with the wish for one."""
        self._receipts[message_id] = record

    def taken_one(self, message_id: int, status: int = 0) -> bool:
        """Tell the sender of a message that wanted a receipt what became of it. Once, and only as long as it counts.

        Args:
            message_id: the message.
            status: 0 when it was taken, otherwise why it never will be.

        Returns:
            Whether the sender waited for that.
        """
        if message_id not in self._receipts_owed:
            return False
        self._receipts_owed.discard(message_id)
        if self.state is _OPEN:
            self.queue(pack(_TAKEN, message_id, status))
        return True

    # -- the end -----------------------------------------------------------------------------------------------------

    def end_sharing(self) -> tuple[list[object], list[object], list[Handle]]:
        """Forget everything because the connection is over.

        Returns:
            Records of leases that will not come back, records that wait for receipts, and descriptors that arrived and
            belong to no message, for the caller to close.
        """
        leases, receipts = list(self._leases.values()), list(self._receipts.values())
        handles = [*self._basket, *(handle for batch, _ in self._batches for handle in batch)]
        self._reset_sharing()
        return leases, receipts, handles

    # -- bytes in ----------------------------------------------------------------------------------------------------

    def receive_handles(self, handles: Sequence[Handle], lost: bool) -> None:
        """Take the descriptors of one receive call; the bytes that came with them follow in `Endpoint.receive_data`.

        Args:
            handles: the descriptors; from now on they belong to the endpoint.
            lost: some did not arrive, because there was no room for them.
        """
        self._batches.append((handles, lost))
        self._regular = False

    def _check_batches(self, partial: bool) -> None:
        if len(self._batches) > (MAX_BATCHES if partial else 0):
            raise ProtocolViolation(
                rule="descriptors come with the frame that says so",
                detail=f"{len(self._batches)} batches are left over",
            )

    def _take_batch(self, announced: int, frame: str) -> tuple[Sequence[Handle], bool]:
        if not announced:
            return (), True
        if not self._batches:
            raise ProtocolViolation(
                rule="a frame comes with the descriptors that it announces", detail=f"{frame}: none of {announced}"
            )
        handles, lost = self._batches.popleft()
        if len(handles) > announced or (len(handles) < announced and not lost):
            self._basket += handles
            raise ProtocolViolation(
                rule="a frame comes with the descriptors that it announces",
                detail=f"{frame}: {len(handles)} of {announced}",
            )
        return handles, len(handles) < announced

    def _receive_section(self, announced: int, number: int, value: int) -> SectionOffered:
        if announced > 1:
            raise ProtocolViolation(rule="a section is one descriptor", detail=f"{announced}")
        if number <= self._last_foreign_section or len(self._foreign_sections) >= MAX_SECTIONS:
            raise ProtocolViolation(
                rule=f"sections have rising numbers, and at most {MAX_SECTIONS} exist", detail=f"section {number}"
            )
        if announced and value not in SectionKind._value2member_map_:
            raise ProtocolViolation(rule="a section is of a known kind", detail=f"kind {value}")
        handles, lost = self._take_batch(announced, "SECTION")
        self._last_foreign_section = number
        self._foreign_sections.add(number)
        if lost:
            return SectionOffered(number, 0, None, value if not announced else 0)
        return SectionOffered(number, value, handles[0], 0)

    def _receive_section_gone(self, number: int) -> SectionGone:
        if number not in self._foreign_sections:
            raise ProtocolViolation(rule="only shared sections are taken back, once", detail=f"section {number}")
        self._foreign_sections.discard(number)
        return SectionGone(number)

    def _receive_release(self, lease: int, lost: int) -> Released:
        return Released(self._settle_lease(lease), bool(lost))

    def _settle_lease(self, lease: int) -> object:
        try:
            return self._leases.pop(lease)
        except KeyError:
            raise ProtocolViolation(rule="only held leases are released, once", detail=f"lease {lease}") from None

    def _receive_taken(self, message_id: int, status: int) -> Taken:
        try:
            return Taken(self._receipts.pop(message_id), status)
        except KeyError:
            raise ProtocolViolation(
                rule="only receipts that were asked for are given, once", detail=f"message {message_id}"
            ) from None

    def _receive_basket(self, announced: int) -> None:
        self._basket_announced += max(announced, 1)
        limit = self.limits.max_handles
        if self._basket_announced > max(limit, 1):
            raise ProtocolViolation(rule="nobody sends more handles than agreed", detail=f"max_handles is {limit}")
        handles, lost = self._take_batch(announced, "HANDLES")
        self._basket += handles
        self._basket_lost |= lost

    def _receive_attributes(self, kind: int, message_id: int, payload: bytes) -> tuple[Attributes, bytes]:
        attributes, data = take_attributes(kind >> 8 & 0xFF, payload)
        limits = self.limits
        if len(data) > limits.max_message_length:
            raise ProtocolViolation(
                rule="a frame is not longer than agreed",
                detail=f"{len(data)} bytes of {limits.max_message_length}, see PortLimits.max_message_length",
            )
        if len(attributes.handles) > limits.max_handles:
            raise ProtocolViolation(
                rule="nobody sends more handles than agreed",
                detail=f"{len(attributes.handles)} of {limits.max_handles}",
            )
        # Before descriptors are taken: those of a message that breaks a rule are left to `end_sharing`.
        if attributes.view is not None:
            self._check_view(attributes)
        self._claim_basket(attributes)
        if attributes.receipt:
            self._receipts_owed.add(message_id)
        return attributes, data

    def _claim_basket(self, attributes: Attributes) -> None:
        basket, lost = self._basket, self._basket_lost
        if not basket and not lost and not attributes.handles:
            return
        if not lost and len(basket) != len(attributes.handles):
            raise ProtocolViolation(
                rule="a message comes with the handles that it names",
                detail=f"{len(basket)} came, {len(attributes.handles)} are named",
            )
        self._basket, self._basket_lost, self._basket_announced = [], False, 0
        attributes.received, attributes.lost = basket, lost

    def _check_view(self, attributes: Attributes) -> None:
        view = attributes.view
        if view is None:
            return
        if view.mode & ViewMode.RETURNED:
            attributes.returned = self._settle_lease(view.lease)
            return
        if not self._may_borrow(view):
            raise ProtocolViolation(
                rule="a view is of a shared section, under a new lease",
                detail=f"section {view.section}, lease {view.lease}",
            )
        self._borrow(view)

    def _may_borrow(self, view: ViewRecord) -> bool:
        return view.section in self._foreign_sections and view.lease > self._last_foreign_lease

    def _borrow(self, view: ViewRecord) -> None:
        self._last_foreign_lease = view.lease
        self._held.add(view.lease)


EXTENDED: Final = {
    int(FrameType.REQUEST): sum(Attribute),
    int(FrameType.REPLY): int(Attribute.SECURITY | Attribute.VIEW | Attribute.HANDLES),
    int(FrameType.DATAGRAM): int(Attribute.SECURITY | Attribute.VIEW | Attribute.HANDLES | Attribute.RECEIPT),
}
"""Frame type → attributes that it may have."""
