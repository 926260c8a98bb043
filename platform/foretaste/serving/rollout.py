"""Follows what is rolled out: loads and tries a release beside those that answer, then exchanges the lineup whole.

A release that cannot be loaded, or does not fit, is refused: what answered before goes on, and says so.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from foretaste.ops.releases import (
    FOLDER,
    MAIN,
    ROLLOUT,
    Release,
    Rollout,
    give_share,
    promote_release,
    release,
    roll_back,
    rollout,
    shadow_release,
)
from foretaste.serving.budget import Guards
from foretaste.serving.garbage import set_apart_again
from foretaste.serving.lineup import Lineup, Loaded, Part
from foretaste.serving.models import SESSION_KNN
from foretaste.serving.problems import ConflictError
from foretaste.serving.recommender import Recommender
from foretaste.serving.trial import check_catalogue, check_models

LOADED, REFUSED = "loaded", "refused"
HELD_SECONDS = 60.0
"""How long a release that was loaded to be promoted waits for that."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a release does not answer in this process, and when it is tried again, by the timer."""

    reason: str
    again_at: float


class Rollouts:
    """Has a recommender answer by what is rolled out; every method may be called from any thread, and may load."""

    def __init__(
        self,
        registry: Path,
        recommender: Recommender,
        open_release: Callable[[Release], Loaded],
        *,
        own_guards: Callable[[], Guards],
        retry_seconds: float,
        clock: Callable[[], datetime],
        timer: Callable[[], float] = time.monotonic,
        salts: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        """`open_release` loads; `own_guards` are those of an arm. What was refused is tried again at times."""
        self._registry = registry
        self._recommender = recommender
        self._open = open_release
        self._own_guards = own_guards
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._timer = timer
        self._salts = salts
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._refused: dict[str, Refusal] = {}
        self._unread: str | None = None
        self._let_go = False
        self._held: dict[str, tuple[Loaded, float]] = {}
        self.outcomes = {LOADED: 0, REFUSED: 0}
        self.known: Rollout | None = None
        """What is rolled out, as it was read last."""

    @property
    def refused(self) -> dict[str, str]:
        """Reasons by release."""
        return {name: one.reason for name, one in dict(self._refused).items()}

    @property
    def troubles(self) -> list[str]:
        """What is wrong, in words; nothing as a rule."""
        answers = self._recommender.lineup.main.loaded.release or "what was there"
        found = [f"release {name} is refused, {answers} goes on: {why}" for name, why in self.refused.items()]
        return found + ([] if self._unread is None else [self._unread])

    def refresh(self) -> None:
        """Take up what is rolled out where that is something else, or where something is to be tried again."""
        with self._lock:
            if self._let_go:  # the time before, so that no request keeps it any more
                self._let_go = False
                set_apart_again()
            self._refresh()

    def promote(self, name: str) -> Rollout:
        """Let a release answer everybody, here at once. Raises FileNotFoundError, ConflictError where it is refused."""
        return self._roll_out(name, lambda: promote_release(self._registry, name, at=self._clock()))

    def give_share(self, name: str, *, arm: str, share: float) -> Rollout:
        """Let a release answer a share of the members. Raises as `promote`, and ValueError as `releases.give_share`."""
        at, salt = self._clock(), self._salts()
        return self._roll_out(name, lambda: give_share(self._registry, name, arm=arm, share=share, salt=salt, at=at))

    def shadow(self, name: str) -> Rollout:
        """Let a release score unseen. Raises as `promote`."""
        return self._roll_out(name, lambda: shadow_release(self._registry, name, at=self._clock()))

    def roll_back(self, name: str) -> Rollout:
        """Take a release back. Raises FileNotFoundError, ConflictError where there is nothing to take back of it."""
        release(self._registry, name)
        with self._lock:
            try:
                found = roll_back(self._registry, at=self._clock(), name=name)
            except ValueError as error:
                raise ConflictError(str(error)) from error
            self._refresh()
        return found

    def _roll_out(self, name: str, write: Callable[[], Rollout]) -> Rollout:
        """Load and try first: what would be refused is not rolled out."""
        release(self._registry, name)
        with self._lock:
            try:
                loaded = self._there().get(name) or self._admitted(name)
            except Exception as error:
                raise ConflictError(f"release {name} is refused: {_words(error)}") from error
            self._held[name] = loaded, self._timer() + HELD_SECONDS
            try:
                found = write()  # which looks at the files once more
                self._refresh()
            finally:
                self._held.pop(name, None)
        return found

    def _there(self) -> dict[str, Loaded]:
        now = self._timer()
        self._held = {name: held for name, held in self._held.items() if held[1] > now}
        held = {name: loaded for name, (loaded, _) in self._held.items()}
        return held | {one.release: one for one in self._recommender.lineup.loaded if one.release is not None}

    def _refresh(self) -> None:
        version, now = _version(self._registry / FOLDER / ROLLOUT), self._timer()
        if version == self._seen and not any(one.again_at <= now for one in self._refused.values()):
            return
        if version != self._seen:
            self._refused, self._seen = {}, version
        try:
            wanted = rollout(self._registry)
        except (OSError, ValueError) as error:
            _log.exception("what is rolled out cannot be read; what answered before goes on")
            self._unread = str(error)
            return
        self._unread = None
        if wanted is not None:
            self.known = wanted
            self._line_up(wanted)

    def _line_up(self, wanted: Rollout) -> None:
        """Exchange the lineup: one assignment, after all that is new has been loaded and tried."""
        before, there = self._recommender.lineup, self._there()
        self._refused = {name: one for name, one in self._refused.items() if name in wanted.names}
        found = {name: self._taken_up(name, there) for name in sorted(wanted.names)}
        main = Part(found[wanted.current] or before.main.loaded, before.main.guards, arm=MAIN if wanted.arms else None)
        arms = {}
        for arm in wanted.arms:
            loaded, known = found[arm.release], before.arms.get(arm.name)
            if loaded is not None:
                same = known is not None and known.loaded is loaded
                arms[arm.name] = known if known and same else Part(loaded, self._own_guards(), arm=arm.name)
        shadow = None if wanted.shadow is None else found[wanted.shadow]
        self._recommender.lineup = after = Lineup(main, arms, wanted.arms, wanted.salt, shadow)
        self._let_go = self._let_go or not {*before.loaded} <= {*after.loaded}
        self._held.clear()
        if main.loaded is not before.main.loaded:
            _log.warning("release %s answers, before it did %s", main.loaded.release, before.main.loaded.release)

    def _taken_up(self, name: str, there: Mapping[str, Loaded]) -> Loaded | None:
        known = self._refused.get(name)
        if name in there or (known is not None and known.again_at > self._timer()):
            return there.get(name)
        try:
            loaded = self._admitted(name)
        except Exception as error:
            _log.exception("release %s is refused; what answered before goes on", name)
            self._refused[name] = Refusal(_words(error), self._timer() + self._retry_seconds)
            return None
        self._refused.pop(name, None)
        self._held[name] = loaded, self._timer() + HELD_SECONDS
        return loaded

    def _admitted(self, name: str) -> Loaded:
        """Load a release, see whether it fits, and let it answer nobody a few times; raises where anything is wrong."""
        try:
            filed = release(self._registry, name)
            loaded = self._open(filed)
            check_models(loaded.models)
            check_catalogue(loaded.models.catalogue, self._recommender.models.catalogue)
            if SESSION_KNN in filed.models and loaded.models.neighbours is None:
                raise ValueError(f"its {SESSION_KNN} cannot be loaded")
            self._recommender.warm_up(loaded)
        except Exception:
            self.outcomes[REFUSED] += 1
            raise
        self.outcomes[LOADED] += 1
        return loaded


def _version(file: Path) -> tuple[int, ...]:
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError | FileNotFoundError) else f"{type(error).__name__}: {error}"
