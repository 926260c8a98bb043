"""All settings of all verbs as one frozen value, read from YAML with overrides."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator

from foretaste.contracts.config import Frozen, filled
from foretaste.contracts.intents import LabelConfig
from foretaste.evaluation.config import EvaluationConfig
from foretaste.evaluation.offpolicy.answer import AnswerConfig
from foretaste.evaluation.policy_config import PolicyEvaluationConfig
from foretaste.evaluation.segment_config import SegmentConfig
from foretaste.feedback.outcome_config import OutcomeConfig
from foretaste.jobs.bench_cluster_config import ClusterBenchConfig
from foretaste.jobs.bench_serve_config import ServeBenchConfig
from foretaste.jobs.cluster import ClusterConfig
from foretaste.jobs.oracles import OracleConfig
from foretaste.jobs.reference_models import ReferenceConfig
from foretaste.jobs.retrain_config import RetrainConfig
from foretaste.jobs.sizing_config import SizingConfig
from foretaste.jobs.workspace import Workspace
from foretaste.models.baselines.session_knn import SessionKNNConfig
from foretaste.models.delayed import DelayedConfig
from foretaste.models.intent import IntentModelConfig
from foretaste.models.ranker import RankerConfig
from foretaste.ops.stores import checked
from foretaste.rewards.library import RewardConfig
from foretaste.serving.config import ServingConfig
from foretaste.serving.posterior_config import LearningConfig
from foretaste.sessions.prepare import PrepareConfig
from foretaste.signals.snapshots import SnapshotConfig
from foretaste.training.config import DelayedTrainingConfig, RankerTrainingConfig, TrackingConfig, TrainingConfig
from foretaste.training.off_policy import LearnConfig
from foretaste.training.search import TuneConfig
from foretaste.worlds.config import WorldConfig


class Settings(Frozen):
    """What can be set, one section a stage. `foretaste VERB --set section.key=value` overrides one of them."""

    workspace: Path = Field(Path(".foretaste"), description="folder of all tables, relative to where the verb runs")
    features_repo: Path = Field(Path("features"), description="folder of the Feast definitions")
    features_url: str | None = Field(
        None, description="Redis that holds the online features, redis://host:6379/0; null: SQLite in the workspace"
    )
    features_registry_url: str | None = Field(
        None,
        description="SQL database of Feast's registry, postgresql://user:password@host:5432/database; null: SQLite in "
        "the workspace",
    )
    runs_url: str | None = Field(
        None,
        description="object store that holds the checkpoints of training, s3://bucket/prefix?region=eu-west-1 (also "
        "gs://); null: runs/ in the workspace",
    )
    cluster: ClusterConfig = ClusterConfig()
    world: WorldConfig = WorldConfig()
    prepare: PrepareConfig = PrepareConfig()
    labels: LabelConfig = LabelConfig()
    snapshots: SnapshotConfig = SnapshotConfig()
    intent: IntentModelConfig = IntentModelConfig()
    ranker: RankerConfig = RankerConfig()
    session_knn: SessionKNNConfig = Field(SessionKNNConfig(), description="what answers while no model does")
    training: TrainingConfig = Field(TrainingConfig(), description="of the intent model")
    ranker_training: RankerTrainingConfig = Field(RankerTrainingConfig(), description="of the ranker")
    tune: TuneConfig = Field(TuneConfig(), description="the search for settings of the intent model")
    tracking: TrackingConfig = TrackingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    off_policy: AnswerConfig = Field(AnswerConfig(), description="how a log is asked what another policy would earn")
    policy_evaluation: PolicyEvaluationConfig = Field(
        PolicyEvaluationConfig(),
        description="how a policy is judged by what was logged, and what it takes to be promoted",
    )
    references: ReferenceConfig = ReferenceConfig()
    oracles: OracleConfig = OracleConfig()
    segments: SegmentConfig = SegmentConfig()
    serving: ServingConfig = ServingConfig()
    outcomes: OutcomeConfig = Field(OutcomeConfig(), description="how decisions are joined with what followed")
    rewards: RewardConfig = Field(RewardConfig(), description="the reward programs")
    posteriors: LearningConfig = Field(LearningConfig(), description="how rewards become what policies know")
    retrain: RetrainConfig = Field(RetrainConfig(), description="what a new release is held to")
    delayed: DelayedConfig = Field(DelayedConfig(), description="the models of feedback that comes late")
    delayed_training: DelayedTrainingConfig = Field(DelayedTrainingConfig(), description="of these models")
    learn: LearnConfig = Field(LearnConfig(), description="how the ranker learns from logged decisions")
    bench_serve: ServeBenchConfig = Field(ServeBenchConfig(), description="the load of `foretaste bench serve`")
    sizing: SizingConfig = Field(SizingConfig(), description="what `foretaste size` reckons with")
    bench_cluster: ClusterBenchConfig = Field(
        ClusterBenchConfig(), description="the cluster of `foretaste bench cluster`, and what comes over it"
    )

    @field_validator("runs_url")
    @classmethod
    def _known_scheme(cls, url: str | None) -> str | None:
        return url if url is None else checked(url)

    @property
    def tables(self) -> Workspace:
        """The workspace's folders, absolute, so that Ray's workers find them."""
        return Workspace(self.workspace.absolute())


def load(path: Path | None, overrides: Sequence[str] = (), *, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read settings from a YAML file (defaults where it is silent) and apply `KEY=VALUE` overrides.

    `${NAME}` in a value is what the environment has, so that files hold no secret. Raises ValueError naming the key for
    an unknown key, a wrong type or a value out of bounds, or the variable that is not set.
    """
    values = _read(path) if path is not None else {}
    for override in overrides:
        _apply(values, override)
    what = f"settings{f' of {path}' if path else ''}"
    return validated(filled(values, environment, what=what), what=what)


def validated(values: Mapping[str, Any], *, what: str) -> Settings:
    """Settings of plain values. Raises ValueError naming the key that is unknown, of a wrong type or out of bounds."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (was {e['input']!r})" for e in error.errors()]
        raise ValueError(f"{what}: " + "; ".join(lines)) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"settings of {path}: not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"settings of {path}: wanted a mapping of sections, found {type(values).__name__}")
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError(f"--set {override}: wanted KEY=VALUE, e.g. training.epochs=3")
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ValueError(f"--set {override}: {section} is not a section")
    values[last] = yaml.safe_load(text)
