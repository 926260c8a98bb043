"""The signals of a request as one would explain them: slow, over plain events, and what the fast ones must equal.

Nothing of this is called by an answer.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import GENRE_PARTS, UNKNOWN_TIME, Catalogue
from foretaste.contracts.events import ACTIONS, ENGAGEMENT, NEEDS_TITLE, PASSIVE
from foretaste.contracts.sessions import SessionRule
from foretaste.contracts.words import TOKEN_PLACES
from foretaste.signals.declared import (
    ABANDON_BELOW,
    ABANDONED,
    AWAY_DAYS,
    COMPLETE_FROM,
    LAST_TITLES,
    LONGEST_DWELL_SECONDS,
    NEVER,
    PAST_SESSIONS,
    POSITIVE,
    SESSION_SIGNALS,
    STEPS_TO_HALF,
    WEIGHT_BITS,
)

Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Visit:
    """An interaction: neighbouring engagement with one title."""

    code: int
    events: list[Event]

    @property
    def action(self) -> str:
        """The strongest action."""
        return ACTIONS[max(ACTIONS.index(event["action"]) for event in self.events)]

    @property
    def dwell_ms(self) -> int:
        """Milliseconds spent."""
        known = [event["dwell_seconds"] for event in self.events if event.get("dwell_seconds") is not None]
        return sum(round(min(seconds, LONGEST_DWELL_SECONDS) * 1000.0) for seconds in known)

    @property
    def fraction(self) -> int | None:
        """Largest played fraction in millionths."""
        known = [event["played_fraction"] for event in self.events if event.get("played_fraction") is not None]
        return max((round(fraction * 1_000_000) for fraction in known), default=None)

    @property
    def abandoned(self) -> bool:
        """Whether it was given up early."""
        return self.action in ABANDONED and self.fraction is not None and self.fraction < ABANDON_BELOW

    @property
    def yes(self) -> bool:
        """Whether it says yes to its title."""
        return self.action in POSITIVE and not self.abandoned


def visible_events(events: Iterable[Event], *, asof: int, catalogue: Catalogue) -> list[Event]:
    """Events before the instant that count, each once, in order."""
    earliest: dict[str, Event] = {}
    for event in sorted(events, key=lambda event: (event["at"], event["event_id"].encode())):
        if event["at"] < asof:
            earliest.setdefault(event["event_id"], event)
    return [event for event in earliest.values() if _counts(event, catalogue)]


def _counts(event: Event, catalogue: Catalogue) -> bool:
    title = event.get("title_id")
    if event["action"] not in ACTIONS or event["action"] in PASSIVE:
        return False
    if title is None:
        return event["action"] not in NEEDS_TITLE
    if title not in catalogue.code_of:
        return False
    own = dict(zip(catalogue.ids, catalogue.released_N1[1:].tolist(), strict=True))
    released = (own | catalogue.episode_released)[title]
    return bool(released == UNKNOWN_TIME or event["at"] >= released)


def sessions_of(events: Sequence[Event], rule: SessionRule) -> list[list[Event]]:
    """Divide events, in order, into sessions."""
    sessions: list[list[Event]] = []
    for event in events:
        if not sessions or _opens(sessions[-1][-1], event, rule):
            sessions.append([])
        sessions[-1].append(event)
    return sessions


def _opens(before: Event, event: Event, rule: SessionRule) -> bool:
    named = before.get("session_id"), event.get("session_id")
    if rule.native and None not in named:
        return named[0] != named[1]
    return bool(event["at"] - before["at"] > round(rule.gap_minutes * 60_000_000))


def visits_of(session: Sequence[Event], catalogue: Catalogue) -> list[Visit]:
    """Interactions of a session."""
    engaged = [event for event in session if event["action"] in ENGAGEMENT]
    groups = itertools.groupby(engaged, key=lambda event: catalogue.code_of[event["title_id"]])
    return [Visit(code, list(group)) for code, group in groups]


def twin_signals(
    events: Iterable[Event], *, asof: int, catalogue: Catalogue, rule: SessionRule
) -> dict[str, NDArray[np.generic]]:
    """Compute every signal of one answer, slowly: arrays [W] by name."""
    sessions = sessions_of(visible_events(events, asof=asof, catalogue=catalogue), rule)
    is_open = bool(sessions) and asof - sessions[-1][-1]["at"] <= round(rule.gap_minutes * 60_000_000)
    now = sessions[-1] if is_open else []
    before = sessions[:-1] if is_open else sessions
    past = before[-PAST_SESSIONS:]
    past_visits = [visit for session in past for visit in visits_of(session, catalogue)]
    began = now[0]["at"] if now else asof
    left = before[-1][-1]["at"] if before else None
    values = _of_now(now, visits_of(now, catalogue), asof, catalogue) | {
        "idle": _since(asof, sessions[-1][-1]["at"] if sessions else None, 1_000_000),
        "num_sessions": len(sessions),
        "past_sessions": len(past),
        "past_genres": _shares(_genres([(visit.code, 1) for visit in past_visits if visit.yes], catalogue)),
        "past_kinds": _shares(_kinds([(visit.code, 1) for visit in past_visits if visit.yes], catalogue)),
        "past_depth": sum(map(len, past)) / len(past) if past else 0.0,
        "past_fraction_mean": _mean_fraction(past_visits),
        "away": _since(asof, left, 3_600_000_000),
        "returned": left is not None and began - left > AWAY_DAYS * 86_400_000_000,
    }
    return {one.name: np.array(values[one.name], dtype=one.dtype).reshape(-1) for one in SESSION_SIGNALS}


def _of_now(now: Sequence[Event], visits: Sequence[Visit], asof: int, catalogue: Catalogue) -> dict[str, Any]:
    """Signals of the open session, which may be empty."""
    yes = [visit for visit in visits if visit.yes]
    refused = [(visit.code, 1) for visit in visits if visit.action == "thumb_down" or visit.abandoned]
    refused += [(catalogue.code_of[event["title_id"]], 1) for event in now if event["action"] == "remove"]
    newest_first = list(dict.fromkeys(visit.code for visit in reversed(yes)))
    weighed = [(visit.code, _weight(steps)) for steps, visit in enumerate(reversed(visits)) if visit.yes]
    searches = [event for event in now if event["action"] == "search"]
    queries = [event["query"] for event in searches if event.get("query") is not None]
    fractions = [visit.fraction for visit in visits if visit.fraction is not None]
    return {
        "session_depth": len(now),
        "session_age": _since(asof, now[0]["at"] if now else None, 1_000_000),
        "session_actions": [sum(event["action"] == action for event in now) for action in ACTIONS],
        "session_interactions": len(visits),
        "session_titles": len(newest_first),
        "session_last_titles": (newest_first + [0] * LAST_TITLES)[:LAST_TITLES],
        "session_genres": _shares(_genres([(visit.code, 1) for visit in yes], catalogue)),
        "session_kinds": _shares(_kinds([(visit.code, 1) for visit in yes], catalogue)),
        "session_genres_lately": _shares(_genres(weighed, catalogue)),
        "session_kinds_lately": _shares(_kinds(weighed, catalogue)),
        "session_dwell": sum(visit.dwell_ms for visit in visits) / 1000,
        "session_fraction_mean": _mean_fraction(visits),
        "session_fraction_max": max(fractions) / 1_000_000 if fractions else NEVER,
        "session_completed": sum(_completed(visit) for visit in visits),
        "session_searches": len(searches),
        "since_search": _since(asof, searches[-1]["at"] if searches else None, 1_000_000),
        "query_tokens": _tokens(queries[-1] if queries else ""),
        "session_thumbs_down": sum(visit.action == "thumb_down" for visit in visits),
        "session_removes": sum(event["action"] == "remove" for event in now),
        "session_abandons": sum(visit.abandoned for visit in visits),
        "session_genres_refused": _shares(_genres(refused, catalogue)),
    }


def _since(asof: int, at: int | None, unit_us: int) -> float:
    return NEVER if at is None else (asof - at) / unit_us


def _completed(visit: Visit) -> bool:
    return visit.action == "complete" or (visit.fraction is not None and visit.fraction >= COMPLETE_FROM)


def _mean_fraction(visits: Sequence[Visit]) -> float:
    known = [visit.fraction for visit in visits if visit.fraction is not None]
    return sum(known) / (len(known) * 1_000_000) if known else NEVER


def _weight(steps: int) -> int:
    """The largest whole number whose power is not above that of 2 ** (WEIGHT_BITS - steps / STEPS_TO_HALF)."""
    bound = 2 ** (WEIGHT_BITS * STEPS_TO_HALF - steps) if steps <= WEIGHT_BITS * STEPS_TO_HALF else 0
    low, high = 0, 2**WEIGHT_BITS
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**STEPS_TO_HALF <= bound else (low, middle - 1)
    return low


def _genres(weighed: Sequence[tuple[int, int]], catalogue: Catalogue) -> list[int]:
    """Divide the weights of titles between their genres."""
    parts = [0] * len(catalogue.genres)
    for code, weight in weighed:
        own = [genre for genre in range(len(parts)) if catalogue.genres_N1G[code, genre] > 0]
        for genre in own:
            parts[genre] += weight * (GENRE_PARTS // len(own))
    return parts


def _kinds(weighed: Sequence[tuple[int, int]], catalogue: Catalogue) -> list[int]:
    """Sum the weights of titles by kind."""
    parts = [0] * len(catalogue.kinds)
    for code, weight in weighed:
        parts[int(catalogue.kind_N1[code])] += weight
    return parts


def _shares(parts: Sequence[int]) -> list[float]:
    return [part / max(sum(parts), 1) for part in parts]


def _tokens(query: str) -> list[int]:
    places = [
        zlib.crc32(word.encode("utf-8", "surrogatepass")) % TOKEN_PLACES
        for word in re.findall(r"\w+", query.casefold())
    ]
    return [places.count(place) for place in range(TOKEN_PLACES)]
