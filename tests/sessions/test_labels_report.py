"""The label report: counted by hand, and the same however the log lies in buckets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.events import ENGAGEMENT, PLAY_LIKE
from foretaste.contracts.intents import LabelConfig
from foretaste.sessions.labels_report import label_report
from foretaste.signals.histories import pack
from foretaste.testing.builders import interactions_table, random_interactions, titles_table

BARE = catalogue(titles_table([{"title_id": one, "kind": "article"} for one in ("a", "b", "c")]))
TITLES = titles_table(12)


def said(buckets: list[pa.Table], known: Any = BARE, targets: Any = PLAY_LIKE) -> dict[str, Any]:
    config = LabelConfig().following(targets)
    return label_report(buckets, known, config, target_actions=targets, pack=pack)


def test_shares_are_those_counted_by_hand() -> None:
    table = interactions_table(
        [("m", 0.0, "a", "detail"), ("m", 0.001, "b"), ("m", 0.002, "a"), ("m", 1.0, "b"), ("n", 0.5, "c")]
    )
    report = said([table])
    assert (report["interactions"], report["sessions"]) == (5, 3)
    assert (report["positions_with_a_next"], report["positions_with_a_rest"]) == (3, 2)
    action = report["intents"]["action"]
    assert {name: row["count"] for name, row in action["classes"].items()} == {
        "discover": 3, "resume_unfinished": 1, "look": 1,
    }  # fmt: skip
    assert action["classes"]["discover"]["share"] == 0.6
    assert action["classes"]["discover"]["next"] == round(2 / 3, 6)  # after the look and after b; then b is resumed
    assert action["classes"]["discover"]["rest"] == 1.0  # b comes after the look, a after b
    marks = zip(table["split_time"].to_pylist(), table["action"].to_pylist(), strict=True)
    assert report["choices_to_learn_from"] == sum(mark == ("train", "play") for mark in marks)


def test_it_says_why_a_head_is_off_and_a_class_absent() -> None:
    intents = said([interactions_table([("m", day, one) for day, one in enumerate("abc")] + [("n", 0.0, "a")])])[
        "intents"
    ]
    assert {name: intent["why_off"] for name, intent in intents.items()} == {
        "action": "every choice to learn from is discover",
        "genre": "no title has a genre",
        "kind": "every choice to learn from is article",
        "recency": "no title has a release date",
        "search": "no search led to an interaction",
    }
    assert intents["action"]["absent"]["continue_series"] == "no series in the catalogue"
    assert intents["action"]["absent"]["sample"] == "no played fractions"
    assert intents["action"]["absent"]["rate"] == "does not occur"


def test_it_is_the_same_however_the_log_lies_in_buckets() -> None:
    known = catalogue(TITLES)
    table = random_interactions(TITLES, actors=15)
    actors = table["actor_id"].unique().to_pylist()
    parts = [table.filter(pc.is_in(table["actor_id"], pa.array(actors[n::4]))) for n in range(4)]
    whole = said([table], known)
    assert said([*parts, table.slice(0, 0)], known) == whole
    assert all(intent["on"] for name, intent in whole["intents"].items() if name != "search")
    for intent in whole["intents"].values():
        counts = [row["count"] for row in intent["classes"].values()]
        assert intent["labelled"] == (sum(counts) if intent["kind"] == "single" else intent["labelled"])
        assert sum(intent["by_split"].values()) == intent["labelled"]


def test_an_empty_log_has_an_empty_report() -> None:
    report = said([interactions_table([("m", 0.0, "a")]).slice(0, 0)], targets=ENGAGEMENT)
    assert report["interactions"] == 0
    assert report["intents"]["action"]["why_off"] == "there are no choices to learn from"
    assert np.isfinite(report["intents"]["action"]["coverage"])
