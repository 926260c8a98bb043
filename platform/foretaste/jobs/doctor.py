"""`foretaste doctor`: look at a deployment, and say for each thing what to mend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from foretaste.jobs import doctor_local, doctor_models, doctor_service, doctor_stores
from foretaste.jobs.doctor_findings import Finding, State, looked, skipped
from foretaste.jobs.keys import own_key
from foretaste.jobs.settings import Settings
from foretaste.ops.telemetry import console, say

_COLOURS = {State.GOOD: "green", State.WARNING: "yellow", State.BAD: "red", State.SKIPPED: "dim"}


def utc_now() -> datetime:
    """The clock of the command line."""
    return datetime.now(UTC)


def doctor(settings: Settings, *, url: str | None = None, clock: Callable[[], datetime] = utc_now) -> dict[str, Any]:
    """Look at everything that can be looked at from here; the result is `ok` where nothing has to be mended.

    `url` is that of the service, by default where the settings have it listen. Nothing is changed but what is removed
    again: a file in the workspace and one in the object store.
    """
    findings = list(_findings(settings, url=url, clock=clock))
    table = Table("", "looked at", "found", "mend", show_lines=False)
    for one in findings:
        table.add_row(f"[{_COLOURS[one.state]}]{one.state.value}[/]", one.check, _plain(one.found), _plain(one.mend))
    console.print(table)
    counts = {state.value: sum(one.state is state for one in findings) for state in State}
    say(", ".join(f"{number} {name}" for name, number in counts.items()))
    return {"ok": not counts[State.BAD.value], "counts": counts, "findings": [one.plain() for one in findings]}


def _findings(settings: Settings, *, url: str | None, clock: Callable[[], datetime]) -> Iterator[Finding]:
    where = (url or f"http://{settings.serving.host}:{settings.serving.port}").rstrip("/")
    up = doctor_service.answers(where)
    yield from looked("packages", lambda: doctor_local.packages(Path("constraints.txt")))
    yield from looked("workspace", lambda: doctor_local.workspace(settings))
    yield from looked("registry", lambda: doctor_models.models(settings, now=clock()))
    yield from looked("session log", lambda: doctor_stores.session_log(settings))
    yield from looked("online features", lambda: doctor_stores.online_features(settings))
    yield from looked("feature registry", lambda: doctor_stores.feature_registry(settings))
    yield from looked("decision log", lambda: doctor_stores.decision_log(settings))
    yield from looked("checkpoints", lambda: doctor_stores.checkpoints(settings))
    yield from looked("keys", lambda: doctor_local.keys(settings))
    yield from looked("cluster", lambda: doctor_local.cluster(settings))
    if url is None:
        yield from looked("port", lambda: doctor_local.port(settings, answers=up))
    if not up:
        why = f"nothing answers as the service on {where}"
        yield (
            skipped("service", f"{why}; --url ADDRESS where it runs elsewhere")
            if url is None
            else Finding("service", State.BAD, why, "start it; look at address, ingress and network policy")
        )
        return
    asked: dict[str, Any] = {"key": own_key(settings.tables), "clock": clock, "keys_wanted": settings.serving.api_keys}
    yield from looked("service", lambda: doctor_service.service(where, **asked))


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
