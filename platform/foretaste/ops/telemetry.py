"""What a person sees of a run: progress with rates, and plain lines where there is no terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 140)
"""Everything for people goes to standard error; standard output is for results."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields.get("unit", "rows")
        return Text(f"{speed:,.0f} {unit}/s" if speed else "")


@contextlib.contextmanager
def progress(what: str, *, total: float | None, unit: str = "rows") -> Iterator[Callable[[float], None]]:
    """Show a bar with the rate while the block runs; call what is given with how much was done since.

    Without a terminal one line is printed at the end.
    """
    bar = Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=28),
        TextColumn("{task.completed:,.0f}"),
        _Rate(),
        TimeElapsedColumn(),
        console=console,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task(what, total=total, unit=unit)

        def advance(amount: float) -> None:
            bar.advance(task, amount)

        yield advance
        row = bar.tasks[0]
    if bar.disable:
        seconds = row.elapsed or 0.0
        rate = row.completed / seconds if seconds > 0 else 0.0
        say(f"{what}: {row.completed:,.0f} {unit} in {seconds:.1f} s ({rate:,.0f} {unit}/s)")


def say(line: str) -> None:
    """Print one line for a person."""
    console.print(line, markup=False, soft_wrap=True)
