"""Intent labels: the fast version against a slow, readable twin, and cases worked by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.contracts.catalogue import UNKNOWN_TIME, Catalogue, catalogue
from foretaste.contracts.events import ACTION_CODES, ACTIONS, ENGAGEMENT, ENTRIES
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import (
    ACTION_CLASSES,
    DISCOVERIES,
    PLAYS,
    RELATIONS,
    SEARCH_CLASSES,
    Intent,
    LabelConfig,
    fingerprint,
    specifications,
)
from foretaste.contracts.relations import DAY_US, Past, relations
from foretaste.sessions.intent_horizons import next_labels, rest_of_session
from foretaste.sessions.intent_rules import RULES, Queries, is_named
from foretaste.sessions.label import intent_labels, queries_of
from foretaste.signals.histories import pack
from foretaste.testing.builders import interactions_table, titles_table

TITLES = catalogue(
    titles_table(
        [
            {"title_id": "film", "name": "The Midnight Cartel", "genres": ["crime", "drama"], "released_at": 0.0},
            {"title_id": "old", "name": "Overdue", "genres": ["crime"], "released_at": -4000.0},
            {"title_id": "show", "name": "Café Cartel", "kind": "show", "genres": ["drama"], "released_at": -20.0},
            {"title_id": "tale", "kind": "article", "name": "A Tale"},
            {"title_id": "e1", "kind": "episode", "series_id": "tale"},
        ]
    )
)
WORDS = ("cartel", "the midnight", "cafe", "drama", "tale")
DICE = st.integers(0, 2**32 - 1)
CONFIGS = (LabelConfig(), LabelConfig(chosen=("detail",), continue_within_days=2, return_after_days=1, explore_looks=1))


def by_dice(seed: int) -> tuple[Histories, Queries]:
    """Histories with every action, gaps on the bounds of the rules, fractions on theirs, and searches."""
    dice = np.random.default_rng(seed)
    lengths = dice.integers(0, 14, int(dice.integers(1, 5)))
    size = int(lengths.sum())
    ends = np.concatenate([[0], np.cumsum(lengths)])
    gaps = dice.choice([0, 1, DAY_US, 2 * DAY_US, 7 * DAY_US - 1, 7 * DAY_US, 28 * DAY_US], size)
    entry_T = dice.integers(0, len(ENTRIES), size).astype(np.int32)
    query_T = np.where(entry_T == ENTRIES.index("search"), dice.integers(-1, len(WORDS), size), -1).astype(np.int32)
    histories = Histories(
        ends.astype(np.int64),
        dice.integers(0, len(TITLES) + 1, size).astype(np.int32),
        dice.choice([ACTION_CODES[a] for a in ENGAGEMENT], size).astype(np.int32),
        np.concatenate([np.cumsum(gaps[a:b]) for a, b in itertools.pairwise(ends)]).astype(np.int64),
        np.concatenate([np.cumsum(dice.uniform(size=n) < 0.3) for n in lengths]).astype(np.int32),
        np.zeros(size, dtype=np.float32),
        dice.choice([np.nan, np.nan, 0.0, 0.05, 0.1, 0.5, 0.9, 1.0], size).astype(np.float32),
        entry_T,
    )
    return histories, Queries(query_T, WORDS)


def read(histories: Histories, queries: Queries, b: int) -> list[dict[str, Any]]:
    """One history as a list of what was done."""
    span = range(int(histories.offsets_B1[b]), int(histories.offsets_B1[b + 1]))
    return [
        {
            "code": int(histories.title_T[t]),
            "did": ACTIONS[histories.action_T[t]],
            "at": int(histories.at_T[t]),
            "session": int(histories.session_T[t]),
            "fraction": None if math.isnan(histories.fraction_T[t]) else round(float(histories.fraction_T[t]), 6),
            "entry": ENTRIES[histories.entry_T[t]],
            "query": None if queries.query_T[t] < 0 else queries.words[queries.query_T[t]],
        }
        for t in span
    ]


def is_chosen(one: dict[str, Any], config: LabelConfig) -> bool:
    return one["did"] in config.chosen_actions or one["fraction"] is not None


def action_of(history: list[dict[str, Any]], t: int, held: Catalogue, config: LabelConfig) -> str | None:
    """Say, reading backwards, what the member came for."""
    one = history[t]
    if one["code"] == 0:
        return None
    if one["did"] == "thumb_down":
        return "dislike"
    if not is_chosen(one, config):
        return {"rate": "rate", "thumb_up": "rate", "add_to_list": "save_for_later"}.get(one["did"], "look")
    mine = [other for other in history[:t] if other["code"] == one["code"]]
    chosen = [other for other in mine if is_chosen(other, config)]
    if chosen:
        days = (one["at"] - chosen[-1]["at"]) / DAY_US
        if held.ids[one["code"] - 1] in ("show", "tale"):
            return "continue_series" if days <= config.continue_within_days else "return_after_gap"
        if any(other["did"] == "complete" or (other["fraction"] or 0) >= config.finished_from for other in mine):
            return "rewatch"
        return "resume_unfinished" if days <= config.return_after_days else "return_after_gap"
    if any(other["did"] == "add_to_list" for other in mine):
        return "from_list"
    if one["entry"] != "browse":
        return f"{one['entry']}_then_play"
    return "sample" if one["fraction"] is not None and one["fraction"] < config.sample_below else "discover"


def recency_of(one: dict[str, Any], held: Catalogue) -> str | None:
    """Say how long the title had been out."""
    released = int(held.released_N1[one["code"]])
    days = (one["at"] - released) / DAY_US
    if released == UNKNOWN_TIME:
        return None
    return "week" if days <= 7 else "month" if days <= 30 else "year" if days <= 365 else "older"


def search_of(history: list[dict[str, Any]], t: int, held: Catalogue, config: LabelConfig) -> str | None:
    """Say what the search that led here was for, by all that it led to."""
    way = ("session", "entry", "query")
    one = history[t]
    if one["query"] is None:
        return None
    first = last = t
    while first > 0 and all(history[first - 1][name] == one[name] for name in way):
        first -= 1
    while last + 1 < len(history) and all(history[last + 1][name] == one[name] for name in way):
        last += 1
    for looks, other in enumerate(history[first : last + 1]):
        if is_chosen(other, config) and other["did"] != "thumb_down":
            if other["code"] and is_named(one["query"], held.names[other["code"] - 1]):
                return "fetch"
            return "find" if looks < config.explore_looks else "explore"
    return "explore"


def name_of(classes: tuple[str, ...], code: int) -> str | None:
    return None if code < 0 else classes[code]


@settings(deadline=None, max_examples=150)
@given(DICE, st.sampled_from(CONFIGS))
def test_labels_equal_those_of_a_twin_that_reads_one_interaction_at_a_time(seed: int, config: LabelConfig) -> None:
    histories, queries = by_dice(seed)
    labels = intent_labels(histories, TITLES, config, queries)
    for b in range(len(histories)):
        history = read(histories, queries, b)
        for place, one in enumerate(history):
            t = int(histories.offsets_B1[b]) + place
            assert name_of(ACTION_CLASSES, int(labels["action"][t])) == action_of(history, place, TITLES, config)
            assert name_of(config.recency_classes, int(labels["recency"][t])) == recency_of(one, TITLES)
            assert name_of(SEARCH_CLASSES, int(labels["search"][t])) == search_of(history, place, TITLES, config)
            assert labels["kind"][t] == TITLES.kind_N1[one["code"]]
            assert (labels["genre"][t] == TITLES.genres_N1G[one["code"]]).all()


@settings(deadline=None, max_examples=100)
@given(DICE)
def test_a_label_that_is_a_relation_is_that_of_the_title_as_a_candidate_just_before(seed: int) -> None:
    config = LabelConfig()
    histories, queries = by_dice(seed)
    label_T = intent_labels(histories, TITLES, config, queries)["action"]
    begin_T = np.repeat(histories.offsets_B1[:-1], histories.lengths_B)
    end_T = np.arange(len(label_T))
    before = histories.take(begin_T, end_T)  # of each interaction, all that stands before it
    standing, newest = Past(before, config).of(end_T, histories.title_T)
    found = relations(standing, TITLES.series_N1[histories.title_T], histories.at_T, config)
    for t, label in enumerate(label_T):
        if 0 <= label < len(RELATIONS):
            assert found[t] == label
        elif label >= 0 and ACTION_CLASSES[label] in DISCOVERIES:
            assert RELATIONS[found[t]] == "discover"
        seen = [i for i in range(int(begin_T[t]), t) if histories.title_T[i] == histories.title_T[t]]
        assert (newest[t] - before.offsets_B1[t] + begin_T[t] if newest[t] >= 0 else -1) == max(seen, default=-1)


@settings(deadline=None, max_examples=60)
@given(DICE)
def test_what_comes_next_and_in_the_rest_of_the_session_equals_a_plain_count(seed: int) -> None:
    histories, queries = by_dice(seed)
    labels = intent_labels(histories, TITLES, None, queries)
    for name, size in (("action", len(ACTION_CLASSES)), ("genre", len(TITLES.genres)), ("search", 3)):
        label_T = labels[name]
        after, rest_TC = next_labels(label_T, histories), rest_of_session(label_T, histories, size)
        for begin, end in zip(histories.offsets_B1, histories.offsets_B1[1:], strict=False):
            for t in range(int(begin), int(end)):
                later = range(t + 1, int(end))
                nothing = np.zeros(size) if label_T.ndim > 1 else -1
                assert np.array_equal(after[t], label_T[t + 1] if len(later) else nothing)
                counts = np.zeros(size)
                for other in (o for o in later if histories.session_T[o] == histories.session_T[t]):
                    if label_T.ndim > 1:
                        counts += label_T[other]
                    elif label_T[other] >= 0:
                        counts[label_T[other]] += 1
                assert rest_TC[t].tolist() == counts.tolist()


def test_bounds_belong_to_the_nearer_class_to_the_microsecond() -> None:
    rows = [("a", 0.0, "show"), ("a", 7.0, "show"), ("a", 14 + 1e-6, "show")]
    rows += [("b", 0.0, "old"), ("b", 28.0, "old"), ("b", 56 + 1e-6, "old")]
    histories, _ = pack(interactions_table(rows), TITLES)
    assert [ACTION_CLASSES[code] for code in intent_labels(histories, TITLES)["action"]] == [
        "discover", "continue_series", "return_after_gap", "discover", "resume_unfinished", "return_after_gap",
    ]  # fmt: skip


def test_what_the_catalogue_does_not_know_has_no_label() -> None:
    table = interactions_table([("a", 0.0, "film"), ("a", 1.0, "tale"), ("a", 2.0, "nobody knows")])
    histories, _ = pack(table, TITLES)
    labels = intent_labels(histories, TITLES, queries=queries_of(table))
    assert labels["recency"].tolist() == [0, -1, -1]
    assert labels["action"].tolist() == [0, 0, -1]
    assert [name_of(TITLES.kinds, int(code)) for code in labels["kind"]] == ["movie", "article", None]
    assert labels["genre"].sum(axis=1).tolist() == [2.0, 0.0, 0.0]
    assert labels["search"].tolist() == [-1, -1, -1]


def test_labels_keep_their_types_without_any_interaction() -> None:
    histories, _ = pack(interactions_table([("a", 0.0, "film")]), TITLES)
    none = histories.take(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
    labels = intent_labels(none, TITLES)
    assert {name: str(label.dtype) for name, label in labels.items()} == {
        "action": "int32", "genre": "float32", "kind": "int32", "recency": "int32", "search": "int32",
    }  # fmt: skip
    assert labels["genre"].shape == rest_of_session(labels["genre"], none, 2).shape == (0, len(TITLES.genres))
    assert next_labels(labels["action"], none).shape == (0,)


@pytest.mark.parametrize(
    ("query", "name", "named"),
    [
        ("midnight CARTEL", "The Midnight Cartel", True),
        ("cafe", "Café-Cartel!", True),
        ("midnight train", "The Midnight Cartel", False),
        ("mid", "The Midnight Cartel", False),
        ("...", "The Midnight Cartel", False),
        ("君の名は", "君の名は。", True),
    ],
)
def test_a_query_names_a_title_when_each_of_its_words_is_one_of_the_name(query: str, name: str, named: bool) -> None:
    assert is_named(query, name) == named


def test_what_counts_as_choosing_follows_from_the_log_unless_it_is_set() -> None:
    usual = ["complete", "play", "rate", "stop", "thumb_up"]
    assert LabelConfig().following(usual, {"play": 3, "thumb_up": 1, "detail": 9}).chosen == tuple(sorted(PLAYS))
    assert LabelConfig().following(usual, {"rate": 3}).chosen == tuple(usual)
    opened = LabelConfig().following(["detail"], ["thumb_up", "detail"]).chosen
    assert opened is not None
    assert set(opened) == ENGAGEMENT - {"add_to_list", "thumb_down"}
    assert LabelConfig(chosen=("play",)).following(["detail"]).chosen == ("play",)


def test_specifications_name_rules_that_exist_and_their_fingerprint_follows_every_threshold() -> None:
    config = LabelConfig(recency_days={"fresh": 3, "stale": 9})
    specs = specifications(config, TITLES)
    assert {spec.rule for spec in specs} <= RULES.keys()
    assert {spec.name for spec in specs} == set(Intent)
    assert next(spec for spec in specs if spec.name is Intent.RECENCY).classes == ("fresh", "stale", "older")
    other = config.model_copy(update={"sample_below": 0.2})
    assert fingerprint(config, specs) == fingerprint(config, specs) != fingerprint(other, specs)
    with pytest.raises(ValueError, match="rise"):
        LabelConfig(recency_days={"month": 30, "week": 7})
    with pytest.raises(ValueError, match="twice"):
        LabelConfig(intents=("kind", "kind"))
