"""Rewards become what policies know: each once, as an online update would have it, for replicas and replays."""

from __future__ import annotations

import shutil
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from foretaste.feedback.decision_log import decision_tables, plain_rows
from foretaste.feedback.event_log import EventLog
from foretaste.feedback.past import Past
from foretaste.jobs import posteriors
from foretaste.jobs.evaluate_policy import evaluate_policy
from foretaste.jobs.outcomes import join
from foretaste.jobs.posteriors import learn, taught
from foretaste.jobs.settings import Settings
from foretaste.ops import bundles
from foretaste.ops import releases as filed
from foretaste.policies.posterior import Posterior
from foretaste.policies.worth import logits
from foretaste.serving.posteriors import PublishedPosteriors, current_posterior
from foretaste.serving.replay import Replay
from foretaste.sessions.spread import here
from foretaste.testing.fakes import NOW
from foretaste.testing.shop import Shop

PROGRAMS = "programs:\n  plays: {version: 1, reward: play}\n  clicks: {version: 1, reward: click}\n"
FIRST = NOW + timedelta(days=5)
"""When the windows of what was answered first are closed, and nothing else was."""


def visit(shop: Shop, service: Any, *, policy: str, num: int) -> None:
    """Lists of four titles for a few members, who play the first of every other one."""
    for number in range(num):
        member = f"m{number % 5}"
        answer = shop.ask(service, member, k=4, policy=policy, session_id="s1")
        shop.clock.move(seconds=30)
        if number % 2:
            shop.act(service, answer.items[0].title_id, member)
        shop.clock.move(seconds=300)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A service that answered by epsilon-greedy."""
    shop = Shop(tmp_path_factory.mktemp("posteriors") / "workspace", audit_share=1.0)
    shop.folder.mkdir(exist_ok=True)
    shop.promote(shop.release(1))
    (shop.folder / "rewards.yaml").write_text(PROGRAMS)
    with closing(shop.open()) as service:
        visit(shop, service, policy="epsilon_greedy", num=30)
    config = {"workspace": shop.folder, "serving": shop.serving, "rewards": {"programs": shop.folder / "rewards.yaml"}}
    settings = Settings.model_validate(config)
    join(settings, as_of=FIRST.isoformat(), spread=here)
    return settings


@pytest.fixture
def settings(base: Settings, tmp_path: Path) -> Settings:
    """A copy of it."""
    shutil.copytree(base.tables.root, tmp_path / "workspace")
    return base.model_copy(update={"workspace": tmp_path / "workspace"})


def learned(settings: Settings, policy: str = "logistic_thompson", **more: Any) -> dict[str, Any]:
    return learn(settings, policy=policy, **{"program": "plays", "now": FIRST, "spread": here, **more})


@pytest.mark.parametrize("policy", ["linear_thompson", "logistic_thompson", "neural_thompson"])
def test_it_is_what_an_update_a_decision_would_have_given_and_no_reward_counts_twice(
    settings: Settings, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[pa.Table] = []

    def noted(before: Posterior | None, lessons: pa.Table, **more: Any) -> Any:
        seen.append(lessons)
        return taught(before, lessons, **more)

    monkeypatch.setattr(posteriors, "taught", noted)
    found = learned(settings, policy)
    assert (found["decisions"], found["rewards"], found["left_out"]) == (30, 120, {})
    posterior, described = current_posterior(settings.tables.registry, policy)
    assert described.by == ("last_layer" if policy == "neural_thompson" else "columns")
    rows = {row["decision_id"]: row for table in decision_tables(settings.tables.serving / "decisions")
            for row in plain_rows(table)}  # fmt: skip
    online = Posterior.of(posterior.config, posterior.width)
    lessons = sorted(seen[0].to_pylist(), key=lambda one: (one["at"], one["decision_id"], one["position"]))
    assert sum(one["reward"] for one in lessons) > 5
    for first in range(0, 120, 4):
        part = lessons[first : first + 4]
        row = rows[part[0]["decision_id"]]
        scores = [item["score"] for item in row["items"]]
        odds = scores if policy == "linear_thompson" else logits(np.array(scores))
        assert [one["offset"] for one in part] == pytest.approx(odds)
        online = online.learned(
            online.gathered(
                np.array([one["features"] for one in part]),
                np.array([one["reward"] for one in part]),
                at_us=row["at"],
                offset_R=np.array([one["offset"] for one in part]),
            )
        )
    assert online.fingerprint == posterior.fingerprint
    again = learned(settings, policy, now=FIRST + timedelta(days=1))
    assert (again["decisions"], again["posterior"]) == (0, found["posterior"])
    table = seen[0].sort_by([("at", "ascending"), ("decision_id", "ascending")])
    halves = taught(None, table.slice(0, 60), settings=settings, policy=policy)[0]
    whole = taught(halves, table.slice(60), settings=settings, policy=policy)[0]
    assert whole.fingerprint == posterior.fingerprint


def test_a_kill_at_any_step_loses_nothing_and_counts_nothing_twice(
    base: Settings, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(base.tables.root, tmp_path / "whole")
    wanted = learned(base.model_copy(update={"workspace": tmp_path / "whole"}))["posterior"]

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for place, name in ((posteriors, "publish"), (bundles, "promote")):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(place, name, killed)
            learned(settings)
        assert PublishedPosteriors(settings.tables.registry).of("logistic_thompson") is None
    found = learned(settings, now=FIRST + timedelta(seconds=1))
    assert (found["posterior"], found["decisions"]) == (wanted, 30)
    folder = settings.tables.registry / "posteriors" / "logistic_thompson" / "counted"
    assert len(list(folder.glob("*.parquet"))) == 1


def test_replicas_choose_by_it_and_decisions_of_before_and_after_are_made_again(settings: Settings) -> None:
    first = learned(settings)["posterior"]
    shop = Shop(settings.tables.root, audit_share=1.0)
    shop.clock.move(seconds=6 * 86_400)
    with closing(shop.open()) as service:
        assert shop.ask(service, dry_run=True, policy="logistic_thompson").policy.instead_of is None
        visit(shop, service, policy="logistic_thompson", num=12)
        join(settings, as_of=(shop.clock.now + timedelta(days=5)).isoformat(), spread=here)
        second = learned(settings, now=shop.clock.now)
        assert second["decisions"] == 12
        service.housekeep()
        visit(shop, service, policy="logistic_thompson", num=6)
    rows = [row for table in decision_tables(settings.tables.serving / "decisions") for row in plain_rows(table)]
    chose = [row for row in rows if row["policy"] == "logistic_thompson"]
    assert sum(first in row["policy_params"] for row in chose) == 12
    assert sum(second["posterior"] in row["policy_params"] for row in chose) == 6
    tables = settings.tables
    join(settings, as_of=(shop.clock.now + timedelta(days=5)).isoformat(), spread=here)
    past = Past(EventLog(tables.serving / "events").read())
    tally = Replay(tables.registry, tables.prepared, None).compare(rows, past)
    assert (tally.decisions, tally.mismatches, tally.left_out) == (len(rows), {}, {})
    judged = evaluate_policy(settings, policy="logistic_thompson", program="plays", spread=here).record
    assert judged["protocol"]["lists"] == 6  # what it learned from does not judge it
    assert judged["protocol"]["left_out"] == {}
    assert judged["answer"]["difference"] is None
    assert judged["answer"]["refusals"] == ["too_short", "few_effective_rounds", "one_round_decides"]
    assert judged["depths"][0]["mean_weight"] == pytest.approx(1.0)


def test_what_cannot_be_learned_is_said(settings: Settings) -> None:
    with pytest.raises(ValueError, match="reads no posterior"):
        learned(settings, "greedy")
    learned(settings)
    with pytest.raises(ValueError, match=r"learned from program plays .* --anew begins again"):
        learned(settings, program="clicks")
    anew = learned(settings, program="clicks", anew=True, now=datetime(2026, 2, 1, tzinfo=UTC))
    assert anew["decisions"] == 30


def test_a_release_is_judged_by_its_own_models_on_what_was_known_then(settings: Settings) -> None:
    shop = Shop(settings.tables.root)
    same, other = filed.releases(shop.registry)[0].name, shop.release(2)
    asked: dict[str, Any] = {"policy": "epsilon_greedy", "program": "plays", "spread": here, "places": 1}
    by_same, by_other = (evaluate_policy(settings, **asked, release=name).record for name in (same, other))
    for found in (by_same, by_other):
        assert (found["protocol"]["lists"], found["protocol"]["left_out"]) == (30, {})
    assert by_same["depths"][0]["effective_lists"] == pytest.approx(30.0)
    assert by_same["depths"][0]["mean_weight"] == pytest.approx(1.0)
    assert by_same["depths"][0]["unsupported_share"] == 0.0
    assert by_other["depths"][0]["effective_lists"] < 30.0
    assert by_other["target"]["release"] == other
    assert by_other["gate"]["verdict"] == "collect_more_data"
