"""The last list of each session, so that the next one can be held against it: in memory, of one replica.

Nothing is lost with it but steadiness; what a decision was held against stands in its row.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from foretaste.contracts.wire import RecommendRequest

KEPT = 20_000
"""Sessions whose last list is kept."""

Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Last:
    """A list that was answered and logged."""

    decision_id: str
    title_ids: tuple[str, ...]
    mark: int  # of the session log
    at_us: int


class Shown:
    """Lists by actor, session, surface, filter and boosts: one that was asked for otherwise is no list before."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._lists: OrderedDict[Key, Last] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, actor_id: str, request: RecommendRequest, last: Last) -> None:
        """Take note of a list."""
        key = _key(actor_id, request)
        with self._lock:
            self._lists[key] = last
            self._lists.move_to_end(key)
            while len(self._lists) > self._kept:
                self._lists.popitem(last=False)

    def get(self, actor_id: str, request: RecommendRequest, *, since_us: int) -> Last | None:
        """Find the list before, unless it is from before `since_us` (microseconds)."""
        with self._lock:
            found = self._lists.get(_key(actor_id, request))
        return found if found is not None and found.at_us >= since_us else None

    def forget(self, actor_id: str) -> None:
        """Forget the lists of an actor."""
        with self._lock:
            for key in [key for key in self._lists if key[0] == actor_id]:
                del self._lists[key]


def _key(actor_id: str, request: RecommendRequest) -> Key:
    asked = request.model_dump_json(include={"filter", "boost"})
    return actor_id, request.session_id, request.surface, asked
