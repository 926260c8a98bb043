"""Intent labels: the fast version against a slow, readable twin, and cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.contracts.catalogue import UNKNOWN_TIME, Catalogue, catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import ACTION_CLASSES, CONTINUE_WITHIN_DAYS, RECENCY_CLASSES, RECENCY_DAYS
from foretaste.sessions.label import DAY_US, intent_labels
from foretaste.signals.histories import pack
from foretaste.testing.builders import interactions_table, random_interactions, titles_table

TITLES = catalogue(
    titles_table(
        [
            {"title_id": "new", "kind": "show", "genres": ["drama", "comedy"], "released_at": 0.0},
            {"title_id": "old", "kind": "movie", "genres": ["drama"], "released_at": -4000.0},
            {"title_id": "undated", "kind": "movie", "genres": []},
        ]
    )
)


def action_of(histories: Histories, t: int, begin: int) -> str | None:
    """Say, reading backwards, how interaction t relates to those from `begin` on."""
    if histories.title_T[t] == 0:
        return None
    for earlier in range(t - 1, begin - 1, -1):
        if histories.title_T[earlier] == histories.title_T[t]:
            soon = histories.at_T[t] - histories.at_T[earlier] <= CONTINUE_WITHIN_DAYS * DAY_US
            return "continue" if soon else "return"
    return "discover"


def recency_of(histories: Histories, t: int, known: Catalogue) -> str | None:
    """Say how long the title of interaction t had been out."""
    released = int(known.released_N1[histories.title_T[t]])
    if released == UNKNOWN_TIME:
        return None
    days = (int(histories.at_T[t]) - released) / DAY_US
    for name, bound in zip(RECENCY_CLASSES, RECENCY_DAYS, strict=False):
        if days <= bound:
            return name
    return RECENCY_CLASSES[-1]


def name_of(classes: tuple[str, ...], code: int) -> str | None:
    return None if code < 0 else classes[code]


@pytest.mark.parametrize("seed", range(5))
def test_labels_equal_those_of_a_twin_that_reads_one_interaction_at_a_time(seed: int) -> None:
    titles = titles_table(9, seed=seed)
    known = catalogue(titles)
    some = catalogue(titles.slice(0, 7))  # two titles of the log are unknown to it
    for held in (known, some):
        histories, _ = pack(random_interactions(titles, actors=12, days=40, per_actor=15, seed=seed), held)
        labels = intent_labels(histories, held)
        for b in range(len(histories)):
            begin, end = int(histories.offsets_B1[b]), int(histories.offsets_B1[b + 1])
            for t in range(begin, end):
                assert name_of(ACTION_CLASSES, int(labels["action"][t])) == action_of(histories, t, begin)
                assert name_of(RECENCY_CLASSES, int(labels["recency"][t])) == recency_of(histories, t, held)
                code = int(histories.title_T[t])
                assert labels["kind"][t] == held.kind_N1[code]
                assert (labels["genre"][t] == held.genres_N1G[code]).all()


def test_seven_days_to_the_microsecond_still_continue() -> None:
    week = float(CONTINUE_WITHIN_DAYS)
    rows = [("a", 0.0, "old"), ("a", week, "old"), ("a", 2 * week + 1e-6, "old"), ("b", 1.0, "old")]
    histories, _ = pack(interactions_table(rows), TITLES)
    assert intent_labels(histories, TITLES)["action"].tolist() == [
        ACTION_CLASSES.index(name) for name in ("discover", "continue", "return", "discover")
    ]


def test_what_the_catalogue_does_not_know_has_no_label() -> None:
    rows = [("a", 0.0, "new"), ("a", 1.0, "undated"), ("a", 2.0, "nobody knows")]
    histories, _ = pack(interactions_table(rows), TITLES)
    labels = intent_labels(histories, TITLES)
    assert labels["recency"].tolist() == [0, -1, -1]
    assert labels["action"].tolist() == [0, 0, -1]
    assert labels["kind"].tolist() == [TITLES.kinds.index("show"), TITLES.kinds.index("movie"), -1]
    assert labels["genre"].sum(axis=1).tolist() == [2.0, 0.0, 0.0]


def test_labels_keep_their_types_without_any_interaction() -> None:
    histories, _ = pack(interactions_table([("a", 0.0, "new")]), TITLES)
    none = histories.take(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
    labels = intent_labels(none, TITLES)
    assert [labels[name].dtype for name in ("action", "kind", "recency", "genre")] == ["int32"] * 3 + ["float32"]
    assert labels["genre"].shape == (0, len(TITLES.genres))
