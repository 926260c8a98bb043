"""`foretaste evaluate-policy`: what another policy would have earned, from logged decisions and a reward program.

    evaluation/policies/plackett_luce-completion/report.json  report.html

A list is judged down to the deepest place that the log can answer for, which its weights say and no reward. Decisions
count whose rewards are all closed: the first that is open ends them, for what is known early is not what is known late.
What a list earns is also predicted, from scores, ranks and earnings of titles, by a model of other actors: where that
explains something, doubly robust estimates are surer than weights alone.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foretaste.contracts.columns import DECISIONS, REWARDS
from foretaste.contracts.wire import PolicyName
from foretaste.evaluation.gate import Judgement, Ranking, judge
from foretaste.evaluation.offpolicy.answer import Answer, answer
from foretaste.evaluation.offpolicy.estimators import IPS, SNIPS
from foretaste.evaluation.offpolicy.lists import added, answered_depth, measures_of
from foretaste.evaluation.offpolicy.tables import rounds_of
from foretaste.evaluation.policy_report import PolicyReport, write_policy_report
from foretaste.feedback.decision_log import decision_tables
from foretaste.feedback.forgotten import actors_of, of_deleted
from foretaste.feedback.session_log import microseconds
from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs.cluster import cluster
from foretaste.jobs.off_policy import sum_log
from foretaste.jobs.parity import READ_WITHIN, parts, shipped
from foretaste.jobs.parity_buckets import Buckets, num_buckets
from foretaste.jobs.policy_model import DESCRIBED, LARGEST, earned_by_titles, sampled, with_model
from foretaste.jobs.policy_rounds import PARTS, PROBABILITY, Judging, Target
from foretaste.jobs.prepare import spread_by_ray
from foretaste.jobs.rewards import compute
from foretaste.jobs.settings import Settings
from foretaste.ops.bundles import fetch_bundle
from foretaste.ops.files import parquet_files, scratch_folder
from foretaste.ops.releases import release as release_named
from foretaste.ops.telemetry import progress, say
from foretaste.policies.register import CONTEXTUAL
from foretaste.rewards.programs import State
from foretaste.serving.posteriors import FOLDER as POSTERIORS
from foretaste.serving.posteriors import current_posterior
from foretaste.sessions.spread import Item, Spread, Work, here, on_ray

WAITING = (State.OPEN.value, State.NO_PREDICTION.value)
AGAIN_HERE = 20_000
"""Rewards up to whose number decisions are made again in this process."""
_MODELS = ("intent", "ranker")


@dataclass(frozen=True, slots=True)
class Found:
    """A report and where it was written."""

    report: PolicyReport
    record: dict[str, Any]


def evaluate_policy(
    settings: Settings,
    *,
    policy: str | None = None,
    release: str | None = None,
    probabilities: Path | None = None,
    program: str | None = None,
    programs: Path | None = None,
    outcomes: str | None = None,
    predicted: str | None = None,
    places: int | None = None,
    since: str | None = None,
    spread: Spread | None = None,
) -> Found:
    """Judge a policy as a service with these settings would follow it, by default the settings' own.

    `release` puts its models in the place of those that answered; `probabilities` is a Parquet file of decision_id,
    title_id and probability (of the title at its place, given those above) that stands for the policy. Raises
    FileNotFoundError without outcomes or decisions, ValueError for a program, a policy, a file or a time that is none.
    """
    if probabilities is not None and (policy is not None or release is not None):
        raise ValueError("--probabilities goes without --policy and --release: the file is the policy")
    if program is None:
        raise ValueError("--program: wanted the reward program that it is judged by; `foretaste rewards` lists them")
    config = settings.policy_evaluation
    target = target_of(settings, policy, release, from_file=probabilities is not None)
    from_us, why_from = _from(settings, target, since)
    made = compute(settings, program=program, programs=programs, outcomes=outcomes, predicted=predicted, spread=spread)
    folder = Path(made["out"])
    until_us = closed_until(folder)
    named = "file" if target.policy is None else target.policy.value
    name = "-".join(part for part in (named, target.release, program) if part)
    most = places or config.places
    tables = settings.tables
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder(tables.root, "policy"))
        items = divided(settings, scratch, folder, target, probabilities)
        why_no_model = _why_no_model(target, config.folds)
        earned = None if why_no_model else earned_by_titles(folder, until_us=until_us, folds=config.folds)
        where = (scratch / "rounds", target, folders_of(settings), most, from_us, until_us)
        work = Judging(*where, scratch / DESCRIBED, earned)
        left, aside = Counter[str](), Counter[str]()
        measured, num_lists, longest = [], 0, 1
        with progress("evaluate-policy", total=None, unit="lists") as advance:
            for one in (spread or spreading(settings, stack, target))(items, work):
                left.update(one["left"])
                aside.update(one["aside"])
                num_lists, longest = num_lists + one["lists"], max(longest, one["longest"])
                measured.append([measures_of(told) for told in one["measures"]])
                advance(one["lists"])
        measures = added(measured)[:longest] if measured else []
        depth = min(places or answered_depth(measures, settings.off_policy.diagnostics), longest) if measures else 1
        refusals = _refusals(num_lists, left, aside, settings, made)
        found: Answer | None = None
        model = f"none: {why_no_model or 'there are no lists'}"
        whole: dict[str, float] = {}
        if num_lists:
            files = [file for file in parquet_files(scratch / "rounds") if int(file.name[:3]) < depth]
            rounds, share = sampled(files, config.rounds_in_memory)
            if earned is not None:
                rounds, model = with_model(rounds, files, share, folds=config.folds)
            try:
                found = answer(rounds_of(rounds), settings.off_policy, measures=measures[depth - 1])
                refusals += found.reasons
            except ValueError as error:  # of one actor there is no interval
                refusals.append(str(error))
            if share < 1.0:
                stack.enter_context(cluster(settings.cluster))
                whole = dict(sum_log(files, (IPS, SNIPS)).values)
    judgement = gated(found, refusals, settings, num_lists=num_lists)
    protocol = {
        "program": f"{made['program']['name']} v{made['program']['version']} ({made['program_fingerprint']})",
        "outcomes": made["outcomes"],
        "from": _iso(from_us) + why_from,
        "until": _iso(until_us),
        "lists": num_lists,
        "left_out": {reason: count for reason, count in left.most_common() if count},
        "set_aside": {reason: count for reason, count in aside.most_common() if count},
        "states": made["states"],
        "reward_model": model,
        "interval": f"{settings.off_policy.interval}, of actors, level {settings.off_policy.level:g}",
    }
    report = PolicyReport(_told(target, settings), protocol, depth, measures, found, tuple(refusals), judgement, whole)
    out = tables.evaluation / "policies" / name
    write_policy_report(report, out, settings.off_policy.diagnostics)
    report.to_terminal(settings.off_policy.diagnostics)
    say(f"report: {out / 'report.html'}")
    return Found(report, report.record(settings.off_policy.diagnostics) | {"out": str(out)})


def target_of(settings: Settings, policy: str | None, release: str | None, *, from_file: bool = False) -> Target:
    """The policy that is judged. Raises ValueError for one that there is not, FileNotFoundError for a release."""
    serving, registry = settings.serving, settings.tables.registry
    models = None
    if release is not None:
        versions = release_named(registry, release).models
        intent, ranker = (
            fetch_bundle(registry, name, versions[name]).fingerprint if name in versions else None for name in _MODELS
        )
        models = (intent, ranker)
    try:
        name = None if from_file else PolicyName(policy or serving.policy)
    except ValueError as error:
        raise ValueError(f"--policy {policy}: wanted one of {', '.join(PolicyName)}") from error
    if name in CONTEXTUAL and not (registry / POSTERIORS / str(name)).is_dir():
        raise ValueError(f"{name}: no posterior was ever published; run `foretaste posteriors --policy {name}` first")
    return Target(name, serving.exploring, serving.epsilon, release, models)


def closed_until(folder: Path) -> int:
    """Up to when (microseconds) no decision of a folder of REWARDS waits for anything any more."""
    first = LARGEST - 1
    for file in parquet_files(folder):
        table = pq.read_table(file, columns=["at", "as_of", "reward_state"], partitioning=None)
        waits = table.filter(pc.is_in(table["reward_state"], value_set=pa.array(WAITING)))
        for name, rows in (("as_of", table), ("at", waits)):
            if rows.num_rows:
                first = min(first, pc.min(rows[name].cast(pa.int64())).as_py())
    return first


def _from(settings: Settings, target: Target, since: str | None) -> tuple[int, str]:
    """From when on decisions count: what a model or a posterior learned from does not judge it."""
    registry = settings.tables.registry
    found: list[tuple[int, str]] = [(0, "")]
    if since is not None:
        at = datetime.fromisoformat(since)
        if at.tzinfo is None:
            raise ValueError(f"--since {since}: wanted a time with its offset, e.g. 2026-03-01T00:00:00Z")
        found.append((microseconds(at), " (as asked)"))
    if target.policy in CONTEXTUAL:
        learned = current_posterior(registry, str(target.policy))[0].evidence.at_us
        found.append((learned + 1 if learned else 0, " (the posterior learned from what was before)"))
    if target.release is not None:
        for name, version in release_named(registry, target.release).models.items():
            about = fetch_bundle(registry, name, version).manifest["about"]
            cuts = (about.get("prepared") or {}).get("cuts")
            if cuts:
                test_from = microseconds(datetime.fromisoformat(cuts["test_from"]))
                found.append((test_from, f" ({name} learned from what was before)"))
    return max(found, key=lambda one: one[0])


def divided(
    settings: Settings, scratch: Path, rewards: Path, target: Target, probabilities: Path | None = None
) -> list[dict[str, Any]]:
    """Decisions, rewards and, where decisions are made again, events, by actor."""
    tables, config = settings.tables, settings.policy_evaluation
    deleted = Tombstones(tables.serving / TOMBSTONES_FILE).read()
    decisions = tables.serving / "decisions"
    if target.policy is not None and not decisions.is_dir():
        raise FileNotFoundError(f"{decisions} is not there: run `foretaste serve` first, or give --probabilities")
    folders = [folder for folder in (decisions, rewards) if folder.is_dir()]
    buckets = Buckets(scratch / "parts", max(config.buckets, num_buckets(*folders)), PARTS)
    (scratch / "parts").mkdir()
    (scratch / "rounds").mkdir()
    (scratch / DESCRIBED).mkdir()
    rows = buckets.write("rewards", _rewards(rewards, probabilities), actor=lambda table: table["actor_id"])
    if target.policy is not None:
        log = settings.serving.decision_log.target
        logged = (table.filter(pc.invert(of_deleted(table, deleted))) for table in decision_tables(decisions, log))
        buckets.write("decisions", (table.select(DECISIONS.names) for table in logged), actor=actors_of)
    if target.made_again:
        events = shipped(settings, until=datetime.now(UTC) + READ_WITHIN)
        buckets.write("events", parts(events), actor=lambda table: table["actor_id"])
    return [{"number": n, "rows": rows, **files} for n, files in enumerate(buckets.files()) if files]


def _rewards(folder: Path, probabilities: Path | None) -> Iterator[pa.Table]:
    told = None if probabilities is None else _probabilities(probabilities)
    for file in parquet_files(folder):
        table = pq.read_table(file, partitioning=None).select(REWARDS.names)
        if told is None:
            yield table.append_column(PROBABILITY, pa.nulls(table.num_rows, pa.float64())).cast(PARTS["rewards"])
        else:
            frame = pl.DataFrame(pl.from_arrow(table))
            both = frame.join(told, on=["decision_id", "title_id"], how="left", maintain_order="left")
            yield both.to_arrow().cast(PARTS["rewards"])


def _probabilities(path: Path) -> pl.DataFrame:
    """Raises ValueError naming what is wrong, and the first row that is."""
    names = ["decision_id", "title_id", PROBABILITY]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there")
    there = pq.read_schema(path).names
    if missing := [name for name in names if name not in there]:
        raise ValueError(f"{path}: missing columns {missing}; has {there}")
    frame = pl.DataFrame(pl.from_arrow(pq.read_table(path, columns=names)))
    good = frame[PROBABILITY].is_between(0.0, 1.0).fill_null(False)
    if not good.all():
        row = int(np.argmin(good.to_numpy()))
        raise ValueError(f"{path}: probability of row {row} is {frame[PROBABILITY][row]}, wanted in [0, 1]")
    if (twice := frame.select(names[:2]).is_duplicated()).any():
        row = int(np.argmax(twice.to_numpy()))
        raise ValueError(f"{path}: row {row} is of a decision and title that stand twice")
    return frame


def _why_no_model(target: Target, folds: int) -> str:
    """Why no reward model can be had; empty where it can."""
    if target.policy is None:
        return "a file tells the probabilities of what was chosen, not of what else there was"
    return "" if folds >= 2 else "policy_evaluation.folds is below 2"


def _refusals(
    num_lists: int, left: Mapping[str, int], aside: Mapping[str, int], settings: Settings, made: Mapping[str, Any]
) -> list[str]:
    out = sum(left.values())
    most = settings.policy_evaluation.max_left_out
    told = "; ".join(
        f"{count:,} {reason}"
        for reason, count in Counter(dict(left) if num_lists else {**left, **aside}).most_common(3)
        if count
    )
    if not num_lists:
        return [f"no decision can be read ({told or 'none is closed'}; rewards are {dict(made['states'])})"]
    share = out / (out + num_lists)
    return [f"{share:.1%} of the decisions are left out, wanted {most:.1%} at most: {told}"] if share > most else []


def gated(
    found: Answer | None,
    refusals: Sequence[str],
    settings: Settings,
    *,
    num_lists: int,
    ranking: Ranking | None = None,
    replaces: bool = True,
) -> Judgement:
    """What the gate makes of an answer; one that is refused for more than its diagnostics is none."""
    gate = settings.policy_evaluation.gate
    extra = [one for one in refusals if found is None or one not in found.reasons]
    asked, why = (None, "; ".join(extra)) if extra else (found, "")
    return judge(asked, gate, num_lists=num_lists, ranking=ranking, replaces=replaces, why_none=why)


def _told(target: Target, settings: Settings) -> dict[str, Any]:
    if target.policy is None:
        return {"policy": "probabilities of a file"}
    told: dict[str, Any] = {"policy": target.policy.value, "epsilon": target.epsilon}
    told["exploring"] = target.exploring.model_dump(mode="json", exclude_defaults=True)
    if target.policy in CONTEXTUAL:
        folder = settings.tables.registry / POSTERIORS
        told["posterior"] = fetch_bundle(folder, target.policy.value).fingerprint
    return told | ({} if target.release is None else {"release": target.release})


def spreading(settings: Settings, stack: contextlib.ExitStack, target: Target) -> Spread:
    """Large work in Ray tasks; what is made again one bucket after the other here where it is little."""
    if not target.made_again:
        return spread_by_ray(settings.cluster, stack)

    def spread(items: Sequence[Item], work: Work) -> Iterator[Item]:
        if max((item["rows"] for item in items), default=0) <= AGAIN_HERE:
            yield from here(items, work)
            return
        stack.enter_context(cluster(settings.cluster))
        yield from on_ray(items, work)

    return spread


def folders_of(settings: Settings) -> dict[str, str]:
    """Where decisions are made again from."""
    tables = settings.tables
    folders = {"registry": tables.registry, "prepared": tables.prepared, "features": tables.features}
    return {name: str(path) for name, path in folders.items()} | {"repo": str(settings.features_repo.absolute())}


def _iso(at_us: int) -> str:
    if not 0 < at_us < LARGEST - 1:
        return "the beginning" if at_us <= 0 else "the end"
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="seconds")
