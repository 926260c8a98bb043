"""One logged decision made again on request: with its own models, and beside them with others, stage by stage.

Shapes: C candidates of a pool, K places of a slate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.wire import Item
from foretaste.contracts.wire_records import ReplayAnswer, ReplayedStage, ReplayedValue, ReplayRequest
from foretaste.feedback.past import Past
from foretaste.ops.bundles import Bundle, fetch_bundle, find_bundle, versions
from foretaste.serving.logged import Logged
from foretaste.serving.models import INTENT, RANKER, Models
from foretaste.serving.problems import RefusedError
from foretaste.serving.replay import PastViews, Replay
from foretaste.signals.differences import Difference, differences
from foretaste.signals.served import POOL, Values

STAGES: dict[str, tuple[str, ...]] = {
    "session_log": ("history.", "decision.num_events_visible", "decision.newest_event_at"),
    "signals": ("signal.",),
    "features": ("member.", "title."),
    "intent": ("intent.",),
    "pool": (POOL,),
    "ranker": ("request.", "candidate.", "recent.", "decision.candidates", "decision.scores"),
    "policy": ("decision.slate", "decision.propensity"),
}
"""Names of values by the stage that makes them."""
MAX_VALUES = 20
_CODES = frozenset({POOL, "decision.candidates", "decision.slate"})


def again(replay: Replay, registry: Path, row: Mapping[str, Any], past: Past, request: ReplayRequest) -> ReplayAnswer:
    """Make a DECISIONS row (times in microseconds) again from what `past` has.

    Raises LeftOutError where it cannot be made again, RefusedError naming the field of a model that will not do.
    """
    one, values = replay.remake(row, past)
    logged = _compared(one.values, values)
    last, shown, stages, notes = one, values, [], []
    named = _named(request, registry)
    if named is not None:
        field, models = named[0], _loaded(replay, *named)
        try:
            last, shown = replay.remake(row, past, models)
        except ValueError as error:
            raise RefusedError(field, str(error)) from error
        stages = [_stage(stage, one, values, last, shown) for stage in STAGES]
        notes = _notes(replay, last, shown)
    return ReplayAnswer(
        decision_id=one.decision_id,
        identical=not logged,
        differences=[_value(found, one, last) for found in logged][:MAX_VALUES],
        intent_model=last.row["intent_model"],
        ranker_model=last.row["ranker_model"],
        items=_items(last, shown),
        stages=stages,
        notes=notes,
    )


def _compared(served: Values, values: Values) -> list[Difference]:
    """What differs of what was logged: of a decision without its served values that is what was decided."""
    return differences(served, {name: values[name] for name in values.keys() & served.keys()})


def _named(request: ReplayRequest, registry: Path) -> tuple[str, str | None, str | None] | None:
    """The field that named them, and the fingerprints of the intent model and the ranker; None where none was."""
    if request.ranker_model is not None:
        ranker = _bundle(registry, RANKER, request.ranker_model, "ranker_model")
        trained_with = ranker.manifest["about"].get("intent_fingerprint")
        intent = trained_with
        if request.intent_model is not None:
            intent = _bundle(registry, INTENT, request.intent_model, "intent_model").fingerprint
        if intent != trained_with:
            raise RefusedError("ranker_model", f"was trained with intent model {trained_with}, not with {intent}")
        return "ranker_model", intent, ranker.fingerprint
    if request.intent_model is None:
        return None
    intent = _bundle(registry, INTENT, request.intent_model, "intent_model").fingerprint
    newest = (fetch_bundle(registry, RANKER, version) for version in reversed(versions(registry, RANKER)))
    fits = (one.fingerprint for one in newest if one.manifest["about"].get("intent_fingerprint") == intent)
    return "intent_model", intent, next(fits, None)


def _bundle(registry: Path, name: str, wanted: str, field: str) -> Bundle:
    known = versions(registry, name)
    try:
        return fetch_bundle(registry, name, wanted) if wanted in known else find_bundle(registry, name, wanted)
    except FileNotFoundError as error:
        raise RefusedError(field, f"there is no {name} model {wanted!r}") from error
    except ValueError as error:
        raise RefusedError(field, "its files are not those that were filed") from error


def _loaded(replay: Replay, field: str, intent: str | None, ranker: str | None) -> Models:
    try:
        return replay.models(intent, ranker)
    except (ValueError, FileNotFoundError) as error:
        raise RefusedError(field, "cannot be loaded by this service") from error


def _stage(stage: str, one: Logged, first: Values, other: Logged, second: Values) -> ReplayedStage:
    names = [name for name in sorted(first.keys() | second.keys()) if name.startswith(STAGES[stage])]
    mine, theirs = ({name: values[name] for name in names if name in values} for values in (first, second))
    found = differences(mine, theirs)
    whole = {"pool": POOL, "policy": "decision.slate"}.get(stage)
    entered: list[str] = []
    left: list[str] = []
    if whole is not None and whole in first and whole in second:
        before, after = _ids(one, first[whole]), _ids(other, second[whole])
        entered = [title for title in after if title not in set(before)]
        left = [title for title in before if title not in set(after)]
    return ReplayedStage(
        stage=stage,
        same=not found,
        num_values=sum(max(int(values[name].size) for values in (mine, theirs) if name in values) for name in names),
        num_different=sum(difference.count for difference in found),
        values=[_value(difference, one, other) for difference in found][:MAX_VALUES],
        entered=entered,
        left=left,
    )


def _value(found: Difference, one: Logged, other: Logged) -> ReplayedValue:
    before, again = found.served, found.offline
    if found.feature in _CODES and found.place is not None:
        before, again = _ids(one, np.array([before]))[0], _ids(other, np.array([again]))[0]
    return ReplayedValue(name=found.feature, count=found.count, place=found.place, before=before, again=again)


def _items(one: Logged, values: Values) -> list[Item]:
    """The list of a replay, with what its scores are of."""
    codes_C, scores_C = values["decision.candidates"].tolist(), values["decision.scores"].tolist()
    score_of = dict(zip(codes_C, scores_C, strict=True))
    names, source = one.models.catalogue.names, _source(one)
    first = min((item["position"] for item in one.row["items"]), default=0)
    places = zip(values["decision.slate"].tolist(), values["decision.propensity"].tolist(), strict=True)
    return [
        Item(
            title_id=one.models.catalogue.ids[code - 1],
            name=names[code - 1],
            score=score_of[code],
            position=first + position,
            propensity=propensity,
            reasons=[],
            source=source,
        )
        for position, (code, propensity) in enumerate(places)
    ]


def _source(one: Logged) -> str:
    if one.otherwise or not one.row["items"]:
        return RANKER if one.has_ranker else INTENT
    return str(one.row["items"][0]["source"])


def _ids(one: Logged, codes: NDArray[Any]) -> list[str]:
    ids = one.models.catalogue.ids
    return [ids[code - 1] if code else "" for code in codes.tolist()]


def _notes(replay: Replay, one: Logged, values: Values) -> list[str]:
    """Titles of another pool have no logged version: their features are read as of then, where that can be read."""
    new = [code for code in values["decision.candidates"].tolist() if code not in one.title_versions]
    if not new or isinstance(replay.views, PastViews):
        return []
    return [f"features of {len(new)} titles that were not in the pool are left out: {_some(_ids(one, np.array(new)))}"]


def _some(names: Iterable[str], count: int = 5) -> str:
    shown = list(names)
    return ", ".join(shown[:count]) + (", ..." if len(shown) > count else "")
