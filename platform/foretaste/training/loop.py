"""The one training loop: the same in one process and on every Ray Train worker.

Gradients are sums over predictions, added up over micro-batches and workers and divided by the number of
predictions once, so that neither the size of a micro-batch nor the number of workers changes what is learned.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from foretaste.training.config import TrainingConfig


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

    @property
    def rate(self) -> float:
        """Predictions trained a second."""
        return self.predictions / self.seconds if self.seconds > 0 else 0.0


class Context(Protocol):
    """Where the loop runs."""

    rank: int
    world_size: int
    device: torch.device

    def add_up(self, flat: Tensor) -> None:
        """Replace a tensor by its sum over all workers."""
        ...

    def resume(self) -> dict[str, Any] | None:
        """Give the state of the last checkpoint, or None."""
        ...

    def report(self, epoch: Epoch, state: dict[str, Any]) -> None:
        """Record an epoch and the state after it; every worker calls this, the first one's state is kept."""
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
    exactly as if it had not been. The state holds `epochs` (records), `best` (weights of the best epoch by
    validation, or of the last one without validation), `best_epoch` and what is needed to go on.
    """
    network = task.network.to(context.device)
    optimizer = torch.optim.AdamW(
        _decay_groups(network, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.98), fused=True
    )
    num_steps = _steps(_total(context, task.num_predictions), config)
    state = context.resume() or {"epochs": [], "best": None, "best_epoch": 0, "best_value": -math.inf}
    if state["epochs"]:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
    for number in range(len(state["epochs"]) + 1, config.epochs + 1):
        if state["epochs"] and number - 1 - state["best_epoch"] >= config.patience:
            break
        with _dice(config.seed, number, context.rank):
            started = clock()
            loss, predictions = _pass(task, optimizer, config, context, number, num_steps)
            seconds = clock() - started
        metrics = _validation(task, context)
        value = _value(metrics, config, number)
        best = value > state["best_value"]
        epoch = Epoch(number, config.epochs, loss, metrics, predictions, seconds, best)
        state["epochs"].append(asdict(epoch))
        if best:
            weights = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
            state |= {"best": weights, "best_epoch": number, "best_value": value}
        state |= {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        context.report(epoch, state)
    return state


def _steps(predictions: float, config: TrainingConfig) -> int:
    size = config.batch_size or min(8_192, max(256, predictions // 400))
    return max(1, math.ceil(predictions / size))


def _value(metrics: dict[str, float], config: TrainingConfig, number: int) -> float:
    if not metrics:
        return float(number)
    return -metrics["loss"] if config.select_by == "loss" else metrics["ndcg"]


def _decay_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in network.parameters() if p.dim() >= 2]
    vectors = [p for p in network.parameters() if p.dim() < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


@contextlib.contextmanager
def _dice(seed: int, epoch: int, rank: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((seed * 1_000_003 + epoch) * 10_007 + rank)
        yield


def _total(context: Context, value: float) -> float:
    total = torch.tensor([value], dtype=torch.float64, device=context.device)
    context.add_up(total)
    return float(total)


def _pass(
    task: Task, optimizer: torch.optim.Optimizer, config: TrainingConfig, context: Context, number: int, num_steps: int
) -> tuple[float, int]:
    network = task.network.train()
    parameters = [p for p in network.parameters() if p.requires_grad]
    total_loss, total = 0.0, 0
    for step, micro_batches in enumerate(task.steps(number, num_steps)):
        rate = config.learning_rate * _schedule(
            (number - 1) * num_steps + step, num_steps * config.epochs, config.warmup
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss, count = 0.0, 0
        for micro_batch in micro_batches:
            part, size = task.loss(micro_batch)
            part.backward()  # type: ignore[no-untyped-call]
            loss, count = loss + float(part.detach()), count + size
        loss, count = _share_gradients(parameters, loss, count, context)
        nn.utils.clip_grad_norm_(parameters, config.max_gradient_norm)
        optimizer.step()
        total_loss, total = total_loss + loss, total + count
    return total_loss / max(1, total), total


def _share_gradients(parameters: list[nn.Parameter], loss: float, count: int, context: Context) -> tuple[float, int]:
    """Make every gradient the mean over all predictions of all workers; return their summed loss and number."""
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    if context.world_size > 1:
        sizes = [g.numel() for g in grads]
        tail = torch.tensor([loss, float(count)], device=context.device)
        flat = torch.cat([g.reshape(-1) for g in grads] + [tail])
        context.add_up(flat)
        loss, count = float(flat[-2]), round(float(flat[-1]))
        pieces = torch.split(flat[:-2], sizes)
        grads = [piece.view_as(p) for piece, p in zip(pieces, parameters, strict=True)]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad.div_(max(1, count))
    return loss, count


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
