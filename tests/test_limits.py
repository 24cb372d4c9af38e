"""Limits: what values they take, and what two sides agree on."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpc_async.limits import MESSAGE_LENGTH_CEILING, NEGOTIATED, PortLimits

FIELDS = [field.name for field in msgspec.structs.fields(PortLimits)]


@st.composite
def some_limits(draw: st.DrawFn) -> PortLimits:
    """Any limits that fit together, as far as they are negotiated."""
    length = draw(st.integers(1, MESSAGE_LENGTH_CEILING))
    return PortLimits(
        max_message_length=length,
        max_connect_data=draw(st.integers(1, length)),
        max_pool_usage=draw(st.integers(length, 2**40)),
        max_outstanding_messages=draw(st.integers(1, 2**40)),
    )


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [0, -1, math.nan], ids=str)
def test_every_limit_is_positive(name: str, value: Any) -> None:
    """Zero, negative values and things that are no number are refused by name."""
    whole = name not in {"handshake_timeout", "request_timeout", "close_timeout"}
    error, rule = (TypeError, "a whole number") if whole and value is math.nan else (ValueError, "positive")
    with pytest.raises(error, match=f"PortLimits.{name} must be {rule}, not {value}"):
        PortLimits(**{name: value})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"max_message_length": MESSAGE_LENGTH_CEILING + 1, "max_pool_usage": 2**40}, "must be at most 16777216"),
        ({"max_connect_data": 11, "max_message_length": 10}, "max_connect_data must be at most max_message_length"),
        ({"max_pool_usage": 65535}, "must hold at least one message"),
        ({"low_water": 101, "high_water": 100}, "low_water must be at most high_water"),
        ({"low_water": 9, "high_water": 100, "max_unsent": 99}, "max_unsent must be at least high_water"),
    ],
)
def test_limits_fit_together(values: dict[str, int], text: str) -> None:
    """Limits that contradict each other are refused."""
    with pytest.raises(ValueError, match=text):
        PortLimits(**values)


def test_limits_at_the_edge() -> None:
    """Limits that just fit are taken."""
    PortLimits(max_message_length=MESSAGE_LENGTH_CEILING, max_pool_usage=MESSAGE_LENGTH_CEILING)
    PortLimits(max_connect_data=10, max_message_length=10, max_pool_usage=10)
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
    limits = PortLimits()
    assert limits.agreed({}) == limits
    assert limits.agreed({"max_handles": 1, "request_timeout": 1}) == limits
    lowered = limits.agreed({"max_message_length": 100})
    assert (lowered.max_message_length, lowered.max_connect_data) == (100, 100)


@pytest.mark.parametrize("offer", [{"max_message_length": 0}, {"max_pool_usage": 1}, {"max_outstanding_messages": -5}])
def test_impossible_offers_are_refused(offer: dict[str, int]) -> None:
    """A peer's values that make no sense are an error, not a connection that cannot work."""
    with pytest.raises(ValueError, match="must"):
        PortLimits().agreed(offer)
