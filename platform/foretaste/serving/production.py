"""Models in production, as people and machines ask for them: what is filed, what answers whom, how that is changed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from foretaste.contracts.wire_models import ArmAnswer, ModelsAnswer, PromoteRequest, ReleaseAnswer, ReplicaAnswer
from foretaste.ops.releases import CANARY, MAIN, Rollout, releases, rollout
from foretaste.ops.rollouts import ShareError
from foretaste.serving.lineup import Lineup
from foretaste.serving.metrics import Metrics
from foretaste.serving.problems import ConflictError, RefusedError
from foretaste.serving.replicas import Replicas
from foretaste.serving.rollout import Rollouts

SHADOW = "shadow"


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
    ) -> None:
        """`lineup` is what answers now."""
        self._registry = registry
        self._rollouts = rollouts
        self._replicas = replicas
        self._lineup = lineup
        self._clock = clock

    @property
    def troubles(self) -> list[str]:
        """What is wrong, in words; nothing as a rule."""
        return self._rollouts.troubles

    def watch(self, metrics: Metrics) -> None:
        """Have metrics tell of it."""
        rollouts, outcomes = self._rollouts, "releases that were loaded, and that were refused"
        metrics.watch_all("releases", outcomes, "outcome", lambda: dict(rollouts.outcomes))
        metrics.watch("releases_refused", "that are rolled out", lambda: len(rollouts.refused))

    def follow(self) -> None:
        """Take up what is rolled out, and tell the other processes what this one answers with."""
        try:
            self._rollouts.refresh()
        finally:
            self._replicas.publish(self._state())

    def models(self) -> ModelsAnswer:
        """Tell what is filed and what answers; what cannot be read is a warning."""
        warnings = self.troubles
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
            sample_ratio=None,
            shadowed={},
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
    if not known.arms:
        return []
    rest = round(1.0 - sum(arm.share for arm in known.arms), 4)
    found = [ArmAnswer(arm=arm.name, release=arm.release, share=arm.share) for arm in known.arms]
    return [ArmAnswer(arm=MAIN, release=known.current, share=rest), *found]


def _roles(known: Rollout, name: str) -> list[str]:
    answers = [MAIN] if known.current == name else []
    return [
        *answers,
        *(arm.name for arm in known.arms if arm.release == name),
        *([SHADOW] if known.shadow == name else []),
    ]
