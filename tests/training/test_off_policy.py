"""The ranker learns from logged decisions: what is trained is what is served, and it is judged by others' decisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from foretaste.contracts.columns import ROUNDS
from foretaste.contracts.events import ACTIONS
from foretaste.models.ranker import Ranker, RankerConfig
from foretaste.models.ranker_heads import Head
from foretaste.models.ranker_inputs import RankerInputs
from foretaste.models.ranker_scorer import RankerScorer
from foretaste.ops.bundles import fetch_bundle
from foretaste.policies.plackett_luce import PlackettLuce
from foretaste.policies.worth import log_values
from foretaste.testing.learning import KNOWN, NOW, NothingKnown, even_decisions, trained_workspace
from foretaste.training.config import LearnTrainingConfig, TrackingConfig
from foretaste.training.decided import decided
from foretaste.training.off_policy import LearnConfig, Learned, check, train_off_policy
from foretaste.training.off_policy_lists import LoggedLists
from foretaste.training.off_policy_objectives import Objective, log_chances
from foretaste.training.off_policy_ranker import RankerPolicy

OFF = TrackingConfig(enabled=False)
PLAIN = LearnTrainingConfig(
    executor="plain", epochs=12, patience=12, batch_size=256, learning_rate=0.03, num_workers=1,
    cpus_per_worker=0.5,
)  # fmt: skip
LEARN = LearnConfig(objective=Objective.SNIPS, training=PLAIN)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_workspace(tmp_path_factory.mktemp("learn"))


def run(root: Path, storage: Path, config: LearnConfig, number: int = 500) -> Learned:
    decisions, rewards = even_decisions(number)
    return train_off_policy(
        root / "prepared", root / "registry", NothingKnown(), decisions, rewards, config=config, temperature=0.5,
        lineage={"program": "p"}, storage=storage, tracking=OFF, now=NOW,
        on_progress=lambda _: None,
    )  # fmt: skip


def earned(rounds: pa.Table) -> float:
    target_R, propensity_R, reward_R = (rounds[name].to_numpy() for name in ("target", "propensity", "reward"))
    weight_R = target_R / propensity_R
    return float((weight_R * reward_R).sum() / weight_R.sum())


@pytest.mark.parametrize("objective", [Objective.SNIPS, Objective.DR])
def test_it_earns_more_by_decisions_of_actors_of_whom_it_learned_nothing_and_waits(
    trained: Path, tmp_path: Path, objective: Objective
) -> None:
    config = LearnConfig.model_validate(LEARN.model_dump() | {"objective": objective})
    before = fetch_bundle(trained / "registry", "ranker").version
    found = run(trained, tmp_path / "runs", config)
    assert fetch_bundle(trained / "registry", "ranker").version == before == found.before.version
    assert found.bundle.version != before
    assert found.rounds.schema.equals(ROUNDS)
    assert found.rounds.num_rows == found.counts["judging"] > 100
    assert found.rounds["reward"].equals(found.rounds_before["reward"])
    assert earned(found.rounds) > earned(found.rounds_before) + 0.1
    about = found.bundle.manifest["about"]
    assert about["intent_fingerprint"] == found.before.manifest["about"]["intent_fingerprint"]
    assert (about["learned_from"], about["temperature"], about["lineage"]) == (before, 0.5, {"program": "p"})


def test_only_the_last_layer_learns_unless_all_is_to(trained: Path, tmp_path: Path) -> None:
    short = LEARN.model_copy(update={"training": PLAIN.model_copy(update={"epochs": 1})})
    before = weights(fetch_bundle(trained / "registry", "ranker").path)
    last = weights(run(trained, tmp_path / "last", short, number=150).bundle.path)
    changed = {name for name in before if not torch.equal(before[name], last[name])}
    assert changed == {"out.weight", "out.bias"}
    whole = short.model_copy(update={"layers": "all"})
    everything = weights(run(trained, tmp_path / "all", whole, number=150).bundle.path)
    assert {"downs.0.weight", "deep.0.weight"} < {n for n in before if not torch.equal(before[n], everything[n])}


@pytest.mark.parametrize(
    ("rewards", "objective", "message"),
    [
        ([1.0], Objective.SNIPS, "rewards are 1.0: nothing tells one choice from another"),
        ([0.5, 2.0], Objective.REGRESSION, r"regression wants rewards of 0..1, found 0.5 to 2.0"),
        ([0.0, -1.0], Objective.CROSS_ENTROPY, "no reward is above 0"),
    ],
)
def test_rewards_that_cannot_teach_are_refused(rewards: list[float], objective: Objective, message: str) -> None:
    reward_BK = np.resize(np.array(rewards), (4, 2))
    lists = LoggedLists.of(
        some_inputs().rows(np.array([0, 1, 2, 0])),
        real=np.ones((4, 6), dtype=np.bool_),
        chosen=np.tile([0, 1], (4, 1)),
        propensity=np.tile([0.5, 0.5], (4, 1)),
        reward=reward_BK,
        actor=np.arange(4),
    )
    with pytest.raises(ValueError, match=message):
        check(lists, LearnConfig(objective=objective))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "weights.safetensors")
    return found


def test_what_cannot_be_learned_from_is_left_out_and_said() -> None:
    decisions, rewards = even_decisions(4)
    rows = decisions.to_pylist()
    rows[0]["items"] = [item | {"propensity": 1.0} for item in rows[0]["items"]]
    rows[1]["candidates"] = [*rows[1]["candidates"], "gone"]
    rows[2]["candidates"] = rows[2]["candidates"][1:] + rows[2]["candidates"][1:2]
    table = pa.Table.from_pylist(rows, schema=decisions.schema)
    found = decided(table, rewards, KNOWN, limit=10, seed=0)
    assert found.ids == ["d3"]
    assert found.left_out == {
        "that no dice took part in": 1, "with titles that the models do not know": 1,
        "whose list is not of their pool": 1,
    }  # fmt: skip
    assert found.code_BC[0].tolist() == KNOWN.codes(rows[3]["candidates"]).tolist()
    chosen = [rows[3]["candidates"][place] for place in found.chosen_BK[0]]
    assert chosen == [item["title_id"] for item in rows[3]["items"]]
    assert found.reward_BK[0].tolist() == rewards["reward"].to_pylist()[9:]
    assert found.at_B[0] == int(rows[3]["at"].timestamp() * 1e6)
    assert len(decided(decisions, rewards, KNOWN, limit=2, seed=0)) == 2
    with pytest.raises(ValueError, match="no decision to learn from: 4 without a known reward"):
        decided(decisions, rewards.slice(0, 0), KNOWN, limit=10, seed=0)


COLUMNS, REQUEST = ("a", "b"), ("hour",)


def drawn_ranker(order: dict[Head, float]) -> Ranker:
    torch.manual_seed(0)
    vectors = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    model = Ranker(RankerConfig(hidden=(8,), order=order, start_from="a"), COLUMNS, REQUEST, 2, 3, vectors)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.calibrate(dict.fromkeys(Head, (1.5, -0.5)))
    return model


def some_inputs() -> RankerInputs:
    rng = np.random.default_rng(1)
    cases, pool, recent = 3, 6, 4
    code_BC = np.array([rng.permutation(8)[:pool] + 1 for _ in range(cases)], dtype=np.int32)
    return RankerInputs(
        rng.normal(size=(cases, pool, 2)).astype(np.float32),
        rng.normal(size=(cases, 1)).astype(np.float32),
        rng.normal(size=(cases, 3)).astype(np.float32),
        code_BC,
        rng.integers(0, 9, size=(cases, recent)).astype(np.int32),
        rng.integers(1, len(ACTIONS), size=(cases, recent)).astype(np.int32),
        rng.normal(size=(cases, recent, 2)).astype(np.float32),
        rng.random((cases, recent)) < 0.5,
    )


@pytest.mark.parametrize("order", [{Head.PLAY: 1.0}, {Head.PLAY: 0.5, Head.THUMB: 2.0, Head.LIST: 0.3}])
def test_what_is_trained_is_the_softmax_that_is_served(order: dict[Head, float]) -> None:
    model, told = drawn_ranker(order), some_inputs()
    policy = RankerPolicy(model, "all").train()
    log_BC = policy(told)
    scores_BC = RankerScorer(model).scores(told)
    chosen_BK = torch.tensor([[2, 0], [5, 1], [3, 4]])
    chance_BKC = log_chances(log_BC / 0.25, torch.ones(log_BC.shape, dtype=torch.bool), chosen_BK).exp()
    served = PlackettLuce(temperature=0.25)
    for b in range(3):
        for above in (0, 1):
            placed = chosen_BK[b, :above].tolist()
            wanted_C = served.distribution(log_values(scores_BC[b]), placed)
            assert chance_BKC[b, above].detach().numpy() == pytest.approx(wanted_C, abs=2e-5)


def test_padding_is_finite_and_does_not_move_what_is_real() -> None:
    policy, told = RankerPolicy(drawn_ranker({Head.PLAY: 1.0}), "last"), some_inputs()
    padded = told.filled(length=6, multiple=8)
    log_BC = policy(padded)
    assert torch.isfinite(log_BC).all()
    assert torch.allclose(log_BC[:, :6], policy(told), atol=1e-5)
    worst = replace(told, features_BCF=1e6 * told.features_BCF)
    far_BC = policy(worst).detach()
    assert float((far_BC.amax(dim=1) - far_BC.amin(dim=1)).max()) <= np.log(1e6) + 1e-3


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data trips over its own on copying a context
def test_one_ray_worker_learns_as_this_process_does_and_two_share_the_decisions(
    local_ray: None, trained: Path, tmp_path: Path
) -> None:
    training = PLAIN.model_copy(update={"epochs": 2})
    config = LearnConfig(objective=Objective.SHIFTED, training=training)
    plain = run(trained, tmp_path / "plain", config, number=200)
    on_ray = config.model_copy(update={"training": training.model_copy(update={"executor": "ray"})})
    one = run(trained, tmp_path / "one", on_ray, number=200)
    assert [e["loss"] for e in one.epochs] == pytest.approx([e["loss"] for e in plain.epochs], rel=1e-4, abs=1e-6)
    shared = on_ray.model_copy(update={"training": training.model_copy(update={"executor": "ray", "num_workers": 2})})
    two = run(trained, tmp_path / "two", shared, number=200)
    assert {e["predictions"] for e in two.epochs} == {e["predictions"] for e in plain.epochs}
    assert earned(two.rounds) == pytest.approx(earned(plain.rounds), abs=0.05)
