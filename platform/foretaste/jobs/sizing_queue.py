"""How long requests take at a load: replicas that share passes, a bounded number at a time, a queue that sheds.

A replica computes up to `in_flight` requests side by side, and how long they take depends on how many they are: less
than in proportion, where models share passes. Work is shared evenly (processor sharing with a rate that depends on the
number present); what finds no place waits in order, and is shed as `serving.shedding` sheds. Where nothing is shared
and nothing waits for a place the law is M/G/1-PS, whose mean is known (Kleinrock 1976, vol. 2, section 4.4); the tests
hold the simulation against it.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

import numpy as np

from foretaste.serving.shedding import SheddingConfig

SHED_SHARE = 0.001
WARM_SHARE = 0.2


class Routing(StrEnum):
    """Which replica a request goes to."""

    LEAST = "least"  # the one with the fewest, as HAProxy's leastconn
    RANDOM = "random"


@dataclass(frozen=True)
class Replica:
    """What one process can do: by requests present, from 1 on, the seconds that one of mean work takes among them.

    Between the points, and behind the last, it is taken to go on in a line.
    """

    points: tuple[tuple[float, float], ...]
    spread: float = 0.25  # standard deviation of a request's work, of its mean
    shedding: SheddingConfig = field(default_factory=SheddingConfig)

    def seconds(self, number: int) -> float:
        """How long a request of mean work takes among so many."""
        (few, short), (many, long) = _around(self.points, number)
        return short + (long - short) * (number - few) / (many - few)

    @property
    def most_per_second(self) -> float:
        """Answers a second with all places taken."""
        return self.shedding.in_flight / self.seconds(self.shedding.in_flight)


@dataclass
class Seen:
    """What became of the requests of a load."""

    seconds: float
    took_ms: list[float] = field(default_factory=list)
    shed: int = 0

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.took_ms) / self.seconds

    @property
    def shed_share(self) -> float:
        """Of all requests."""
        return self.shed / max(1, self.shed + len(self.took_ms))

    def ms(self, percent: float) -> float:
        """A percentile of the answers' milliseconds; without answers infinite."""
        return float(np.percentile(self.took_ms, percent)) if self.took_ms else math.inf

    def figures(self) -> dict[str, float]:
        """As benchmarks say it."""
        said = {f"p{percent}_ms": round(self.ms(percent), 2) for percent in (50, 90, 99)}
        return {"per_second": round(self.per_second, 2), **said, "shed_share": round(self.shed_share, 5)}


class _Place:
    """One replica on its way: virtual time goes on as fast as a request of mean work is done."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.inside: list[tuple[float, int]] = []  # virtual time of its end, request
        self.waiting: deque[int] = deque()
        self.virtual = 0.0
        self.at = 0.0
        self.empty_at = 0.0

    @property
    def num(self) -> int:
        return len(self.inside) + len(self.waiting)

    def move(self, now: float) -> None:
        if self.inside:
            self.virtual += (now - self.at) / self.replica.seconds(len(self.inside))
        self.at = now

    def next_end(self) -> float:
        if not self.inside:
            return math.inf
        return self.at + (self.inside[0][0] - self.virtual) * self.replica.seconds(len(self.inside))

    def bound(self, now: float) -> float:
        """How long a request may wait just now."""
        shedding = self.replica.shedding
        stands = now - self.empty_at > shedding.burst_ms / 1e3
        return (shedding.target_ms if stands else shedding.burst_ms) / 1e3


def simulate(
    replica: Replica,
    replicas: int,
    *,
    seconds: float,
    per_second: float | None = None,
    clients: int | None = None,
    routing: Routing = Routing.LEAST,
    seed: int = 0,
) -> Seen:
    """Load `replicas` for so long: in an open loop of `per_second`, or by `clients` that wait for each answer.

    The first fifth is not counted. Arrivals are Poisson, work is lognormal. Raises ValueError unless one of both is
    said. Who is shed in a closed loop asks again after `retry_after_seconds`.
    """
    if (per_second is None) == (clients is None):
        raise ValueError("simulate: wanted per_second or clients, one of both")
    rng = np.random.default_rng(seed)
    sigma = math.sqrt(math.log1p(replica.spread**2))
    places = [_Place(replica) for _ in range(replicas)]
    since, seen = WARM_SHARE * seconds, Seen((1 - WARM_SHARE) * seconds)
    begun: list[float] = []
    arrivals: list[float] = []
    if per_second is not None:
        gaps = rng.exponential(1 / per_second, size=max(1, int(1.5 * per_second * seconds) + 50))
        arrivals = np.cumsum(gaps)[np.cumsum(gaps) < seconds].tolist()
    else:
        arrivals = sorted(rng.uniform(0, 0.01, size=clients).tolist())
    heapq.heapify(arrivals)

    def start(place: _Place, request: int) -> None:
        work = float(rng.lognormal(-(sigma**2) / 2, sigma)) if sigma else 1.0
        heapq.heappush(place.inside, (place.virtual + work, request))

    def refused(now: float) -> None:
        seen.shed += now > since
        if clients is not None:
            heapq.heappush(arrivals, now + replica.shedding.retry_after_seconds)

    while True:
        ending = min(places, key=_Place.next_end)
        now = min(ending.next_end(), arrivals[0] if arrivals else math.inf)
        if now >= seconds:
            return seen
        if arrivals and arrivals[0] <= now:
            heapq.heappop(arrivals)
            fewest = min(place.num for place in places)
            free = [place for place in places if routing is Routing.RANDOM or place.num == fewest]
            place = free[int(rng.integers(len(free)))]
            place.move(now)
            begun.append(now)
            if not place.waiting:
                place.empty_at = now
            if len(place.inside) < replica.shedding.in_flight:
                start(place, len(begun) - 1)
            elif len(place.waiting) >= replica.shedding.waiting or _wait(place) > place.bound(now):
                refused(now)
            else:
                place.waiting.append(len(begun) - 1)
            continue
        ending.move(now)
        _, request = heapq.heappop(ending.inside)
        if now > since:
            seen.took_ms.append((now - begun[request]) * 1e3)
        if clients is not None:
            heapq.heappush(arrivals, now)
        while ending.waiting and len(ending.inside) < replica.shedding.in_flight:
            waiting = ending.waiting.popleft()
            if now - begun[waiting] > ending.bound(now):
                refused(now)
            else:
                start(ending, waiting)
        if not ending.waiting:
            ending.empty_at = now


def _wait(place: _Place) -> float:
    """How long one that comes now will wait, by what a place usually takes."""
    most = place.replica.shedding.in_flight
    return (len(place.waiting) + 1) * place.replica.seconds(most) / most


def _around(points: tuple[tuple[float, float], ...], number: int) -> tuple[tuple[float, float], tuple[float, float]]:
    if len(points) == 1:
        return (0.0, 0.0), points[0]
    later = next((at for at in range(1, len(points)) if number <= points[at][0]), len(points) - 1)
    return points[later - 1], points[later]


def calibrated(
    closed: Mapping[int, float], replicas: int, *, spread: float = 0.25, shedding: SheddingConfig | None = None
) -> Replica:
    """A replica of closed loops' answers a second by their clients, who are spread evenly over `replicas`.

    Clients above what is computed at a time tell of a full replica; of several such loops the best one counts. Raises
    ValueError where nobody was alone, or where more requests take less time than fewer.
    """
    shedding = shedding or SheddingConfig()
    times: dict[float, float] = {}
    for clients, per_second in sorted(closed.items()):
        present = min(max(1.0, clients / replicas), float(shedding.in_flight))
        busy = min(clients, replicas)
        took = present * busy / per_second
        times[present] = min(times.get(present, math.inf), took)
    points = tuple(sorted(times.items()))
    if not points or points[0][0] > 1:
        raise ValueError("calibrated: wanted a closed loop of one client, who is alone")
    if any(after[1] < before[1] for before, after in pairwise(points)):
        raise ValueError(f"calibrated: more requests take less time than fewer: {points}")
    return Replica(points, spread=spread, shedding=shedding)


def rate_within(replica: Replica, p99_ms: float, *, replicas: int = 4, answers: int = 4_000, seed: int = 0) -> float:
    """Requests a second and replica at which p99 stays within a bound and hardly anything is shed; 0 where none does.

    Found by halving, each time with a load of about so many `answers`.
    """
    low, high = 0.0, max(number / replica.seconds(number) for number in range(1, replica.shedding.in_flight + 1))
    for _ in range(8):
        rate = (low + high) / 2 * replicas
        seen = simulate(replica, replicas, seconds=answers / rate, per_second=rate, seed=seed)
        holds = seen.ms(99) <= p99_ms and seen.shed_share <= SHED_SHARE
        low, high = (rate / replicas, high) if holds else (low, rate / replicas)
    return low
