"""Decisions with their rewards as rounds of a policy that is judged: the work on one bucket of actors.

Shapes: K places of a list, C candidates.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foretaste.contracts.columns import DECISIONS, LOGGED_EVENTS, REWARDS
from foretaste.contracts.wire import PolicyName
from foretaste.evaluation.offpolicy.list_model import Described, Earned, describe
from foretaste.evaluation.offpolicy.lists import List, by_depth, described_table, plain, rounds_table
from foretaste.feedback.decision_log import plain_rows
from foretaste.feedback.past import Past
from foretaste.jobs.parity import first_of_each
from foretaste.ops.files import write_parquet
from foretaste.policies.register import CONTEXTUAL
from foretaste.rewards.programs import State
from foretaste.serving.exploring import Explorer, ExploringConfig
from foretaste.serving.judged import Chances, Pool, judged, pool_made_again, pool_of_row
from foretaste.serving.logged import LeftOutError, Logged
from foretaste.serving.models import Models
from foretaste.serving.posteriors import PublishedPosteriors
from foretaste.serving.replay import Replay
from foretaste.sessions.spread import Item
from foretaste.signals.store import FeatureStore

PROBABILITY = "probability"
PARTS: dict[str, pa.Schema] = {
    "decisions": DECISIONS,
    "rewards": REWARDS.append(pa.field(PROBABILITY, pa.float64())),
    "events": LOGGED_EVENTS,
}
"""Tables of a bucket; `probability` is that of a policy that is given as a file."""
ROWS_AT_ONCE = 512

NO_OUTCOME = "no outcome of the decision is known"
UNDEFINED = "the program's reward is not defined for a title of the list"
NO_PROPENSITY = "the log has no propensity of a title of the list"
NO_DECISION = "the decision log does not have the decision"
NO_PROBABILITY = "the file has no probability of a title of the list"


@dataclass(frozen=True)
class Target:
    """A policy as a service would be set to it; with `release`, on other models than those that answered."""

    policy: PolicyName | None  # None: its probabilities stand in a file
    exploring: ExploringConfig
    epsilon: float
    release: str | None = None
    models: tuple[str | None, str | None] | None = None  # fingerprints of intent model and ranker of the release

    @property
    def made_again(self) -> bool:
        """Whether rows do not tell all that it reads, so that decisions are made again."""
        bounds = [self.exploring.bounds, *self.exploring.surfaces.values()]
        told = self.policy is PolicyName.GREEDY or not any(one.cold_share > 0 for one in bounds)
        return self.models is not None or self.policy in CONTEXTUAL or not told


@dataclass(frozen=True)
class Judging:
    """Writes the rounds of a bucket, a file a place; answers with measures by depth and what was left out."""

    folder: Path
    target: Target
    where: Mapping[str, str]  # registry, prepared, features, repo
    places: int
    from_us: int  # decisions from here
    until_us: int  # to before here are judged
    described: Path | None = None  # where it is written what a reward model reads
    earned: Earned | None = None  # by titles, for that

    def __call__(self, item: Item) -> Item:
        """Judge one bucket."""
        left, aside = Counter[str](), Counter[str]()
        lists = list(self._lists(item, left, aside))
        for place in range(self.places):
            one = [_only(found, place) for found in lists if place < len(found.reward_K)]
            if one:
                name = f"{place:03d}-{item['number']:05d}.parquet"
                write_parquet(_at(rounds_table(one), place), self.folder / name)
                if self.described is not None and self.earned is not None:
                    long = [found for found in lists if place < len(found.reward_K)]
                    write_parquet(described_table(long, place), self.described / name)
        measures = [plain(one) for one in by_depth(lists, depth=self.places)]
        longest = max((len(one.reward_K) for one in lists), default=0)
        return {"lists": len(lists), "longest": longest, "left": dict(left), "aside": dict(aside), "measures": measures}

    def _lists(self, item: Item, left: Counter[str], aside: Counter[str]) -> Iterator[List]:
        rewards = self._rewards(pq.read_table(item["rewards"])) if "rewards" in item else {}
        if self.target.policy is None:
            yield from self._of_file(rewards, left)
            return
        past = Past(first_of_each(pq.read_table(item["events"]) if "events" in item else LOGGED_EVENTS.empty_table()))
        known = set()
        for rows in self._rows(item):
            asked = [row for row in rows if row["decision_id"] in rewards]
            known |= {row["decision_id"] for row in asked}
            left[NO_OUTCOME] += len(rows) - len(asked)
            for row, made in zip(asked, self._pools(asked, past), strict=True):
                try:
                    yield self._list(row, made, rewards[row["decision_id"]])
                except (LeftOutError, ValueError, KeyError) as why:
                    left[str(why)[:200]] += 1
        first = ((name, next(iter(places.values()))) for name, places in rewards.items())
        inside = {name for name, one in first if self.from_us <= one["at_us"] < self.until_us and one["propensity"]}
        aside[NO_DECISION] += len(inside - known)

    def _rows(self, item: Item) -> Iterator[list[dict[str, Any]]]:
        """Decisions of the time, each once."""
        seen: set[str] = set()
        if "decisions" not in item:
            return
        for batch in pq.ParquetFile(item["decisions"]).iter_batches(ROWS_AT_ONCE):
            at = batch["at"].cast(pa.int64())
            inside = pc.and_(pc.greater_equal(at, self.from_us), pc.less(at, self.until_us))
            rows = plain_rows(pa.Table.from_batches([batch]).filter(inside))
            once = [row for row in rows if row["items"] and row["decision_id"] not in seen]
            seen |= {row["decision_id"] for row in once}
            yield once

    def _pools(
        self, rows: Sequence[Mapping[str, Any]], past: Past
    ) -> Iterator[tuple[Pool, Pool, Logged | None] | LeftOutError]:
        """What the judged policy is handed, what the decision's was, and the decision made again; or why not."""
        if not self.target.made_again:
            for row in rows:
                pool = pool_of_row(row)
                yield pool, pool, None
            return
        replay = replay_of(tuple(sorted(self.where.items())))
        models = self._models(replay)
        theirs = replay.pools(rows, past, models)
        for row, second in zip(rows, theirs, strict=True):
            # rows tell all that most policies read: only those that read more are made again beside another release
            needs = models is not None and row["policy"] in CONTEXTUAL
            first = replay.pools([row], past)[0] if needs else second
            if isinstance(first, LeftOutError):
                yield first
            elif isinstance(second, LeftOutError):
                yield second
            elif models is None or needs:
                yield pool_made_again(*second), pool_made_again(*first), first[0]
            else:
                yield pool_made_again(*second), pool_of_row(row), None

    def _models(self, replay: Replay) -> Models | None:
        return None if self.target.models is None else replay.models(*self.target.models)

    def _list(
        self,
        row: Mapping[str, Any],
        made: tuple[Pool, Pool, Logged | None] | LeftOutError,
        rewards: Mapping[int, Mapping[str, Any]],
    ) -> List:
        if isinstance(made, LeftOutError):
            raise made
        items = row["items"][: self.places]
        reward_K = [_reward(rewards.get(item["position"])) for item in items]
        assert self.target.policy is not None
        chances = judged(
            {**row, "items": items},
            _explorer(self.where["registry"], self.target),
            self.target.policy,
            pool=made[0],
            own=made[1],
            one=made[2],
        )
        actor = number_of(next(iter(rewards.values()))["actor_id"])
        return List(
            actor,
            chances.chosen_K,
            np.array(reward_K, dtype=np.float64),
            chances.propensity_K,
            chances.target_K,
            chances.logging_KC,
            chances.outside_K,
            None if self.earned is None else _described(row, made[0], chances, actor, self.earned),
        )

    def _of_file(self, rewards: Mapping[str, Mapping[int, Mapping[str, Any]]], left: Counter[str]) -> Iterator[List]:
        for rows in rewards.values():
            told = [rows[place] for place in sorted(rows)][: self.places]
            at_us = told[0]["at_us"]
            if not self.from_us <= at_us < self.until_us:
                continue
            try:
                reward_K = [_reward(one) for one in told]
                for name, why in (("propensity", NO_PROPENSITY), (PROBABILITY, NO_PROBABILITY)):
                    if any(one[name] is None for one in told):
                        raise LeftOutError(why)
            except LeftOutError as why_not:
                left[str(why_not)] += 1
                continue
            propensity_K, target_K = (
                np.array([one[name] for one in told], dtype=np.float64) for name in ("propensity", PROBABILITY)
            )
            yield List(
                number_of(told[0]["actor_id"]),
                np.arange(len(told)),
                np.array(reward_K, dtype=np.float64),
                propensity_K,
                target_K,
            )

    def _rewards(self, table: pa.Table) -> dict[str, dict[int, dict[str, Any]]]:
        """Rewards by decision and place."""
        table = table.append_column("at_us", table["at"].cast(pa.int64()))
        names = ["decision_id", "actor_id", "at_us", "position", "propensity", "reward", "reward_state", PROBABILITY]
        found: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        for row in table.select(names).to_pylist():
            if row["position"] is not None:
                found[row["decision_id"]].setdefault(row["position"], row)
        return found


def number_of(actor: str) -> int:
    """A number that stands for an actor, 63 bits of a hash."""
    return int.from_bytes(hashlib.blake2b(actor.encode(), digest_size=8).digest(), "big") >> 1


def _reward(row: Mapping[str, Any] | None) -> float:
    """What a place earned; what was not seen earned nothing. Raises LeftOutError where nobody knows."""
    if row is None:
        raise LeftOutError(NO_OUTCOME)
    if row["reward_state"] == State.NOT_SHOWN:
        return 0.0
    if row["reward"] is None:
        raise LeftOutError(UNDEFINED)
    return float(row["reward"])


def _described(row: Mapping[str, Any], pool: Pool, chances: Chances, actor: int, earned: Earned) -> Described:
    return describe(
        pool.handed.scores_C,
        pool.titles,
        chances.at_K.tolist(),
        chances.target_KC,
        guest=row["member_id"] is None,
        num_events=row["num_events_visible"],
        at_us=row["at"],
        actor=actor,
        earned=earned,
    )


def _only(one: List, place: int) -> List:
    """A place as a list of its own, whose probabilities are those of the list down to it."""
    at = slice(place, place + 1)
    return List(
        one.actor,
        one.chosen_K[at],
        one.reward_K[at],
        np.asarray(np.cumprod(one.propensity_K)[at], dtype=np.float64),
        np.asarray(np.cumprod(one.target_K)[at], dtype=np.float64),
    )


def _at(rounds: pa.Table, place: int) -> pa.Table:
    number = rounds.schema.get_field_index("position")
    return rounds.set_column(
        number, rounds.schema.field(number), pa.array(np.full(rounds.num_rows, place), rounds.schema.field(number).type)
    )


@lru_cache(2)
def replay_of(where: tuple[tuple[str, str], ...]) -> Replay:
    """Makes decisions again, kept at hand in a task; `where` has registry, prepared, features and repo."""
    known = dict(where)
    features = Path(known["features"])
    views = FeatureStore(Path(known["repo"]), features) if features.is_dir() else None
    return Replay(Path(known["registry"]), Path(known["prepared"]), views)


def _explorer(registry: str, target: Target) -> Explorer:
    return _kept(registry, target.policy, target.exploring.model_dump_json(), target.epsilon)


@lru_cache(2)
def _kept(registry: str, policy: PolicyName, exploring: str, epsilon: float) -> Explorer:
    config = ExploringConfig.model_validate_json(exploring)
    return Explorer(config, policy=policy, epsilon=epsilon, posteriors=PublishedPosteriors(Path(registry)))
