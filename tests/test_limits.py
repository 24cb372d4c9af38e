"""Limits: what values they take, and what two sides agree on."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpc_async.limits import (
    HANDLES_CEILING,
    MESSAGE_LENGTH_CEILING,
    NEGOTIATED,
    OPTIONAL,
    USER_HANDLES_CEILING,
    PortLimits,
)

MAY_BE_ZERO = {
    *OPTIONAL,
    "memory_bandwidth",
    "max_user_rate",
    "max_user_shared_rate",
    "view_threshold",
    "direct_threshold",
}
SWITCHES = {"direct": "True or False", "handle_kinds": "a HandleKind"}
FIELDS = [field.name for field in msgspec.structs.fields(PortLimits)]
POSITIVE = [name for name in FIELDS if name not in MAY_BE_ZERO | SWITCHES.keys()]


@st.composite
def some_limits(draw: st.DrawFn) -> PortLimits:
    """Any limits that fit together, as far as they are negotiated."""
    length = draw(st.integers(1, MESSAGE_LENGTH_CEILING))
    return PortLimits(
        max_message_length=length,
        max_connect_data=draw(st.integers(1, length)),
        max_pool_usage=draw(st.integers(length, 2**40)),
        max_outstanding_messages=draw(st.integers(1, 2**40)),
        max_total_section_size=(total := draw(st.integers(0, 2**40))),
        max_section_size=(section := draw(st.integers(0, total))),
        max_view_size=draw(st.integers(0, section)),
        max_handles=draw(st.integers(0, HANDLES_CEILING)),
    )


@pytest.mark.parametrize("name", POSITIVE)
@pytest.mark.parametrize("value", [0, -1, math.nan], ids=str)
def test_every_limit_is_positive(name: str, value: Any) -> None:
    """Zero, negative values and things that are no number are refused by name."""
    whole = name not in {"handshake_timeout", "request_timeout", "close_timeout"}
    error, rule = (TypeError, "a whole number") if whole and value is math.nan else (ValueError, "positive")
    with pytest.raises(error, match=f"PortLimits.{name} must be {rule}, not {value}"):
        PortLimits(**{name: value})


@pytest.mark.parametrize("name", sorted(MAY_BE_ZERO))
def test_what_can_be_switched_off_takes_zero(name: str) -> None:
    """Zero switches off what can be; negative values and fractions are refused by name."""
    whole_path: dict[str, Any] = {"max_view_size": 0, "max_section_size": 0, name: 0} if name in OPTIONAL else {name: 0}
    assert getattr(PortLimits(**whole_path), name) == 0
    with pytest.raises(ValueError, match=f"PortLimits.{name} must not be negative, but it is -1"):
        PortLimits(**dict[str, Any]({name: -1}))
    with pytest.raises(TypeError, match=f"PortLimits.{name} must be a whole number"):
        PortLimits(**dict[str, Any]({name: 0.5}))


@pytest.mark.parametrize(("name", "expected"), SWITCHES.items(), ids=str)
def test_switches_take_their_own_type(name: str, expected: str) -> None:
    """A number where a switch or a set of kinds belongs is refused by name."""
    values: dict[str, Any] = {name: 1}
    with pytest.raises(TypeError, match=f"PortLimits.{name} must be {expected}, not 1"):
        PortLimits(**values)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"max_view_size": 2**20 + 1, "max_section_size": 2**20}, "max_view_size must be at most max_section_size"),
        ({"max_section_size": 2**30 + 1}, "and that at most max_total_section_size"),
        ({"max_total_section_size": 0}, "and that at most max_total_section_size"),
        ({"max_handles": 513}, "max_handles must be at most 512"),
        ({"max_user_handles": USER_HANDLES_CEILING + 1}, "max_user_handles must be at most 1048576"),
        ({"max_user_handles": 9, "max_handles": 10}, "must hold the handles of one message"),
        ({"max_message_length": MESSAGE_LENGTH_CEILING + 1, "max_pool_usage": 2**40}, "must be at most 16777216"),
        ({"max_connect_data": 11, "max_message_length": 10}, "max_connect_data must be at most max_message_length"),
        ({"max_pool_usage": 65535}, "must hold at least one message"),
        ({"low_water": 101, "high_water": 100}, "low_water must be at most high_water"),
        ({"low_water": 9, "high_water": 100, "max_unsent": 99}, "max_unsent must be at least high_water"),
    ],
)
def test_limits_fit_together(values: dict[str, Any], text: str) -> None:
    """Limits that contradict each other are refused."""
    with pytest.raises(ValueError, match=text):
        PortLimits(**values)


def test_limits_at_the_edge() -> None:
    """Limits that just fit are taken."""
    longest = PortLimits(max_message_length=MESSAGE_LENGTH_CEILING, max_pool_usage=MESSAGE_LENGTH_CEILING)
    assert longest.max_message_length == longest.max_pool_usage == MESSAGE_LENGTH_CEILING
    assert PortLimits(max_user_handles=USER_HANDLES_CEILING).max_user_handles == USER_HANDLES_CEILING
    assert PortLimits(max_user_handles=10, max_handles=10).max_handles == 10
    assert PortLimits(max_connect_data=10, max_message_length=10, max_pool_usage=10).max_connect_data == 10
    PortLimits(low_water=100, high_water=100, max_unsent=100)


def test_unknown_limits_are_refused() -> None:
    """A misspelt limit is an error."""
    with pytest.raises(TypeError):
        PortLimits(max_length=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # the mistake is what is tested


@given(some_limits(), some_limits())
def test_agreement_is_the_minimum_and_mutual(ours: PortLimits, theirs: PortLimits) -> None:
    """Both sides come to the same values, the smaller ones; what is local stays."""
    agreed = ours.agreed(theirs.offer())
    assert agreed.offer() == theirs.agreed(ours.offer()).offer()
    assert agreed.offer() == {name: min(getattr(ours, name), getattr(theirs, name)) for name in NEGOTIATED}
    assert msgspec.structs.replace(ours, **agreed.offer()) == agreed


def test_missing_and_unknown_values() -> None:
    """What the peer does not say is no objection, what it says too much is ignored."""
    off: dict[str, Any] = {"max_view_size": 0, "max_section_size": 0, "max_total_section_size": 0, "max_handles": 0}
    limits = PortLimits(**off)
    assert limits.agreed({}) == limits
    assert limits.agreed({"max_wings": 1, "request_timeout": 1}) == limits
    lowered = limits.agreed({"max_message_length": 100})
    assert (lowered.max_message_length, lowered.max_connect_data) == (100, 100)


def test_what_a_peer_does_not_mention_is_off() -> None:
    """A peer that says nothing about views and handles has none."""
    agreed = PortLimits(max_handles=5).agreed({"max_message_length": 100})
    assert {name: getattr(agreed, name) for name in OPTIONAL} == dict.fromkeys(OPTIONAL, 0)


@pytest.mark.parametrize("offer", [{"max_message_length": 0}, {"max_pool_usage": 1}, {"max_outstanding_messages": -5}])
def test_impossible_offers_are_refused(offer: dict[str, int]) -> None:
    """A peer's values that make no sense are an error, not a connection that cannot work."""
    with pytest.raises(ValueError, match="must"):
        PortLimits().agreed(offer)
