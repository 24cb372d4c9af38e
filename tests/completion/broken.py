"""A module of a handler that cannot be imported."""

from __future__ import annotations

FAILS = 1 / 0
