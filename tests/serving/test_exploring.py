"""Who acts on a request, what stands in for it, what it may cost, and how that is told."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from foretaste.contracts.catalogue import catalogue
from foretaste.models.ranker_inputs import RankerInputs
from foretaste.ops.bundles import fetch_bundle
from foretaste.policies.posterior import Posterior, PosteriorConfig
from foretaste.policies.register import CONTEXTUAL
from foretaste.serving.exploring import cold_of, read_as
from foretaste.serving.posteriors import Described, PublishedPosteriors, current_posterior, learned_of, publish
from foretaste.serving.recommender import Recommender
from foretaste.signals.candidates import CANDIDATE_COLUMNS
from foretaste.signals.views import TitleView
from foretaste.testing.fakes import NOW, two_genre_titles

BY_COLUMNS = Described(by="columns", columns=("plays_7d",), mean=(1.0,), deviation=(2.0,))


def posterior(rounds: int, width: int = 2) -> Posterior:
    """What so many rounds teach."""
    prior = Posterior.of(PosteriorConfig(kind="logistic"), width)
    x_RD = np.random.default_rng(rounds).normal(size=(rounds, width))
    return prior.learned(prior.gathered(x_RD, (x_RD[:, 0] > 0).astype(np.float64)))


def recommender(bench: Any, folder: Path | None = None, **exploring: Any) -> Recommender:
    """The chain with bounds, and the posteriors of a registry."""
    update = {"exploring": bench.config.exploring.model_validate(exploring)}
    bench.config = bench.config.model_copy(update=update)
    made: Recommender = bench.recommender()
    made.posteriors._registry = folder
    made.posteriors.refresh_if_new()
    return made


def features_of(bench: Any, decision_id: str | None) -> dict[str, str]:
    """`features` of a logged decision."""
    row = bench.decisions.get(decision_id or "")
    assert row is not None
    return {one["name"]: one["value"] for one in row["features"]}


@pytest.mark.parametrize("policy", sorted(CONTEXTUAL))
def test_a_policy_without_a_posterior_leaves_the_list_to_epsilon_greedy_and_says_so(bench: Any, policy: str) -> None:
    answer = bench.ask(policy=policy)
    assert (answer.policy.name, answer.policy.instead_of) == ("epsilon_greedy", policy)
    assert features_of(bench, answer.decision_id)["policy_asked"] == policy
    assert bench.ask(policy="plackett_luce").policy.instead_of is None


def test_a_policy_that_learns_acts_once_something_is_published_and_while_the_ranker_answers(
    bench: Any, tmp_path: Path
) -> None:
    on = recommender(bench, tmp_path)
    assert bench.ask(on=on, policy="logistic_thompson").policy.instead_of == "logistic_thompson"
    fingerprint = publish(tmp_path, "logistic_thompson", posterior(5), BY_COLUMNS, at=NOW)
    on.posteriors.refresh_if_new()
    answer = bench.ask(on=on, policy="logistic_thompson")
    assert (answer.policy.name, answer.policy.instead_of) == ("logistic_thompson", None)
    row = bench.decisions.get(answer.decision_id or "")
    assert row is not None
    assert json.loads(row["policy_params"])["posterior"] == fingerprint
    bench.ranker.failure = RuntimeError("broken")
    assert bench.ask(on=on, policy="logistic_thompson").policy.instead_of == "logistic_thompson"


def test_what_dice_give_up_is_told_logged_and_counted_and_stays_within_the_budget_of_the_surface(bench: Any) -> None:
    bounds = {"prequery": {"budget": 0.01, "epsilon": 0.1}}
    on = recommender(bench, surfaces=bounds, bounds={"budget": 0.5}, temperature=5.0)
    answer = bench.ask(on=on, policy="plackett_luce")
    assert answer.policy.price == pytest.approx(0.01, abs=1e-9)
    given_up, best = json.loads(features_of(bench, answer.decision_id)["exploration_price"])
    assert given_up / best == pytest.approx(answer.policy.price)
    told = {
        (one.name, one.labels["surface"], one.labels["policy"]): one.value
        for family in text_string_to_metric_families(on.metrics.text().decode())
        for one in family.samples
        if "estimated_reward" in one.name and one.name.endswith("_total")
    }
    assert told == {
        ("foretaste_estimated_reward_total", "prequery", "plackett_luce"): pytest.approx(best),
        ("foretaste_estimated_reward_given_up_total", "prequery", "plackett_luce"): pytest.approx(given_up),
    }
    assert bench.ask(on=on, policy="greedy").policy.price == 0.0


def test_cold_titles_get_their_share_of_the_places(bench: Any) -> None:
    bench.config = bench.config.model_copy(update={"epsilon": 0.0})
    on = recommender(bench, bounds={"cold_share": 0.5}, cold_plays=10)
    plays_N1 = on.lineup.main.loaded.views.read("m1", asof=0, elapsed_ms=0.0).titles.plays_all
    cold = {bench.catalogue.ids[code - 1] for code in range(1, len(plays_N1)) if plays_N1[code] <= 10}
    shown = [item for _ in range(100) for item in bench.ask(on=on, policy="epsilon_greedy", k=1).items]
    share = np.mean([item.title_id in cold for item in shown])
    assert 0.3 < share < 0.7
    for item in shown:
        assert item.propensity < 0.5 if item.title_id in cold else item.propensity == 0.5


def test_no_title_is_cold_where_nothing_is_known_of_any() -> None:
    known = catalogue(two_genre_titles())
    titles, codes_C = TitleView.absent(known), np.array([3, 1, 2], dtype=np.int32)
    assert cold_of(titles, codes_C, cold_plays=5) == ()
    titles.asof_ms[1], titles.plays_all[1] = 7, 9
    assert cold_of(titles, codes_C, cold_plays=5) == (0, 2)


def test_candidates_are_described_in_the_order_of_the_list(tmp_path: Path) -> None:
    num = len(CANDIDATE_COLUMNS)
    told_BCF = np.zeros((1, 3, num), dtype=np.float32)
    told_BCF[0, :, CANDIDATE_COLUMNS.index("plays_7d")] = [3.0, 5.0, 100.0]
    zeros, empty = np.zeros((1, 0), dtype=np.int32), np.zeros((1, 1), dtype=np.float32)
    codes_BC = np.array([[7, 8, 9]], dtype=np.int32)
    inputs = RankerInputs(
        told_BCF, empty, empty, codes_BC, zeros, zeros, np.zeros((1, 0, 1), dtype=np.float32), zeros.astype(np.bool_)
    )
    codes_C = np.array([9, 7, 8], dtype=np.int32)
    found_CD = BY_COLUMNS.features(inputs, codes_C, ranker=None, fingerprint=None)
    assert found_CD is not None
    assert found_CD.tolist() == [[1.0, 8.0], [1.0, 1.0], [1.0, 2.0]]
    of_last = Described(by="last_layer", ranker="r1")
    assert of_last.features(inputs, codes_C, ranker=object(), fingerprint="r1") is None


def test_scores_are_read_as_each_policy_wants_them() -> None:
    dealt_C = np.array([0.5, 0.25])
    assert read_as("plackett_luce", dealt_C, log=False).tolist() == np.log(dealt_C).tolist()
    assert read_as("plackett_luce", dealt_C, log=True).tolist() == dealt_C.tolist()
    assert read_as("linucb", dealt_C, log=False, kind="linear").tolist() == dealt_C.tolist()
    assert read_as("linucb", dealt_C, log=False, kind="logistic").tolist() == pytest.approx([0.0, np.log(1 / 3)])


def test_posteriors_are_published_whole_and_learned_on_from(tmp_path: Path) -> None:
    first = publish(tmp_path, "linucb", posterior(5), BY_COLUMNS, at=NOW)
    readers = PublishedPosteriors(tmp_path)
    assert (found := readers.of("linucb")) is not None
    assert found.published.fingerprint == first
    known, described = current_posterior(tmp_path, "linucb")
    assert (known.fingerprint, described) == (posterior(5).fingerprint, BY_COLUMNS)
    again = publish(tmp_path, "linucb", known.learned(posterior(9).evidence), described, at=NOW + timedelta(hours=1))
    readers.refresh_if_new()
    assert (found := readers.of("linucb")) is not None
    assert found.published.fingerprint == again != first
    before = learned_of(tmp_path, "linucb", first).published
    assert before.draws_MD.shape == (128, 2)
    path = fetch_bundle(tmp_path / "posteriors", "linucb").path / "published.safetensors"
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(bytes(body))
    with pytest.raises(ValueError, match="files have fingerprint"):
        learned_of(tmp_path, "linucb", again)
    assert PublishedPosteriors(tmp_path).of("linucb") is None
    with pytest.raises(ValueError, match="'greedy' reads no posterior"):
        publish(tmp_path, "greedy", posterior(5), BY_COLUMNS, at=NOW)


@pytest.mark.parametrize(
    "wrong",
    [
        {"by": "last_layer"},
        {"by": "last_layer", "ranker": "r1", "columns": ["plays_7d"]},
        {"by": "columns", "columns": ["mood"], "mean": [0.0], "deviation": [1.0]},
        {"by": "columns", "columns": ["plays_7d"], "mean": [], "deviation": [1.0]},
        {"by": "columns", "columns": ["plays_7d"], "mean": [0.0], "deviation": [0.0]},
    ],
)
def test_a_description_that_describes_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="described"):
        Described.model_validate(wrong)
