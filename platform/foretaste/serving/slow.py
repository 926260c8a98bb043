"""Slow views in the request: title features as one matrix that is read again now and then, member features a row.

Shapes: B members, N1 rows by catalogue code.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.decisions import Fallback
from foretaste.feedback.session_log import microseconds
from foretaste.serving.budget import Guard, why_not
from foretaste.signals.views import ABSENT, MemberView, TitleView, Vocabulary

MEMBERS = "member_features"
TITLES = "title_features"

T = TypeVar("T")

_log = logging.getLogger(__name__)


class ViewSource(Protocol):
    """Where slow views come from; `signals.store.FeatureStore` is one."""

    @property
    def generation(self) -> str:
        """Name what the rows are of that are read now: with their versions it says which rows they are."""
        ...

    def check(self, catalogue: Catalogue, contract: Mapping[str, Any] | None = None) -> None:
        """Raise ValueError where the views are not of the catalogue's genres and kinds.

        Nor those of a model: what is filed with it as its `contract` says which.
        """
        ...

    def members(self, ids: Sequence[str | None], at: int) -> MemberView:
        """Read member features as they are seen at `at` (microseconds); a guest is None."""
        ...

    def titles(self, catalogue: Catalogue, at: int) -> TitleView:
        """Read title features as they are seen at `at` (microseconds)."""
        ...

    def forget(self, member_id: str) -> int:
        """Remove a member, online and from what is computed; returns how many rows went."""
        ...


@dataclass(frozen=True, slots=True)
class Views:
    """The slow views of one request."""

    members: MemberView
    titles: TitleView
    stale: tuple[str, ...]  # inputs that failed, are absent or are too old
    failed: bool  # whether zeros stand in for something that could not be read
    failures: tuple[str, ...] = ()  # inputs whose newest read failed
    generation: str | None = None  # of the source when the member was read; None where they were not
    titles_generation: str | None = None  # of the source when the titles were read
    why: Fallback | None = None  # why something could not be read


class SlowViews:
    """Reads slow views and never fails: zeros and a name in `stale` stand for what could not be read."""

    def __init__(
        self,
        source: ViewSource | None,
        catalogue: Catalogue,
        *,
        stale_hours: float,
        refresh_seconds: float,
        clock: Callable[[], datetime],
        guard: Guard | None = None,
        contract: Mapping[str, Any] | None = None,
    ) -> None:
        """Read the title features; `guard` bounds how long a request waits for its member's.

        Raises ValueError where the source has views of another catalogue, or others than a model's `contract` says.
        """
        self._guard = guard
        self._contract = contract
        self._source = source
        self._catalogue = catalogue
        self._stale_us = stale_hours * 3.6e9
        self._refresh = timedelta(seconds=refresh_seconds)
        self._clock = clock
        self._titles: tuple[TitleView, str | None] = (TitleView.absent(catalogue), None)  # with their generation
        self._failed = source is None
        self._mismatched = False
        self._read_at = clock()
        if source is not None:
            source.check(catalogue, contract)
            self.refresh()

    def refresh(self) -> None:
        """Read the title features again; when that fails, those of before stay and are called stale."""
        self._read_at = self._clock()
        if self._source is None:
            return
        try:
            self._source.check(self._catalogue, self._contract)
        except Exception:  # columns in another order would be read as something that they are not
            self._mismatched = self._failed = True
            _log.exception("the slow views are no longer those of the catalogue; zeros stand in for members")
            return
        self._mismatched = False
        try:
            self._titles = self._of_one_generation(
                lambda source: source.titles(self._catalogue, microseconds(self._read_at))
            )
            self._failed = False
        except Exception:  # a broken store must not stop the answers
            self._failed = True
            _log.exception("title features could not be read; those of before stay")

    def refresh_if_due(self) -> None:
        """Refresh where the matrix is older than `refresh_seconds`."""
        if self._clock() - self._read_at >= self._refresh:
            self.refresh()

    def read(self, member_id: str | None, *, asof: int, elapsed_ms: float = 0.0) -> Views:
        """Read the member's row beside the matrix, and say what of it is stale as of `asof` (microseconds).

        The request began `elapsed_ms` ago.
        """
        found, why = self._members(member_id, asof, elapsed_ms)
        failed = found is None
        members, generation = found or (Vocabulary(self._catalogue.genres, self._catalogue.kinds).absent(1), None)
        titles, of_titles = self._titles
        stale = []
        if failed or self._old(int(members.asof_ms_B[0]), asof):
            stale.append(MEMBERS)
        if self._failed or titles.newest_ms == ABSENT or self._old(titles.newest_ms, asof):
            stale.append(TITLES)
        failures = [name for name, is_so in ((MEMBERS, failed), (TITLES, self._failed)) if is_so]
        absent = failed or titles.newest_ms == ABSENT
        if why is None and absent:
            why = Fallback.FEATURES_FAILED
        return Views(members, titles, tuple(stale), absent, tuple(failures), generation, of_titles, why)

    def age_seconds(self) -> float:
        """How old the newest title features are; not a number where there are none."""
        newest_ms = self._titles[0].newest_ms
        return math.nan if newest_ms == ABSENT else microseconds(self._clock()) / 1e6 - newest_ms / 1e3

    def forget(self, member_id: str) -> int:
        """Remove a member from the source; returns how many rows went. Raises what the source raises."""
        return 0 if self._source is None else self._source.forget(member_id)

    def _members(
        self, member_id: str | None, asof: int, elapsed_ms: float
    ) -> tuple[tuple[MemberView, str | None] | None, Fallback | None]:
        """The member's row with its generation, or why there is none."""
        if self._source is None or self._mismatched:
            return None, Fallback.FEATURES_FAILED

        def read() -> tuple[MemberView, str | None]:
            return self._of_one_generation(lambda source: source.members([member_id], asof))

        try:
            return read() if self._guard is None else self._guard.run(elapsed_ms, read), None
        except Exception as error:  # a broken store must not stop the answers
            return None, why_not(error, "member features of one request")

    def _of_one_generation(self, read: Callable[[ViewSource], T]) -> tuple[T, str | None]:
        """Read, and name the generation that the rows are of; again where it changed in between."""
        assert self._source is not None
        while True:
            before = self._source.generation
            found = read(self._source)
            if self._source.generation == before:
                return found, before

    def _old(self, asof_ms: int, asof: int) -> bool:
        """A view that is absent because nothing is known of the member is not old."""
        return asof_ms != ABSENT and asof - asof_ms * 1000 > self._stale_us
