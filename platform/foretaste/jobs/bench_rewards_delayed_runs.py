"""Two simulations of the service whose feedback comes late, in which every model learns anew each day.

*streamed*: titles are shown at random; each day every model goes on learning from what is known that morning of the
last weeks, and predicts the final feedback of the day's decisions before anything of them is seen.

*lived*: every way of labelling has a service of its own and chooses by its own model, so that it learns from what it
showed; afterwards all are asked what they would show to the same members.

Shapes: N decisions, C candidates.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from foretaste.contracts.config import Frozen
from foretaste.jobs.bench_rewards_delayed_stream import Stream, asked
from foretaste.models.delayed import DelayedConfig, DelayedModel
from foretaste.models.delayed_rows import Pending
from foretaste.models.delayed_zoo import delayed_model
from foretaste.rewards.predicted import chances
from foretaste.training.config import TrainingConfig
from foretaste.training.delayed_task import fit
from foretaste.worlds.delays import SIGNALS, DelayWorld, DelayWorldConfig

Floats = NDArray[np.float64]


class Simulation(Frozen):
    """How long and how large."""

    days: int = Field(36, ge=4, description="simulated days")
    scored_from: int = Field(16, ge=2, description="first day whose decisions are scored (streamed)")
    per_day: int = Field(800, ge=1, description="decisions a day")
    window_days: int = Field(28, ge=1, description="days of decisions that are learned from")
    candidates: int = Field(8, ge=2, description="titles that could be shown in a decision (lived)")
    epsilon: float = Field(0.1, ge=0, le=1, description="share of decisions that are made at random (lived)")
    asked_at_the_end: int = Field(2_000, ge=1, description="requests in which the last models are compared (lived)")
    repeats: int = Field(32, ge=1, description="journeys from which a true chance is taken")


@dataclass
class Aged:
    """Predictions for decisions of several ages."""

    age_N: list[Floats] = field(default_factory=list)
    chance_N: list[Floats] = field(default_factory=list)
    final_N: list[Floats] = field(default_factory=list)
    seen_N: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, model: DelayedModel, pending: Pending) -> None:
        """Predict decisions as they are known now; they have their final labels."""
        self.age_N.append(pending.age_N.astype(np.float64))
        self.chance_N.append(chances(model, pending))
        self.final_N.append(pending.final_N.astype(np.float64))
        self.seen_N.append(np.isfinite(pending.delay_N))


@dataclass
class Streamed:
    """What was predicted on the scored days, and what came."""

    final_N: Floats
    chance_N: dict[str, Floats]  # by model
    aged: dict[str, Aged]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model and how it is trained on a day."""

    model: DelayedConfig
    training: TrainingConfig


class Learners:
    """Models that learn a little every day."""

    def __init__(self, candidates: Mapping[str, Candidate], num_codes: int, seed: int) -> None:
        self.candidates, self.num_codes, self.seed = candidates, num_codes, seed
        self.models: dict[str, DelayedModel] = {}

    def learn(self, name: str, day: int, pending: Pending) -> None:
        """Go on learning; the first time a model is made."""
        if name not in self.models:
            sizes = {"num_columns": pending.context_NF.shape[1], "num_signals": len(SIGNALS)}
            model = delayed_model(self.candidates[name].model, **sizes, num_codes=self.num_codes, seed=self.seed)
            model.expect(pending.tensors(torch.device("cpu")))
            self.models[name] = model
        training = self.candidates[name].training.model_copy(update={"seed": self.seed * 1_000 + day})
        fit(self.models[name], pending, training)


def streamed(
    candidates: Mapping[str, Candidate],
    *,
    world: DelayWorldConfig,
    simulation: Simulation,
    seed: int,
    aged: Collection[str],
) -> Streamed:
    """Run the stream of one seed past all models; those of `aged` also predict decisions of every age."""
    service, rng = DelayWorld(world, seed), np.random.default_rng([seed, 1])
    stream, learners = Stream(service, rng), Learners(candidates, service.num_titles + 1, seed)
    found = Streamed(np.zeros(0), {name: np.zeros(0) for name in candidates}, {name: Aged() for name in aged})
    for day in range(simulation.days):
        since = day - simulation.window_days
        if day >= 2:
            pending = stream.known(day, since=since)
            truth = stream.known(day, since=since, final=True)
            for name, one in candidates.items():
                learners.learn(name, day, truth if one.model.method == "oracle" else pending)
        member_N, at_N, title_NC = service.requests(day, simulation.per_day, 1, rng)
        title_N = title_NC[:, 0]
        if day >= simulation.scored_from:
            now = asked(service, member_N, title_N, at_N)
            for name, model in learners.models.items():
                found.chance_N[name] = np.concatenate([found.chance_N[name], chances(model, now, asked=True)])
                if name in aged and (day - simulation.scored_from) % 3 == 0:
                    found.aged[name].add(model, truth)
        shown = stream.add(member_N, title_N, at_N)
        if day >= simulation.scored_from:
            found.final_N = np.concatenate([found.final_N, service.final(shown.journeys)])
    return found


def lived(
    candidates: Mapping[str, Candidate],
    *,
    world: DelayWorldConfig,
    simulation: Simulation,
    seed: int,
) -> dict[str, float]:
    """Value of each policy after the last day: the mean true chance of what it would show; also of any and of the best.

    Requests are the same for all, and so are the dice of the end.
    """
    service = DelayWorld(world, seed)
    learners = Learners(candidates, service.num_titles + 1, seed)
    for name, one in candidates.items():
        rng, asking = np.random.default_rng([seed, 2]), np.random.default_rng([seed, 3])
        stream = Stream(service, rng)
        for day in range(simulation.days):
            if day >= 2:
                learners.learn(name, day, _known(stream, day, one.model, simulation))
            member_N, at_N, title_NC = service.requests(day, simulation.per_day, simulation.candidates, asking)
            place_N = asking.integers(simulation.candidates, size=len(member_N))
            greedy_N = asking.random(len(member_N)) >= simulation.epsilon
            if name in learners.models:
                best_N = _best(service, learners.models[name], member_N, title_NC, at_N)
                place_N = np.where(greedy_N, best_N, place_N)
            stream.add(member_N, np.take_along_axis(title_NC, place_N[:, None], axis=1)[:, 0], at_N)
        learners.learn(name, simulation.days, _known(stream, simulation.days, one.model, simulation))
    return _values(service, learners, simulation, np.random.default_rng([seed, 4]))


def _known(stream: Stream, day: int, config: DelayedConfig, simulation: Simulation) -> Pending:
    return stream.known(day, since=day - simulation.window_days, final=config.method == "oracle")


def _values(
    service: DelayWorld, learners: Learners, simulation: Simulation, rng: np.random.Generator
) -> dict[str, float]:
    num = simulation.candidates
    member_N, at_N, title_NC = service.requests(simulation.days, simulation.asked_at_the_end, num, rng)
    flat = np.repeat(member_N, num), title_NC.ravel(), np.repeat(at_N, num)
    true_NC = service.chances(*flat, rng, repeats=simulation.repeats).reshape(title_NC.shape)
    values = {"any": float(true_NC.mean()), "best by truth": float(true_NC.max(axis=1).mean())}
    for name, model in learners.models.items():
        best_N = _best(service, model, member_N, title_NC, at_N)
        values[name] = float(np.take_along_axis(true_NC, best_N[:, None], axis=1).mean())
    return values


def _best(
    service: DelayWorld,
    model: DelayedModel,
    member_N: NDArray[np.int64],
    title_NC: NDArray[np.int64],
    at_N: Floats,
) -> NDArray[np.int64]:
    """Place of the candidate whose final feedback is likeliest."""
    num = title_NC.shape[1]
    now = asked(service, np.repeat(member_N, num), title_NC.ravel(), np.repeat(at_N, num))
    return np.asarray(chances(model, now, asked=True).reshape(title_NC.shape).argmax(axis=1))
