"""Members of a service, by dice, with everything that goes wrong on the way: what parity is proven under.

Events come twice, late, in disorder, from a little and from too far in the future, to both of two processes at once;
guests become members, members are deleted, and a process dies while it is asked. Everything is sent over HTTP by
threads and sent again until it is acknowledged, as clients do.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import orjson

from foretaste.contracts.events import ACTIONS, NEEDS_TITLE, Action, actor_id
from foretaste.ops.telemetry import progress

QUERIES = ("dark comedy", "new", "space opera space", "für Elise", "…")
FILTERS = ("not series", "age_days < 365 or not known(age_days)", 'kind != "no such kind"')
BOOSTS = [{"where": "series", "factor": 3.0}, {"where": "age_days < 90", "factor": 0.5}]
GIVE_UP_SECONDS = 120.0
LEAVING = 20
"""One member of so many is deleted now and then."""
_WEIGHTS = np.array(
    [{Action.IMPRESSION: 0.5, Action.PLAY: 4.0, Action.SEARCH: 2.0}.get(Action(a), 1.0) for a in ACTIONS]
)


@dataclass(frozen=True)
class World:
    """Whom and what the traffic is about."""

    members: Sequence[str]
    titles: Sequence[str]


@dataclass
class Sent:
    """What was sent and answered; counts of all threads together."""

    answered: dict[str, str] = field(default_factory=dict)  # actor by decision_id
    counts: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)  # answers that no fault explains
    begun: float = 0.0  # seconds of a clock of its own
    ended: float = 0.0
    num_milestones: int = 0  # that came while traffic went on

    @property
    def seconds(self) -> float:
        """From the first request to the last answer."""
        return self.ended - self.begun

    @property
    def requests_per_second(self) -> float:
        """Answers a second, events and all else beside them."""
        return len(self.answered) / self.seconds if self.seconds else 0.0


SHED = frozenset({429, 503})

Milestone = tuple[float, Callable[[], None]]
"""Share of the requests after which something is done while traffic goes on."""


def drive(
    urls: Sequence[str],
    world: World,
    *,
    requests: int,
    threads: int = 6,
    seed: int = 0,
    milestones: Sequence[Milestone] = (),
) -> Sent:
    """Ask for `requests` lists, with events between them; returns what came of it. Raises what a milestone raises.

    A milestone that is due only after the last answer does not come.
    """
    sent, lock = Sent(), threading.Lock()
    failures: list[BaseException] = []
    steps = iter(np.random.SeedSequence(seed).spawn(requests))
    due = sorted(milestones, key=lambda one: one[0])

    def work(advance: Callable[[float], None]) -> None:
        client = _Client(urls)
        member = Members(client, world, sent, lock)
        try:
            while not failures:
                with lock:
                    step = next(steps, None)
                if step is None:
                    break
                member.step(np.random.default_rng(step))
                sent.ended = time.monotonic()
                advance(1)
        except Exception as error:  # of a thread: raised by whoever waits
            failures.append(error)
        finally:
            client.close()

    sent.begun = sent.ended = time.monotonic()
    with progress("traffic", total=requests, unit="requests") as advance:
        workers = [threading.Thread(target=work, args=(advance,)) for _ in range(threads)]
        for worker in workers:
            worker.start()
        try:
            for share, act in due:
                while len(sent.answered) < share * requests and any(worker.is_alive() for worker in workers):
                    time.sleep(0.02)
                if len(sent.answered) < requests and any(worker.is_alive() for worker in workers):
                    act()
                    sent.num_milestones += 1
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            for worker in workers:
                worker.join()
    if failures:
        raise failures[0]
    return sent


class Members:
    """One thread's worth of members; all threads act for the same ones."""

    def __init__(self, client: _Client, world: World, sent: Sent, lock: threading.Lock) -> None:
        self._client = client
        self._world = world
        self._sent = sent
        self._lock = lock
        self._before: list[list[dict[str, Any]]] = []
        self._lists: dict[str, str] = {}  # last list by session

    def step(self, dice: np.random.Generator) -> None:
        """Let one of them do something, as a rule, and ask for a list."""
        guest = dice.uniform() < 0.08
        member_id = None if guest else self._member(dice)
        session_id = f"g{dice.integers(40)}" if guest else f"s-{member_id}-{int(time.time()) // 60}"
        if dice.uniform() < 0.75:
            self._events(dice, member_id, session_id)
        if self._before and dice.uniform() < 0.12:
            self._send(dice, self._before[int(dice.integers(len(self._before)))], "repeated")
        self._ask(dice, member_id, session_id)
        if guest and dice.uniform() < 0.15:
            self._merge(dice, session_id)
        if member_id is not None and self._leaves(member_id) and dice.uniform() < 0.1:
            self._delete(dice, member_id)

    def _member(self, dice: np.random.Generator) -> str:
        """Some members are here much more often than others, so that several threads act for one at a time."""
        return self._world.members[int(len(self._world.members) * dice.uniform() ** 3)]

    def _leaves(self, member_id: str) -> bool:
        """Only some are ever deleted, and come again: of what they did before nothing is left to compare."""
        return self._world.members.index(member_id) % LEAVING == LEAVING - 1

    def _events(self, dice: np.random.Generator, member_id: str | None, session_id: str) -> None:
        batch = [self._event(dice, member_id, session_id) for _ in range(int(dice.integers(1, 4)))]
        if dice.uniform() < 0.1:
            batch.append(batch[0])
        self._before = [*self._before[-40:], batch]
        if dice.uniform() < 0.2:  # to two processes at the same time, in part the same
            other = threading.Thread(target=self._twin, args=(batch[::-1],))
            other.start()
            self._send(dice, batch, "sent")
            other.join()
        else:
            self._send(dice, batch, "sent")

    def _twin(self, batch: list[dict[str, Any]]) -> None:
        client = _Client(self._client.urls[::-1])
        try:
            self._note(*client.call("POST", "/v1/events", {"events": batch}, first=0), "sent twice at once")
        finally:
            client.close()

    def _event(self, dice: np.random.Generator, member_id: str | None, session_id: str) -> dict[str, Any]:
        action = str(dice.choice(ACTIONS, p=_WEIGHTS / _WEIGHTS.sum()))
        event: dict[str, Any] = {
            "event_id": f"t{dice.integers(1 << 62):x}",
            "member_id": member_id,
            "session_id": session_id if member_id is None or dice.uniform() < 0.7 else None,
            "at": (datetime.now(UTC) - timedelta(seconds=_lag(dice))).isoformat(),
            "action": action,
        }
        if action in NEEDS_TITLE:
            event["title_id"] = self._title(dice)
            event |= {"dwell_seconds": float(np.round(dice.exponential(300), 3))} if dice.uniform() < 0.6 else {}
            event |= {"played_fraction": float(dice.uniform())} if dice.uniform() < 0.5 else {}
        if action == Action.SEARCH and dice.uniform() < 0.9:
            event["query"] = QUERIES[int(dice.integers(len(QUERIES)))]
        return event

    def _title(self, dice: np.random.Generator) -> str:
        if dice.uniform() < 0.02:
            return "a title that nobody knows"
        return self._world.titles[int(len(self._world.titles) * dice.uniform() ** 2)]

    def _ask(self, dice: np.random.Generator, member_id: str | None, session_id: str) -> None:
        """Ask until there is one list: what goes on after the last, given titles in order, or a new one."""
        who: dict[str, Any] = {"session_id": session_id} | ({} if member_id is None else {"member_id": member_id})
        how, last = dice.uniform(), self._lists.get(session_id)
        if how < 0.12 and last is not None:
            body = who | {"decision_id": last, "k": int(dice.integers(1, 12))}
            status, answer = self._client.call("POST", "/v1/recommend/next", body, first=int(dice.integers(2)))
            if status == 422 and answer["errors"][0]["field"] == "decision_id":  # deleted since, or too long
                status, answer = self._recommend(dice, who)
        elif how < 0.2:
            body = who | {"candidates": [self._title(dice) for _ in range(int(dice.integers(1, 20)))]}
            status, answer = self._client.call("POST", "/v1/rank", body, first=int(dice.integers(2)))
        else:
            status, answer = self._recommend(dice, who)
        if status == 200 and answer["decision_id"] is not None:
            if how >= 0.2 or how < 0.12:
                self._lists[session_id] = answer["decision_id"]
            with self._lock:
                self._sent.answered[answer["decision_id"]] = actor_id(member_id, session_id)
        else:
            self._note(status or 1, answer, "recommend")

    def _recommend(self, dice: np.random.Generator, who: dict[str, Any]) -> tuple[int, Any]:
        body = who | {"k": int(dice.integers(1, 30))}
        body |= {"explain": "items"} if dice.uniform() < 0.1 else {}
        body |= {"exclude_ids": [self._title(dice), self._title(dice)]} if dice.uniform() < 0.1 else {}
        body |= {"policy": "greedy"} if dice.uniform() < 0.3 else {}
        body |= {"filter": FILTERS[int(dice.integers(len(FILTERS)))]} if dice.uniform() < 0.2 else {}
        body |= {"boost": BOOSTS} if dice.uniform() < 0.1 else {}
        if dice.uniform() < 0.2 and (last := self._lists.get(who["session_id"])) is not None:
            body |= {"shown_id": last}
        return self._client.call("POST", "/v1/recommend", body, first=int(dice.integers(2)))

    def _send(self, dice: np.random.Generator, batch: list[dict[str, Any]], what: str) -> None:
        status, answer = self._client.call("POST", "/v1/events", {"events": batch}, first=int(dice.integers(2)))
        self._note(status, answer, what)

    def _merge(self, dice: np.random.Generator, session_id: str) -> None:
        path = f"/v1/members/{quote(self._member(dice), safe='')}/merge"
        answer = self._client.call("POST", path, {"session_id": session_id}, first=int(dice.integers(2)))
        self._note(*answer, "merged")

    def _delete(self, dice: np.random.Generator, member_id: str) -> None:
        path = f"/v1/members/{quote(member_id, safe='')}"
        self._note(*self._client.call("DELETE", path, None, first=int(dice.integers(2))), "deleted")

    def _note(self, status: int, answer: Any, what: str) -> None:
        with self._lock:
            self._sent.counts[what] += 1
            if isinstance(answer, dict):
                for name in ("accepted", "duplicate"):
                    self._sent.counts[name] += int(answer.get(name, 0))
                for rejected in answer.get("rejected", ()):
                    self._sent.counts[f"rejected {rejected['code']}"] += 1
            if not 200 <= status < 300:
                self._sent.refused.append(f"{what}: {status}: {answer}"[:300])


def _lag(dice: np.random.Generator) -> float:
    """Seconds from what happened to when it is told; below 0 where a clock is ahead."""
    chance = dice.uniform()
    if chance < 0.70:
        return float(dice.exponential(5))
    if chance < 0.80:
        return float(dice.uniform(60, 6 * 3600))
    if chance < 0.90:
        return float(dice.uniform(0, 40 * 86400))
    if chance < 0.93:
        return float(dice.uniform(350, 450) * 86400)
    return float(-dice.uniform(0, 280) if chance < 0.985 else -dice.uniform(310, 900))


class _Client:
    """Connections that are kept to a few addresses; asks another one where one does not answer, until one does."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = list(urls)
        self._open: dict[str, http.client.HTTPConnection] = {}

    def call(self, method: str, path: str, body: Any, *, first: int) -> tuple[int, Any]:
        """Status and body of the answer; what was shed is asked again.

        Raises ConnectionError when nobody answers for two minutes.
        """
        deadline = time.monotonic() + GIVE_UP_SECONDS
        for number in _count(first):
            url = self.urls[number % len(self.urls)]
            try:
                status, answer = self._call(url, method, path, body)
                if status not in SHED or time.monotonic() > deadline:
                    return status, answer
                time.sleep(0.05)
            except (OSError, http.client.HTTPException) as error:
                connection = self._open.pop(url, None)
                if connection is not None:
                    connection.close()
                if time.monotonic() > deadline:
                    raise ConnectionError(f"{method} {path}: nobody answers: {error}") from error
                time.sleep(0.05)
        raise AssertionError("unreachable")

    def _call(self, url: str, method: str, path: str, body: Any) -> tuple[int, Any]:
        if url not in self._open:
            self._open[url] = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        content = None if body is None else orjson.dumps(body)
        self._open[url].request(method, path, body=content, headers={"content-type": "application/json"})
        answer = self._open[url].getresponse()
        found = answer.read()
        return answer.status, orjson.loads(found) if found else None

    def close(self) -> None:
        """Close every connection."""
        for connection in self._open.values():
            connection.close()


def _count(first: int) -> Iterator[int]:
    while True:
        yield first
        first += 1
