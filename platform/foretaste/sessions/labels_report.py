"""What intents a log can teach: how many interactions have a label, of which class, and why a head learns nothing.

Counts add up over buckets, so that memory is bounded by one bucket.

Shapes: T interactions of one bucket, C classes of one intent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from foretaste.contracts.catalogue import UNKNOWN_TIME, Catalogue
from foretaste.contracts.catalogue import catalogue as catalogue_of
from foretaste.contracts.columns import INTERACTIONS
from foretaste.contracts.events import ACTION_CODES, ACTIONS, ENTRIES
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import Intent, IntentSpec, LabelConfig, fingerprint, specifications
from foretaste.ops.tables import prepared_buckets, prepared_files, read_prepared, read_titles
from foretaste.sessions.intent_horizons import next_labels, rest_of_session, session_ends
from foretaste.sessions.intent_rules import queries_of
from foretaste.sessions.label import intent_labels
from foretaste.sessions.spread import Item, Spread, here

SPLITS = ("train", "validation", "test")
UNREAD = ("session_id", "num_events", "split_last")
LEAST_CLASSES = 2
"""Classes among the choices to learn from below which a head learns nothing."""

Counts = Counter[str]
"""Numbers by what they count, e.g. «action:choices:discover»."""

Pack = Callable[[pa.Table, Catalogue], tuple[Histories, list[str]]]
"""`signals.histories.pack`: an INTERACTIONS table and a catalogue to histories and their actors."""


@dataclass(frozen=True, slots=True)
class Counting:
    """The work on one bucket of a prepared folder; answers with counts that add up."""

    prepared: Path
    config: LabelConfig
    target_actions: Collection[str]
    pack: Pack

    def __call__(self, item: Item) -> Item:
        """Read the bucket's interactions and count their labels."""
        columns = [name for name in INTERACTIONS.names if name not in UNREAD]
        table = read_prepared(self.prepared, "interactions", columns=columns, bucket=item["bucket"])
        if not table.num_rows:
            return {}
        known = catalogue_of(read_titles(self.prepared))
        return dict(_counts(table, known, self.config, self.target_actions, self.pack))


def prepared_labels(
    prepared: Path, config: LabelConfig, *, target_actions: Collection[str], pack: Pack, spread: Spread = here
) -> dict[str, Any]:
    """Make the `label_report` of a prepared folder, bucket by bucket, here or spread by Ray."""
    items: list[Item] = [
        {"bucket": bucket, "rows": sum(pq.read_metadata(file).num_rows for file in files)}
        for bucket in prepared_buckets(prepared)
        for files in [prepared_files(prepared, "interactions", bucket=bucket)]
    ]
    counts: Counts = Counter()
    for answer in spread(items, Counting(prepared, config, target_actions, pack)):
        counts.update(answer)
    return _report(counts, catalogue_of(read_titles(prepared)), config)


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
    counts: Counts = Counter()
    for table in buckets:
        if table.num_rows:
            counts.update(_counts(table, catalogue, config, target_actions, pack))
    return _report(counts, catalogue, config)


def _report(counts: Counts, catalogue: Catalogue, config: LabelConfig) -> dict[str, Any]:
    specs = specifications(config, catalogue)
    total = counts["interactions"]
    return {
        "fingerprint": fingerprint(config, specs),
        "config": config.model_dump(mode="json"),
        "interactions": total,
        "sessions": counts["sessions"],
        "choices_to_learn_from": counts["choices"],
        "positions_with_a_next": counts["next"],
        "positions_with_a_rest": counts["rest"],
        "intents": {spec.name.value: _of(spec, counts, catalogue, total) for spec in specs},
    }


def _counts(
    table: pa.Table,
    catalogue: Catalogue,
    config: LabelConfig,
    target_actions: Collection[str],
    pack: Pack,
) -> Counts:
    histories: Histories = pack(table, catalogue)[0]
    labels = intent_labels(histories, catalogue, config, queries_of(table))
    split_T = np.asarray(pc.index_in(table["split_time"], value_set=pa.array(SPLITS)))
    wanted = [ACTION_CODES[action] for action in target_actions]
    learned_T = np.isin(histories.action_T, wanted) & (split_T == 0) & (histories.title_T > 0)
    stays_T = session_ends(histories) > np.arange(len(split_T))
    counts: Counts = Counter(
        {
            "interactions": len(split_T),
            "sessions": int((~stays_T).sum()),
            "choices": int(learned_T.sum()),
            "next": len(split_T) - int((histories.lengths_B > 0).sum()),
            "rest": int(stays_T.sum()),
            "fraction": int((~np.isnan(histories.fraction_T)).sum()),
        }
    )
    for what, names, code_T in (("action", ACTIONS, histories.action_T), ("entry", ENTRIES, histories.entry_T)):
        found = np.bincount(code_T, minlength=len(names)).tolist()
        counts.update({f"{what}={name}": number for name, number in zip(names, found, strict=True)})
    for spec in specifications(config, catalogue):
        label_T = labels[spec.name.value]
        views: dict[str, NDArray[Any]] = {
            "all": label_T,
            "choices": label_T[learned_T],
            "next": next_labels(label_T, histories),
            "rest": rest_of_session(label_T, histories, len(spec.classes))[stays_T],
        } | {split: label_T[split_T == place] for place, split in enumerate(SPLITS)}
        for view, part in views.items():
            counts += _tally(f"{spec.name.value}:{view}", part, spec.classes)
    return counts


def _tally(what: str, label_X: NDArray[Any], classes: tuple[str, ...]) -> Counts:
    """Count how often each class is there, and how often any."""
    if label_X.ndim == 1:
        number_C = np.bincount(label_X[label_X >= 0], minlength=len(classes))
        labelled = int(number_C.sum())
    else:
        number_C = np.count_nonzero(label_X, axis=0)
        labelled = int(label_X.any(axis=1).sum())
    return Counter({what: labelled} | {f"{what}:{c}": int(n) for c, n in zip(classes, number_C, strict=True)})


def _of(spec: IntentSpec, counts: Counts, catalogue: Catalogue, total: int) -> dict[str, Any]:
    name = spec.name.value
    classes: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for one in spec.classes:
        if not counts[f"{name}:all:{one}"]:
            absent[one] = _lacking(spec, counts, catalogue) or _why_absent(one, counts, catalogue)
            continue
        classes[one] = {
            "count": counts[f"{name}:all:{one}"],
            "share": _share(counts[f"{name}:all:{one}"], counts[f"{name}:all"]),
            "choices": _share(counts[f"{name}:choices:{one}"], counts[f"{name}:choices"]),
            "next": _share(counts[f"{name}:next:{one}"], counts[f"{name}:next"]),
            "rest": _share(counts[f"{name}:rest:{one}"], counts["rest"]),
            "by_split": {split: counts[f"{name}:{split}:{one}"] for split in SPLITS},
        }
    learned = [one for one in spec.classes if counts[f"{name}:choices:{one}"]]
    on = len(learned) >= LEAST_CLASSES
    return {
        "kind": spec.kind,
        "rule": spec.rule,
        "on": on,
        "why_off": None if on else _why_off(spec, learned, counts, catalogue),
        "labelled": counts[f"{name}:all"],
        "coverage": _share(counts[f"{name}:all"], total),
        "coverage_of_choices": _share(counts[f"{name}:choices"], counts["choices"]),
        "by_split": {split: counts[f"{name}:{split}"] for split in SPLITS},
        "classes": classes,
        "absent": absent,
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _why_off(spec: IntentSpec, learned: list[str], counts: Counts, catalogue: Catalogue) -> str:
    if lacking := _lacking(spec, counts, catalogue):
        return lacking
    if not counts["choices"]:
        return "there are no choices to learn from"
    return f"every choice to learn from is {learned[0]}" if learned else "no choice to learn from has a label"


def _lacking(spec: IntentSpec, counts: Counts, catalogue: Catalogue) -> str | None:
    """Say what the log would need to have for the intent, where it lacks that."""
    return {
        Intent.GENRE: "no title has a genre" if not catalogue.genres else None,
        Intent.RECENCY: "no title has a release date" if (catalogue.released_N1 == UNKNOWN_TIME).all() else None,
        Intent.SEARCH: None if counts["entry=search"] else "no search led to an interaction",
    }.get(spec.name)


def _why_absent(one: str, counts: Counts, catalogue: Catalogue) -> str:
    """Say what the log would need to have for a class, where it lacks that."""
    series = bool(catalogue.series_N1.any())
    lacking = {
        "search_then_play": None if counts["entry=search"] else "no search led to an interaction",
        "message_then_play": None if counts["entry=message"] else "no message led to an interaction",
        "sample": None if counts["fraction"] else "no played fractions",
        "rewatch": None if counts["fraction"] or counts["action=complete"] else "no played fractions or completions",
        "continue_series": None if series else "no series in the catalogue",
        "from_list": None if counts["action=add_to_list"] else "nothing is put on a list",
        "save_for_later": None if counts["action=add_to_list"] else "nothing is put on a list",
        "dislike": None if counts["action=thumb_down"] else "no thumbs down",
    }
    return lacking.get(one) or "does not occur"
