"""One description, two executions: the same work on many items, here one after another, or spread by Ray Data."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

Item = dict[str, Any]
"""What work is told and what it answers: plain values only; tables stay in files."""

Work = Callable[[Item], Item]


class Spread(Protocol):
    """Do the work on every item; answers come as they are done, in any order. A ValueError of the work is raised."""

    def __call__(self, items: Sequence[Item], work: Work) -> Iterator[Item]:
        """Yield one answer an item."""
        ...


def here(items: Sequence[Item], work: Work) -> Iterator[Item]:
    """Work in this process, item after item."""
    yield from map(work, items)


def in_threads(items: Sequence[Item], work: Work) -> Iterator[Item]:
    """Work in threads of this process: small items wait for files more than they compute."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(work, items)


THREADS = 4
HERE = 300_000
"""Rows up to which work is done in this process: to hand it over would take longer."""


def by_size(large: Spread, *, most: int = HERE) -> Spread:
    """Do work of at most `most` rows (`rows` of its items) in this process, and other work as `large` does."""

    def spread(items: Sequence[Item], work: Work) -> Iterator[Item]:
        yield from (in_threads if sum(item["rows"] for item in items) <= most else large)(items, work)

    return spread


def on_ray(items: Sequence[Item], work: Work) -> Iterator[Item]:
    """Work in Ray tasks, one an item: Ray Data over descriptions of files, which are read inside the task."""
    import ray.data

    if not items:
        return
    _quiet()

    def one(row: dict[str, str]) -> dict[str, str]:
        try:
            return {"done": json.dumps(work(json.loads(row["item"])))}
        except (ValueError, OSError) as error:
            return {"done": json.dumps({"error": str(error)})}  # Ray would bury the message in its own traceback

    rows = [{"item": json.dumps(item)} for item in items]
    for row in ray.data.from_items(rows, override_num_blocks=len(rows)).map(one).iter_rows():
        done = json.loads(row["done"])
        if "error" in done:
            raise ValueError(done["error"])
        yield done


def _quiet() -> None:
    """Leave progress to the caller: no bars and no chatter of Ray Data."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.verbose_progress = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # warns that its bars are off
