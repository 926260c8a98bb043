"""Models in production, as people and machines ask for them: what is filed, what answers whom, how that is changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from foretaste.contracts.wire_models import (
    ArmAnswer,
    ModelsAnswer,
    PromoteRequest,
    ReleaseAnswer,
    ReplicaAnswer,
    SampleRatioAnswer,
)
from foretaste.feedback.arms import SampleRatio, in_words, sample_ratio, split_in, split_since
from foretaste.feedback.session_log import microseconds
from foretaste.ops.releases import CANARY, MAIN, Rollout, filed_at, releases, rollout
from foretaste.ops.rollouts import ShareError
from foretaste.serving.lineup import Lineup
from foretaste.serving.metrics import Metrics
from foretaste.serving.problems import ConflictError, RefusedError
from foretaste.serving.replicas import Replicas
from foretaste.serving.rollout import Rollouts
from foretaste.serving.shadow import Shadow

SHADOW = "shadow"
_log = logging.getLogger(__name__)
LOOK_SECONDS = 300.0
"""Between two looks at who came into which arm."""
REST = 50.0
"""Times as long as a look took there is none."""


class Production:
    """The releases of a workspace in one process; every method may be called from any thread, and may block."""

    def __init__(
        self,
        registry: Path,
        rollouts: Rollouts,
        replicas: Replicas,
        lineup: Callable[[], Lineup],
        *,
        clock: Callable[[], datetime],
        decisions: Path,
        shadow: Shadow,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """`lineup` is what answers now, `decisions` the folder of the decision log."""
        self._registry = registry
        self._rollouts = rollouts
        self._replicas = replicas
        self._lineup = lineup
        self._clock = clock
        self._decisions = decisions
        self._shadow = shadow
        self._timer = timer
        self._ratio: tuple[SampleRatio, datetime] | None = None
        self._look_at = float("-inf")
        self._looked_since: str | None = None

    @property
    def troubles(self) -> list[str]:
        """What keeps this process from answering by what is rolled out, in words; nothing as a rule."""
        return self._rollouts.troubles

    def watch(self, metrics: Metrics) -> None:
        """Have metrics tell of it."""
        metrics.watch_all("shadow", "how a release that nobody sees differs from answers", "what", self._shadow.plain)
        metrics.watch_all("sample_ratio", "members by arm, and whether the split is broken", "what", self._split)
        main = "when the release was filed that answers who is in no arm, in seconds since 1970"
        metrics.watch_all("main_release_created_timestamp_seconds", main, "release", self._main)
        metrics.watch_all("release", "1 for each release that answers or scores here", "release", self._in_use)
        rollouts, outcomes = self._rollouts, "releases that were loaded, and that were refused"
        metrics.watch_all("releases", outcomes, "outcome", lambda: dict(rollouts.outcomes))
        metrics.watch("releases_refused", "that are rolled out", lambda: len(rollouts.refused))

    def follow(self) -> None:
        """Take up what is rolled out, and tell the other processes what this one answers with; look at the split of
        members and file what the shadow found where that is due.
        """
        try:
            self._rollouts.refresh()
        finally:
            self._replicas.publish(self._state())
        self._shadow.roll_if_due()
        self._look_if_due()

    def models(self) -> ModelsAnswer:
        """Tell what is filed and what answers; what cannot be read is a warning."""
        ratio = self._ratio
        warnings = self.troubles + ([] if ratio is None or not ratio[0].broken else [in_words(ratio[0])])
        try:
            known, filed = rollout(self._registry), releases(self._registry)
        except (OSError, ValueError) as error:
            known, filed, warnings = None, [], [str(error), *warnings]
        return ModelsAnswer(
            current=None if known is None else known.current,
            previous=None if known is None else known.previous,
            arms=[] if known is None else _arms(known),
            shadow=None if known is None else known.shadow,
            releases=[
                ReleaseAnswer(
                    release=one.name,
                    created_at=one.created_at,
                    models=dict(one.models),
                    roles=[] if known is None else _roles(known, one.name),
                )
                for one in filed
            ],
            replicas=[self._state(), *self._replicas.others()],
            sample_ratio=self._told_ratio(),
            shadowed=self._shadow.plain(),
            warnings=list(dict.fromkeys(warnings)),
        )

    def promote(self, name: str, request: PromoteRequest) -> ModelsAnswer:
        """Let a release answer, in this process at once. Raises FileNotFoundError where there is none of that name,
        ConflictError where it is refused, RefusedError naming the field of a share that there is not.
        """
        try:
            if request.shadow:
                self._rollouts.shadow(name)
            elif request.share is None:
                self._rollouts.promote(name)
            else:
                self._rollouts.give_share(name, arm=request.arm or CANARY, share=request.share)
        except ShareError as error:
            raise RefusedError(error.field, str(error)) from error
        except ValueError as error:
            raise ConflictError(str(error)) from error
        return self._told()

    def roll_back(self, name: str) -> ModelsAnswer:
        """Take a release back from what it does. Raises FileNotFoundError, ConflictError where it does nothing."""
        self._rollouts.roll_back(name)
        return self._told()

    def close(self) -> None:
        """Tell the other processes that this one is gone."""
        self._replicas.withdraw()
        try:
            self._shadow.close()
        except OSError:
            _log.exception("what the shadow found could not be filed")

    def _look_if_due(self) -> None:
        """Look at the decisions since the arms became what they are; the longer that takes the less often."""
        known = self._rollouts.known
        if known is None or not known.arms or known.arms_since is None:
            self._ratio = self._looked_since = None
            return
        if self._timer() < self._look_at and known.arms_since == self._looked_since:
            return
        begun, since = self._timer(), split_since(known.arms_since)
        found = sample_ratio(split_in(self._decisions, since_us=microseconds(since)), known.shares)
        self._ratio, self._looked_since = (found, since), known.arms_since
        self._look_at = self._timer() + max(LOOK_SECONDS, REST * (self._timer() - begun))

    def _in_use(self) -> dict[str, float]:
        return {one.release: 1.0 for one in self._lineup().loaded if one.release is not None}

    def _main(self) -> dict[str, float]:
        name = self._lineup().main.loaded.release
        return {} if name is None else {name: filed_at(name).timestamp()}

    def _split(self) -> dict[str, float]:
        if self._ratio is None:
            return {}
        found = self._ratio[0]
        counts = {f"members in {arm}": float(count) for arm, count in found.split.counts.items()}
        return counts | {"p_value": found.p_value, "broken": float(found.broken), "crossed": float(found.split.crossed)}

    def _told_ratio(self) -> SampleRatioAnswer | None:
        if self._ratio is None:
            return None
        found, since = self._ratio
        return SampleRatioAnswer(
            since=since,
            units=dict(found.split.counts),
            expected=dict(found.expected),
            p_value=found.p_value,
            crossed=found.split.crossed,
            broken=found.broken,
        )

    def _told(self) -> ModelsAnswer:
        self._replicas.publish(self._state())
        return self.models()

    def _state(self) -> ReplicaAnswer:
        lineup = self._lineup()
        return ReplicaAnswer(
            process=self._replicas.name,
            at=self._clock(),
            release=lineup.main.loaded.release,
            arms={name: str(part.loaded.release) for name, part in lineup.arms.items()},
            shadow=None if lineup.shadow is None else lineup.shadow.release,
            refused=self._rollouts.refused,
        )


def _arms(known: Rollout) -> list[ArmAnswer]:
    releases_of = {arm.name: arm.release for arm in known.arms} | {MAIN: known.current}
    return [ArmAnswer(arm=name, release=releases_of[name], share=share) for name, share in known.shares.items()]


def _roles(known: Rollout, name: str) -> list[str]:
    answers = [MAIN] if known.current == name else []
    return [
        *answers,
        *(arm.name for arm in known.arms if arm.release == name),
        *([SHADOW] if known.shadow == name else []),
    ]
