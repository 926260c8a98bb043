"""What a request and the settings do to a list: filter, boosts, scrolling, diversity, steadiness, sources, ranking."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from foretaste.contracts.controls import Controls, ControlsConfig
from foretaste.contracts.title_fields import TitleColumns
from foretaste.contracts.wire import NextRequest, RankRequest, RecommendAnswer, RecommendRequest
from foretaste.models.ranker_inputs import RankerInputs
from foretaste.serving.ingress import build_app
from foretaste.serving.problems import RefusedError
from foretaste.serving.recommender import Recommender
from foretaste.serving.shown import Last
from foretaste.surfaces.prequery import availability
from foretaste.testing.builders import titles_table
from foretaste.testing.fakes import two_genre_titles

NUMBERS = itertools.count()
COMEDIES = [f"t{number:02d}" for number in range(0, 40, 2)]


def ids(answer: RecommendAnswer) -> list[str]:
    return [item.title_id for item in answer.items]


def steady(bench: Any, **controls: Any) -> Recommender:
    bench.config = bench.config.model_copy(update={"controls": ControlsConfig(**controls)})
    found: Recommender = bench.recommender()
    return found


def go_on(on: Recommender, after: RecommendAnswer, **request: Any) -> RecommendAnswer:
    body = {"decision_id": after.decision_id, "member_id": "m1", "session_id": "s1"} | request
    return on.next(NextRequest.model_validate(body))


def rank(on: Recommender, candidates: list[str], **request: Any) -> Any:
    body = {"member_id": "m1", "session_id": "s1", "candidates": candidates} | request
    return on.rank(RankRequest.model_validate(body))


def post(bench: Any, path: str, body: dict[str, Any]) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app=build_app(bench.service(), max_body_bytes=100_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(path, json=body)

    return asyncio.run(run())


def test_only_titles_of_the_filter_are_shown_whatever_the_scores_say(bench: Any) -> None:
    for title_id in ("t01", "t03"):
        bench.act("play", title_id)
    answer = bench.ask(k=40, filter='"comedy" in genres and kind != "show"', explain="stages")
    assert sorted(ids(answer)) == [title_id for title_id in COMEDIES if int(title_id[1:]) % 5]
    assert {lap.stage: (lap.num_in, lap.num_out) for lap in answer.stages or ()}["filter"] == (40, 16)
    assert json.loads(bench.decisions.get(answer.decision_id)["request"])["filter"] is not None


def test_a_filter_lets_nothing_through_that_may_not_be_shown(bench: Any) -> None:
    bench.act("complete", "t02")
    bench.act("thumb_down", "t04")
    everything = 'title_id in ["t00", "t02", "t04", "t06"]'
    assert sorted(ids(bench.ask(filter=everything, exclude_ids=["t06"]))) == ["t00"]
    bench.act("play", "t00")
    assert ids(bench.ask(filter=everything, exclude_ids=["t06"], on=bench.recommender(repeats=False))) == []
    boosted = bench.ask(k=40, boost=[{"where": everything, "factor": 10.0}])
    assert not {"t02", "t04"} & set(ids(boosted))


def test_a_filter_that_nothing_fits_gives_an_empty_list(bench: Any) -> None:
    answer = bench.ask(filter='kind == "opera"')
    assert (answer.items, answer.fallback.used) == ([], False)


class ByCode:
    """A ranker that likes what stands late in the catalogue, whatever the order of the pool."""

    recent = 5

    def scores(self, inputs: RankerInputs) -> NDArray[np.float64]:
        return inputs.code_BC / 100.0


@pytest.mark.parametrize("models", [{"ranker": None}, {"intent": None, "ranker": None}, {"ranker": ByCode()}])
def test_a_boost_moves_its_titles_up_and_one_for_all_moves_nothing(bench: Any, models: dict[str, Any]) -> None:
    on = bench.recommender(**models)
    plain = ids(bench.ask(on=on, k=40))
    boosted = ids(bench.ask(on=on, k=40, boost=[{"where": "series", "factor": 3.0}]))
    lowered = ids(bench.ask(on=on, k=40, boost=[{"where": "series", "factor": 0.3}]))
    for title_id in plain:
        up, down = (other.index(title_id) - plain.index(title_id) for other in (boosted, lowered))
        assert (up <= 0 <= down) if int(title_id[1:]) % 5 == 0 else (up >= 0 >= down)
    assert boosted != plain != lowered
    assert ids(bench.ask(on=on, k=40, boost=[{"where": "true", "factor": 2.0}])) == plain
    both = [{"where": "series", "factor": 2.0}, {"where": "series", "factor": 0.5}]
    assert ids(bench.ask(on=on, k=40, boost=both)) == plain


def test_boosts_of_the_same_titles_multiply_as_probabilities(bench: Any) -> None:
    on = bench.recommender(ranker=None)
    plain = {item.title_id: item.score for item in bench.ask(on=on, k=40).items}
    boosts = [{"where": "series", "factor": 2.0}, {"where": '"comedy" in genres', "factor": 5.0}]
    found = {item.title_id: item.score for item in bench.ask(on=on, k=40, boost=boosts).items}
    assert np.exp(found["t00"] - plain["t00"]) == pytest.approx(10.0)
    assert np.exp(found["t02"] - plain["t02"]) == pytest.approx(5.0)
    assert found["t01"] == plain["t01"]


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"filter": 'genre == "x"'}, "filter", "at character 0: wanted one of age_days, .* found 'genre'"),
        ({"filter": 'kind == "movie" und series'}, "filter", "at character 16: wanted .* found 'und'"),
        ({"filter": "__import__('os').system('true')"}, "filter", "at character 16: wanted .* found '.'"),
        ({"filter": "x" * 2_001}, "filter", "at most 2000 characters"),
        ({"filter": ""}, "filter", "at least 1 character"),
        ({"filter": 5}, "filter", "string"),
        ({"boost": [{"where": "series", "factor": 11.0}]}, "boost.0.factor", "less than or equal to 10"),
        ({"boost": [{"where": "series", "factor": 0.0}]}, "boost.0.factor", "greater than or equal to 0.1"),
        ({"boost": [{"where": "age_days <", "factor": 2.0}]}, "boost.0.where", "at character 10: .* found the end"),
        ({"boost": [{"where": "series", "factor": 2.0}] * 11}, "boost", "at most 10 items"),
    ],
)
def test_what_is_wrong_is_named_by_field_and_place(bench: Any, body: dict[str, Any], field: str, message: str) -> None:
    answer = post(bench, "/v1/recommend", {"session_id": "s1"} | body)
    assert answer.status_code == 422
    error = answer.json()["errors"][0]
    assert error["field"] == field
    assert re.search(message, error["message"]), error


def test_a_list_goes_on_without_repeats_to_the_end_of_the_catalogue(bench: Any) -> None:
    on = bench.recommender()
    answer = bench.ask(on=on, k=7, exclude_ids=["t05"], filter='"comedy" in genres or kind == "movie"')
    seen, before = ids(answer), answer
    while answer.items:
        answer = go_on(on, before, k=7)
        assert [item.position for item in answer.items] == list(range(len(seen), len(seen) + len(answer.items)))
        assert answer.previous_id == before.decision_id
        row = bench.decisions.get(answer.decision_id)
        assert (row["kind"], row["previous_id"]) == ("next", before.decision_id)
        assert Controls(**json.loads(row["controls"])).above == tuple(seen)
        seen, before = seen + ids(answer), answer
    assert len(seen) == len(set(seen)) == 40 - 4  # dramas of kind show
    assert "t05" not in seen


def test_what_happens_between_counts_for_how_a_list_goes_on(bench: Any) -> None:
    on = bench.recommender(ranker=None)
    first = bench.ask(on=on, k=5)
    plain = ids(go_on(on, first, k=5, dry_run=True))
    for title_id in ("t01", "t03", "t05"):
        bench.act("play", title_id)
    after = go_on(on, first, k=5)
    assert ids(after) != plain
    assert all(int(title_id[1:]) % 2 for title_id in ids(after))
    assert not set(ids(after)) & set(ids(first))
    assert after.freshness.last_event_id == "e3"


def test_a_list_of_a_guest_goes_on_when_they_sign_in(bench: Any) -> None:
    on = bench.recommender()
    first = bench.ask(on=on, member_id=None)
    assert not set(ids(go_on(on, first))) & set(ids(first))


def test_only_ones_own_young_lists_of_this_session_go_on(bench: Any) -> None:
    on = bench.recommender()
    first, ranked = bench.ask(on=on), rank(on, ["t01"])
    for refused in (
        {"decision_id": "0" * 32},
        {"decision_id": "nonsense"},
        {"member_id": "m2"},
        {"session_id": "s2"},
        {"decision_id": ranked.decision_id},
    ):
        with pytest.raises(RefusedError) as caught:
            go_on(on, first, **refused)
        assert caught.value.field == "decision_id"
    bench.clock.move(hours=25)
    with pytest.raises(RefusedError, match="older than"):
        go_on(on, first)


def test_given_titles_are_ranked_and_logged_as_such(bench: Any) -> None:
    on = bench.recommender()
    bench.act("thumb_down", "t09")
    asked = ["t03", "t08", "t09", "nowhere", "t08", "t10"]
    answer = rank(on, asked, explain="items", surface="home row")
    assert sorted(ids(answer)) == ["t03", "t08", "t10"]
    assert (answer.left_out, answer.missing_ids) == (["t09"], ["nowhere"])
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
    assert {item.source for item in answer.items} == {"ranker"}
    assert all(item.propensity == 1.0 for item in answer.items)
    row = bench.decisions.get(answer.decision_id)
    assert (row["kind"], row["surface"], row["candidates"]) == ("rank", "home row", ids(answer))
    assert len(rank(on, COMEDIES, k=3).items) == 3
    assert rank(on, ["t09"]).items == []


def test_given_titles_are_filtered_and_boosted(bench: Any) -> None:
    on = bench.recommender(ranker=None)
    found = rank(on, ["t00", "t01", "t02", "t05"], filter="not series or title_id == 't05'")
    assert (sorted(ids(found)), found.left_out) == (["t01", "t02", "t05"], ["t00"])
    assert ids(rank(on, ["t01", "t02"], boost=[{"where": "title_id == 't02'", "factor": 10.0}])) == ["t02", "t01"]


def test_ranking_does_not_count_as_what_is_on_the_screen(bench: Any) -> None:
    on = steady(bench, protected=3)
    first = bench.ask(on=on)
    rank(on, ["t01", "t02"])
    assert bench.ask(on=on).previous_id == first.decision_id


def test_diversity_mixes_genres_and_none_changes_nothing(bench: Any) -> None:
    for title_id in ("t00", "t02", "t04"):
        bench.act("play", title_id)
    alike = bench.ask(on=bench.recommender(ranker=None))
    mixed = bench.ask(on=Recommender(*mixed_parts(bench, diversity=0.6), clock=bench.clock, timer=bench.clock.timer))
    comedies = [sum(title_id in COMEDIES for title_id in ids(answer)) for answer in (alike, mixed)]
    assert comedies[0] == 10
    assert comedies[1] < 10
    row = bench.decisions.get(mixed.decision_id)
    assert row["candidate_scores"] != sorted(row["candidate_scores"], reverse=True)
    assert [item.score for item in mixed.items] == row["candidate_scores"][:10]


def mixed_parts(bench: Any, **controls: Any) -> tuple[Any, ...]:
    on = steady(bench, **controls)
    return on.models, bench.views(), bench.sessions, bench.decisions, bench.config


def test_without_a_new_event_a_steady_list_stays_and_says_so(bench: Any) -> None:
    on = steady(bench, max_move=1)
    first = bench.ask(on=on)
    assert (first.previous_id, first.stability) == (None, None)
    bench.clock.move(minutes=1)
    again = bench.ask(on=on, policy="epsilon_greedy", k=10)
    assert again.stability is not None
    assert again.stability.previous_id == first.decision_id == again.previous_id
    held = bench.ask(on=on)
    assert ids(held) == ids(again)
    assert (held.stability.kept, held.stability.largest_move, held.stability.of) == (10, 0, 10)
    assert on.steadied.plain()["lists"] == 2


def test_a_list_made_without_the_session_log_is_the_one_before_and_hides_no_event(bench: Any) -> None:
    class Broken:
        def read(self, *_: object, **__: object) -> None:
            raise OSError("disk gone")

    on = steady(bench, max_move=1)
    first = ids(bench.ask(on=on))
    for title_id in ("t01", "t03"):
        bench.act("play", title_id)
    read, on._sessions = on._sessions, Broken()  # type: ignore[assignment]
    assert ids(bench.ask(on=on)) == first
    on._sessions = read
    answer = bench.ask(on=on)
    assert answer.stability is not None
    assert 0 < answer.stability.largest_move <= 2


def test_titles_move_as_far_as_there_are_new_events(bench: Any) -> None:
    on = steady(bench, max_move=2)
    before = bench.ask(on=on)
    for number in range(1, 6):
        events = 1 if number % 2 else 2
        for event in range(events):
            bench.act("play", f"t{2 * number + event:02d}")
        answer = bench.ask(on=on)
        assert answer.stability is not None
        assert answer.stability.largest_move <= 2 * events
        left = [place for place, title_id in enumerate(ids(before)) if title_id not in ids(answer)]
        assert all(place + 2 * events >= 10 for place in left)
        before = answer


def test_the_protected_top_stays_and_is_never_explored(bench: Any) -> None:
    on = steady(bench, protected=3)
    first = bench.ask(on=on)
    for number in range(20):
        bench.act("play", f"t{number:02d}")
        answer = bench.ask(on=on, policy="epsilon_greedy")
        assert ids(answer)[:3] == ids(first)[:3]
        assert [item.propensity for item in answer.items[:3]] == [1.0, 1.0, 1.0]
        params = json.loads(bench.decisions.get(answer.decision_id)["policy_params"])
        assert params == {"epsilon": 0.2, "protected": [0, 1, 2]}


def test_what_may_not_be_shown_any_more_leaves_even_the_protected_top(bench: Any) -> None:
    on = steady(bench, protected=3, max_move=0)
    first = ids(bench.ask(on=on))
    bench.act("thumb_down", first[1])
    second = ids(bench.ask(on=on))
    assert first[1] not in second
    assert (second[0], second[2]) == (first[0], first[2])


def test_a_list_is_held_against_none_of_another_session_filter_member_or_time(bench: Any) -> None:
    on = steady(bench, protected=3)
    bench.ask(on=on)
    others = ({"session_id": "s2"}, {"member_id": "m2"}, {"filter": "series"}, {"boost": [BOOST]})
    for other in others:
        assert bench.ask(on=on, dry_run=True, **other).previous_id is None
    assert bench.ask(on=on, dry_run=True).previous_id is not None
    on.forget("m1")
    assert bench.ask(on=on, dry_run=True).previous_id is None
    bench.ask(on=on)
    bench.clock.move(minutes=31)
    assert bench.ask(on=on, dry_run=True).previous_id is None


BOOST = {"where": "series", "factor": 2.0}


def test_another_replica_holds_a_list_against_the_one_that_is_named(bench: Any) -> None:
    on, other = steady(bench, protected=3), steady(bench, protected=3)
    first = bench.ask(on=on)
    for title_id in ("t01", "t03", "t05"):
        bench.act("play", title_id)
    assert bench.ask(on=other, dry_run=True).previous_id is None
    held = bench.ask(on=other, shown_id=first.decision_id)
    assert held.previous_id == first.decision_id
    assert ids(held)[:3] == ids(first)[:3]
    for unknown in ("0" * 32, "nonsense"):
        assert bench.ask(on=bench.recommender(), shown_id=unknown).previous_id is None


def test_sources_bring_titles_that_scores_alone_would_not_and_say_why(bench: Any) -> None:
    bench.act("play", "t01", played_fraction=0.5)
    on = bench.recommender(likeness=None)
    answer = bench.ask(on=on, k=40, explain="stages")
    why = {item.title_id: item.reasons for item in answer.items}
    brought = {item.title_id: item.sources for item in answer.items}
    assert "continue watching" in why["t01"]
    assert brought["t01"] == ["continue"]
    assert "trending" in why["t39"]
    assert brought["t00"] == ["scores"]
    assert answer.sources == {"continue": 1, "trending": 5, "scores": 34}
    stages = {lap.stage: (lap.num_in, lap.num_out) for lap in answer.stages or ()}
    assert stages["sources"] == (40, 6)
    similar = bench.ask(k=40, explain="items")
    assert any(reason.startswith("similar to Title 1") for item in similar.items for reason in item.reasons)


def test_long_term_taste_counts_less_the_deeper_the_session(bench: Any) -> None:
    members = bench.source.members

    def drama(ids_: Any, at: int) -> Any:
        view = members(ids_, at)
        view.genre_affinity_BG[:] = [0.1, 0.9]  # comedy, drama
        return view

    bench.source.members = drama
    on = Recommender(*mixed_parts(bench, long_term=1.0, long_term_half=2.0), clock=bench.clock, timer=bench.clock.timer)
    bench.put(on, models=bench.recommender(ranker=None).models)
    shares = []
    for title_id in ("t00", "t02", "t04", "t06", "t08", "t10"):
        shares.append(sum(int(one[1:]) % 2 for one in ids(bench.ask(on=on))))
        bench.act("play", title_id)
    assert shares[0] == 10
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0


def test_concentration_counts_what_was_shown_and_no_dry_run(bench: Any) -> None:
    on = bench.recommender()
    bench.ask(on=on, dry_run=True)
    assert on.lineup.main.loaded.concentration.plain()["answers"] == 0
    bench.ask(on=on)
    bench.ask(on=on)
    found = on.lineup.main.loaded.concentration.plain()
    assert (found["answers"], found["coverage"]) == (2, 0.25)
    assert found["gini"] == pytest.approx(0.75)


def test_going_on_and_ranking_answer_over_http(bench: Any) -> None:
    service = bench.service()
    first = bench.ask(on=bench.recommender())
    body = {"decision_id": first.decision_id, "member_id": "m1", "session_id": "s1", "k": 3}
    found = post(bench, "/v1/recommend/next", body)
    assert found.status_code == 200
    assert [item["position"] for item in found.json()["items"]] == [10, 11, 12]
    wrong = post(bench, "/v1/recommend/next", body | {"decision_id": "x"})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "decision_id")
    ranked = post(bench, "/v1/rank", {"session_id": "s1", "candidates": ["t01", "t02"]})
    assert ranked.status_code == 200
    assert len(ranked.json()["items"]) == 2
    assert post(bench, "/v1/rank", {"session_id": "s1", "candidates": []}).json()["errors"][0]["field"] == "candidates"
    told = service.decision(ranked.json()["decision_id"])
    assert told is not None
    assert (told["kind"], told["controls"]["candidates"]) == ("rank", ["t01", "t02"])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_nothing_that_may_not_be_shown_is_ever_on_a_list(bench: Any, data: st.DataObject) -> None:
    now = bench.clock.now
    title = st.integers(0, 39).map(lambda number: f"t{number:02d}")
    gone, later, out, hidden = (data.draw(st.sets(title, max_size=8)) for _ in range(4))
    rows = two_genre_titles().to_pylist()
    for row in rows:
        row |= {"available_until": now} if row["title_id"] in gone else {}
        row |= {"available_from": now + timedelta(seconds=1)} if row["title_id"] in later else {}
    table = titles_table(rows)
    catalogue = bench.catalogue
    on = steady(bench, protected=3, max_move=1, diversity=0.5)
    columns = TitleColumns(table, catalogue)
    bench.put(on, models=replace(bench.models, windows=availability(table, catalogue), columns=columns, ranker=None))
    member = f"m-{next(NUMBERS)}"  # what one hides is hidden for good
    for title_id in sorted(hidden):
        bench.act("thumb_down", title_id, member_id=member, seconds=0)
    on._earlier.shown.put(member, RecommendRequest(session_id="s1"), Last("d", ("t00", *sorted(gone | out)), 0, 2**62))
    condition = data.draw(st.sampled_from([None, "true", "series", '"drama" in genres', "not known(available_until)"]))
    asked = {"member_id": member, "exclude_ids": sorted(out), "filter": condition, "k": 40, "dry_run": True}
    bench.clock.move(microseconds=1)
    lifted = {"where": f"title_id in {json.dumps(['t01', *sorted(gone)])}", "factor": 10.0}
    answer = bench.ask(on=on, boost=[lifted], **asked)
    bench.clock.now = now
    fits = {"series": set(range(0, 40, 5)), '"drama" in genres': set(range(1, 40, 2))}.get(
        condition or "", set(range(40))
    )
    ends = gone if condition == "not known(available_until)" else set()
    wanted = {f"t{number:02d}" for number in fits} - ends
    assert set(ids(answer)) == wanted - gone - later - out - hidden
