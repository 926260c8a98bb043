"""The answer of /v1/intent: what a member is probably here for. A read: nothing is logged."""

from __future__ import annotations

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.decisions import Fallback
from foretaste.contracts.wire import Explain, FallbackAnswer, IntentAnswer, IntentRequest, TopClass
from foretaste.models.intent import IntentPrediction
from foretaste.serving.answer import attention, freshness_of, layout_of, shares, stages_of, top_intent
from foretaste.serving.explain import told, top_classes
from foretaste.serving.segments import PublishedSegments
from foretaste.serving.stages import Seen
from foretaste.serving.watch import Watch


def intent_answer(
    request: IntentRequest,
    seen: Seen,
    prediction: IntentPrediction | None,
    why: Fallback | None,
    *,
    model: str | None,
    segments: PublishedSegments | None,
    catalogue: Catalogue,
    watch: Watch,
) -> IntentAnswer:
    """Make the answer of a prediction, or of the reason why there is none."""
    if prediction is not None and seen.failed:
        why = seen.why
    explained = request.explain is Explain.STAGES
    top = [] if prediction is None else top_classes(prediction)
    return IntentAnswer(
        model=model,
        intents=None if prediction is None else shares(prediction),
        attention=None if prediction is None else attention(prediction),
        top=[TopClass(head=head, name=name, probability=share, attention=weight) for head, name, share, weight in top],
        top_intent=None if prediction is None else top_intent(prediction),
        segment=None if prediction is None or segments is None else segments.of(prediction.z_BD[0]),
        layout=None if prediction is None else layout_of(prediction),
        freshness=freshness_of(seen),
        fallback=FallbackAnswer(used=why is not None, reason=why),
        stages=stages_of(watch.laps) if explained else None,
        signals=told(seen.signals, catalogue) if explained else None,
        took_ms=watch.elapsed_ms,
    )
