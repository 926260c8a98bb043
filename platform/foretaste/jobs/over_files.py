"""What jobs over a log in files begin with, however they read it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path


def present(paths: Sequence[Path], *, what: str) -> list[str]:
    """Absolute names of a log's files, as Ray's tasks find them, with Ray Data quiet from now on.

    Raises FileNotFoundError for a file that is not there, ValueError naming `what` where none is named.
    """
    from ray.data import DataContext

    if missing := [str(path) for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"{missing[0]}: not there ({len(missing)} of {len(paths)} files)")
    if not paths:
        raise ValueError(f"{what}: wanted files, found none")
    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    return [str(path.absolute()) for path in paths]
