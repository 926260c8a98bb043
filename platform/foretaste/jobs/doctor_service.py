"""What the doctor asks a running service: is it ready, does it want keys, is its clock right, is it of this version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, cast

import httpx

from foretaste.jobs.doctor_findings import Finding, bad, good, skipped, warning

TIMEOUT_SECONDS, LIVE_SECONDS = 10.0, 3.0
CLOCK_SECONDS = 2.0
"""Apart, and how long the way may take; Date has whole seconds."""


def answers(url: str) -> bool:
    """Whether something answers there as the service does."""
    try:
        return bool(httpx.get(f"{url}/health/live", timeout=LIVE_SECONDS).json() == {"status": "live"})
    except (httpx.HTTPError, ValueError):
        return False


def service(url: str, *, key: str | None, clock: Callable[[], datetime], keys_wanted: bool) -> Iterator[Finding]:
    """Ask the service at an address."""
    with httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS) as client:
        yield from _ready(client)
        yield from _clock(client, clock)
        yield from _same_interface(client, keys_wanted=keys_wanted)
        yield from _keys(client, key, keys_wanted=keys_wanted)
        told = client.get("/metrics")
        if told.is_success and b"foretaste_" in told.content:
            yield good("metrics", f"{len(told.content) // 1024 + 1} KiB a scrape")
        else:
            yield bad(
                "metrics", f"/metrics: {told.status_code}", "the address of the service itself, not of a page before it"
            )


def _ready(client: httpx.Client) -> Iterator[Finding]:
    found = client.get("/health/ready")
    if found.status_code != 200:
        yield bad("service", f"not ready: {found.status_code}", "its log says what it waits for")
        return
    about = found.json()
    if about["degraded"]:
        yield warning(
            "service", "; ".join(about["degraded"]), "see deployments/dashboards/runbooks.md, ForetasteDegraded"
        )
    else:
        yield good("service", f"ready, release {about['release']}, {about['num_titles']} titles")


def _clock(client: httpx.Client, clock: Callable[[], datetime]) -> Iterator[Finding]:
    before = clock()
    told = client.get("/health/live").headers.get("date")
    after = clock()
    if told is None:
        yield skipped("clock", "the service tells no Date")
        return
    at = parsedate_to_datetime(told)
    apart = max((before - at).total_seconds() - 1.0, (at - after).total_seconds(), 0.0)
    if apart > CLOCK_SECONDS:
        mend = "NTP on both: events of the future are refused, and what an answer sees follows from its clock"
        yield bad("clock", f"the service's clock and this one are {apart:.0f} s or more apart", mend)
    else:
        yield good("clock", "the service's clock and this one agree")


def _same_interface(client: httpx.Client, *, keys_wanted: bool) -> Iterator[Finding]:
    theirs, ours = client.get("/openapi.json").json(), interface(keys=keys_wanted)
    if _digest(theirs["paths"]) == _digest(ours["paths"]) and theirs["info"] == ours["info"]:
        yield good("interface", f"version {theirs['info']['version']}, as of this package")
        return
    missing = sorted(set(ours["paths"]) - set(theirs["paths"]))
    more = sorted(set(theirs["paths"]) - set(ours["paths"]))
    differ = f"without {missing}, with {more}" if missing or more else "the same paths with other bodies"
    yield warning("interface", f"the service is of another version: {differ}", "one image for service and jobs")


def _keys(client: httpx.Client, key: str | None, *, keys_wanted: bool) -> Iterator[Finding]:
    asked = {"session_id": "doctor", "k": 1, "dry_run": True}
    status = client.post("/v1/recommend", json=asked).status_code
    if keys_wanted and status != 401:
        yield bad("access", f"a request without a key is answered with {status}", "serving.api_keys=true where it runs")
        return
    if keys_wanted and key is None:
        yield skipped("answers", "no key at hand: FORETASTE_API_KEY, or run where the workspace is")
        return
    found = client.post("/v1/recommend", json=asked, headers={"X-API-Key": key} if key else {})
    if found.status_code != 200:
        yield bad("answers", f"a list is answered with {found.status_code}: {found.text[:200]}", "what it says")
    elif found.json()["fallback"]["used"]:
        why = found.json()["fallback"]["reason"]
        yield warning("answers", f"a list does without a stage: {why}", "runbooks.md, ForetasteFallbacks")
    else:
        yield good("answers", f"a list in {found.json()['took_ms']:.0f} ms, by all stages")


def interface(*, keys: bool) -> dict[str, Any]:
    """The OpenAPI document of this package; the paths do not depend on what answers."""
    from foretaste.serving.ingress import Answers, build_app
    from foretaste.serving.keys import KeyRing

    nobody = cast("Answers", object())
    ring = KeyRing(Path("keys.json")) if keys else None
    found: dict[str, Any] = json.loads(json.dumps(build_app(nobody, max_body_bytes=1_024, keys=ring).openapi()))
    return found


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode()).hexdigest()
