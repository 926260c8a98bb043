"""The one training loop: the same in one process and on every Ray Train worker.

Gradients are sums over predictions, added up over micro-batches and workers and divided by the number of
predictions once, so that neither the size of a micro-batch nor the number of workers changes what is learned.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from foretaste.training.checkpoints import Checkpoint
from foretaste.training.config import TrainingConfig
from foretaste.training.gradients import Gradients, Sharing
from foretaste.training.optimizers import Optimizer

One = TypeVar("One")


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass did."""

    number: int  # from 1
    of: int
    loss: float  # mean over the predictions trained
    metrics: dict[str, float]  # of validation, mean over its cases; empty without validation
    predictions: int  # trained, all workers together
    seconds: float  # training alone
    best: bool  # whether its validation is the best so far
    whole_seconds: float = 0.0  # since the epoch before was over: its report, training and validation
    cpu_seconds: float = 0.0  # of the same, all workers' processes together
    training_cpu_seconds: float = 0.0  # of training alone
    tokens: int = 0  # of the micro-batches, all workers together, where these say how many they have (`num_tokens`)
    workers: int = 1  # that trained it

    @property
    def rate(self) -> float:
        """Predictions trained a second."""
        return self.predictions / self.seconds if self.seconds > 0 else 0.0


class Context(Sharing, Protocol):
    """Where the loop runs."""

    rank: int

    def add_up(self, flat: Tensor) -> None:
        """Replace a tensor by its sum over all workers."""
        ...

    def resume(self) -> Checkpoint | None:
        """Give the last checkpoint, or None."""
        ...

    def report(self, epoch: Epoch, records: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Record an epoch and what is needed to go on after it; every worker calls this with the same tensors."""
        ...


class Task(Protocol):
    """What is specific to a model."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        ...

    @property
    def num_predictions(self) -> int:
        """How many predictions of this worker make an epoch."""
        ...

    def steps(self, epoch: int, num_steps: int) -> Iterable[Iterable[Any]]:
        """Divide this worker's epoch into exactly `num_steps` steps (some may be empty) of micro-batches."""
        ...

    def loss(self, micro_batch: Any) -> tuple[Tensor, int]:
        """Summed loss of a micro-batch and the number of predictions in it."""
        ...

    def validate(self) -> dict[str, tuple[float, float]]:
        """Sum and number of every validation value over this worker's cases; no keys without validation."""
        ...


def train(
    task: Task, config: TrainingConfig, context: Context, *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Train from the last checkpoint, if there is one, and return the final state.

    Every epoch draws its dice from (seed, epoch, rank), so a run that was cut off between two epochs goes on
    exactly as if it had not been. The state holds `epochs` (records), `best_epoch` and `best` (weights of the best
    epoch by validation, or of the last one without validation).
    """
    network = task.network.to(context.device)
    gradients = Gradients(network, context)
    optimizer = Optimizer(gradients.dense, gradients.rows, config)
    num_steps = _steps(_total(context, task.num_predictions), config)
    records: dict[str, Any] = {"epochs": [], "best_epoch": 0, "best_value": -math.inf}
    best: dict[str, Tensor] = {}
    checkpoint = context.resume()
    if checkpoint is not None:
        records, tensors = checkpoint
        network.load_state_dict(_section(tensors, "network"))
        optimizer.load(_section(tensors, "optimizer"))
        best = best_weights(checkpoint)
    turned, cpu_at = clock(), time.process_time()
    for number in range(len(records["epochs"]) + 1, config.epochs + 1):
        if ended(records, config):
            break
        with _dice(config.seed, number, context):
            started, cpu_started = clock(), time.process_time()
            loss, predictions, tokens = _pass(task, gradients, optimizer, config, context, number, num_steps)
            seconds, training_cpu = clock() - started, time.process_time() - cpu_started
        metrics = _validation(task, context)
        value = _value(metrics, config, number)
        is_best = value > records["best_value"]
        now, cpu_now = clock(), time.process_time()
        cpu = (_total(context, cpu_now - cpu_at), _total(context, training_cpu))
        all_tokens = round(_total(context, tokens))
        whole = (now - turned, *cpu, all_tokens, context.world_size)
        epoch = Epoch(number, config.epochs, loss, metrics, predictions, seconds, is_best, *whole)
        turned, cpu_at = now, cpu_now
        records["epochs"].append(asdict(epoch))
        weights = network.state_dict()
        if is_best:
            best = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
            records |= {"best_epoch": number, "best_value": value}
        sections = {"network": weights, "optimizer": optimizer.state()} | ({} if is_best else {"best": best})
        tensors = {f"{section}/{name}": one for section, of in sections.items() for name, one in of.items()}
        context.report(epoch, records, tensors)
    return records | {"best": best}


def ended(records: Mapping[str, Any], config: TrainingConfig) -> bool:
    """Whether nothing is left to be trained: all epochs are done, or too many without a better one."""
    done = len(records["epochs"])
    return done >= config.epochs or (done > 0 and done - records["best_epoch"] >= config.patience)


def final(checkpoint: Checkpoint) -> dict[str, Any]:
    """The state that the loop ends with, of its last checkpoint."""
    return checkpoint[0] | {"best": best_weights(checkpoint)}


def best_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Weights of the best epoch: the checkpoint's own, where that was the last."""
    records, tensors = checkpoint
    return _section(tensors, "network" if records["best_epoch"] == len(records["epochs"]) else "best")


def _section(tensors: Mapping[str, Tensor], section: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{section}/"): one for name, one in tensors.items() if name.startswith(f"{section}/")}


def _steps(predictions: float, config: TrainingConfig) -> int:
    size = config.batch_size or min(8_192, max(256, predictions // 400))
    return max(1, math.ceil(predictions / size))


def _value(metrics: dict[str, float], config: TrainingConfig, number: int) -> float:
    if not metrics:
        return float(number)
    return -metrics["loss"] if config.select_by == "loss" else metrics["ndcg"]


@contextlib.contextmanager
def _dice(seed: int, epoch: int, context: Context) -> Iterator[None]:
    devices = [context.device] if context.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed((seed * 1_000_003 + epoch) * 10_007 + context.rank)
        yield


def _total(context: Context, value: float) -> float:
    total = torch.tensor([value], dtype=torch.float64, device=context.device)
    context.add_up(total)
    return float(total)


def _pass(
    task: Task,
    gradients: Gradients,
    optimizer: Optimizer,
    config: TrainingConfig,
    context: Context,
    number: int,
    num_steps: int,
) -> tuple[float, int, int]:
    task.network.train()
    tokens = 0
    total = torch.zeros(2, dtype=torch.float64, device=context.device)  # loss and number, read once an epoch
    for step, micro_batches in enumerate(task.steps(number, num_steps)):
        gradients.clear()
        for micro_batch, last in _with_last(micro_batches):
            with torch.autocast(context.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                loss, size = task.loss(micro_batch)
            gradients.add(loss, size, last=last)
            tokens += getattr(micro_batch, "num_tokens", 0)
        total += gradients.share(config.max_gradient_norm)
        done = (number - 1) * num_steps + step
        optimizer.step(config.learning_rate * _schedule(done, num_steps * config.epochs, config.warmup))
    loss_sum, count = total.tolist()
    return loss_sum / max(1.0, count), round(count), tokens


def _with_last(some: Iterable[One]) -> Iterator[tuple[One, bool]]:
    """Each with whether it is the last."""
    iterator = iter(some)
    for held in iterator:
        for following in iterator:
            yield held, False
            held = following
        yield held, True


def _schedule(step: int, num_steps: int, warmup: float) -> float:
    """Share of the peak learning rate: a linear rise, then a cosine to a twentieth."""
    rise = max(1.0, warmup * num_steps)
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1.0, num_steps - rise)
    return 0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


@torch.inference_mode()
def _validation(task: Task, context: Context) -> dict[str, float]:
    task.network.eval()
    sums = task.validate()
    names = sorted(sums)
    if not names:
        return {}
    flat = torch.tensor([v for name in names for v in sums[name]], dtype=torch.float64, device=context.device)
    context.add_up(flat)
    pairs = flat.view(-1, 2).tolist()
    return {name: total / max(1.0, count) for name, (total, count) in zip(names, pairs, strict=True)}
