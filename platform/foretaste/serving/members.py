"""What can be done to a member as a whole: take in what they did as a guest, and forget them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from foretaste.contracts.events import GUEST
from foretaste.contracts.wire import DeletionAnswer, MergeAnswer
from foretaste.feedback.row_log import RowLog
from foretaste.feedback.session_log import SessionLog, microseconds
from foretaste.feedback.tombstones import Tombstones


class Views(Protocol):
    """The slow views as a deletion knows them; `slow.SlowViews` is one."""

    def forget(self, member_id: str) -> int:
        """Remove a member; returns how many rows went."""
        ...


class Members:
    """Merges and deletes; either can be asked for again, and completes what was cut off."""

    def __init__(
        self,
        sessions: SessionLog,
        views: Views,
        tombstones: Tombstones,
        *,
        clock: Callable[[], datetime],
        acks: RowLog | None = None,
        reports: RowLog | None = None,
        future_minutes: float = 5.0,
    ) -> None:
        """`future_minutes` is how far ahead of theirs the service takes clocks to be."""
        self._ahead_us = round(future_minutes * 6e7)
        self._told = [log for log in (acks, reports) if log is not None]
        self._sessions = sessions
        self._views = views
        self._tombstones = tombstones
        self._clock = clock

    def merge(self, member_id: str, session_id: str) -> MergeAnswer:
        """Make the events of a session's guest the member's, but for those before the member was deleted."""
        after = self._tombstones.read().get(member_id, -1)
        merged = self._sessions.merge(session_id, member_id, received_at=self._clock(), after_us=after)
        until = self._tombstones.read().get(member_id, -1)
        if until != after:  # deleted meanwhile
            self._sessions.delete_until(member_id, until)
        return MergeAnswer(merged=merged)

    def delete(self, member_id: str) -> DeletionAnswer:
        """Forget a member and the guests that were merged into them, up to now, or to what their clocks say.

        What they do while this is under way is done after it, and stays. The tombstones come first: whatever fails
        after them, the tables forget the member all the same. Then what was shown to them and the events, the member's
        own last, since with them goes the knowledge of the guests. The views, which a publication may hold up, follow.
        """
        merged = self._sessions.merged(member_id)
        guests = [GUEST + session for session in merged]
        now = microseconds(self._clock())
        until = max(now, *(self._newest(actor) for actor in (member_id, *guests)))
        at = min(until, now + self._ahead_us)  # who comes back is not refused for longer, whatever was loaded
        for actor in (member_id, *guests):
            self._tombstones.add(actor, at)
        for log in self._told:
            log.forget(dict.fromkeys((member_id, *guests), at))
        events = sum(self._sessions.delete(actor, until_us=until) for actor in guests)
        events += self._sessions.delete(member_id, until_us=until, merged=merged)
        views = self._views.forget(member_id)
        return DeletionAnswer(deleted_events=events, deleted_views=views)

    def _newest(self, actor: str) -> int:
        """When an actor did something last, microseconds; -1 where nothing is known."""
        rows, _ = self._sessions.read(actor, limit=1)
        return rows[-1]["at"] if rows else -1
