"""From a chosen slate to what goes over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.controls import Kind
from foretaste.contracts.tenants import outside
from foretaste.contracts.wire import (
    Explain,
    FallbackAnswer,
    Freshness,
    Item,
    LayoutHint,
    PolicyAnswer,
    StabilityAnswer,
    StageAnswer,
)
from foretaste.models.intent import IntentPrediction
from foretaste.policies.arrange import steadiness
from foretaste.policies.slate import Slate
from foretaste.serving.budget import SESSION_LOG
from foretaste.serving.explain import counted, in_words, popular_titles, reasons, sources_of, told, top_classes
from foretaste.serving.exploring import Acting
from foretaste.serving.record import places
from foretaste.serving.shaping import Asked
from foretaste.serving.slow import Views
from foretaste.serving.stages import Scored, Seen
from foretaste.serving.watch import Lap, Watch
from foretaste.surfaces.page import layout

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def answer(
    decision_id: str | None,
    asked: Asked,
    seen: Seen,
    views: Views,
    scored: Scored,
    slate: Slate,
    *,
    acting: Acting,
    catalogue: Catalogue,
    watch: Watch,
) -> dict[str, Any]:
    """Give the fields of the answer of a request: those of RecommendAnswer, for given titles of RankAnswer."""
    request, left_out = asked.request, {}
    items = _items(asked, seen, views, scored, slate, catalogue)
    watch.lap("answer", num_in=len(slate), num_out=len(items))
    stages = signals = sources = None
    if request.explain is Explain.STAGES:
        stages = stages_of(watch.laps)
        signals = told(seen.signals, catalogue)
        sources = counted(scored)
    named = [*request.exclude_ids]
    if asked.controls.candidates is not None:
        named += asked.controls.candidates
        left_out = {"left_out": _left_out(asked.controls.candidates, scored, catalogue)}
    return left_out | {
        "decision_id": decision_id,
        "items": items,
        "intent": None if scored.prediction is None else _intent(scored.prediction),
        "top_intent": None if scored.prediction is None else top_intent(scored.prediction),
        "layout": None if scored.prediction is None else layout_of(scored.prediction),
        "policy": PolicyAnswer(
            name=acting.policy.name,
            version=acting.policy.version,
            explored=slate.explored,
            price=None if slate.price is None else slate.price.share,
            instead_of=acting.instead_of,
        ),
        "freshness": freshness_of(seen, views.stale),
        "fallback": FallbackAnswer(used=scored.fallback is not None, reason=scored.fallback, level=scored.source),
        "missing_ids": [title_id for title_id in named if title_id not in catalogue.code_of],
        "previous_id": asked.previous_id,
        "stability": _stability(asked, items),
        "sources": sources,
        "stages": stages,
        "signals": signals,
        "took_ms": watch.elapsed_ms,
    }


def _stability(asked: Asked, items: Sequence[Item]) -> StabilityAnswer | None:
    if asked.kind is not Kind.RECOMMEND or asked.previous_id is None:
        return None
    found = steadiness([item.title_id for item in items], asked.controls.before)
    return StabilityAnswer(previous_id=asked.previous_id, **asdict(found))


def _left_out(candidates: Sequence[str], scored: Scored, catalogue: Catalogue) -> list[str]:
    """Candidates that may not be shown."""
    codes = catalogue.codes(list(candidates)).tolist()
    return [title for title, code in zip(candidates, codes, strict=True) if code and scored.shaped.blocked_N1[code]]


def _items(asked: Asked, seen: Seen, views: Views, scored: Scored, slate: Slate, catalogue: Catalogue) -> list[Item]:
    codes = scored.codes_C[slate.order_K].tolist()
    why: list[list[str]] = [[] for _ in codes]
    brought: list[list[str]] = [[] for _ in codes]
    if asked.request.explain is not Explain.NONE:
        brought = [sources_of(code, scored) for code in codes]
        why = reasons(
            codes,
            slate.explored_K.tolist(),
            prediction=scored.prediction,
            catalogue=catalogue,
            popular_N1=popular_titles(np.asarray(views.titles.plays_7d, dtype=np.float32)),
            seen=seen.history.title_T,
            brought=scored.shaped.brought,
        )
    return [
        Item(
            title_id=catalogue.ids[codes[position] - 1],
            name=catalogue.names[codes[position] - 1],
            score=float(scored.scores_C[index]),
            position=asked.offset + position,
            propensity=propensity,
            reasons=why[position],
            source=scored.source.value,
            sources=brought[position],
        )
        for position, (index, propensity, _) in enumerate(places(slate))
    ]


def _intent(prediction: IntentPrediction) -> dict[str, dict[str, float]]:
    return shares(prediction) | {"attention": attention(prediction)}


def shares(prediction: IntentPrediction) -> dict[str, dict[str, float]]:
    """Probability of each class by head, of the first member of a prediction."""
    return {
        head: dict(zip(prediction.classes[head], share_BC[0].tolist(), strict=True))
        for head, share_BC in prediction.intents.items()
    }


def attention(prediction: IntentPrediction) -> dict[str, float]:
    """Weight of each head, of the first member of a prediction; they sum to 1."""
    return dict(zip(prediction.heads, prediction.attention_BI[0].tolist(), strict=True))


def top_intent(prediction: IntentPrediction) -> str | None:
    """Say in words what the head that weighs most expects; None where no head is on."""
    found = top_classes(prediction)
    return in_words(*found[0][:3], prediction.labels) if found else None


def layout_of(prediction: IntentPrediction) -> LayoutHint | None:
    """The layout hint; None where the action head is off."""
    found = layout(prediction.intents, prediction.classes)
    return None if found is None else LayoutHint(hint=found.hint, probability=found.probability)


def stages_of(laps: Sequence[Lap]) -> list[StageAnswer]:
    """Tell what each stage took."""
    return [StageAnswer(stage=lap.stage, num_in=lap.num_in, num_out=lap.num_out, ms=lap.ms) for lap in laps]


def freshness_of(seen: Seen, stale_views: Sequence[str] = ()) -> Freshness:
    """Tell what is known of the member, and which inputs (the session log, slow views) are not what they should be."""
    stale = [*([SESSION_LOG] if seen.failed else []), *stale_views]
    if not seen.rows:
        return Freshness(last_event_id=None, last_event_at=None, age_seconds=None, stale=stale)
    newest = seen.rows[-1]
    return Freshness(
        last_event_id=outside(newest["event_id"]),
        last_event_at=_EPOCH + timedelta(microseconds=newest["at"]),
        age_seconds=(seen.asof_us - newest["at"]) / 1e6,
        stale=stale,
    )
