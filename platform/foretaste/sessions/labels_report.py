"""What intents a log can teach: how many interactions have a label, of which class, and why a head learns nothing.

Counts add up over buckets, so that memory is bounded by one bucket.

Shapes: T interactions of one bucket, C classes of one intent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.catalogue import UNKNOWN_TIME, Catalogue
from foretaste.contracts.events import ACTIONS, ENTRIES
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import Intent, IntentSpec, LabelConfig, fingerprint, specifications
from foretaste.sessions.intent_horizons import next_labels, one_hot, rest_of_session, session_ends
from foretaste.sessions.intent_rules import queries_of
from foretaste.sessions.label import intent_labels

SPLITS = ("train", "validation", "test")
LEAST_CLASSES = 2
"""Classes among the choices to learn from below which a head learns nothing."""

Pack = Any
"""`signals.histories.pack`: an INTERACTIONS table and a catalogue to histories and their actors."""


def label_report(
    buckets: Iterable[pa.Table],
    catalogue: Catalogue,
    config: LabelConfig,
    *,
    target_actions: Collection[str],
    pack: Pack,
) -> dict[str, Any]:
    """Describe the labels of INTERACTIONS tables, each of whole actors and sorted by (actor_id, position).

    By intent: its classes; coverage (share of all interactions that have a label); per class its share among the
    labels of all interactions, of the choices to learn from (`target_actions`, train rows of the time split), of the
    interaction after each, and the share of positions inside a session after which it still comes; counts by split;
    and why the head is off, or a class absent, where that is so. `pack` is `signals.histories.pack`.
    """
    specs = specifications(config, catalogue)
    counts: Counter[tuple[str, ...]] = Counter()
    for table in buckets:
        if table.num_rows:
            counts += _counts(table, catalogue, config, specs, target_actions, pack)
    total = counts["interactions",]
    return {
        "fingerprint": fingerprint(config, specs),
        "config": config.model_dump(mode="json"),
        "interactions": total,
        "sessions": counts["sessions",],
        "choices_to_learn_from": counts["choices",],
        "positions_with_a_next": counts["next",],
        "positions_with_a_rest": counts["rest",],
        "intents": {spec.name.value: _of(spec, counts, catalogue, total) for spec in specs},
    }


def _counts(
    table: pa.Table,
    catalogue: Catalogue,
    config: LabelConfig,
    specs: tuple[IntentSpec, ...],
    target_actions: Collection[str],
    pack: Pack,
) -> Counter[tuple[str, ...]]:
    histories: Histories = pack(table, catalogue)[0]
    labels = intent_labels(histories, catalogue, config, queries_of(table))
    split_T = np.asarray(table["split_time"].to_pylist())
    named_T = np.array(ACTIONS)[histories.action_T]
    learned_T = np.isin(named_T, list(target_actions)) & (split_T == SPLITS[0]) & (histories.title_T > 0)
    place_T = np.arange(len(named_T))
    stays_T = session_ends(histories) > place_T
    counts: Counter[tuple[str, ...]] = Counter(
        {
            ("interactions",): len(named_T),
            ("sessions",): int((session_ends(histories) == place_T).sum()),
            ("choices",): int(learned_T.sum()),
            ("next",): len(named_T) - int((histories.lengths_B > 0).sum()),
            ("rest",): int(stays_T.sum()),
            ("fraction",): int((~np.isnan(histories.fraction_T)).sum()),
        }
    )
    counts.update({("action", name): int(n) for name, n in zip(*np.unique(named_T, return_counts=True), strict=True)})
    entry_T = np.array(ENTRIES)[histories.entry_T]
    counts.update({("entry", name): int(n) for name, n in zip(*np.unique(entry_T, return_counts=True), strict=True)})
    for spec in specs:
        label_T = labels[spec.name.value]
        size = len(spec.classes)
        hot_TC = one_hot(label_T, size)
        views: dict[str, NDArray[Any]] = {
            "all": hot_TC,
            "choices": hot_TC[learned_T],
            "next": one_hot(next_labels(label_T, histories), size),
            "rest": rest_of_session(label_T, histories, size)[stays_T] > 0,
        } | {split: hot_TC[split_T == split] for split in SPLITS}
        name = spec.name.value
        for view, part_TC in views.items():
            counts[name, view] += int((part_TC.sum(axis=1) > 0).sum()) if size else 0
            counts.update({(name, view, c): int(n) for c, n in zip(spec.classes, part_TC.sum(axis=0), strict=True)})
    return counts


def _of(spec: IntentSpec, counts: Counter[tuple[str, ...]], catalogue: Catalogue, total: int) -> dict[str, Any]:
    name = spec.name.value
    classes: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for one in spec.classes:
        if not counts[name, "all", one]:
            absent[one] = _lacking(spec, counts, catalogue) or _why_absent(one, counts, catalogue)
            continue
        classes[one] = {
            "count": counts[name, "all", one],
            "share": _share(counts[name, "all", one], counts[name, "all"]),
            "choices": _share(counts[name, "choices", one], counts[name, "choices"]),
            "next": _share(counts[name, "next", one], counts[name, "next"]),
            "rest": _share(counts[name, "rest", one], counts["rest",]),
            "by_split": {split: counts[name, split, one] for split in SPLITS},
        }
    learned = [one for one in spec.classes if counts[name, "choices", one]]
    on = len(learned) >= LEAST_CLASSES
    return {
        "kind": spec.kind,
        "rule": spec.rule,
        "on": on,
        "why_off": None if on else _why_off(spec, learned, counts, catalogue),
        "labelled": counts[name, "all"],
        "coverage": _share(counts[name, "all"], total),
        "coverage_of_choices": _share(counts[name, "choices"], counts["choices",]),
        "by_split": {split: counts[name, split] for split in SPLITS},
        "classes": classes,
        "absent": absent,
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _why_off(spec: IntentSpec, learned: list[str], counts: Counter[tuple[str, ...]], catalogue: Catalogue) -> str:
    if lacking := _lacking(spec, counts, catalogue):
        return lacking
    if not counts["choices",]:
        return "there are no choices to learn from"
    return f"every choice to learn from is {learned[0]}" if learned else "no choice to learn from has a label"


def _lacking(spec: IntentSpec, counts: Counter[tuple[str, ...]], catalogue: Catalogue) -> str | None:
    """Say what the log would need to have for the intent, where it lacks that."""
    return {
        Intent.GENRE: "no title has a genre" if not catalogue.genres else None,
        Intent.RECENCY: "no title has a release date" if (catalogue.released_N1 == UNKNOWN_TIME).all() else None,
        Intent.SEARCH: None if counts["entry", "search"] else "no search led to an interaction",
    }.get(spec.name)


def _why_absent(one: str, counts: Counter[tuple[str, ...]], catalogue: Catalogue) -> str:
    """Say what the log would need to have for a class, where it lacks that."""
    series = bool(catalogue.series_N1.any())
    lacking = {
        "search_then_play": None if counts["entry", "search"] else "no search led to an interaction",
        "message_then_play": None if counts["entry", "message"] else "no message led to an interaction",
        "sample": None if counts["fraction",] else "no played fractions",
        "rewatch": None
        if counts["fraction",] or counts["action", "complete"]
        else "no played fractions or completions",
        "continue_series": None if series else "no series in the catalogue",
        "from_list": None if counts["action", "add_to_list"] else "nothing is put on a list",
        "save_for_later": None if counts["action", "add_to_list"] else "nothing is put on a list",
        "dislike": None if counts["action", "thumb_down"] else "no thumbs down",
    }
    return lacking.get(one) or "does not occur"
