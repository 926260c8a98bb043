"""What lives as long as a process is not looked through for garbage again: that took half a second, amid requests."""

from __future__ import annotations

import gc


def set_apart() -> None:
    """Leave all that is there now out of collections to come."""
    gc.collect()
    gc.freeze()


def set_apart_again() -> None:
    """Let go what is no longer in use of what was set apart; nothing where nothing was. Takes as long as it saves."""
    if gc.get_freeze_count():
        gc.unfreeze()
        set_apart()
