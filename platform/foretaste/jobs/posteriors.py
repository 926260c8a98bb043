"""`foretaste posteriors`: bring the rewards of a program to what a policy that learns knows; replicas pick it up.

    registry/posteriors/logistic_thompson/
      20260102T030405-1f2e3d4c5b6a/       as `serving.posteriors` has it; its manifest names what it counts
      counted/0a1b2c3d4e5f.parquet        numbers of the decisions that are in it

Each decision is one update, in order of time, as if it had been made online when the last of its rewards was known for
good; a decision is counted once, whenever and however often this runs. What is counted is written first under the name
of its content, and the new posterior names it: one rename commits both.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from foretaste.contracts.wire import PolicyName
from foretaste.feedback.forgotten import alone_in
from foretaste.jobs.evaluate_policy import closed_until, divided, folders_of, spreading
from foretaste.jobs.policy_rounds import Target, number_of
from foretaste.jobs.posterior_rows import LESSONS, Measuring, Teaching
from foretaste.jobs.rewards import compute
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.ops.bundles import CURRENT, fetch_bundle
from foretaste.ops.files import scratch_folder, write_parquet
from foretaste.ops.releases import current_release
from foretaste.ops.telemetry import progress, say
from foretaste.policies.contextual import SCALE_OF
from foretaste.policies.posterior import Posterior
from foretaste.policies.register import CONTEXTUAL
from foretaste.serving.posteriors import FOLDER, Described, current_posterior, publish
from foretaste.sessions.spread import Item, Spread

COUNTED = "counted"
BY_LAST_LAYER = "neural_thompson"
_DECISIONS = pa.schema([pa.field("decision", pa.int64(), nullable=False)])


def learn(
    settings: Settings,
    *,
    policy: str,
    program: str,
    programs: Path | None = None,
    outcomes: str | None = None,
    anew: bool = False,
    now: datetime,
    spread: Spread | None = None,
) -> dict[str, Any]:
    """Add what is new; with `anew` begin again with what is believed before any reward.

    Raises ValueError for a policy that reads no posterior, where the posterior is of another program, another kind of
    reward or a ranker that answers no more, or where another process is at it; FileNotFoundError without outcomes.
    """
    if policy not in CONTEXTUAL:
        raise ValueError(f"--policy {policy}: reads no posterior; those that do are {', '.join(sorted(CONTEXTUAL))}")
    folder = needed(settings.tables.registry, made_by="train") / FOLDER / policy
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder, lock=".learning.lock") as alone:
        if not alone:
            raise ValueError(f"{folder}: another process is bringing rewards to it")
        return _learned(settings, folder, policy, program, programs, outcomes, anew=anew, now=now, spread=spread)


def _learned(
    settings: Settings,
    folder: Path,
    policy: str,
    program: str,
    programs: Path | None,
    outcomes: str | None,
    *,
    anew: bool,
    now: datetime,
    spread: Spread | None,
) -> dict[str, Any]:
    made = compute(settings, program=program, programs=programs, outcomes=outcomes, spread=spread)
    before, described, about = _before(settings, policy, made["program_fingerprint"], anew=anew)
    counted = None if about.get(COUNTED) is None else _counted(folder, about[COUNTED])
    until_us = closed_until(Path(made["out"]))
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder(settings.tables.root, "posteriors"))
        target = Target(PolicyName(policy), settings.serving.exploring, settings.serving.epsilon)
        items = divided(settings, scratch, Path(made["out"]), target)
        spreads = spread or spreading(settings, stack, target)
        if described is None:
            described = _described(settings, policy, items, spreads, until_us)
        kind = _kind(policy)
        where = folders_of(settings)
        (scratch / "lessons").mkdir()
        work = Teaching(scratch / "lessons", where, policy, kind, described, counted, until_us)
        left: Counter[str] = Counter()
        with progress("posteriors", total=None, unit="rewards") as advance:
            for found in spreads(items, work):
                left.update(found["left"])
                advance(found["lessons"])
        lessons = _lessons(scratch / "lessons")
    told = {"policy": policy, "program": made["program"]["name"], "program_fingerprint": made["program_fingerprint"]}
    told |= {"left_out": {reason: count for reason, count in left.most_common() if count}}
    if not lessons.num_rows:
        say(f"posteriors: {policy}: nothing new")
        return told | {"decisions": 0, "rewards": 0, "posterior": None if anew else _current(folder)}
    after, decisions = taught(before, lessons, settings=settings, policy=policy)
    numbers = np.unique(np.concatenate([_numbers(counted), decisions]))
    also = {COUNTED: _count(folder, numbers), "program": made["program"], "program_fingerprint": told[
        "program_fingerprint"], "decisions": len(numbers), "outcomes": made["outcomes"]}  # fmt: skip
    draws = settings.posteriors.draws
    fingerprint = publish(settings.tables.registry, policy, after, described, at=now, num_draws=draws, also=also)
    for file in (folder / COUNTED).glob("*.parquet"):
        if file.stem != also[COUNTED]:
            file.unlink(missing_ok=True)
    say(f"posteriors: {policy}: {lessons.num_rows:,} rewards of {len(decisions):,} decisions; published {fingerprint}")
    return told | {"decisions": len(decisions), "rewards": lessons.num_rows, "posterior": fingerprint}


def taught(
    before: Posterior | None, lessons: pa.Table, *, settings: Settings, policy: str
) -> tuple[Posterior, NDArray[np.int64]]:
    """The posterior after LESSONS, an update a decision in order of time, and the numbers of the decisions.

    Raises ValueError naming the decision whose rewards or features will not do.
    """
    rows = lessons.sort_by([("at", "ascending"), ("decision_id", "ascending"), ("position", "ascending")])
    names = rows["decision_id"].to_pylist()
    at_us = rows["at"].cast(pa.int64()).to_pylist()
    x_RD = np.array(rows["features"].to_pylist(), dtype=np.float64)
    offset_R, reward_R = (np.asarray(rows[name], dtype=np.float64) for name in ("offset", "reward"))
    if before is None:
        config = settings.posteriors.posterior.model_copy(update={"kind": _kind(policy)})
        before = Posterior.of(config, x_RD.shape[1])
    numbers = []
    for first, until in _runs(names):
        part = slice(first, until)
        try:
            found = before.gathered(x_RD[part], reward_R[part], at_us=at_us[first], offset_R=offset_R[part])
        except ValueError as error:
            raise ValueError(f"decision {names[first]}: {error}") from error
        before = before.learned(found)
        numbers.append(number_of(names[first]))
    return before, np.array(numbers, dtype=np.int64)


def _runs(names: list[str]) -> Iterator[tuple[int, int]]:
    first = 0
    for number in range(1, len(names) + 1):
        if number == len(names) or names[number] != names[first]:
            yield first, number
            first = number


def _before(
    settings: Settings, policy: str, program: str, *, anew: bool
) -> tuple[Posterior | None, Described | None, dict[str, Any]]:
    """What is known and counted so far; nothing, where it begins anew."""
    registry = settings.tables.registry
    if anew or not (registry / FOLDER / policy / CURRENT).is_file():
        return None, None, {}
    posterior, described = current_posterior(registry, policy)
    about = dict(fetch_bundle(registry / FOLDER, policy).manifest["about"])
    known = about.get("program_fingerprint", program)
    if known != program:
        name = about["program"]["name"]
        raise ValueError(f"{policy}: learned from program {name} ({known}), not from {program}; --anew begins again")
    if described.by == "last_layer" and described.ranker != (ranker := _ranker(settings)):
        raise ValueError(f"{policy}: is of ranker {described.ranker}, {ranker} answers now; --anew begins again")
    return posterior, described, about


def _described(settings: Settings, policy: str, items: list[Item], spread: Spread, until_us: int) -> Described:
    """What candidates will be described by: columns at their mean and deviation over pools, or the last layer."""
    if policy == BY_LAST_LAYER:
        return Described(by="last_layer", ranker=_ranker(settings))
    config = settings.posteriors
    work = Measuring(folders_of(settings), config.columns, until_us, config.measured)
    found = list(spread(items, work))
    num = sum(one["num"] for one in found)
    if not num:
        raise ValueError(f"{policy}: no closed decision can be made again that the ranker answered")
    mean = np.sum([one["sums"] for one in found], axis=0) / num
    spreads = np.sqrt(np.maximum(np.sum([one["squares"] for one in found], axis=0) / num - mean**2, 0.0))
    deviation = np.where(spreads > 1e-9, spreads, 1.0)
    told = {"mean": tuple(mean.tolist()), "deviation": tuple(deviation.tolist())}
    return Described(by="columns", columns=config.columns, **told)


def _ranker(settings: Settings) -> str:
    registry = settings.tables.registry
    release = current_release(registry)
    version = None if release is None else release.models.get("ranker")
    return fetch_bundle(registry, "ranker", version).fingerprint


def _kind(policy: str) -> str:
    scale = CONTEXTUAL[policy].scale
    return next(kind for kind, one in SCALE_OF.items() if one is scale)


def _lessons(folder: Path) -> pa.Table:
    files = sorted(folder.glob("*.parquet"))
    return pa.concat_tables([LESSONS.empty_table(), *(pq.read_table(file, partitioning=None) for file in files)])


def _count(folder: Path, numbers: NDArray[np.int64]) -> str:
    digest = hashlib.blake2b(np.ascontiguousarray(numbers, dtype="<i8").tobytes(), digest_size=6).hexdigest()
    write_parquet(pa.Table.from_arrays([pa.array(numbers)], schema=_DECISIONS), folder / COUNTED / f"{digest}.parquet")
    return digest


def _counted(folder: Path, digest: str) -> Path:
    path = folder / COUNTED / f"{digest}.parquet"
    if not path.is_file():
        raise ValueError(f"{path} is gone: nobody knows what is counted; --anew begins again")
    return path


def _numbers(counted: Path | None) -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64) if counted is None else np.asarray(pq.read_table(counted)["decision"])


def _current(folder: Path) -> str | None:
    return fetch_bundle(folder.parent, folder.name).fingerprint if (folder / CURRENT).is_file() else None
