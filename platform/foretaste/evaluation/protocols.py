"""Under which rules models are compared: written into every report, and kept."""

from __future__ import annotations

from typing import Literal, Self
from typing import Protocol as Typed

from pydantic import Field, model_validator

from foretaste.contracts.config import Frozen
from foretaste.evaluation.cases import Cases, Split, Targets

Ties = Literal["stable", "shuffled"]
Track = Literal["aware", "blind"]
Fit = Literal["strict", "refit"]
ScoreTies = Literal["code", "last", "drawn"]

BESIDE = "recent_popularity"
"""Popularity of the last days stands beside every comparison. In the time-blind track it is a yardstick only."""

SPLITS = {"time": "global time split", "last": "leave-one-out"}
TARGETS = {"all": "all targets of a member", "first": "one target a member"}
TIES = {"stable": "equal times in the order of the log", "shuffled": "equal times in an order drawn by seed"}
TRACKS = {
    "aware": "time-aware track (the time of the question is known, as in serving)",
    "blind": "time-blind track (no model reads the time of the question)",
}
FITS = {
    "strict": "strict (nothing is learned from validation rows)",
    "refit": "refit (validation rows are learned from, too)",
}
SCORE_TIES = {
    "code": "equal scores by catalogue code",
    "last": "equal scores with the target last",
    "drawn": "equal scores in an order drawn for each case",
}


class Named(Typed):
    """Anything that has a name."""

    @property
    def name(self) -> str:
        """Name in reports."""
        ...


class Protocol(Frozen):
    """One set of rules; figures of two different ones are never compared."""

    split: Split = Field("time", description="time: after a global instant is test; last: each actor's last row is")
    targets: Targets = Field("all", description="of a member all held-out choices (the headline), or the first")
    ties: Ties = Field("stable", description="order of one member's events of equal time, in training and test alike")
    ties_seed: int | None = Field(None, ge=0, description="seed of the order, where ties are shuffled")
    track: Track = Field("aware", description="whether models may read the time of the question")
    fit: Fit = Field("strict", description="whether models learn from validation rows once they are chosen")
    exclude_seen: bool = Field(True, description="whether titles of the history leave the ranking, never the target")
    score_ties: ScoreTies = Field("code", description="order of titles with equal scores")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.split == "last" and self.targets == "all":
            raise ValueError("protocol: leave-one-out has one target a member: targets must be first, not all")
        if (self.ties == "shuffled") != (self.ties_seed is not None):
            raise ValueError(f"protocol: ties are {self.ties}, with seed {self.ties_seed}; shuffled ties need one")
        return self

    @classmethod
    def of(
        cls,
        split: Split = "time",
        targets: Targets | None = None,
        *,
        ties_seed: int | None = None,
        track: Track = "aware",
        refit: bool = False,
        exclude_seen: bool = True,
    ) -> Protocol:
        """Make a protocol of what a caller says; without `targets` all of the time split, the one of leave-one-out."""
        return cls(
            split=split,
            targets=targets or ("first" if split == "last" else "all"),
            ties="stable" if ties_seed is None else "shuffled",
            ties_seed=ties_seed,
            track=track,
            fit="refit" if refit else "strict",
            exclude_seen=exclude_seen,
        )

    @property
    def fit_on(self) -> tuple[str, ...]:
        """Parts of the split that models learn from."""
        return ("train",) if self.fit == "strict" else ("train", "validation")

    @property
    def text(self) -> str:
        """All rules in one line."""
        seen = "titles already seen are excluded" if self.exclude_seen else "titles already seen stay in"
        rules = (
            SPLITS[self.split], TARGETS[self.targets], "whole catalogue ranked", seen, TIES[self.ties],
            SCORE_TIES[self.score_ties], TRACKS[self.track], FITS[self.fit],
        )  # fmt: skip
        return ", ".join(rules)

    def admits(self, model: Named) -> bool:
        """Whether the model keeps to the track; one that does not say whether it reads the time is taken to."""
        return self.track == "aware" or not getattr(model, "time_aware", True)

    def check_model(self, model: Named) -> None:
        """Raise ValueError where a model that reads the time of the question is asked in the time-blind track."""
        if model.name != BESIDE and not self.admits(model):
            raise ValueError(
                f"{model.name} reads the time of the question, or does not say that it does not: it cannot stand in "
                "the time-blind track; build it with time_aware false (vstan: age_days null)"
            )

    def check_cases(self, cases: Cases) -> None:
        """Raise ValueError where the cases were drawn under other rules."""
        of_cases = "first" if cases.split == "last" else cases.targets
        if (cases.split, of_cases) != (self.split, self.targets):
            raise ValueError(
                f"protocol wants split {self.split}, targets {self.targets}; the cases have split {cases.split}, "
                f"targets {cases.targets}"
            )

    def check_training(self, name: str, *, split: str, refit: bool) -> None:
        """Raise ValueError where a model was trained on rows of another split or fit."""
        if split != self.split:
            raise ValueError(f"{name} was trained with split {split!r}, not {self.split!r}: it has seen test rows")
        if refit != (self.fit == "refit"):
            raise ValueError(
                f"{name} was trained {'with' if refit else 'without'} validation rows; the protocol says {self.fit}"
            )
