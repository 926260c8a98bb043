"""Candidate features equal a plain walk over one candidate at a time, whatever the batch."""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from foretaste.contracts.catalogue import UNKNOWN_TIME, Catalogue, catalogue
from foretaste.contracts.events import ACTIONS
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import ACTION_CLASSES, DISCOVERIES, PLAYS
from foretaste.contracts.words import TOKEN_PLACES, hashed
from foretaste.signals import candidates
from foretaste.signals.candidates import CANDIDATE_COLUMNS, candidate_features
from foretaste.signals.crosses import LEAST_LOGPROB, LONGEST_HOURS
from foretaste.signals.histories import pack
from foretaste.signals.session import DISLIKE, STEPS_TO_HALF
from foretaste.signals.views import MemberView, TitleView
from foretaste.testing.builders import START, interactions_table, random_interactions, titles_table

DAY_US, MINUTE_US = 86_400_000_000, 60_000_000
START_US = int(START.timestamp()) * 1_000_000
TITLES = titles_table(14, seed=3)
KNOWN = catalogue(TITLES)
Case = dict[str, Any]


def case(seed: int, *, size: int = 4, pool: int = 6, known: Catalogue = KNOWN) -> Case:
    """Questions by dice, with empty histories, padding, ties, infinite scores and members of whom nothing is known."""
    dice = np.random.default_rng(seed)
    table = random_interactions(TITLES, actors=size, days=12, per_actor=dice.choice([0.5, 4, 15]), seed=seed)
    packed, actors = pack(table, known)
    empty = packed.take(np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64))
    histories = packed.rows(np.arange(len(actors))) if len(actors) == size else empty
    last_B = [histories.at_T[stop - 1] if stop > start else START_US for start, stop in spans(histories)]
    asof_B = np.array(last_B) + dice.choice([1, 5 * MINUTE_US, 30 * MINUTE_US, 31 * MINUTE_US, 9 * DAY_US], size)
    scores_BN = np.log(dice.dirichlet(np.ones(len(known)), size)).round(1).astype(np.float32)
    scores_BN[dice.uniform(size=scores_BN.shape) < 0.05] = -np.inf
    sizes = {"num_genres": len(known.genres), "num_kinds": len(known.kinds)}
    members = MemberView.absent(size, **sizes)
    for b in np.flatnonzero(dice.uniform(size=size) < 0.7):
        members.genre_affinity_BG[b] = dice.dirichlet(np.ones(sizes["num_genres"]))
        members.kind_affinity_BK[b] = dice.dirichlet(np.ones(sizes["num_kinds"]))
        members.count_30d_B[b], members.tenure_days_B[b] = dice.integers(0, 50), dice.uniform(0, 400)
    plays = dice.integers(0, 1000, (3, len(known) + 1))
    titles = TitleView.absent(known)
    titles.plays_7d[:], titles.plays_30d[:], titles.plays_all[:] = plays
    titles.plays_1d[:] = plays[0] // 7
    titles.first_seen_ms[:] = START_US // 1000 - dice.integers(-20, 400, len(known) + 1) * 86_400_000
    titles.first_seen_ms[dice.uniform(size=len(known) + 1) < 0.2] = 0
    shares = {"session_genres_lately": "num_genres", "session_genres_refused": "num_genres",
              "past_genres": "num_genres", "past_kinds": "num_kinds"}  # fmt: skip
    signals = {name: dice.dirichlet(np.ones(sizes[of]), size).astype(np.float32) for name, of in shares.items()}
    signals["query_tokens"] = (dice.uniform(size=(size, TOKEN_PLACES)) < 0.2).astype(np.int64)
    signals["query_tokens"][dice.uniform(size=size) < 0.4] = 0
    if dice.uniform() < 0.2:
        signals = {}
    titles.completion_rate[:] = dice.uniform(size=len(known) + 1)
    titles.asof_ms[:] = 0
    widths = {"genre": sizes["num_genres"], "kind": sizes["num_kinds"], "recency": 4, "action": len(ACTION_CLASSES)}
    heads = [name for name in widths if dice.uniform() < 0.8]
    return {
        "histories": histories,
        "asof_B": asof_B,
        "candidates_BC": dice.integers(0, len(known) + 1, (size, pool)).astype(np.int32),
        "intent_scores_BN": scores_BN,
        "intents": {name: dice.dirichlet(np.ones(widths[name]), size).astype(np.float32) for name in heads},
        "catalogue": known,
        "members": members,
        "titles": titles,
        "signals": signals,
    }


def features(made: Case) -> NDArray[np.float32]:
    return candidate_features(**made)


def part(made: Case, rows: NDArray[np.int64]) -> Case:
    return made | {
        "histories": made["histories"].rows(rows),
        "members": made["members"].rows(rows),
        "intents": {name: value[rows] for name, value in made["intents"].items()},
        "signals": {name: value[rows] for name, value in made["signals"].items()},
        **{name: made[name][rows] for name in ("asof_B", "candidates_BC", "intent_scores_BN")},
    }


def spans(histories: Histories) -> list[tuple[int, int]]:
    return list(zip(histories.offsets_B1[:-1].tolist(), histories.offsets_B1[1:].tolist(), strict=True))


def twin(made: Case, b: int, c: int) -> dict[str, float]:
    """All columns of one candidate of one request, in plain Python."""
    known: Catalogue = made["catalogue"]
    code, asof = int(made["candidates_BC"][b, c]), int(made["asof_B"][b])
    if code == 0:
        return dict.fromkeys(CANDIDATE_COLUMNS, 0.0)
    events = past(made["histories"], *spans(made["histories"])[b])
    session = going_on(events, asof)
    pool = [clipped(made["intent_scores_BN"][b, code - 1]) for code in made["candidates_BC"][b] if code > 0]
    score = clipped(made["intent_scores_BN"][b, code - 1])
    spread = statistics.pstdev(pool)
    genres = [g for g in range(len(known.genres)) if known.genres_N1G[code, g]]
    kind, released = int(known.kind_N1[code]), int(known.released_N1[code])
    age = None if released == UNKNOWN_TIME else (asof - released) / DAY_US
    mine = [event for event in events if event["title"] == code]
    could_be = choosing(mine, known.kinds[kind] == "show", asof)
    members: MemberView = made["members"]
    titles: TitleView = made["titles"]
    intents: Mapping[str, NDArray[np.float32]] = {name: value[b] for name, value in made["intents"].items()}
    seen_ms = int(titles.first_seen_ms[code])
    return {
        "intent_logprob": score,
        "intent_rank": math.log1p(sum(other > score for other in pool)),
        "intent_standing": (score - statistics.fmean(pool)) / spread if spread > 1e-9 else 0.0,
        "genre_match": mean([float(intents["genre"][g]) for g in genres]) if "genre" in intents else 0.0,
        "kind_match": float(intents["kind"][kind]) if "kind" in intents else 0.0,
        "recency_match": 0.0
        if age is None or "recency" not in intents
        else float(intents["recency"][bisect.bisect_left([7, 30, 365], age)]),
        "action_match": sum(float(intents["action"][ACTION_CLASSES.index(name)]) for name in could_be)
        if "action" in intents
        else 0.0,
        "session_genre": mean([share(session, partial(part_of, known, g)) for g in genres]),
        "session_kind": share(session, lambda title: float(title > 0 and known.kind_N1[title] == kind), by_kind=True),
        "member_genre": mean([float(members.genre_affinity_BG[b, g]) for g in genres]),
        "member_kind": float(members.kind_affinity_BK[b, kind]),
        "plays_7d": math.log1p(titles.plays_7d[code]),
        "plays_30d": math.log1p(titles.plays_30d[code]),
        "plays_all": math.log1p(titles.plays_all[code]),
        "completion_rate": float(titles.completion_rate[code]),
        "age": math.log1p(max(age or 0.0, 0.0)),
        "age_unknown": float(age is None),
        "seen_in_session": float(any(event["title"] == code for event in session)),
        "seen_before": float(bool(mine)),
        **of_signals(made, b, code),
        **of_the_past(mine, session, could_be, asof),
        "plays_1d": math.log1p(titles.plays_1d[code]),
        "first_seen": math.log1p(max((asof - seen_ms * 1000) / DAY_US, 0.0)) if seen_ms else 0.0,
        "is_series": float(known.kinds[kind] == "show"),
    }


def of_signals(made: Case, b: int, code: int) -> dict[str, float]:
    """The columns of signals, each a sum over the title's genres, its kind or its words."""
    known: Catalogue = made["catalogue"]
    told = {name: value[b] for name, value in made["signals"].items()}
    genres = [g for g in range(len(known.genres)) if known.genres_N1G[code, g]]

    def of_genres(name: str) -> float:
        return mean([float(told[name][g]) for g in genres]) if told else 0.0

    asked = {place for place, count in enumerate(told["query_tokens"]) if count} if told else set()
    words = f"{known.names[code - 1]} {' '.join(known.genres[g] for g in genres)}"
    own = {place for place, count in enumerate(hashed(words)) if count}
    return {
        "session_genre_yes": of_genres("session_genres_lately"),
        "session_genre_no": of_genres("session_genres_refused"),
        "past_genre": of_genres("past_genres"),
        "past_kind": float(told["past_kinds"][known.kind_N1[code]]) if told else 0.0,
        "query_match": len(asked & own) / len(asked) if asked else 0.0,
    }


def of_the_past(
    mine: list[dict[str, Any]], session: list[dict[str, Any]], could_be: tuple[str, ...], asof: int
) -> dict[str, float]:
    """The columns of what was done with the title before."""
    chosen = [e for e in mine if chooses(e)]

    def since(events: list[dict[str, Any]]) -> float:
        return math.log1p(min((asof - events[-1]["at"]) / 3.6e9, LONGEST_HOURS) if events else LONGEST_HOURS)

    relations = {"continues": "continue_series", "resumes": "resume_unfinished", "returns": "return_after_gap",
                 "rewatches": "rewatch", "from_list": "from_list"}  # fmt: skip
    return {
        "chosen_in_session": float(any(e in session and e["at"] >= session[0]["at"] for e in chosen)),
        "since_seen": since(mine),
        "since_chosen": since(chosen),
        "finished": float(any(e["fraction"] >= 0.9 or ACTIONS[e["action"]] == "complete" for e in mine)),
        "listed": float(any(ACTIONS[e["action"]] == "add_to_list" for e in mine)),
        **{name: float(could_be == (relation,)) for name, relation in relations.items()},
    }


def chooses(event: dict[str, Any]) -> bool:
    return ACTIONS[event["action"]] in PLAYS or not math.isnan(event["fraction"])


def choosing(mine: list[dict[str, Any]], series: bool, asof: int) -> tuple[str, ...]:
    """Name the classes that choosing a title can have after what was done with it before."""
    chosen = [e for e in mine if chooses(e)]
    if not chosen:
        listed = any(ACTIONS[e["action"]] == "add_to_list" for e in mine)
        return ("from_list",) if listed else ("discover", *DISCOVERIES)
    days = (asof - chosen[-1]["at"]) / DAY_US
    if series:
        return ("continue_series",) if days <= 7 else ("return_after_gap",)
    if any(e["fraction"] >= 0.9 or ACTIONS[e["action"]] == "complete" for e in mine):
        return ("rewatch",)
    return ("resume_unfinished",) if days <= 28 else ("return_after_gap",)


def past(histories: Histories, start: int, stop: int) -> list[dict[str, Any]]:
    names = {"title": "title_T", "action": "action_T", "at": "at_T", "session": "session_T", "dwell": "dwell_T",
             "fraction": "fraction_T"}  # fmt: skip
    return [{name: getattr(histories, array)[t].item() for name, array in names.items()} for t in range(start, stop)]


def going_on(events: list[dict[str, Any]], asof: int) -> list[dict[str, Any]]:
    if not events or asof - events[-1]["at"] - int(events[-1]["dwell"] * 1e6) > 30 * MINUTE_US:
        return []
    return [event for event in events if event["session"] == events[-1]["session"]]


def share(session: list[dict[str, Any]], portion: Any, *, by_kind: bool = False) -> float:
    weights = [
        0.0 if event["action"] == DISLIKE else 2 ** (-steps / STEPS_TO_HALF)
        for steps, event in enumerate(reversed(session))
    ]
    newest_first = [event["title"] for event in reversed(session)]
    whole = [float(title > 0 and (by_kind or KNOWN.genres_N1G[title].any())) for title in newest_first]
    total = sum(w * one for w, one in zip(weights, whole, strict=True))
    return sum(w * portion(title) for w, title in zip(weights, newest_first, strict=True)) / total if total else 0.0


def part_of(known: Catalogue, genre: int, title: int) -> float:
    return float(known.genres_N1G[title, genre]) / max(float(known.genres_N1G[title].sum()), 1.0)


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def clipped(score: float) -> float:
    return max(float(score), LEAST_LOGPROB)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_features_equal_the_walk_over_one_candidate_at_a_time(seed: int) -> None:
    made = case(seed)
    found = features(made)
    assert found.shape == (4, 6, len(CANDIDATE_COLUMNS))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    for b, c in np.ndindex(4, 6):
        wanted = twin(made, b, c)
        assert wanted.keys() == set(CANDIDATE_COLUMNS)
        row = [wanted[name] for name in CANDIDATE_COLUMNS]
        # Sums are taken in another order, so a value may be one unit in its last place off.
        np.testing.assert_allclose(found[b, c], np.array(row, dtype=np.float32), rtol=3e-7, atol=1e-7)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_a_batch_gives_the_bits_that_its_requests_give_alone(seed: int) -> None:
    made = case(seed, size=9, pool=33)
    whole = features(made)
    for b in range(9):
        alone = features(part(made, np.array([b])))
        assert alone.tobytes() == whole[b : b + 1].tobytes()


def test_rows_done_some_at_a_time_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    made = case(5, size=12)
    whole = features(made)
    monkeypatch.setattr(candidates, "_CELLS", 80)
    assert features(made).tobytes() == whole.tobytes()


def test_a_click_changes_what_the_session_says() -> None:
    action = next(code for code in range(1, 15) if "action" in titles_genres(code))
    before = one(interactions_table([("m", 0.0, "t0000")]), code=action, asof=START_US + 5 * DAY_US)
    clicked = interactions_table([("m", 0.0, "t0000"), ("m", 4.99999, KNOWN.ids[action - 1])])
    after = one(clicked, code=action, asof=START_US + 5 * DAY_US)
    assert before["session_genre"] == before["seen_in_session"] == before["chosen_in_session"] == 0.0
    assert after["session_genre"] > 0.0
    assert after["seen_in_session"] == 1.0
    assert after["chosen_in_session"] == 1.0
    assert after["since_chosen"] < before["since_chosen"]


def test_a_session_ends_without_an_event() -> None:
    table = interactions_table([("m", 0.0, "t0003")])
    assert one(table, code=4, asof=START_US + 30 * MINUTE_US)["seen_in_session"] == 1.0
    assert one(table, code=4, asof=START_US + 30 * MINUTE_US + 1)["seen_in_session"] == 0.0


def test_what_is_still_playing_holds_its_session_open() -> None:
    table = interactions_table([("m", 0.0, "t0003")])
    table = table.set_column(table.column_names.index("dwell_seconds"), "dwell_seconds", [[3600.0]])
    assert one(table, code=4, asof=START_US + 90 * MINUTE_US)["seen_in_session"] == 1.0
    assert one(table, code=4, asof=START_US + 91 * MINUTE_US)["seen_in_session"] == 0.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("asof_B", np.zeros(3, dtype=np.int64)),
        ("candidates_BC", np.full((4, 6), 99, dtype=np.int32)),
        ("intent_scores_BN", np.zeros((4, 5), dtype=np.float32)),
        ("intents", {"genre": np.zeros((4, 1), dtype=np.float32)}),
        ("members", MemberView.absent(4, num_genres=1, num_kinds=3)),
    ],
)
def test_shapes_that_do_not_fit_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="wanted"):
        features(case(1) | {name: value})


def test_heads_may_have_some_of_the_classes_in_any_order() -> None:
    made = next(found for seed in range(50) if {"action", "recency"} <= (found := case(seed))["intents"].keys())
    order, months = [12, 0, 4, 2, 5], [3, 0]
    some = {
        "action": (ACTION_CLASSES, made["intents"]["action"], order),
        "recency": (("week", "month", "year", "older"), made["intents"]["recency"], months),
    }
    narrow: Case = {name: chance[:, kept] for name, (_, chance, kept) in some.items()}
    wide: Case = {
        name: np.where(np.isin(np.arange(len(of)), kept), chance, 0) for name, (of, chance, kept) in some.items()
    }
    classes = {name: tuple(of[place] for place in kept) for name, (of, _, kept) in some.items()}
    some_classes = features(made | {"intents": made["intents"] | narrow, "classes": classes})
    assert some_classes.tobytes() == features(made | {"intents": made["intents"] | wide}).tobytes()


def test_no_requests_give_no_rows() -> None:
    assert features(part(case(1), np.zeros(0, dtype=np.int64))).shape == (0, 6, len(CANDIDATE_COLUMNS))


def titles_genres(code: int) -> list[str]:
    return [name for name, has in zip(KNOWN.genres, KNOWN.genres_N1G[code], strict=True) if has]


def one(table: Any, *, code: int, asof: int) -> dict[str, float]:
    """Features of one title for the only actor of a table, with nothing else known."""
    histories, _ = pack(table, KNOWN)
    found = candidate_features(
        histories,
        np.array([asof]),
        np.array([[code]], dtype=np.int32),
        np.zeros((1, len(KNOWN)), dtype=np.float32),
        {},
        KNOWN,
        MemberView.absent(1, num_genres=len(KNOWN.genres), num_kinds=len(KNOWN.kinds)),
        TitleView.absent(KNOWN),
    )
    return dict(zip(CANDIDATE_COLUMNS, found[0, 0].tolist(), strict=True))
