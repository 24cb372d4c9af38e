"""Sections, leases, descriptors and receipts between two endpoints, and what a peer may not do with them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from alpc_async.handles import Handle, close_all
from alpc_async.limits import PortLimits
from alpc_async.wire import (
    Attributes,
    Carrier,
    Datagram,
    DirectRecord,
    Endpoint,
    Extended,
    FrameType,
    HandleRecord,
    Released,
    Replied,
    Request,
    SectionGone,
    SectionKind,
    SectionOffered,
    SecurityRecord,
    Taken,
    Ticket,
    ViewMode,
    ViewRecord,
    Violated,
    pack,
)
from tests.wire.endpoints import ALL, Pair, open_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alpc_async.wire import Event

LIMITS = PortLimits(max_handles=512)
VIEW = int(FrameType.REQUEST) | 0x40 << 8


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two connected endpoints, whose descriptors are closed after the test."""
    made = open_pair(LIMITS)
    yield made
    for end in made:
        close_all(end.drop_output())
        close_all(end.end_sharing()[2])


def some_handle() -> Handle:
    """Open something."""
    return Handle(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))


def carry(sender: Endpoint[Ticket], receiver: Endpoint[Ticket]) -> list[Event[Ticket]]:
    """Carry what one side has to send, descriptors included, send by send as a link does it."""
    events: list[Event[Ticket]] = []
    while data := sender.data_to_send(ALL):
        if isinstance(data, Carrier):
            receiver.receive_handles(list(data.handles), False)
        events += receiver.receive_data(bytes(data))
    return events


def broken_rule(events: list[Event[Ticket]]) -> str:
    """Return the rule of the violation that ended the connection."""
    last = events[-1]
    assert isinstance(last, Violated)
    return last.error.rule


def offered(pair: Pair) -> int:
    """Share a section from client to server and close its descriptor; return its number."""
    number = pair.client.offer_section(some_handle(), SectionKind.LIVE)
    (event,) = carry(pair.client, pair.server)
    assert isinstance(event, SectionOffered)
    assert (event.section, event.kind, event.error) == (number, SectionKind.LIVE, 0)
    assert event.handle is not None
    event.handle.close()
    return number


def test_a_view_is_lent_and_released(pair: Pair) -> None:
    """A request with a view arrives with its range; the release brings the owner's record back, once."""
    section = offered(pair)
    lease = pair.client.lend("the range")
    view = ViewRecord(section, ViewMode.IS_DATA, lease, 128, 4096)
    pair.client.request(Ticket(), b"", 0.0, 1.0, Attributes(view=view))
    (event,) = carry(pair.client, pair.server)
    assert isinstance(event, Extended)
    assert isinstance(event.event, Request)
    assert event.attributes.view == view
    pair.server.release(lease)
    pair.server.release(lease)
    assert carry(pair.server, pair.client) == [Released("the range")]


def test_a_reply_returns_a_lease(pair: Pair) -> None:
    """A reply that returns the view of its request brings the record back with it, and no release may follow."""
    section = offered(pair)
    lease = pair.client.lend("the range")
    ticket = Ticket()
    pair.client.request(ticket, b"", 0.0, None, Attributes(view=ViewRecord(section, 0, lease, 0, 10)))
    carry(pair.client, pair.server)
    pair.server.give_back(lease)
    returned = ViewRecord(section, ViewMode.RETURNED, lease, 0, 10)
    pair.server.reply(1, b"", Attributes(view=returned))
    pair.server.release(lease)
    (event,) = carry(pair.server, pair.client)
    assert isinstance(event, Extended)
    assert event.event == Replied(ticket, b"")
    assert event.attributes.returned == "the range"


def test_every_attribute_arrives_as_it_was_sent(pair: Pair) -> None:
    """Security, view, direct ranges, handles and data come out in the form in which they went in."""
    section = offered(pair)
    sent = Attributes(
        security=SecurityRecord(7, 1),
        view=ViewRecord(section, 0, pair.client.lend(None), 1, 2),
        direct=DirectRecord(0x7FFF_0000_1000, bytes(range(16)), ((4096, 100, 0), (8192, 2**40, 1))),
        handles=(HandleRecord(), HandleRecord(b"state")),
        receipt=True,
        system=True,
        received=[some_handle(), some_handle()],
    )
    pair.client.request(Ticket(), b"data", 0.0, None, sent)
    (event,) = carry(pair.client, pair.server)
    assert isinstance(event, Extended)
    got = event.attributes
    assert isinstance(event.event, Request)
    assert event.event.data == b"data"
    assert (got.security, got.view, got.direct, list(got.handles)) == (
        sent.security, sent.view, sent.direct, list(sent.handles),
    )  # fmt: skip
    assert (got.receipt, got.system, len(got.received), got.lost) == (True, True, 2, False)
    close_all(got.received)


def test_many_handles_travel_in_several_sends(pair: Pair) -> None:
    """512 handles leave in frames of at most 253 and arrive together with their message."""
    handles = [some_handle() for _ in range(512)]
    pair.client.datagram(b"many", Attributes(handles=[HandleRecord()] * 512, received=handles))
    sizes = [len(frame.handles) for frame in pair.client.frames if isinstance(frame, Carrier)]
    assert sizes == [253, 253, 6]
    (event,) = carry(pair.client, pair.server)
    assert isinstance(event, Extended)
    assert isinstance(event.event, Datagram)
    assert event.attributes.received == handles
    close_all(handles)


def test_the_quota_counts_attributes(pair: Pair) -> None:
    """Attributes take room like data, and all of it comes back with the answer."""
    before = pair.client.outflow.has_room(LIMITS.max_pool_usage)
    pair.client.request(Ticket(), b"abc", 0.0, None, Attributes(security=SecurityRecord(1, 0)))
    assert before
    assert pair.client.outflow.has_room(LIMITS.max_pool_usage - 11)
    assert not pair.client.outflow.has_room(LIMITS.max_pool_usage - 10)
    carry(pair.client, pair.server)
    pair.server.reply(1, b"")
    carry(pair.server, pair.client)
    assert pair.client.outflow.has_room(LIMITS.max_pool_usage)
    pair.server.inflow.accept(2, LIMITS.max_pool_usage)


def test_handles_that_were_lost_fail_one_message_only(pair: Pair) -> None:
    """When the kernel dropped descriptors the message says so, and the connection goes on."""
    pair.client.request(
        Ticket(), b"", 0.0, None, Attributes(handles=[HandleRecord()] * 2, received=[some_handle(), some_handle()])
    )
    carrier = pair.client.data_to_send(ALL)
    assert isinstance(carrier, Carrier)
    close_all(carrier.handles[1:])
    pair.server.receive_handles(list(carrier.handles[:1]), True)
    assert pair.server.receive_data(bytes(carrier)) == []
    (event,) = carry(pair.client, pair.server)
    assert isinstance(event, Extended)
    assert event.attributes.lost
    assert len(event.attributes.received) == 1
    close_all(event.attributes.received)


def test_handles_that_did_not_leave_are_said_to_be_lost(pair: Pair) -> None:
    """A carrier without its descriptors tells the other side why, for handles and for sections."""
    pair.client.offer_section(some_handle(), SectionKind.SEALED)
    pair.client.datagram(b"", Attributes(handles=[HandleRecord()], received=[some_handle()]))
    events: list[Event[Ticket]] = []
    while data := pair.client.data_to_send(ALL):
        if isinstance(data, Carrier):
            close_all(data.handles)
            data = data.without_handles(109)
        events += pair.server.receive_data(data)
    assert events[0] == SectionOffered(1, 0, None, 109)
    assert isinstance(events[1], Extended)
    assert events[1].attributes.lost


def test_a_receipt_is_given_once(pair: Pair) -> None:
    """Taking a message that wants a receipt tells its sender; taking it again does not."""
    number = pair.client.datagram(b"", Attributes(receipt=True))
    pair.client.expect_receipt(number, "waiter")
    carry(pair.client, pair.server)
    pair.server.taken_one(number)
    pair.server.taken_one(number)
    assert carry(pair.server, pair.client) == [Taken("waiter")]


def test_a_section_is_taken_back(pair: Pair) -> None:
    """The other side hears of it, and nothing may be lent of it any more."""
    section = offered(pair)
    pair.client.retire_section(section)
    assert carry(pair.client, pair.server) == [SectionGone(section)]
    view = ViewRecord(section, 0, 1, 0, 1)
    pair.client.request(Ticket(), b"", 0.0, None, Attributes(view=view))
    assert broken_rule(carry(pair.client, pair.server)) == "a view is of a shared section, under a new lease"


def view_frame(number: int, view: ViewRecord) -> bytes:
    """Return a request frame with a view, as any peer might write it."""
    return pack(VIEW, number, 0, Attributes(view=view).encode()[1])


def test_a_lease_is_not_used_twice(pair: Pair) -> None:
    """A second message under a lease that is known ends the connection."""
    view = ViewRecord(offered(pair), 0, 5, 0, 1)
    assert not any(isinstance(event, Violated) for event in pair.server.receive_data(view_frame(1, view)))
    events = pair.server.receive_data(view_frame(2, view))
    assert broken_rule(events) == "a view is of a shared section, under a new lease"


@pytest.mark.parametrize(
    ("frame", "rule"),
    [
        (pack(FrameType.RELEASE, 1, 0), "only held leases are released, once"),
        (pack(FrameType.TAKEN, 1, 0), "only receipts that were asked for are given, once"),
        (pack(FrameType.SECTION_GONE, 1, 0), "only shared sections are taken back, once"),
        (pack(FrameType.SECTION | 1 << 16, 1, 1), "a frame comes with the descriptors that it announces"),
        (pack(FrameType.SECTION | 2 << 16, 1, 1), "a section is one descriptor"),
        (pack(FrameType.SECTION | 1 << 16, 1, 9), "a section is of a known kind"),
        (pack(FrameType.SECTION, 0, 1), "sections have rising numbers, and at most 256 exist"),
        (pack(FrameType.HANDLES | 3 << 16, 0, 0), "a frame comes with the descriptors that it announces"),
        (view_frame(1, ViewRecord(1, 0, 1, 0, 1)), "a view is of a shared section, under a new lease"),
        (view_frame(1, ViewRecord(1, ViewMode.RETURNED, 1, 0, 1)), "only held leases are released, once"),
        (pack(VIEW, 1, 0, b"short"), "attributes are inside their frame"),
        (pack(FrameType.REQUEST | 0x10 << 8, 1, 0, b"\xff\xff\xff\xff"), "attributes are inside their frame"),
        (
            pack(FrameType.REQUEST | 0x10 << 8, 1, 0, b"\x01\x00\x00\x00\xc1"),
            "handle records are MessagePack of the documented form",
        ),
        (pack(FrameType.REQUEST | 0x20 << 8, 1, 0, bytes(28)), "a message declares 1 to 64 direct ranges"),
        (
            pack(FrameType.REQUEST | 0x20 << 8, 1, 0, bytes(24) + b"\x01\0\0\0" + b"\1" * 16 + bytes(4)),
            "a cookie is inside an address space",
        ),
        (
            pack(
                FrameType.REQUEST | 0x20 << 8,
                1,
                0,
                b"\1" * 24 + b"\x02\0\0\0" + (b"\1" + bytes(14) + b"\x70" + bytes(4)) * 2,
            ),
            "direct ranges are no more than an address space",
        ),
        (
            pack(FrameType.REQUEST | 0x20 << 8, 1, 0, bytes(24) + b"\x01\0\0\0" + b"\xff" * 16 + bytes(4)),
            "a direct range is inside an address space",
        ),
        (
            pack(FrameType.REQUEST | 0x80 << 8, 1, 0, bytes(8 + LIMITS.max_message_length + 1)),
            "a frame is not longer than agreed",
        ),
        (pack(FrameType.REPLY | 0x20 << 8, 1, 0), "only frames that are legal in the state of the connection are sent"),
    ],
)
def test_a_peer_that_breaks_a_rule(pair: Pair, frame: bytes, rule: str) -> None:
    """Each broken rule ends the connection with a sentence that names it."""
    assert broken_rule(pair.server.receive_data(frame)) == rule


def test_handles_without_a_frame_are_refused(pair: Pair) -> None:
    """Descriptors that come with a frame that does not announce them end the connection and stay countable."""
    pair.server.receive_handles([some_handle()], False)
    events = pair.server.receive_data(pack(FrameType.DATAGRAM, 1, 0, b""))
    assert broken_rule(events) == "descriptors come with the frame that says so"


def test_handles_in_drips_are_refused(pair: Pair) -> None:
    """A frame that arrives in pieces, each with descriptors, cannot pile them up."""
    rule = ""
    for byte in pack(FrameType.DATAGRAM, 1, 0, b"")[:4]:
        pair.server.receive_handles([some_handle()], False)
        events = pair.server.receive_data(bytes([byte]))
        rule = broken_rule(events) if events else ""
        if rule:
            break
    assert rule == "descriptors come with the frame that says so"


def test_handles_before_the_handshake_are_refused() -> None:
    """Descriptors that come with a HELLO end the connection."""
    client, server = open_pair(LIMITS)
    del client
    fresh: Endpoint[Ticket] = Endpoint(server.role, LIMITS)
    greeter: Endpoint[Ticket] = Endpoint(open_pair(LIMITS).client.role, LIMITS)
    greeter.hello(b"")
    fresh.receive_handles([some_handle()], False)
    events = fresh.receive_data(greeter.data_to_send(ALL))
    close_all(fresh.end_sharing()[2])
    assert broken_rule(events) == "descriptors come with the frame that says so"


def test_more_handles_than_agreed_are_refused() -> None:
    """The basket is no larger than max_handles, however the peer cuts it."""
    client, server = open_pair(PortLimits(max_handles=2))
    del client
    rules: list[str] = []
    for _ in range(3):
        server.receive_handles([some_handle()], False)
        events = server.receive_data(pack(FrameType.HANDLES | 1 << 16, 0, 0))
        rules += [broken_rule(events)] if events else []
    close_all(server.end_sharing()[2])
    assert rules == ["nobody sends more handles than agreed"]
