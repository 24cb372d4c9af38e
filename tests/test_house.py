"""Rules of the house that no linter knows. Rules about imports stand in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent
HARD_CAP = 500


def test_no_module_is_longer_than_the_cap() -> None:
    """Every module fits the hard cap of lines."""
    modules = [path for folder in ("alpc_async", "examples", "tests") for path in ROOT.joinpath(folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules}
    assert lengths
    assert {path: length for path, length in lengths.items() if length > HARD_CAP} == {}
