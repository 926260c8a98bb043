"""What a training configuration means to Ray Train: how many workers, of what, and how many losses are survived."""

from __future__ import annotations

from ray.train import FailureConfig, ScalingConfig
from ray.train.torch import TorchConfig

from foretaste.training.config import TrainingConfig


def scaling(config: TrainingConfig) -> ScalingConfig:
    """Workers and what each of them books; an elastic group where fewer than all may do."""
    fewest = config.fewest_workers
    elastic = fewest is not None and fewest < config.num_workers
    return ScalingConfig(
        num_workers=(fewest, config.num_workers) if elastic else config.num_workers,
        use_gpu=config.use_gpu,
        resources_per_worker={"CPU": config.cpus_per_worker} | ({"GPU": 1} if config.use_gpu else {}),
        accelerator_type=config.gpu_kind,
        placement_strategy=config.placement,
        elastic_resize_monitor_interval_s=config.resize_seconds,
    )


def collectives(config: TrainingConfig) -> TorchConfig:
    """How workers share gradients: NCCL between GPUs, gloo between processors."""
    return TorchConfig(backend="nccl" if config.use_gpu else "gloo", timeout_s=config.collective_seconds)


def failures(config: TrainingConfig) -> FailureConfig:
    """How many failures, and how many announced losses of nodes, are survived."""
    return FailureConfig(max_failures=config.max_failures, max_preemption_failures=config.max_preemptions)
