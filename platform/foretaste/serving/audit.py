"""The standing audit: a share of what this process answered is made again from what is stored, and counted.

It runs beside the requests, a little at a time, and takes a small share of the time: what it cannot look at is counted
as skipped. A difference is an error in the log, is counted by feature and makes the service say that it is degraded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from polars.exceptions import PanicException

from foretaste.contracts.events import actor_id
from foretaste.feedback.forgotten import before_deletion
from foretaste.feedback.past import Past
from foretaste.serving.replay import Replay
from foretaste.serving.tally import Tally

WAITING = 1_000  # decisions held at most, of 20 to 100 kB each
ROUND_SECONDS = 1.0
REST = 19.0  # times as long as a round took nothing is done: a twentieth of the time at most
AT_ONCE = 16
PAUSE_SECONDS = 0.005
SKIPPED = "skipped"
DELETED = "of members who were deleted since"

_log = logging.getLogger(__name__)


class Audit:
    """Compares the decisions that it is offered; every method may be called from any thread."""

    def __init__(
        self,
        replay: Replay,
        *,
        events: Callable[[list[str]], pa.Table],
        deleted: Callable[[], Mapping[str, int]],
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """`events` reads the event log of some actors, `deleted` when members were deleted, in microseconds."""
        self.tally = Tally()
        self._replay = replay
        self._events = events
        self._deleted = deleted
        self._timer = timer
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._lock = threading.Lock()
        self._rests_until = float("-inf")

    def offer(self, decision: Mapping[str, Any]) -> None:
        """Have a decision compared some time; one without its served values is none to compare."""
        if decision["served"] is None:
            return
        with self._lock:
            self._waiting.append(decision)
            if len(self._waiting) > WAITING:
                self._waiting.popleft()
                self.tally.put_aside(SKIPPED, 1)

    def take(self) -> list[Mapping[str, Any]]:
        """Take what waits, for `compare` once all that was seen is in the event log; nothing while it rests."""
        with self._lock:
            if self._timer() < self._rests_until:
                return []
            taken = list(self._waiting)
            self._waiting.clear()
        return taken

    def give_back(self, taken: Sequence[Mapping[str, Any]]) -> None:
        """Have what was taken wait for another round."""
        with self._lock:
            self._waiting.extendleft(reversed(taken))

    def compare(self, taken: Sequence[Mapping[str, Any]]) -> None:
        """Compare for a round; what is left then is skipped. Raises nothing: an audit must not end what it audits."""
        if not taken:
            return
        begun = self._timer()
        try:
            self._compare(taken, begun)
        except (Exception, PanicException):  # of polars, and no Exception
            _log.exception("the audit of %d decisions failed", len(taken))
            self.tally.put_aside(SKIPPED, len(taken))
        self._rests_until = self._timer() + REST * (self._timer() - begun)

    def plain(self) -> dict[str, Any]:
        """Counts for people and metrics."""
        tally = self.tally
        return {
            "decisions": tally.decisions,
            "values": tally.num_values,
            "mismatches": {name: found["count"] for name, found in dict(tally.mismatches).items()},
            "left_out": dict(tally.left_out),
            "set_aside": dict(tally.set_aside),
            "waiting": len(self._waiting),
        }

    def counts(self) -> dict[str, float]:
        """Counts for metrics, by what was counted."""
        tally = self.tally
        return {
            "decisions": tally.decisions,
            "values": tally.num_values,
            "mismatches": tally.num_mismatches,
            "left_out": tally.num_left_out,
            "waiting": len(self._waiting),
        }

    def mismatches(self) -> dict[str, float]:
        """Values that differ, by feature."""
        return {name: float(found["count"]) for name, found in dict(self.tally.mismatches).items()}

    @property
    def alarms(self) -> list[str]:
        """What is wrong, in words; nothing as a rule."""
        found = []
        if self.tally.num_mismatches:
            names = ", ".join(sorted(self.tally.mismatches))
            found.append(f"{self.tally.num_mismatches} served values differ from what is stored: {names}")
        if self.tally.num_left_out:
            found.append(f"{self.tally.num_left_out} decisions could not be made again")
        return found

    def _compare(self, taken: Sequence[Mapping[str, Any]], begun: float) -> None:
        deleted = self._deleted()
        named = [{**one, "actor_id": actor_id(one["member_id"], one["session_id"])} for one in taken]
        kept = [one for one in named if not before_deletion(one, deleted)]
        self.tally.put_aside(DELETED, len(taken) - len(kept))
        past = Past(self._events(sorted({one["actor_id"] for one in kept})))
        for first in range(0, len(kept), AT_ONCE):
            if first and self._timer() - begun > ROUND_SECONDS:
                self.tally.put_aside(SKIPPED, len(kept) - first)
                return
            found = self._replay.compare(kept[first : first + AT_ONCE], past)
            for name, one in found.mismatches.items():
                _log.error("audit: %d values of %s differ, e.g. %s", one["count"], name, one["example"])
            for reason, count in found.left_out.items():
                _log.error("audit: %d decisions left out: %s", count, reason)
            self.tally.add(found)
            time.sleep(PAUSE_SECONDS)  # requests first
