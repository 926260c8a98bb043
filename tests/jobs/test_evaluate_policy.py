"""What a policy would have earned follows from logged decisions, or it is said why not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from foretaste.cli import main
from foretaste.contracts.columns import DECISIONS, OUTCOMES
from foretaste.evaluation.offpolicy.lists import List, added, by_depth, measures_of, plain, rounds_table
from foretaste.evaluation.offpolicy.tables import rounds_of
from foretaste.feedback.decision_log import plain_rows
from foretaste.jobs.evaluate_policy import evaluate_policy
from foretaste.jobs.settings import Settings
from foretaste.ops.files import read_json, write_json, write_parquet
from foretaste.policies.epsilon_greedy import EpsilonGreedy
from foretaste.policies.plackett_luce import PlackettLuce
from foretaste.policies.slate import dice
from foretaste.sessions.spread import here, on_ray
from foretaste.testing.decisions import decision

BEGIN = datetime(2026, 1, 2, tzinfo=UTC)
TITLES = [f"t{number}" for number in range(6)]
PLAYED = np.array([0.1, 0.5, 0.2, 0.4, 0.3, 0.6])
SCORES = np.array([0.9, 0.6, 0.5, 0.3, 0.2, 0.1])
NUM = 1_500
PROGRAMS = "programs:\n  plays: {version: 1, reward: play}\n"


def made(folder: Path, policy: Any, *, num: int = NUM, open_from: int | None = None, **other: Any) -> Settings:
    """A workspace with the lists of a policy, two titles each, and what followed; from a number on it is open."""
    rng = np.random.default_rng(3)
    rows, followed = [], []
    for number in range(num):
        at = BEGIN + timedelta(minutes=number)
        order_C = rng.permutation(6)
        ids, scores_C = [TITLES[one] for one in order_C], np.sort(SCORES)[::-1]
        slate = policy.choose(scores_C, k=2, rng=dice(number))
        member = f"m{number % 90}"
        items = [
            {
                "title_id": ids[index], "score": scores_C[index], "position": place, "propensity": propensity,
                "source": "ranker", "explored": bool(explored),
            }
            for place, (index, propensity, explored) in enumerate(
                zip(slate.order_K.tolist(), slate.propensity_K.tolist(), slate.explored_K.tolist(), strict=True)
            )
        ]  # fmt: skip
        told = {"policy": policy.name, "policy_version": policy.version, "policy_params": json.dumps(policy.params)}
        told |= {"candidates": ids, "candidate_scores": scores_C.tolist(), "items": items, "member_id": member}
        at_us = round(at.timestamp() * 1e6)
        rows.append(decision(f"d{number:05d}", **told, at=at_us, seed=number, **other))
        for item in items:
            played = rng.uniform() < PLAYED[TITLES.index(item["title_id"])]
            waits = open_from is not None and number >= open_from
            followed.append(
                dict.fromkeys(OUTCOMES.names)
                | {
                    "decision_id": f"d{number:05d}", "actor_id": member, "member_id": member, "session_id": "s1",
                    "surface": "prequery", "at": at, "title_id": item["title_id"], "position": item["position"],
                    "propensity": item["propensity"], "as_of": BEGIN + timedelta(days=9), "closes_at": at,
                    "played_at": at if played else None, "num_plays": int(played), "num_completions": 0,
                    "reported": [], "open": ["play"] if waits and not played else [],
                }
            )  # fmt: skip
    settings = Settings.model_validate({"workspace": folder, "rewards": {"programs": folder / "rewards.yaml"}})
    (folder / "rewards.yaml").write_text(PROGRAMS)
    times = pa.schema([pa.field(f.name, pa.int64() if pa.types.is_timestamp(f.type) else f.type) for f in DECISIONS])
    table = pa.Table.from_pylist(rows, schema=times).cast(DECISIONS)
    write_parquet(table, settings.tables.serving / "decisions" / "20260102T000000-1-a-000000.parquet")
    write_parquet(pa.Table.from_pylist(followed, schema=OUTCOMES), settings.tables.outcomes / "o" / "b.parquet")
    write_json({}, settings.tables.outcomes / "o" / "manifest.json")
    return settings


def asked(settings: Settings, **more: Any) -> dict[str, Any]:
    return evaluate_policy(settings, **{"program": "plays", "spread": here, **more}).record


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return made(tmp_path_factory.mktemp("explored"), EpsilonGreedy(0.5))


def test_the_logging_policy_itself_is_answered_without_error_and_promoted(explored: Settings) -> None:
    settings = explored.model_copy(update={"serving": explored.serving.model_copy(update={"epsilon": 0.5})})
    found = asked(settings, policy="epsilon_greedy")
    assert found["answers"]
    assert found["places"] == 2
    estimates, gap = found["answer"]["estimates"], found["answer"]["difference"]
    for name in ("ips", "snips"):
        assert estimates[name]["value"] == pytest.approx(found["answer"]["logged"]["value"], rel=1e-12)
    # by the model: what its own dice are worth in the mean, so that their luck is all that it differs by
    assert found["answer"]["recommended"] == "sndr"
    assert gap["low"] <= 0.0 <= gap["high"]
    assert estimates["sndr"]["standard_error"] < 1.1 * estimates["snips"]["standard_error"]
    assert found["gate"]["verdict"] == "promote"
    assert found["protocol"]["lists"] == NUM
    assert found["protocol"]["left_out"] == {}


def test_another_policy_is_estimated_by_its_own_probabilities_and_its_true_value_lies_in_the_interval(
    explored: Settings,
) -> None:
    found = asked(explored, policy="greedy")
    # whatever the pool, the greedy list is of titles in random order: every title is as likely at each place
    assert found["answer"]["interval"]["low"] < PLAYED.mean() < found["answer"]["interval"]["high"]
    assert found["depths"][0]["unsupported_share"] == 0.0
    assert found["depths"][0]["effective_lists"] > found["depths"][1]["effective_lists"] > 100
    folder = Path(found["out"])
    assert read_json(folder / "report.json")["answer"] == found["answer"]
    page = (folder / "report.html").read_text()
    assert "effective" in page or "of equal weight" in page
    assert page.count("data:image/svg+xml") == 2
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_reward_model_of_other_actors_makes_estimates_surer_and_moves_none_of_them_far(explored: Settings) -> None:
    found = asked(explored, policy="greedy")
    assert found["protocol"]["reward_model"].startswith(
        "ridge, across 5 folds of actors; of what is held out it explains"
    )
    estimates = found["answer"]["estimates"]
    for plain_one, with_model in (("ips", "dr"), ("snips", "sndr")):
        gap = estimates[with_model]["value"] - estimates[plain_one]["value"]
        assert abs(gap) < 2 * estimates[plain_one]["standard_error"]
        assert estimates[with_model]["low"] < PLAYED.mean() < estimates[with_model]["high"]
    assert estimates["dr"]["standard_error"] < 0.9 * estimates["ips"]["standard_error"]
    few = explored.policy_evaluation.model_copy(update={"folds": 0})
    without = asked(explored.model_copy(update={"policy_evaluation": few}), policy="greedy")
    assert without["protocol"]["reward_model"] == "none: policy_evaluation.folds is below 2"
    assert without["answer"]["recommended"] == "snips"
    for name in ("ips", "snips"):
        assert without["answer"]["estimates"][name] == estimates[name]


def test_a_file_of_its_probabilities_gives_the_same(explored: Settings, tmp_path: Path) -> None:
    table = pa.concat_tables([pa.parquet.read_table(p) for p in (explored.tables.serving / "decisions").glob("*")])
    told = []
    policy = PlackettLuce(temperature=0.5)
    for row in plain_rows(table):
        scores_C = np.log(np.maximum(np.array(row["candidate_scores"]), 1e-12))
        at = [row["candidates"].index(item["title_id"]) for item in row["items"]]
        chances = [policy.distribution(scores_C, at[:k])[one] for k, one in enumerate(at)]
        told += [
            {"decision_id": row["decision_id"], "title_id": item["title_id"], "probability": float(p)}
            for item, p in zip(row["items"], chances, strict=True)
        ]
    path = tmp_path / "p.parquet"
    write_parquet(pa.Table.from_pylist(told), path)
    exploring = explored.serving.exploring.model_copy(update={"temperature": 0.5})
    serving = explored.serving.model_copy(update={"exploring": exploring})
    by_rows = asked(explored.model_copy(update={"serving": serving}), policy="plackett_luce")
    by_file = asked(explored, probabilities=path)
    assert by_file["answer"]["estimates"]["ips"]["value"] == pytest.approx(
        by_rows["answer"]["estimates"]["ips"]["value"], rel=1e-9
    )
    write_parquet(pa.Table.from_pylist([*told[:-1], told[-1] | {"probability": 1.5}]), path)
    with pytest.raises(ValueError, match=rf"probability of row {len(told) - 1} is 1\.5, wanted in \[0, 1\]"):
        asked(explored, probabilities=path)
    write_parquet(pa.Table.from_pylist(told[: len(told) // 2]), path)
    half = asked(explored, probabilities=path)
    assert not half["answers"]
    assert "50.0% of the decisions are left out" in half["refusals"][0]
    assert half["gate"]["verdict"] == "collect_more_data"


def test_a_log_without_dice_cannot_speak_for_another_policy_and_says_so(tmp_path: Path) -> None:
    settings = made(tmp_path, EpsilonGreedy(0.0), num=300)
    found = asked(settings, policy="plackett_luce")
    assert not found["answers"]
    assert "no_support" in found["answer"]["refusals"]
    assert "are never made" in found["refusals"][0]
    assert found["gate"]["verdict"] == "collect_more_data"
    assert main(["evaluate-policy", "--workspace", str(tmp_path), "--policy", "greedy", "--program", "plays",
                 "--set", f"rewards.programs={tmp_path / 'rewards.yaml'}"]) == 0  # fmt: skip
    assert main(["evaluate-policy", "--workspace", str(tmp_path), "--policy", "plackett_luce", "--program", "plays",
                 "--set", f"rewards.programs={tmp_path / 'rewards.yaml'}"]) == 1  # fmt: skip


def test_decisions_count_up_to_the_first_that_is_open(tmp_path: Path) -> None:
    settings = made(tmp_path, EpsilonGreedy(0.5), num=400, open_from=250)
    found = asked(settings, policy="greedy")
    assert 245 < found["protocol"]["lists"] <= 252  # what is known early among later ones is not what is known late
    assert found["protocol"]["states"]["open"] > 50


def test_what_was_logged_by_nobody_that_is_known_or_was_changed_is_left_out_with_its_reason(tmp_path: Path) -> None:
    settings = made(tmp_path, EpsilonGreedy(0.5), num=200)
    path = next((settings.tables.serving / "decisions").glob("*.parquet"))
    frame = pl.read_parquet(path)
    number = pl.int_range(pl.len())
    changed = frame.with_columns(
        policy=pl.when(number < 3).then(pl.lit("of before")).otherwise("policy"),
        policy_params=pl.when(number == 5).then(pl.lit('{"epsilon": 0.4}')).otherwise("policy_params"),
    )
    write_parquet(changed.to_arrow().cast(DECISIONS), path)
    left = asked(settings, policy="greedy")["protocol"]["left_out"]
    assert left == {
        "there is no policy 'of before'": 3,
        "the logged propensities are not those that its policy gives": 1,
    }


def test_what_cannot_be_asked_is_said(explored: Settings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="linucb: no posterior was ever published"):
        asked(explored, policy="linucb")
    with pytest.raises(ValueError, match="wanted one of epsilon_greedy"):
        asked(explored, policy="mine")
    with pytest.raises(FileNotFoundError, match="no release r1"):
        asked(explored, release="r1")
    with pytest.raises(ValueError, match="the file is the policy"):
        asked(explored, probabilities=tmp_path / "p.parquet", policy="greedy")


def test_measures_of_parts_add_up_and_survive_json() -> None:
    rng = np.random.default_rng(0)

    def one(actor: int) -> List:
        logging_KC = rng.dirichlet(np.ones(4), size=2)
        chosen_K = np.array([int(rng.choice(4, p=p)) for p in logging_KC])
        told_K = logging_KC[np.arange(2), chosen_K]
        return List(actor, chosen_K, rng.random(2), told_K, rng.random(2), logging_KC, np.array([0.1, 0.2]))

    lists = [one(number) for number in range(50)]
    whole = by_depth(lists, depth=3)
    parts = added([by_depth(lists[:20], depth=3), by_depth(lists[20:], depth=3)])
    for a, b in zip(whole, parts, strict=True):
        again = measures_of(json.loads(json.dumps(plain(b))))
        assert plain(a).keys() == plain(again).keys()
        for name, value in plain(a).items():
            np.testing.assert_allclose(
                np.array(plain(again)[name] or 0.0, dtype=float), np.array(value or 0.0, dtype=float), rtol=1e-12
            )
    expected = np.mean([0.1 + one.weight_K[0] * 0.2 for one in lists])
    assert whole[1].unsupported_share == pytest.approx(expected)
    rounds = rounds_of(rounds_table(lists))
    assert rounds.weight_R[1] == pytest.approx(lists[0].weight_K[1])


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data trips over its own on making a context
def test_ray_comes_to_the_same_also_where_intervals_are_of_some_actors(explored: Settings, local_ray: None) -> None:
    whole = asked(explored, policy="greedy")
    assert asked(explored, policy="greedy", spread=on_ray)["answer"] == whole["answer"]
    few = explored.policy_evaluation.model_copy(update={"rounds_in_memory": 1_500})
    part = asked(explored.model_copy(update={"policy_evaluation": few}), policy="greedy")
    for name in ("ips", "snips"):
        assert part["whole_log"][name] == pytest.approx(whole["answer"]["estimates"][name]["value"], rel=1e-9)
    gaps = [found["answer"]["difference"]["standard_error"] for found in (whole, part)]
    assert gaps[1] > 1.1 * gaps[0]
