"""The chain on fakes: what it knows, what it chooses, what it says when a part of it fails."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from foretaste.contracts.columns import DECISIONS
from foretaste.contracts.decisions import Fallback
from foretaste.contracts.wire import RecommendAnswer
from foretaste.policies.epsilon_greedy import replay
from foretaste.serving.problems import RefusedError
from foretaste.serving.shedding import Shed, ShedError
from foretaste.signals.declared import SESSION_SIGNALS


def ids(answer: RecommendAnswer) -> list[str]:
    return [item.title_id for item in answer.items]


def comedies(answer: RecommendAnswer) -> int:
    return sum(int(title_id[1:]) % 2 == 0 for title_id in ids(answer))


def test_the_same_request_twice_gives_the_same_greedy_list(bench: Any) -> None:
    first, again = bench.ask(), bench.ask()
    assert ids(first) == ids(again)
    assert [item.score for item in first.items] == [item.score for item in again.items]
    assert all(item.propensity == 1.0 for item in first.items)
    assert [item.position for item in first.items] == list(range(10))
    assert first.fallback.used is False
    assert first.fallback.reason is None


def test_the_list_follows_a_click(bench: Any) -> None:
    alone = bench.recommender(ranker=None)
    for title_id in ("t01", "t03"):
        bench.act("play", title_id)
    drama = bench.ask(on=alone)
    for title_id in ("t00", "t02", "t04"):
        bench.act("play", title_id)
    comedy = bench.ask(on=alone)
    assert comedies(drama) == 0
    assert comedies(comedy) == 10
    assert comedy.intent is not None
    assert comedy.intent["genre"]["comedy"] > comedy.intent["genre"]["drama"]
    assert comedy.intent["attention"] == {"action": 0.25, "genre": 0.75}


def test_another_members_click_changes_nothing(bench: Any) -> None:
    before = bench.ask()
    bench.act("play", "t00", member_id="m2")
    assert ids(bench.ask()) == ids(before)


def test_the_ranker_orders_the_pool(bench: Any) -> None:
    ranked, plain = bench.ask(k=40), bench.ask(k=40, on=bench.recommender(ranker=None))
    assert ids(ranked) == list(reversed(ids(plain)))
    assert {item.source for item in ranked.items} == {"ranker"}


def test_a_guest_and_a_member_without_history_get_a_list(bench: Any) -> None:
    for who in ({"member_id": None}, {"member_id": "new-1"}):
        answer = bench.ask(**who)
        assert len(answer.items) == 10
        assert answer.fallback.used is False
        assert answer.freshness.last_event_id is None
        assert answer.freshness.age_seconds is None
        assert answer.freshness.stale == []


def test_a_guests_session_is_their_history(bench: Any) -> None:
    bench.act("play", "t00", member_id=None)
    assert bench.ask(member_id=None).freshness.last_event_id == "e1"
    assert bench.ask(member_id=None, session_id="s2").freshness.last_event_id is None


def test_freshness_names_the_newest_event_that_was_used(bench: Any) -> None:
    bench.act("play", "t00", seconds=2)
    newest = bench.act("search", None, seconds=1.5, query="noir")
    found = bench.ask().freshness
    assert found.last_event_id == newest["event_id"]
    assert found.age_seconds == 1.5
    assert found.last_event_at is not None
    assert found.last_event_at.isoformat() == newest["at"]


def test_an_event_is_visible_strictly_after_its_time(bench: Any) -> None:
    event = bench.act("play", "t00", seconds=0)
    assert bench.ask().freshness.last_event_id is None
    bench.clock.move(microseconds=1)
    assert bench.ask().freshness.last_event_id == event["event_id"]


def test_excluded_titles_are_out_and_unknown_ones_are_named(bench: Any) -> None:
    out = ids(bench.ask())[:3]
    answer = bench.ask(exclude_ids=[*out, "nowhere"])
    assert not set(out) & set(ids(answer))
    assert answer.missing_ids == ["nowhere"]


def test_a_small_catalogue_gives_a_short_list_and_an_empty_one_none(bench: Any) -> None:
    every = [f"t{number:02d}" for number in range(40)]
    assert ids(bench.ask(exclude_ids=every[3:], k=10)) == ["t02", "t01", "t00"]
    empty = bench.ask(exclude_ids=every)
    assert empty.items == []
    assert empty.fallback.used is False


def test_titles_seen_are_out_only_where_the_data_has_no_repeats(bench: Any) -> None:
    bench.act("play", "t00")
    assert "t00" in ids(bench.ask(k=40))
    assert "t00" not in ids(bench.ask(k=40, on=bench.recommender(repeats=False)))


def test_what_was_completed_or_thumbed_down_in_the_session_is_out(bench: Any) -> None:
    bench.act("complete", "t02")
    bench.act("thumb_down", "t03")
    assert not {"t02", "t03"} & set(ids(bench.ask(k=40)))
    bench.clock.move(hours=1)
    assert "t02" in ids(bench.ask(k=40))
    assert "t03" not in ids(bench.ask(k=40))


def test_a_decision_is_logged_and_makes_the_list_again(bench: Any) -> None:
    bench.act("play", "t00")
    recommender = bench.recommender()
    for number in range(50):
        answer = bench.ask(on=recommender, policy=None, k=5, context={"number": number})
        row = bench.decisions.get(answer.decision_id)
        slate = replay(
            np.array(row["candidate_scores"]),
            k=json.loads(row["request"])["k"],
            params=json.loads(row["policy_params"]),
            seed=row["seed"],
            version=row["policy_version"],
        )
        assert [row["candidates"][index] for index in slate.order_K] == ids(answer)
        assert slate.propensity_K.tolist() == [item.propensity for item in answer.items]
        assert slate.slate_propensity == row["slate_propensity"]
        assert slate.explored == answer.policy.explored == row["explored"]
        assert row["candidate_scores"] == sorted(row["candidate_scores"], reverse=True)
    table = bench.decisions.read()
    assert table.schema == DECISIONS
    assert table.num_rows == 50
    assert len(set(table["seed"].to_pylist())) == 50
    assert 0 < sum(table["explored"].to_pylist()) < 50


def test_a_decision_says_what_it_knew_and_of_which_versions(bench: Any) -> None:
    bench.act("play", "t00")
    bench.act("play", "t02")
    row = bench.decisions.get(bench.ask().decision_id)
    assert row["num_events_visible"] == 2
    assert row["newest_event_at"] == row["at"] - 1_000_000
    assert (row["intent_model"], row["ranker_model"]) == ("intent-1", "ranker-1")
    asof = str(bench.source.asof_ms)
    known = {one["name"]: one["value"] for one in row["features"]}
    assert (known["members_asof_ms"], known["titles_asof_ms"]) == (asof, asof)
    assert known["catalogue"] == bench.catalogue.fingerprint
    assert json.loads(known["session_rule"]) == bench.models.rule.model_dump()
    assert json.loads(known["session_window"])["read_events"] == bench.config.session_log.read_events
    assert "failed" not in known
    stages = [timing["stage"] for timing in row["timings"]]
    assert stages == [
        *("session_log", "features", "intent", "filter", "sources", "pool", "ranker", "arrange", "policy")
    ]
    rows, mark = bench.sessions.read("m1", limit=200, mark=row["sequence_mark"], before_us=row["at"])
    assert (len(rows), mark) == (2, row["sequence_mark"])


def test_decisions_are_named_in_order_of_time(bench: Any) -> None:
    recommender, names = bench.recommender(), []
    for _ in range(20):
        names.append(bench.ask(on=recommender).decision_id)
        bench.clock.move(milliseconds=1)
    assert names == sorted(names)
    assert len(set(names)) == 20


def test_a_dry_run_logs_nothing(bench: Any) -> None:
    answer = bench.ask(dry_run=True)
    assert answer.decision_id is None
    assert len(answer.items) == 10
    assert bench.decisions.read().num_rows == 0


def test_a_read_writes_no_event(bench: Any) -> None:
    bench.ask()
    assert bench.sessions.read("m1", limit=10) == ([], 0)


def test_without_a_model_the_most_played_are_shown(bench: Any) -> None:
    answer = bench.ask(on=bench.recommender(intent=None, ranker=None), explain="items")
    assert ids(answer) == [f"t{number}" for number in range(39, 29, -1)]
    assert answer.fallback.reason is Fallback.NO_MODEL
    assert answer.intent is None
    assert {item.source for item in answer.items} == {"popular"}
    assert answer.items[0].reasons == ["trending", "popular this week"]
    assert bench.decisions.get(answer.decision_id)["fallback"] == "no_model"


def test_without_a_ranker_the_intent_model_orders(bench: Any) -> None:
    answer = bench.ask(on=bench.recommender(ranker=None))
    assert answer.fallback.reason is Fallback.NO_MODEL
    assert {item.source for item in answer.items} == {"intent"}


@pytest.mark.parametrize("how", ["raises", "not finite"])
def test_when_the_intent_model_fails_the_most_played_are_shown(bench: Any, how: str) -> None:
    bench.intent.failure = RuntimeError("broken") if how == "raises" else None
    bench.intent.spoiled = how == "not finite"
    answer = bench.ask()
    assert answer.fallback.reason is Fallback.INTENT_FAILED
    assert answer.intent is None
    assert ids(answer)[0] == "t39"


def test_when_the_ranker_fails_the_intent_model_orders(bench: Any) -> None:
    bench.ranker.failure = RuntimeError("broken")
    answer = bench.ask()
    assert answer.fallback.reason is Fallback.RANKER_FAILED
    assert ids(answer) == ids(bench.ask(on=bench.recommender(ranker=None)))
    assert answer.intent is not None


def test_when_member_features_fail_zeros_stand_in_and_the_answer_says_so(bench: Any) -> None:
    recommender = bench.recommender()
    bench.source.failure = RuntimeError("store down")
    answer = bench.ask(on=recommender)
    assert answer.fallback.reason is Fallback.FEATURES_FAILED
    assert answer.freshness.stale == ["member_features"]
    assert {item.source for item in answer.items} == {"ranker"}


def test_when_no_feature_was_ever_read_the_answer_says_so(bench: Any) -> None:
    bench.source.failure = RuntimeError("store down")
    answer = bench.ask()
    assert answer.fallback.reason is Fallback.FEATURES_FAILED
    assert answer.freshness.stale == ["member_features", "title_features"]


def test_old_views_are_called_stale_and_used(bench: Any) -> None:
    recommender = bench.recommender()
    bench.clock.move(hours=24)
    assert bench.ask(on=recommender).freshness.stale == []
    bench.clock.move(hours=24)
    answer = bench.ask(on=recommender)
    assert answer.freshness.stale == ["member_features", "title_features"]
    assert answer.fallback.used is False


class BrokenLog:
    def read(self, *_: object, **__: object) -> None:
        raise OSError("disk gone")


def test_when_the_session_log_fails_the_answer_knows_nothing_and_says_so(bench: Any) -> None:
    bench.act("play", "t00")
    answer = bench.ask(on=bench.recommender(sessions=BrokenLog()))
    assert len(answer.items) == 10
    assert answer.fallback.reason is Fallback.FEATURES_FAILED
    assert answer.freshness.stale == ["session_log"]
    assert answer.freshness.last_event_id is None


def test_an_answer_that_cannot_be_logged_is_not_given_but_for_a_dry_run(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    recommender = bench.recommender()
    with monkeypatch.context() as patch:
        patch.setattr(bench.decisions, "append", full)
        for _ in range(bench.config.breaker.failures):
            with pytest.raises(ShedError) as caught:
                bench.ask(on=recommender)
            assert (caught.value.status, caught.value.reason) == (503, Shed.DECISION_LOG)
        asked = bench.intent.num_asked
        with pytest.raises(ShedError):
            bench.ask(on=recommender)
        assert bench.intent.num_asked == asked, "nothing is computed for it"
        assert len(bench.ask(on=recommender, dry_run=True).items) == 10
    with pytest.raises(ShedError):
        bench.ask(on=recommender)
    bench.clock.seconds += bench.config.breaker.rest_seconds
    assert bench.decisions.get(bench.ask(on=recommender).decision_id) is not None


def test_past_the_budget_no_further_model_is_asked(bench: Any) -> None:
    recommender = bench.recommender()
    slow_read = bench.sessions.read

    class Slow:
        def read(self, *values: Any, **named: Any) -> Any:
            bench.clock.seconds += 0.4
            return slow_read(*values, **named)

    late = bench.ask(on=bench.recommender(sessions=Slow()))
    assert late.fallback.reason is Fallback.INTENT_LATE
    assert bench.intent.num_asked == 0
    assert late.took_ms == pytest.approx(400)
    predict = bench.intent.predict

    def slowly(*values: Any) -> Any:
        bench.clock.seconds += 0.4
        return predict(*values)

    bench.intent.predict = slowly
    assert bench.ask(on=recommender).fallback.reason is Fallback.RANKER_LATE


def test_items_are_explained_when_asked(bench: Any) -> None:
    bench.act("play", "t02")
    answer = bench.ask(k=40, explain="items")
    why = {item.title_id: item.reasons for item in answer.items}
    assert "matches predicted genre comedy" in why["t04"]
    assert "matches predicted genre drama" not in why["t05"]
    assert "chosen before" in why["t02"]
    assert "popular this week" in why["t39"]
    assert "popular this week" not in why["t30"]
    assert answer.stages is None
    assert all(item.reasons == [] for item in bench.ask().items)


def test_what_the_dice_chose_is_called_explored(bench: Any) -> None:
    recommender, explored = bench.recommender(), 0
    for _ in range(20):
        answer = bench.ask(on=recommender, policy="epsilon_greedy", explain="items")
        by_dice = ["explored" in item.reasons for item in answer.items]
        assert any(by_dice) == answer.policy.explored
        explored += sum(by_dice)
    assert explored > 0


def test_stages_are_explained_when_asked(bench: Any) -> None:
    bench.act("play", "t02")
    stages = {stage.stage: stage for stage in bench.ask(explain="stages", exclude_ids=["t05"]).stages or []}
    assert (stages["pool"].num_in, stages["pool"].num_out) == (40, 39)
    assert (stages["ranker"].num_in, stages["ranker"].num_out) == (39, 39)
    assert (stages["policy"].num_in, stages["policy"].num_out) == (39, 10)
    assert stages["session_log"].num_out == 1
    told = bench.ask(explain="stages").signals
    assert list(told) == [signal.name for signal in SESSION_SIGNALS]
    assert (told["session_depth"], told["num_sessions"]) == (1, 1)
    assert told["session_actions"] == {"play": 1}
    assert sum(told["session_genres"].values()) == pytest.approx(1.0)
    assert len(told["session_last_titles"]) == 1
    assert bench.ask(explain="items").signals is None


def test_an_unknown_surface_is_refused_by_field(bench: Any) -> None:
    with pytest.raises(RefusedError, match="prequery") as caught:
        bench.ask(surface="window")
    assert caught.value.field == "surface"


def test_the_policy_is_the_requests_or_the_services_own(bench: Any) -> None:
    assert bench.ask(policy=None).policy.name == "epsilon_greedy"
    assert bench.ask(policy="greedy").policy.name == "greedy"
    assert bench.ask(policy="epsilon_greedy").policy.name == "epsilon_greedy"
