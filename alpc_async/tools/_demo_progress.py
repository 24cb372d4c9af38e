"""How the demo shows that it is at work.

Belongs here: the progress bar, and the lines that stand for it where no terminal is. Never here: results.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.console import Console

    from ._demo_conductor import Totals

__all__ = ["ProgressView"]

LINE_INTERVAL: Final = 5.0
"""Seconds between two lines where no terminal is."""

REFRESHES_PER_SECOND: Final = 8


class ProgressView:
    """Shows sums as they change; use it as ``with``, call it with the sums.

    Args:
        console: where; a terminal gets a bar, anything else a line now and then.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_line = time.monotonic() + LINE_INTERVAL
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("files, {task.fields[size]}"),
            TimeElapsedColumn(),
            console=console,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("checking", total=None, size="0 MB")

    def __call__(self, totals: Totals) -> None:
        """Show the sums.

        Args:
            totals: the sums so far.
        """
        checked = totals.files + totals.unreadable
        size = f"{totals.size / 1e6:,.0f} MB"
        if self._console.is_terminal:
            self._bar.update(self._task, completed=checked, total=max(totals.found, checked), size=size)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_INTERVAL
            self._console.print(f"alpc demo: {checked:,} of {totals.found:,} files, {size}", highlight=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()
