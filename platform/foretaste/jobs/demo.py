"""`foretaste demo`: the whole way on a small synthetic service, then a member whose mind changes."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.markup import escape
from rich.table import Table

from foretaste.client.calls import Calls
from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.jobs.cluster import cluster
from foretaste.jobs.evaluate import evaluate
from foretaste.jobs.features import features
from foretaste.jobs.imports import import_log
from foretaste.jobs.keys import own_key
from foretaste.jobs.prepare import prepare
from foretaste.jobs.serve import running, wait_for_interrupt
from foretaste.jobs.settings import Settings
from foretaste.jobs.train import train
from foretaste.ops.files import read_parquet
from foretaste.ops.memory import peak_memory
from foretaste.ops.tables import read_prepared
from foretaste.ops.telemetry import console, say
from foretaste.serving.keys import LOCAL_KEY_FILE

K = 10
CLICKED_TITLES = 3
MOST_ASKED = 30  # answers with exploration, until one has a title that the dice placed


def demo(settings: Settings, *, leave: bool = False) -> dict[str, Any]:
    """Generate, prepare, train, evaluate and serve; then ask, act, ask again. Returns the figures.

    Raises RuntimeError when the list does not follow the member, so that a demo that ends well has shown it.
    """
    started = time.monotonic()
    settings = ending_today(settings)
    with peak_memory() as peak, cluster(settings.cluster):
        _step(1, "generate a synthetic streaming service (not real data; README says what is planted)")
        import_log(settings, "world")
        _step(2, "prepare: validate, de-duplicate, sessionize, split by time")
        prepare(settings)
        _step(3, "features: compute slow views, apply them to Feast, load the online store")
        features(settings)
        _step(4, "train the intent model and the ranker")
        train(settings)
        _step(5, "evaluate beside the baselines")
        report = evaluate(settings)
        _step(6, "serve")
        with running(settings) as url, Calls(url, key=own_key(settings.tables)) as client:
            say(f"listening on {url}")
            _step(7, "a member changes their mind")
            story = tell(client, settings)
            say_next(url, story, key_file=settings.tables.serving / LOCAL_KEY_FILE)
            seconds = time.monotonic() - started
            result = {
                "demo": "ok",
                "seconds": round(seconds, 1),
                "hr@10": report["hr@10"],
                "slate_overlap_after_click": story.overlap,
                "genre_share": {"before": story.share_before, "after": story.share_after},
                "freshness_ms": round(story.freshness_ms, 1),
                "peak_memory_gib": round(peak.gib, 2),
            }
            if leave:
                wait_for_interrupt(url)
    return result


def ending_today(settings: Settings) -> Settings:
    """Move the world's window so that it ends last midnight: the demonstration's client acts now."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    world = settings.world.model_copy(update={"first_day": (midnight - timedelta(days=settings.world.days)).date()})
    return settings.model_copy(update={"world": world})


@dataclass(frozen=True, slots=True)
class Story:
    """What the demonstration saw."""

    member_id: str
    genre: str
    overlap: float  # of the two lists, 0..1
    share_before: float  # of the clicked genre among the titles shown
    share_after: float
    freshness_ms: float  # from sending the last event to holding an answer that used it
    decision_id: str


def tell(client: Calls, settings: Settings) -> Story:
    """Ask, send a few events of another taste, ask again; show both lists."""
    titles = catalogue(read_parquet(settings.tables.raw / "titles.parquet"))
    member_id = typical_member(read_prepared(settings.tables.prepared, "interactions", columns=["actor_id"]))
    ask = {"member_id": member_id, "session_id": "demo-session", "k": K, "explain": "items"}
    before = client.recommend(**ask, policy="greedy")
    again = client.recommend(**ask, policy="greedy")
    if _ids(before) != _ids(again):
        raise RuntimeError("the same request without a new event gave another list")
    genre = least_expected_genre(before["intent"]["genre"], titles)
    clicked = titles_of(genre, titles, without=_ids(before))[:CLICKED_TITLES]
    events = visit(clicked, member_id, query=genre, until=datetime.now(UTC))
    sent = time.perf_counter()
    receipt = client.events(events)
    after = client.recommend(**ask, policy="greedy")
    freshness_ms = (time.perf_counter() - sent) * 1000
    answers = (client.recommend(**ask, policy="epsilon_greedy") for _ in range(MOST_ASKED))
    num_asked, explored = next(
        (n, answer) for n, answer in enumerate(answers, start=1) if answer["policy"]["explored"] or n == MOST_ASKED
    )
    story = Story(
        member_id,
        genre,
        overlap=len(set(_ids(before)) & set(_ids(after))) / K,
        share_before=genre_share(_ids(before), genre, titles),
        share_after=genre_share(_ids(after), genre, titles),
        freshness_ms=freshness_ms,
        decision_id=explored["decision_id"],
    )
    show(story, titles, before, after, explored, clicked=clicked, receipt=receipt, num_asked=num_asked)
    check(story, after, newest=events[-1]["event_id"])
    return story


def check(story: Story, after: Mapping[str, Any], *, newest: str) -> None:
    """Raise RuntimeError unless the answer used the newest event and the list followed the member."""
    if after["freshness"]["last_event_id"] != newest:
        raise RuntimeError(f"the answer used events up to {after['freshness']['last_event_id']}, wanted {newest}")
    if story.overlap > 0.7:
        raise RuntimeError(f"after events of another taste {story.overlap:.0%} of the list stayed, wanted at most 70%")
    if story.share_after <= story.share_before:
        raise RuntimeError(
            f"the share of {story.genre} went from {story.share_before:.0%} to {story.share_after:.0%}, wanted a rise"
        )


def typical_member(actors: pa.Table) -> str:
    """The member with the median number of interactions (ties by id): neither new nor a heavy viewer."""
    members = actors.filter(pc.invert(pc.starts_with(actors["actor_id"], "guest:")))
    counts = members.group_by("actor_id").aggregate([([], "count_all")])
    ordered = counts.sort_by([("count_all", "ascending"), ("actor_id", "ascending")])
    return str(ordered["actor_id"][ordered.num_rows // 2])


def least_expected_genre(distribution: Mapping[str, float], titles: Catalogue) -> str:
    """The genre that the model expects least, among those with enough titles to fill a list."""
    enough = [g for i, g in enumerate(titles.genres) if titles.genres_N1G[:, i].sum() >= K + CLICKED_TITLES]
    return min(enough, key=lambda genre: (distribution[genre], genre))


def titles_of(genre: str, titles: Catalogue, *, without: Sequence[str]) -> list[str]:
    """Titles of a genre, those with fewest other genres first."""
    column = titles.genres.index(genre)
    rows = [code for code in range(1, len(titles) + 1) if titles.genres_N1G[code, column]]
    rows.sort(key=lambda code: (titles.genres_N1G[code].sum(), code))
    return [titles.ids[code - 1] for code in rows if titles.ids[code - 1] not in without]


def visit(clicked: Sequence[str], member_id: str, *, query: str, until: datetime) -> list[dict[str, Any]]:
    """Events of one sitting that ends at `until`: a search, then a look at, a play and a stop of each title."""
    steps: list[tuple[str, dict[str, Any]]] = [("search", {"query": query})]
    for title_id in clicked:
        steps.append(("detail", {"title_id": title_id, "dwell_seconds": 12.0}))
        steps.append(("play", {"title_id": title_id}))
        steps.append(("stop", {"title_id": title_id, "played_fraction": 0.4, "dwell_seconds": 1500.0}))
    stamp = f"{until:%Y%m%d%H%M%S%f}"
    return [
        {
            "event_id": f"demo-{stamp}-{number:02d}",
            "member_id": member_id,
            "session_id": "demo-session",
            "at": (until - timedelta(seconds=20 * (len(steps) - 1 - number))).isoformat(),
            "action": action,
            **more,
        }
        for number, (action, more) in enumerate(steps)
    ]


def genre_share(title_ids: Sequence[str], genre: str, titles: Catalogue) -> float:
    """Share of a list that has the genre."""
    codes = titles.codes(list(title_ids))
    return float(titles.genres_N1G[codes, titles.genres.index(genre)].mean())


def show(
    story: Story,
    titles: Catalogue,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    explored: Mapping[str, Any],
    *,
    clicked: Sequence[str],
    receipt: Mapping[str, Any],
    num_asked: int,
) -> None:
    """Print both lists side by side, the intents, what was explored, and how fresh the answer is."""
    names = dict(zip(titles.ids, titles.names, strict=True))
    say(f"{story.member_id} looks for {story.genre}: " + ", ".join(names[t] for t in clicked))
    say(f"events accepted: {receipt['accepted']}, duplicate: {receipt['duplicate']}, rejected: {receipt['rejected']}")
    table = Table("", "before", "after", "with exploration", title="pre-query list")
    for place in range(K):
        row = [_label(answer, place, titles, story.genre) for answer in (before, after, explored)]
        table.add_row(str(place + 1), *row)
    console.print(table)
    intents = Table("intent", "before", "after", title="predicted intent")
    for head in ("action", "genre", "kind", "recency", "search"):
        if head in after["intent"]:
            intents.add_row(head, _top(before["intent"][head]), _top(after["intent"][head]))
    console.print(intents)
    num_explored = sum("explored" in item["reasons"] for item in explored["items"])
    say(
        f"* has the genre {story.genre}; with exploration, answer {num_asked}, {num_explored} of {K} places were "
        "filled by dice; each item says its propensity"
    )
    say(
        f"genre {story.genre}: {story.share_before:.0%} of the list before, {story.share_after:.0%} after; "
        f"{story.overlap:.0%} of the titles stayed; "
        f"newest event used is {after['freshness']['age_seconds']:.3f} s old; "
        f"changed answer {story.freshness_ms:.0f} ms after the events were sent"
    )


def say_next(url: str, story: Story, *, key_file: Path) -> None:
    """Print calls to try."""
    key_header = f'-H "X-API-Key: $(cat {shlex.quote(str(key_file))})"'
    json_header = f"-H 'content-type: application/json' {key_header}"
    say("\nTry next (after `make serve`):")
    body = f'{{"member_id":"{story.member_id}","session_id":"s1","k":10,"explain":"items"}}'
    say(f"  curl -s {url}/v1/recommend {json_header} -d '{body}'")
    event = json.dumps(visit([], story.member_id, query=story.genre, until=datetime.now(UTC))[0])
    say(f"  curl -s {url}/v1/events {json_header} -d '{{\"events\":[{event}]}}'")
    say(f"  curl -s {key_header} {url}/v1/decisions/{story.decision_id}")
    say(f"  curl -s {url}/health/ready; curl -s {url}/openapi.json\n")


def _step(number: int, what: str) -> None:
    say(f"\n[{number}/7] {what}")


def _ids(answer: Mapping[str, Any]) -> list[str]:
    return [item["title_id"] for item in answer["items"]]


def _label(answer: Mapping[str, Any], place: int, titles: Catalogue, genre: str) -> str:
    item = answer["items"][place]
    code = titles.code_of[item["title_id"]]
    genres = [g for i, g in enumerate(titles.genres) if titles.genres_N1G[code, i]]
    marks = ("* " if genre in genres else "") + ("(explored) " if "explored" in item["reasons"] else "")
    return escape(f"{marks}{item['name']} [{', '.join(genres)}]")


def _top(distribution: Mapping[str, float], count: int = 3) -> str:
    best = sorted(distribution.items(), key=lambda pair: -pair[1])[:count]
    return ", ".join(f"{name} {share:.0%}" for name, share in best)
