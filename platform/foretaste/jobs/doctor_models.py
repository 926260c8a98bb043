"""What the doctor looks at of models and slow views: readable, whole, loadable, fitting each other, not too old."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from foretaste.contracts.catalogue import Catalogue
from foretaste.feedback.session_log import microseconds
from foretaste.jobs.doctor_findings import Finding, bad, good, skipped, warning
from foretaste.jobs.features import feature_store
from foretaste.jobs.settings import Settings
from foretaste.ops.releases import release, rollout
from foretaste.serving.models import Models, models_in
from foretaste.signals.store import ONLINE
from foretaste.signals.views import ABSENT

AGAIN = "foretaste train; then foretaste promote RELEASE"


def models(settings: Settings, *, now: datetime) -> Iterator[Finding]:
    """Whether every release that is in use is as it was filed, loads, and fits the slow views."""
    tables = settings.tables
    if not tables.registry.is_dir():
        yield bad("registry", f"{tables.registry} is not there", "foretaste train")
        return
    known = rollout(tables.registry)
    if known is None:
        yield warning(
            "registry", "nothing was ever rolled out: what was filed last answers", "foretaste promote RELEASE"
        )
    else:
        yield good("registry", f"{known.current} answers, {len(known.arms)} arms, shadow {known.shadow or 'none'}")
    loaded: Models | None = None
    for name in [None] if known is None else sorted(known.names):
        label = name or "what was filed last"
        try:
            found = models_in(
                tables.registry,
                tables.prepared,
                None if name is None else release(tables.registry, name),
                rule=settings.prepare.rule,
                nearest=settings.serving.nearest,
            )
        except (OSError, ValueError) as error:
            yield bad("models", f"{label}: {error}", f"foretaste rollback {name or ''}".strip() + f", or {AGAIN}")
            continue
        missing = [kind for kind, one in (("intent", found.intent), ("ranker", found.ranker)) if one is None]
        if missing:
            yield warning("models", f"{label}: no {' and no '.join(missing)} model", AGAIN)
        else:
            yield good("models", f"{label}: intent and ranker load, {len(found.catalogue)} titles")
        if known is None or name == known.current:
            loaded = found
    if loaded is None:
        yield skipped("views", "no models that they could fit")
    else:
        yield from views(settings, loaded.catalogue, loaded, now=now)


def views(settings: Settings, catalogue: Catalogue, loaded: Models, *, now: datetime) -> Iterator[Finding]:
    """Whether the slow views are those of the models, and how old they are."""
    if not (settings.tables.features / ONLINE).is_file():
        yield bad(
            "views", "nothing was ever loaded online: lists know no member and no title's past", "foretaste features"
        )
        return
    store = feature_store(settings)
    try:
        store.check(catalogue, loaded.views)
    except ValueError as error:
        yield bad("views", str(error), "foretaste features, or a release that was trained with these")
        return
    at = microseconds(now)
    newest_ms = store.titles(catalogue, at).newest_ms
    if newest_ms == ABSENT:
        yield bad("views", "no title has features", "foretaste features")
        return
    age = timedelta(microseconds=at - newest_ms * 1000)
    told = f"title features are {age.total_seconds() / 3600:.1f} hours old"
    if age > timedelta(hours=settings.serving.stale_hours):
        yield warning(
            "views", f"{told}, stale from {settings.serving.stale_hours:g}", "foretaste prepare; foretaste features"
        )
    else:
        yield good("views", told)
