"""A logged answer is made again from marks, versions and fingerprints; whatever was changed since is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from foretaste.contracts import words
from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.controls import ControlsConfig
from foretaste.contracts.wire import EventsRequest, NextRequest, PolicyName, RankRequest, RecommendRequest
from foretaste.feedback.decision_log import DecisionLog, plain_rows
from foretaste.feedback.event_log import EventLog
from foretaste.feedback.past import Past
from foretaste.feedback.session_log import SessionLogConfig, open_session_log
from foretaste.ops.bundles import fetch_bundle
from foretaste.policies.posterior import Posterior, PosteriorConfig
from foretaste.policies.register import CONTEXTUAL
from foretaste.serving.config import ServiceConfig, ServingConfig
from foretaste.serving.posteriors import Described, publish
from foretaste.serving.replay import Replay
from foretaste.serving.service import open_service
from foretaste.serving.shaping import SURFACES
from foretaste.serving.tally import Tally
from foretaste.signals import crosses, in_session
from foretaste.signals.served import decode, encode
from foretaste.signals.views import ABSENT, MemberView, TitleView
from foretaste.surfaces.prequery import PREQUERY
from foretaste.testing.bundles import file_intent, file_ranker
from foretaste.testing.fakes import NOW, FakeClock, FakeViews, two_genre_titles

TITLES = two_genre_titles()
KNOWN = catalogue(TITLES)
LOG = SessionLogConfig(durable=False, read_events=12, window_days=2.0)
N = 70
POLICIES = tuple(name.value for name in PolicyName)
Rows = list[dict[str, Any]]

GROUPS = {"history", "signal", "member", "title", "intent", "candidate", "pool", "decision"}


class FakeVersions(FakeViews):
    """Slow views that are published anew every so often: their values follow from their version."""

    generation = "g1"

    def members(self, ids: Sequence[str | None], at: int) -> MemberView:
        return self.members_at(ids, np.array([ABSENT if one is None else self.asof_ms for one in ids]))

    def titles(self, catalogue: Catalogue, at: int) -> TitleView:
        codes = np.arange(1, len(catalogue) + 1)
        return self.titles_at(catalogue, codes, self.asof_ms + codes % 2)

    def members_at(
        self, ids: Sequence[str | None], asof_ms_B: NDArray[np.int64], generation: str | None = None
    ) -> MemberView:
        if (asof_ms_B > self.asof_ms).any():
            raise ValueError("a version that never was")
        view = super().members(ids, 0)
        view.count_7d_B[:] = np.where(asof_ms_B == ABSENT, 0, asof_ms_B % 1000)
        view.asof_ms_B[:] = asof_ms_B
        return view

    def titles_at(
        self,
        catalogue: Catalogue,
        codes_C: NDArray[Any],
        asof_ms_C: NDArray[np.int64] | int,
        generation: str | None = None,
    ) -> TitleView:
        if np.max(asof_ms_C) > self.asof_ms + 1:
            raise ValueError("a version that never was")
        view = TitleView.absent(catalogue)
        view.plays_7d[codes_C] = codes_C + asof_ms_C % 1000
        view.plays_all[codes_C] = 3 * codes_C + asof_ms_C % 1000
        view.asof_ms[codes_C] = asof_ms_C
        return view


class Logs:
    """What a service left behind."""

    def __init__(self, folder: Path, views: FakeVersions) -> None:
        self.folder = folder
        self.views = views
        with closing(DecisionLog(folder / "serving" / "decisions", clock=FakeClock())) as log:
            self.decisions = plain_rows(log.read())
        with closing(open_session_log(LOG, folder / "serving")) as sessions:
            events = EventLog(folder / "serving" / "events")
            events.ship(sessions)
            self.events = events.read()

    def compare(self, *, decisions: Rows | None = None, events: pa.Table | None = None) -> Tally:
        replay = Replay(self.folder / "registry", self.folder / "prepared", self.views)
        past = Past(self.events if events is None else events)
        return replay.compare(self.decisions if decisions is None else decisions, past)

    def with_events(self, change: Callable[[Rows], Rows]) -> Tally:
        return self.compare(events=pa.Table.from_pylist(change(self.events.to_pylist()), schema=self.events.schema))


def publish_posteriors(registry: Path, *, rounds: int) -> None:
    """Publish what policies that learn know after so many rounds."""
    ranker = fetch_bundle(registry, "ranker").fingerprint
    columns = ("intent_logprob", "plays_7d")
    by_columns = Described(by="columns", columns=columns, mean=(-4.0, 3.0), deviation=(2.0, 1.5))
    by_last_layer = Described(by="last_layer", ranker=ranker)
    for policy in CONTEXTUAL:
        described, width = (by_last_layer, 5) if policy == "neural_thompson" else (by_columns, 3)
        kind = "logistic" if policy in ("logistic_thompson", "neural_thompson") else "linear"
        posterior = Posterior.of(PosteriorConfig.model_validate({"kind": kind}), width)
        x_RD = np.random.default_rng(rounds).normal(size=(rounds, width))
        posterior = posterior.learned(posterior.gathered(x_RD, (x_RD[:, 0] > 0).astype(np.float64)))
        publish(registry, policy, posterior, described, at=NOW + timedelta(seconds=rounds), num_draws=16)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logs]:
    """Some hundred answers with the full path, guests among them, while slow views are published anew."""
    folder, clock = tmp_path_factory.mktemp("replay"), FakeClock()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    intent = file_intent(folder / "registry", TITLES, at=datetime(2026, 1, 1, tzinfo=UTC))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    file_ranker(folder / "registry", intent=intent.fingerprint, at=at, by_dice=True)
    views = FakeVersions(KNOWN)
    controls = ControlsConfig(
        continue_watching=2,
        similar=3,
        trending=2,
        new_releases=2,
        diversity=0.3,
        protected=2,
        max_move=1,
        long_term=0.5,
    )
    known: dict[str, Any] = {"audit_share": 1.0, "title_refresh_seconds": 60, "budget_ms": 60_000}
    known["exploring"] = {"bounds": {"epsilon": 0.1, "among": 8, "cold_share": 0.2, "budget": 0.5}, "cold_plays": 60}
    publish_posteriors(folder / "registry", rounds=30)
    serving = ServingConfig(epsilon=0.3, session_log=LOG, controls=controls, **known)
    shaped: Rows = [
        {},
        {},
        {"filter": '"comedy" in genres and not series'},
        {"boost": [{"where": '"drama" in genres', "factor": 3.0}, {"where": "age_days < 9", "factor": 0.5}]},
    ]
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setitem(SURFACES, "prequery", replace(PREQUERY, pool_size=16))
    config = ServiceConfig(workspace=folder, features_repo=Path("features"), serving=serving)
    with closing(open_service(config, source=views, clock=clock)) as service:
        dice = np.random.default_rng(0)
        for number in range(N):
            who: dict[str, Any] = {"member_id": f"m{dice.integers(4)}", "session_id": "s"}
            if dice.uniform() < 0.2:
                who = {"session_id": f"g{dice.integers(3)}"}
            late = timedelta(seconds=float(dice.choice([0, 5, -90, 4000, 200_000])))
            event = who | {"event_id": f"e{number}", "at": (clock.now - late).isoformat()}
            acts: Rows = [
                {"action": "play", "title_id": f"t{dice.integers(45):02d}", "dwell_seconds": 7.25},
                {"action": "stop", "title_id": f"t{dice.integers(9):02d}", "played_fraction": 0.05},
                {"action": "search", "query": "dark comedy"},
                {"action": "impression", "title_id": "t01"},
            ]
            event |= acts[int(dice.integers(4))]
            service.accept(EventsRequest.model_validate({"events": [event]}))
            clock.move(seconds=float(dice.exponential(300)))
            asked = who | {"k": 5, "exclude_ids": ["t03"], "policy": POLICIES[number % len(POLICIES)]}
            asked |= shaped[int(dice.integers(len(shaped)))]
            answer = service.recommend(RecommendRequest.model_validate(asked))
            if dice.uniform() < 0.3:
                clock.move(seconds=1)
                asked = who | {"k": 4, "decision_id": answer.decision_id}
                answer = service.next(NextRequest.model_validate(asked))
                service.next(NextRequest.model_validate(asked | {"decision_id": answer.decision_id}))
            if dice.uniform() < 0.2:
                some = [f"t{number:02d}" for number in dice.integers(45, size=9)]
                boost = [{"where": "series", "factor": 4.0}]
                service.rank(RankRequest.model_validate(who | {"candidates": some, "boost": boost}))
            if number % 30 == 29:
                views.asof_ms += 86_400_007
                publish_posteriors(folder / "registry", rounds=30 + number)
                service.housekeep()
    yield Logs(folder, views)
    monkeypatch.undo()
    torch.set_num_threads(threads)


def changed(rows: Rows, **columns: Any) -> Rows:
    """The rows with columns of the one in the middle replaced."""
    middle = len(rows) // 2
    return [row | columns if number == middle else row for number, row in enumerate(rows)]


def versions(row: dict[str, Any], name: str, value: str) -> list[dict[str, str]]:
    return [one | {"value": value} if one["name"] == name else one for one in row["features"]]


def test_every_value_of_every_answer_is_made_again(logs: Logs) -> None:
    found = logs.compare()
    assert (found.decisions, found.mismatches, found.left_out) == (len(logs.decisions), {}, {})
    assert found.num_values > N * 1_000
    groups = {name.split(".")[0] for name in found.values}
    assert groups == {*GROUPS, "request", "recent"}
    assert (
        len({one["value"] for row in logs.decisions for one in row["features"] if one["name"] == "members_asof_ms"}) > 3
    )
    assert {row["num_events_visible"] for row in logs.decisions} >= set(range(10))


def test_every_policy_chose_among_them_by_posteriors_that_were_published_meanwhile(logs: Logs) -> None:
    asked = [json.loads(row["request"])["policy"] for row in logs.decisions]
    chose = [row["policy"] for row in logs.decisions]
    assert set(chose) == set(POLICIES)
    assert [one for one, by in zip(asked, chose, strict=True) if one != by] == []
    params = [json.loads(row["policy_params"]) for row in logs.decisions]
    for policy in CONTEXTUAL:
        named = {one["posterior"] for one, by in zip(params, chose, strict=True) if by == policy}
        assert len(named) > 1
    assert any(one.get("cold") for one in params)
    explored = [row for row in logs.decisions if row["explored"]]
    assert {row["policy"] for row in explored} >= {"plackett_luce", "neural_thompson", "epsilon_greedy"}
    for row in logs.decisions:
        price = next(json.loads(one["value"]) for one in row["features"] if one["name"] == "exploration_price")
        assert 0.0 <= price[0] <= 0.5 * price[1] + 1e-9
        assert row["policy"] != "greedy" or price[0] == 0.0


def test_another_posterior_would_have_chosen_otherwise_and_one_that_is_gone_is_named(logs: Logs) -> None:
    rows = [row for row in logs.decisions if row["policy"] == "neural_thompson"]
    newest = fetch_bundle(logs.folder / "registry" / "posteriors", "neural_thompson").fingerprint

    def named(row: dict[str, Any], posterior: str) -> dict[str, Any]:
        return row | {"policy_params": json.dumps(json.loads(row["policy_params"]) | {"posterior": posterior})}

    found = logs.compare(decisions=[named(row, newest) for row in rows]).mismatches
    assert set(found) <= {"decision.slate", "decision.propensity"}
    assert "decision.propensity" in found
    gone = logs.compare(decisions=[named(row, "0" * 12) for row in rows])
    assert list(gone.left_out) == ["the posterior of the decision is gone from the registry"]


def test_what_was_made_again_was_shaped_in_every_way(logs: Logs) -> None:
    assert {row["kind"] for row in logs.decisions} == {"recommend", "next", "rank"}
    controls = [json.loads(row["controls"]) for row in logs.decisions]
    assert sum(len(one["before"]) > 0 for one in controls) > 5
    assert sum(len(one["above"]) > 5 for one in controls) > 5
    params = [json.loads(row["policy_params"]) for row in logs.decisions]
    assert any(one.get("protected") == [0, 1] for one in params)
    scores = [row["candidate_scores"] for row in logs.decisions]
    assert any(one != sorted(one, reverse=True) for one in scores)
    asked = [json.loads(row["request"]) for row in logs.decisions]
    assert sum(one["filter"] is not None for one in asked) > 5
    assert sum(len(one["boost"]) > 0 for one in asked) > 5
    assert any(len(row["candidates"]) == 16 for row in logs.decisions)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("recommend", {"before": ["t07", "t09", "t11"]}),
        ("next", {"above": []}),
        ("rank", {"candidates": ["t01", "t02"]}),
        ("recommend", {"config": {"diversity": 1.0}}),
        ("recommend", {"config": {"continue_watching": 0, "similar": 0, "trending": 0, "new_releases": 0}}),
    ],
)
def test_controls_that_were_changed_are_noticed(logs: Logs, kind: str, change: dict[str, Any]) -> None:
    rows = [row for row in logs.decisions if row["kind"] == kind]
    rows = [row | {"controls": json.dumps(json.loads(row["controls"]) | change)} for row in rows]
    found = logs.compare(decisions=rows).mismatches
    assert found
    assert all(name.startswith(("decision.", "pool", "title", "candidate", "intent")) for name in found)


def test_a_filter_or_a_boost_that_was_changed_is_noticed(logs: Logs) -> None:
    for change in ({"filter": "series"}, {"boost": [{"where": "series", "factor": 9.0}]}):
        rows = [row | {"request": json.dumps(json.loads(row["request"]) | change)} for row in logs.decisions]
        assert "pool" in logs.compare(decisions=rows).mismatches


def test_batches_of_any_size_and_order_come_to_the_same(logs: Logs) -> None:
    whole, parts = logs.compare(), Tally()
    for first in range(0, len(logs.decisions), 7):
        parts.add(logs.compare(decisions=logs.decisions[first : first + 7][::-1]))
    assert Tally.of(json.loads(json.dumps(parts.plain()))) == whole


def test_an_event_that_was_changed_is_noticed(logs: Logs) -> None:
    def longer(rows: Rows) -> Rows:
        played = [row for row in rows if row["action"] == "play" and row["title_id"] < "t40"]
        return [row | {"dwell_seconds": 8.0} if row["event_id"] == played[5]["event_id"] else row for row in rows]

    found = logs.with_events(longer)
    assert {"history.dwell", "signal.session_dwell"} <= found.mismatches.keys()
    one = found.mismatches["history.dwell"]
    assert one["count"] >= one["decisions"] > 0
    example = one["example"]
    assert example["offline"] == pytest.approx(example["served"] + 0.75)
    assert any(row["decision_id"] == example["decision_id"] for row in logs.decisions)


def test_an_event_that_was_lost_is_noticed(logs: Logs) -> None:
    played = [row["event_id"] for row in logs.events.to_pylist() if row["action"] == "play"]
    lost = logs.with_events(lambda rows: [row for row in rows if row["event_id"] not in played[:3]])
    assert "decision.num_events_visible" in lost.mismatches
    assert "history.title" in lost.mismatches


def test_an_event_too_many_or_of_another_time_is_noticed(logs: Logs) -> None:
    searches = [row for row in logs.events.to_pylist() if row["action"] == "search" and row["member_id"] == "m1"]
    more = logs.with_events(lambda rows: [*rows, searches[0] | {"event_id": "more"}])
    assert "signal.session_searches" in more.mismatches
    moved = searches[0] | {"at": searches[0]["at"] + timedelta(seconds=1)}
    other = logs.with_events(lambda rows: [moved if row["event_id"] == moved["event_id"] else row for row in rows])
    assert other.mismatches.keys() & {"history.at", "decision.newest_event_at", "signal.idle"}


def test_a_mark_of_another_instant_is_noticed(logs: Logs) -> None:
    assert "decision.num_events_visible" in logs.compare(decisions=changed(logs.decisions, sequence_mark=1)).mismatches


@pytest.mark.parametrize(
    "name", ["signal.session_genres", "title.plays_7d", "request.idle", "recent.title", "intent.embedding", "pool"]
)
def test_a_served_value_that_was_changed_is_named_with_its_place(logs: Logs, name: str) -> None:
    row = logs.decisions[len(logs.decisions) // 2]
    values = decode(row["served"])
    values[name] = values[name].copy()
    values[name][-1] += 1
    found = logs.compare(decisions=changed(logs.decisions, served=encode(values)))
    assert list(found.mismatches) == [name]
    one = found.mismatches[name]
    assert (one["count"], one["decisions"]) == (1, 1)
    assert one["example"]["decision_id"] == row["decision_id"]
    assert one["example"]["place"] == [len(values[name]) - 1]
    assert one["example"]["served"] == pytest.approx(one["example"]["offline"] + 1)


def test_a_served_value_of_another_type_or_none_at_all_is_noticed(logs: Logs) -> None:
    values = decode(logs.decisions[len(logs.decisions) // 2]["served"])
    values["history.at"] = values["history.at"].astype(np.int32)
    del values["candidate.age"]
    found = logs.compare(decisions=changed(logs.decisions, served=encode(values)))
    assert found.mismatches.keys() == {"history.at", "candidate.age"}
    assert found.mismatches["history.at"]["example"]["served"].startswith("int32")
    assert found.mismatches["candidate.age"]["example"]["served"] == "nothing"


@pytest.mark.parametrize(
    ("name", "feature"), [("members_asof_ms", "member.asof_ms"), ("titles_asof_ms", "title.asof_ms")]
)
@pytest.mark.parametrize("by", [-86_400_007, 10**12])
def test_a_version_that_was_not_served_is_noticed_whether_it_ever_was_or_not(
    logs: Logs, name: str, feature: str, by: int
) -> None:
    row = next(row for row in logs.decisions[-40:] if row["member_id"] is not None)
    old = json.loads(next(one["value"] for one in row["features"] if one["name"] == name))
    new = [one + by for one in old] if isinstance(old, list) else old + by
    found = logs.compare(decisions=[row | {"features": versions(row, name, json.dumps(new))}])
    assert feature in found.mismatches
    groups = {feature.split(".")[0], "candidate", "request", "decision", "pool"}  # what trends is of the titles' views
    assert {one.split(".")[0] for one in found.mismatches} <= groups


@pytest.mark.parametrize(
    ("column", "value"),
    [("candidate_scores", -1.0), ("seed", 7), ("policy_params", '{"epsilon": 0.31}')],
)
def test_a_decision_that_was_changed_is_noticed(logs: Logs, column: str, value: Any) -> None:
    row = max(logs.decisions, key=lambda row: sum(item["explored"] for item in row["items"]))
    value = [value, *row[column][1:]] if isinstance(row[column], list) else value
    if column == "policy_params":
        value = json.dumps(json.loads(row[column]) | json.loads(value))
    assert all(name.startswith("decision.") for name in logs.compare(decisions=[row | {column: value}]).mismatches)
    assert logs.compare(decisions=[row | {column: value}]).mismatches


def test_a_constant_that_was_changed_is_noticed(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crosses, "LONGEST_HOURS", 1.0)
    assert "request.idle" in logs.compare().mismatches
    monkeypatch.undo()
    monkeypatch.setattr(words, "TOKEN_PLACES", 15)
    monkeypatch.setattr(in_session, "TOKEN_PLACES", 15)
    found = logs.compare().mismatches["signal.query_tokens"]
    assert found["example"]["served"] == "int64[64]"
    assert found["example"]["offline"] == "int64[15]"


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"intent_model": "gone"}, "a model of the decision is gone from the registry"),
        ({"features": []}, "the decision does not say catalogue"),
        ({"served": [{"name": "x", "dtype": "float32", "shape": [1], "values": ""}]}, "the decision cannot be read"),
        ({"seed": -1}, "ValueError"),
        ({"policy_version": "0"}, "chosen by version 0"),
        ({"controls": '{"version": "0"}'}, "the decision cannot be read"),
    ],
)
def test_what_cannot_be_made_again_is_left_out_with_its_reason_and_alone(
    logs: Logs, columns: dict[str, Any], reason: str
) -> None:
    found = logs.compare(decisions=changed(logs.decisions, **columns))
    assert (found.decisions, found.mismatches, found.num_left_out) == (len(logs.decisions) - 1, {}, 1)
    assert reason in next(iter(found.left_out))
    assert list(found.left_out_examples.values()) == [logs.decisions[len(logs.decisions) // 2]["decision_id"]]
