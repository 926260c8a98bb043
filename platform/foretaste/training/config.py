"""How models are trained and where runs are recorded."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from foretaste.contracts.config import Frozen

WHERE_IT_RUNS = (
    "executor", "num_workers", "fewest_workers", "resize_seconds", "fetch_seconds", "placement",
    "cpus_per_worker", "threads_per_worker", "use_gpu", "gpu_kind", "collective_seconds", "max_failures",
    "max_preemptions", "resume",
)  # fmt: skip
"""Settings of training that change nothing of what is learned, so that a run goes on under others."""


class TrainingConfig(Frozen):
    """How a model is trained; what it is stands in its own configuration."""

    split: Literal["time", "last"] = Field(
        "time", description="which rows are for training: before a global instant, or all but each actor's last two"
    )
    refit: bool = Field(
        False, description="whether to train once more, on training and validation rows, for the best number of epochs"
    )
    epochs: int = Field(10, ge=1, description="passes over the training rows at most; the learning rate ends there")
    patience: int = Field(3, ge=1, description="epochs without a better validation value after which training ends")
    select_by: Literal["ndcg", "loss"] = Field("ndcg", description="validation value that chooses the best epoch")
    validation_cases: int = Field(2_000, ge=1, description="cases, drawn by the seed, that are scored every epoch")
    batch_size: int | None = Field(
        None,
        ge=1,
        description="predictions (ranker: cases) a step, all workers together; by default a 400th of an epoch, within "
        "256 to 8192",
    )
    micro_batch_tokens: int = Field(8_192, ge=1, description="tokens encoded at once; bounds a worker's memory")
    resident_interactions: int = Field(
        10_000_000,
        ge=1,
        description="interactions that a worker holds in memory (about 100 bytes each); of more, some parts at a time",
    )
    learning_rate: float = Field(5e-3, gt=0, description="peak learning rate of AdamW")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay of AdamW")
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    seed: int = Field(0, ge=0, description="of initial weights, order, dropout and negatives")
    executor: Literal["ray", "plain"] = Field("ray", description="Ray Train workers, or this process alone")
    num_workers: int = Field(2, ge=1, description="Ray Train workers; at most, where `fewest_workers` is less")
    fewest_workers: int | None = Field(
        None,
        ge=1,
        description="workers with which a run begins, or goes on where others were lost, until there is room for more; "
        "null: all of num_workers, always",
    )
    resize_seconds: float = Field(
        60.0, ge=0, description="seconds between two looks at whether there is room for more workers"
    )
    fetch_seconds: float = Field(
        60.0, gt=0, description="seconds after which a worker reads rows itself that were lost with their node"
    )
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        "PACK", description="whether workers are put on few nodes, whose GPUs talk fastest, or on many"
    )
    cpus_per_worker: float = Field(1.0, gt=0, description="CPUs that Ray reserves for a worker")
    threads_per_worker: int = Field(1, ge=1, description="torch threads of a worker")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of matrix products in training (autocast); weights and validation stay float32"
    )
    use_gpu: bool = Field(False, description="whether each worker gets a GPU; gradients then go by NCCL, else by gloo")
    gpu_kind: str | None = Field(None, description="the kind of GPU, as Ray names it (A100, H100, L4); null: any")
    collective_seconds: int = Field(
        600, ge=1, description="seconds after which a worker that waits for the others' gradients gives up"
    )
    max_failures: int = Field(2, ge=0, description="worker failures after which the run is given up")
    max_preemptions: int = Field(
        -1, ge=-1, description="announced losses of nodes after which the run is given up; -1: none is too many"
    )
    resume: bool = Field(
        True, description="whether a run that was cut off goes on from its last checkpoint; false: it begins anew"
    )

    @model_validator(mode="after")
    def _fewest_at_most_all(self) -> Self:
        if self.fewest_workers is not None and self.fewest_workers > self.num_workers:
            raise ValueError(f"fewest_workers: {self.fewest_workers} is above num_workers, {self.num_workers}")
        return self

    def taught(self) -> dict[str, object]:
        """What decides what is learned; where it runs, and on how many workers, is left out."""
        return self.model_dump(mode="json", exclude=set(WHERE_IT_RUNS))


class RankerTrainingConfig(TrainingConfig):
    """How the ranker is trained: fewer, smaller examples than the intent model has."""

    epochs: int = Field(10, ge=1, description="passes over the cases at most; the learning rate ends there")
    patience: int = Field(4, ge=1, description="epochs without a better validation value after which training ends")
    batch_size: int | None = Field(64, ge=1, description="cases a step, all workers together; null: a 400th")
    learning_rate: float = Field(2e-3, gt=0, description="peak learning rate of AdamW")


class DelayedTrainingConfig(TrainingConfig):
    """How a model of feedback that comes late is trained: by its own loss, with much decay."""

    epochs: int = Field(8, ge=1, description="passes over the decisions at most; the learning rate ends there")
    select_by: Literal["ndcg", "loss"] = Field("loss", description="validation value that chooses the best epoch")
    learning_rate: float = Field(3e-3, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.5, ge=0, description="decoupled weight decay of AdamW")


class LearnTrainingConfig(TrainingConfig):
    """How the ranker learns from logged decisions; batches are of rounds, places of lists."""

    epochs: int = Field(20, ge=1, description="passes over the decisions at most; the learning rate ends there")
    patience: int = Field(4, ge=1, description="epochs without a better validation value after which training ends")
    select_by: Literal["loss"] = Field("loss", description="minus what the policy would have earned a round")
    batch_size: int | None = Field(512, ge=1, description="rounds a step, all workers together; null: a 400th")
    learning_rate: float = Field(2e-3, gt=0, description="peak learning rate of AdamW")


class TrackingConfig(Frozen):
    """Where training runs are recorded."""

    enabled: bool = Field(True, description="whether runs are recorded in MLflow")
    uri: str | None = Field(
        None, description="MLflow tracking URI, by default mlflow.db beside the checkpoints' folder"
    )
    experiment: str = Field("foretaste", description="MLflow experiment")
