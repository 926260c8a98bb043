"""Learning from logged decisions: from a decision log with rewards and the ranker that answers to a ranker that waits.

Actors are divided as for the ranker itself: of some nothing is ever learned, and what the result would have earned is
asked of their decisions alone.

Shapes: B decisions, C candidates, K places, R rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import load_file, save_file

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.columns import ROUNDS, conform
from foretaste.contracts.sessions import SessionRule
from foretaste.models.intent import build_intent
from foretaste.models.ranker_inputs import RankerInputs, join_inputs
from foretaste.models.ranker_scorer import build_ranker, ranker_bundle_config
from foretaste.ops.bundles import MANIFEST, Bundle, digest, fetch_bundle, file_bundle, find_bundle
from foretaste.ops.files import read_json, read_parquet, write_json, write_parquet
from foretaste.ops.tables import read_prepared
from foretaste.signals.histories import pack
from foretaste.signals.past_acts import PastActs
from foretaste.signals.ranked_past import Reading, SlowViews
from foretaste.training.config import LearnTrainingConfig, TrackingConfig, TrainingConfig
from foretaste.training.decided import Decided, decided, described
from foretaste.training.examples import COLUMNS
from foretaste.training.executors import executor
from foretaste.training.loop import Epoch
from foretaste.training.off_policy_lists import LoggedLists, join_lists
from foretaste.training.off_policy_objectives import Objective, ObjectiveConfig
from foretaste.training.off_policy_ranker import Layers, RankerPolicy, with_reward_model
from foretaste.training.off_policy_task import OffPolicyTask, all_rounds
from foretaste.training.ranker_cases import REPORT, folds_of
from foretaste.training.runs import run_name
from foretaste.training.tracking import recorded

CHOOSING = 0
"""Fold of the actors whose decisions choose the epoch."""
Lists = LoggedLists[RankerInputs]


class LearnConfig(ObjectiveConfig):
    """How the ranker learns from logged decisions."""

    layers: Layers = Field("last", description="what learns: the ranker's last layer, or all of it")
    temperature: float | None = Field(
        None, gt=0, description="of the softmax that is trained; null: that of serving.exploring"
    )
    max_decisions: int = Field(20_000, ge=1, description="decisions at most, drawn by the seed")
    training: LearnTrainingConfig = Field(
        LearnTrainingConfig(), description="how it is trained; epochs are chosen by what they would have earned"
    )


@dataclass(frozen=True, slots=True)
class Learned:
    """A ranker that was taught by decisions; it is filed, and answers nobody yet."""

    bundle: Bundle
    before: Bundle  # the ranker that it went on from
    intent_version: str
    epochs: list[dict[str, Any]]
    best_epoch: int
    rounds: pa.Table  # ROUNDS of the actors of whom nothing was learned, under the new ranker
    rounds_before: pa.Table  # the same under the ranker of before
    counts: dict[str, Any]


def train_off_policy(
    prepared: Path,
    registry: Path,
    features: SlowViews,
    decisions: pa.Table,
    rewards: pa.Table,
    *,
    config: LearnConfig,
    temperature: float,
    lineage: dict[str, Any],
    storage: Path,
    tracking: TrackingConfig,
    now: datetime,
    on_progress: Callable[[Epoch], None],
    read_events: int = 200,
    runs: str | None = None,
) -> Learned:
    """Go on training the current ranker by DECISIONS and their REWARDS and file it as bundle «ranker», not current.

    `temperature` is that of the softmax where the configuration has none; `lineage` goes into the manifest. Checkpoints
    go to `runs`, by default to `storage`, until it is filed. Raises ValueError where no decision can be learned from,
    all rewards are the same or, of regression, one is not in 0..1.
    """
    before = fetch_bundle(registry, "ranker")
    intent = find_bundle(registry, "intent", before.manifest["about"]["intent_fingerprint"])
    heat, training = config.temperature or temperature, config.training
    found, lists, title_N1D = _lists(
        prepared, intent, before, features, decisions, rewards, config, read_events=read_events
    )
    make = partial(_policy, before.path, title_N1D, config.layers)
    fold_B = folds_of(found.actors, read_json(before.path / "config.json")["model"]["folds"])
    learns_B = (fold_B != REPORT) & (fold_B != CHOOSING)
    lists = with_reward_model(make(), lists, learns_B)
    learn, choose, judge = (
        lists.rows(np.flatnonzero(rows_B)) for rows_B in (learns_B, fold_B == CHOOSING, fold_B == REPORT)
    )
    check(learn, config)
    num_rounds = int(learn.counts_BK.sum())
    shift = config.shift if config.shift is not None else float(learn.reward_BK[learn.counts_BK].mean())
    name = f"learn-{now:%Y%m%dT%H%M%S}"
    with recorded(tracking, name=name, storage=storage, about={"learn": config, "training": training}) as run:

        def on_epoch(epoch: Epoch) -> None:
            run.epoch(epoch)
            on_progress(epoch)

        taught = config.model_dump(mode="json", exclude={"training"}) | {"training": training.taught()}
        asked = run_name("learn", before.fingerprint, taught, heat, shift, learn, choose)
        runner = executor(training, place=runs or storage, name=asked)
        runner.load(_shares(learn, choose, training.num_workers), _same)
        make_task = partial(
            _task, make, config, heat, shift, num_rounds, bool(choose.counts_BK.any()), training
        )  # fmt: skip
        state = runner.train(make_task, training, on_epoch)
        policy = make()
        rounds_before = rounds_table(policy, judge, temperature=heat, weigh=config.weigh)
        policy.load_state_dict(state["best"])
        counts = {
            "decisions": len(lists), "left_out": dict(found.left_out), "rounds": num_rounds,
            "choosing": int(choose.counts_BK.sum()), "judging": int(judge.counts_BK.sum()),
        }  # fmt: skip
        about = before.manifest["about"] | {
            "learned_from": before.version,
            "learn_config": config.model_dump(mode="json"),
            "temperature": heat,
            "shift": shift,
            "best_epoch": state["best_epoch"],
            "counts": counts,
            "lineage": lineage,
        }
        with file_bundle(registry, "ranker", at=now, about=about, current=False) as folder:
            _write(policy, before, folder)
            fingerprint = digest(folder)
        filed = find_bundle(registry, "ranker", fingerprint)
        run.tag("bundle", filed.version)
        runner.forget()
    return Learned(
        filed, before, intent.version, state["epochs"], state["best_epoch"],
        rounds_table(policy, judge, temperature=heat, weigh=config.weigh), rounds_before, counts,
    )  # fmt: skip


def unlearned(actors: Sequence[str], ranker: Bundle) -> NDArray[np.bool_]:
    """Whether a ranker never learned from actors, neither by their choices nor by their decisions.

    Only their decisions say what it would earn: those of the others flatter it.
    """
    folds = int(read_json(ranker.path / "config.json")["model"]["folds"])
    found_B: NDArray[np.bool_] = folds_of(actors, folds) == REPORT
    return found_B


def rounds_table(policy: RankerPolicy, lists: Lists, *, temperature: float, weigh: str = "place") -> pa.Table:
    """ROUNDS of lists under a policy; an action is a place in its pool, a round one place of a list.

    With `weigh` above, chances are those of the list down to the place, of which the reward model says nothing.
    """
    counts_BK = lists.counts_BK
    row_R, place_R = np.nonzero(counts_BK)
    if not len(row_R):
        return ROUNDS.empty_table()
    policy.eval()
    said = all_rounds(policy, lists, temperature=temperature, weigh=weigh)
    chance_BK = np.cumprod(lists.propensity_BK, axis=1) if weigh == "above" else lists.propensity_BK
    propensity_R = chance_BK[counts_BK]
    none = pa.nulls(len(row_R))
    columns = {
        "chosen": lists.chosen_BK[counts_BK],
        "reward": lists.reward_BK[counts_BK],
        "propensity": propensity_R,
        "target": np.minimum(np.exp(said.log_ratio_R.numpy()) * propensity_R, 1.0),
        "position": place_R.astype(np.int32),
        "actor": np.unique(lists.actor_B[row_R], return_inverse=True)[1],  # numbers of this table, of nobody
        "predicted_reward": none if weigh == "above" else said.predicted_R.numpy(),
        "expected_reward": none if weigh == "above" else said.expected_R.numpy(),
        "target_every": none,
        "predicted_reward_every": none,
    }
    return conform(pa.table(columns), ROUNDS, what="rounds")


def _lists(
    prepared: Path, intent: Bundle, ranker: Bundle, features: SlowViews, decisions: pa.Table, rewards: pa.Table,
    config: LearnConfig, *, read_events: int,
) -> tuple[Decided, Lists, NDArray[np.float32]]:  # fmt: skip
    """The decisions as the ranker would have read them, and the title vectors that it reads."""
    known = catalogue(read_parquet(intent.path / "titles.parquet"))
    weights = load_file(intent.path / "weights.safetensors")
    model = build_intent(read_json(intent.path / "config.json"), known, weights)
    of_ranker = read_json(ranker.path / "config.json")["model"]
    found = decided(decisions, rewards, known, limit=config.max_decisions, seed=config.training.seed)
    manifest = read_json(prepared / MANIFEST)
    rule = SessionRule(**manifest.get("config", {}).get("rule", {}))
    acts = PastActs(read_prepared(prepared, "acts"), known, rule, limit=read_events)
    reading = Reading(
        model, known, features, acts, rule, bool(manifest["repeats"]),
        min(of_ranker["num_candidates"], len(known)), of_ranker["recent"],
    )  # fmt: skip
    timeline, names = pack(read_prepared(prepared, "interactions", columns=list(COLUMNS)), known)
    return found, described(found, timeline, names, reading), model.title_N1D


def _policy(folder: Path, title_N1D: NDArray[np.float32], layers: Layers) -> RankerPolicy:
    weights = load_file(folder / "weights.safetensors")
    return RankerPolicy(build_ranker(read_json(folder / "config.json"), weights, title_N1D).model, layers)


def check(learn: Lists, config: LearnConfig) -> None:
    """Raise ValueError where lists cannot teach by an objective, saying why."""
    reward_R = learn.reward_BK[learn.counts_BK]
    if not len(reward_R):
        raise ValueError("no place of these decisions was filled by dice for an actor who may be learned from")
    if reward_R.min() == reward_R.max():
        raise ValueError(f"all of {len(reward_R)} rewards are {reward_R[0]}: nothing tells one choice from another")
    if config.objective is Objective.REGRESSION and not ((reward_R >= 0) & (reward_R <= 1)).all():
        raise ValueError(f"regression wants rewards of 0..1, found {reward_R.min()} to {reward_R.max()}")
    if config.objective is Objective.CROSS_ENTROPY and not (reward_R > 0).any():
        raise ValueError("cross_entropy learns from what was rewarded, and no reward is above 0")


Payload = tuple[Lists, Lists]
"""What is learned from, and what chooses the epoch."""


def _shares(learn: Lists, choose: Lists, num_workers: int) -> list[Payload]:
    """Divide lists evenly among the workers."""
    return [
        (learn.rows(np.arange(n, len(learn), num_workers)), choose.rows(np.arange(n, len(choose), num_workers)))
        for n in range(num_workers)
    ]


def _same(part: Payload) -> tuple[Payload, int]:
    return part, len(part[0])


def _together(parts: Sequence[Lists]) -> Lists:
    return join_lists(parts, join_inputs([part.inputs for part in parts]))


def _task(
    make: Callable[[], RankerPolicy], config: LearnConfig, temperature: float, shift: float, num_rounds: int,
    has_left_out: bool, training: TrainingConfig, payloads: Sequence[Payload], rank: int,
) -> OffPolicyTask:  # fmt: skip
    learn, choose = (_together(parts) for parts in zip(*list(payloads), strict=True))
    return OffPolicyTask(
        make(), learn, training, config, temperature=temperature, shift=shift, num_rounds=num_rounds, rank=rank,
        left_out=choose, has_left_out=has_left_out, modelled=True,
    )  # fmt: skip


def _write(policy: RankerPolicy, before: Bundle, folder: Path) -> None:
    network = policy.ranker
    write_json(ranker_bundle_config(network), folder / "config.json")
    write_json(list(network.columns), folder / "columns.json")
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    save_file(tensors, folder / "weights.safetensors")
    write_parquet(read_parquet(before.path / "titles.parquet"), folder / "titles.parquet")
