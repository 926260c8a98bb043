"""Where a run keeps its tables: one folder, one place a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foretaste.contracts.segments import INTENTS_FOLDER
from foretaste.ops.job_metrics import FOLDER as METRICS_FOLDER


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folders of one workspace; every job reads and writes only here."""

    root: Path

    @property
    def raw(self) -> Path:
        """Events and titles as imported or generated."""
        return self.root / "raw"

    @property
    def prepared(self) -> Path:
        """Interactions and impressions by member bucket."""
        return self.root / "prepared"

    @property
    def features(self) -> Path:
        """Snapshots, registry and online store of the slow views."""
        return self.root / "features"

    @property
    def registry(self) -> Path:
        """Model bundles."""
        return self.root / "registry"

    @property
    def runs(self) -> Path:
        """Checkpoints of training runs."""
        return self.root / "runs"

    @property
    def evaluation(self) -> Path:
        """Reports."""
        return self.root / "evaluation"

    @property
    def intents(self) -> Path:
        """Intents of members as features for other models, and their segments."""
        return self.root / INTENTS_FOLDER

    @property
    def serving(self) -> Path:
        """Session log and decision log."""
        return self.root / "serving"

    @property
    def outcomes(self) -> Path:
        """What followed on decisions, a folder an instant."""
        return self.root / "outcomes"

    @property
    def predicted(self) -> Path:
        """Predicted feedback: by outcomes, then by version of the model."""
        return self.root / "predicted"

    @property
    def rewards(self) -> Path:
        """What reward programs made of outcomes: by program, version and outcomes."""
        return self.root / "rewards"

    @property
    def learned(self) -> Path:
        """What rankers that learned from decisions would have earned, by version."""
        return self.root / "learned"

    @property
    def metrics(self) -> Path:
        """What batch jobs count of themselves."""
        return self.root / METRICS_FOLDER

    @property
    def downloads(self) -> Path:
        """Public data fetched at the user's request."""
        return self.root / "downloads"


def needed(path: Path, *, made_by: str) -> Path:
    """Return `path`, or say which verb makes it. Raises FileNotFoundError when it is not there."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: run `foretaste {made_by}` first")
    return path
