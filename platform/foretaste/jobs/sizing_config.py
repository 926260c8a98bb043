"""What a cluster is sized for, and what things cost: measured, each with its unit; the log says by which command."""

from __future__ import annotations

from pydantic import Field

from foretaste.contracts.config import Frozen

Points = tuple[tuple[float, float], ...]


class PopulationConfig(Frozen):
    """Who asks, and how often."""

    titles: int = Field(10_000, ge=1, description="titles of the catalogue")
    sessions_per_week: float = Field(1.25, gt=0, description="mean sessions of a member and week")
    lists_per_session: float = Field(8.0, gt=0, description="mean lists of a session")
    events_per_session: float = Field(17.0, gt=0, description="mean events of a session, impressions among them")
    passive_share: float = Field(0.35, ge=0, le=1, description="share of impressions among them")
    choices_per_session: float = Field(2.5, gt=0, description="mean choices of a session, which models learn from")
    active_share: float = Field(0.6, gt=0, le=1, description="share of members of whom the session log holds something")
    events_held: float = Field(60.0, gt=0, description="mean events that it holds of such a member")
    peak_over_mean: float = Field(3.0, ge=1, description="load of the busiest minutes over the mean of the week")
    history_days: int = Field(365, ge=1, description="days of events that prepared tables hold")


class CostConfig(Frozen):
    """What things cost, on one core of an AMD EPYC unless it says otherwise."""

    answer_points: Points = Field(
        ((1.0, 0.0212), (4.0, 0.0711), (8.0, 0.1116)),
        description="by lists that a replica computes at a time: the seconds that each takes (closed loops, two "
        "replicas on two cores that the load generator shares; the slower of two runs)",
    )
    answer_spread: float = Field(0.25, ge=0, description="deviation of a list's work, of its mean")
    model_error: float = Field(
        2.2, ge=1, description="by which measured p99 of open loops were at most above the queueing model's"
    )
    answer_cpu_ms: float = Field(8.9, gt=0, description="processor milliseconds of a list at four clients")
    event_cpu_ms: float = Field(1.5, gt=0, description="processor milliseconds of the service for an event; estimated")
    replica_gib: float = Field(0.7, gt=0, description="GiB of a replica with 10,000 titles")
    replica_gib_per_million_titles: float = Field(1.5, ge=0, description="GiB that a million titles add to a replica")
    scrape_ms: float = Field(15.0, ge=0, description="milliseconds that a replica adds to every scrape of /metrics")
    log_bytes_per_event: float = Field(371.0, gt=0, description="bytes of Redis for an event of the session log")
    log_bytes_per_member: float = Field(1_286.0, ge=0, description="bytes of Redis for a member of it besides")
    appends_per_second: float = Field(
        1_480.0, gt=0, description="events a second that one Redis takes, each on disk before it is acknowledged"
    )
    online_bytes_per_member: float = Field(
        900.0, gt=0, description="bytes of Redis for a member's online features; estimated"
    )
    decision_bytes: float = Field(
        452.0, gt=0, description="bytes of Parquet of a decision that is not audited, lists of ten"
    )
    event_bytes: float = Field(28.0, gt=0, description="bytes of Parquet of an event in the event log")
    prepared_bytes_per_event: float = Field(51.0, gt=0, description="bytes of prepared tables for an event")
    prepare_cpu_seconds: float = Field(4.2, gt=0, description="processor seconds of a full run for a million events")
    prepare_added: float = Field(
        4.6, ge=1, description="cost of an event in a run that adds, over that of one in a full run"
    )
    features_cpu_seconds: float = Field(
        60.0,
        gt=0,
        description="processor seconds of the slow views for a million members and a day; 22 computed, the rest, for "
        "loading, estimated",
    )
    train_cpu_seconds: float = Field(
        700.0, gt=0, description="processor seconds of the intent model for a million choices and an epoch; no GPU"
    )


class TargetConfig(Frozen):
    """What the cluster is to keep, and what machines there are."""

    p99_ms: float = Field(300.0, gt=0, description="milliseconds within which 99% of the lists are answered")
    headroom: float = Field(
        0.7, gt=0, le=1, description="share of what replicas could do that is planned for; the rest is for failures"
    )
    worker_cpus: int = Field(2, ge=1, description="processors of a worker of the service, a replica each")
    spare_workers: int = Field(1, ge=0, description="workers above what is needed, so that one may be lost")
    redis_gib: int = Field(32, ge=1, description="GiB that one Redis may hold")
    redis_load: float = Field(0.5, gt=0, le=1, description="share of its appends a second that is planned for")
    job_cpus: int = Field(8, ge=1, description="processors of a worker of a job")
    prepare_hours: float = Field(1.0, gt=0, description="hours that the nightly preparation may take")
    features_hours: float = Field(2.0, gt=0, description="hours that the slow views may take")
    train_hours: float = Field(8.0, gt=0, description="hours that training may take")
    train_days: int = Field(90, ge=1, description="days of choices that a model learns from")
    train_epochs: int = Field(6, ge=1, description="epochs")
    keep_days: int = Field(30, ge=1, description="days that decisions stay in the workspace")


class SizingConfig(Frozen):
    """What `foretaste size` reckons with."""

    population: PopulationConfig = PopulationConfig()
    costs: CostConfig = CostConfig()
    targets: TargetConfig = TargetConfig()
