"""What is asked of a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from foretaste.contracts.config import Frozen
from foretaste.evaluation.cases import Split, Targets
from foretaste.evaluation.protocols import Protocol, Ties, Track


class BenchOptions(Frozen):
    """The flags of `foretaste bench`; those that do not say so are of `bench models`."""

    name: str = Field(description="which benchmark")
    quick: bool = Field(False, description="the size that the tests run")
    size: int | None = Field(None, ge=1, description="events (prepare), requests (parity, serve), rounds (ope)")
    seconds: float | None = Field(None, gt=0, description="length of a load (serve)")
    url: str | None = Field(None, description="the running service to load (serve); none: one is started")
    source: Path | None = Field(None, description="folder, archive or wheel of the log")
    data: str | None = Field(None, description="which log; none: the synthetic service")
    part: str | None = Field(None, description="which part (models, serve, ope); none: the first")
    models: tuple[str, ...] | None = Field(None, description="names of models")
    against: str | None = Field(None, description="the model that the others are paired with")
    seeds: int | None = Field(None, ge=1, description="training runs of each model")
    split: Literal["time", "last", "both"] = Field("time", description="which rows are test rows")
    targets: Targets | None = Field(None, description="of a member: all, or the first")
    track: Track = Field("aware", description="whether models may read the time of the question")
    ties: Ties = Field("stable", description="order of events of equal time")
    refit: bool = Field(False, description="whether models learn from validation rows, too")

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits asked for."""
        return ("time", "last") if self.split == "both" else (self.split,)

    @property
    def num_seeds(self) -> int:
        """Training runs of each model: five, or one where it is to be quick."""
        return self.seeds or (1 if self.quick else 5)

    def protocol(self, split: Split, *, seed: int, exclude_seen: bool) -> Protocol:
        """The rules of the run with that seed, which also draws the order of ties where they are shuffled."""
        return Protocol.of(
            split,
            self.targets,
            ties_seed=seed if self.ties == "shuffled" else None,
            track=self.track,
            refit=self.refit,
            exclude_seen=exclude_seen,
        )
