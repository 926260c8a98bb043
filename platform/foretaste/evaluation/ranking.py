"""Ask every model every question and compare what they answer.

Shapes: B cases, N titles, K best titles, M columns (a metric of a model each), R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foretaste.evaluation.cases import Cases
from foretaste.evaluation.chain import CaseRecommender
from foretaste.evaluation.intervals import LEVEL, Difference, Figure, difference, figure, resampled_means
from foretaste.evaluation.metrics import best_titles, exclude_seen, per_case, target_ranks
from foretaste.evaluation.protocols import SCORE_TIES, Protocol
from foretaste.evaluation.report import Report, Slice
from foretaste.models.baselines import BASELINES
from foretaste.models.contract import Recommender

BLOCK_BYTES = 32 * 2**20
"""Size that a block of B x N scores stays under."""

LATER_US = 30 * 86_400_000_000
LENGTH_EDGES = (0, 1, 6, 21, 51, 101, 201)
DEPTH_EDGES = (0, 1, 2, 4, 8, 16, 32)
EXPOSURE_POINTS = 40


@dataclass(frozen=True)
class Answers:
    """What one model answered."""

    name: str
    rank_B: NDArray[np.int64]
    last_B: NDArray[np.int64]  # the same with the target last among titles of its score: what ties cannot lend
    shown_N: dict[int, NDArray[np.int64]]  # by k: in how many cases each title is among the first k


def evaluate(
    recommenders: Sequence[Recommender | CaseRecommender],
    cases: Cases,
    *,
    protocol: Protocol,
    k: tuple[int, ...] = (5, 10, 20),
    seed: int,
    advance: Callable[[float], None],
    baselines: Collection[str] = BASELINES,
    facts: Mapping[str, Any] | None = None,
    resamples: int = 1000,
    batch_size: int | None = None,
) -> Report:
    """Rank the whole catalogue for every case by every model, and report figures with intervals.

    `advance` is called with the number of (case, model) pairs done. Models are compared, on the same resamples of
    actors, with the best of those named in `baselines` that keep to the protocol's track. `facts` (say, the instants of
    the split, the caution of a data set) join the protocol in the report.
    Raises ValueError on names that stand twice, k below 1, a model or cases that the protocol forbids, or scores of
    the wrong shape or not finite.
    """
    names = [model.name for model in recommenders]
    ks = tuple(sorted(set(k)))
    if not names or len(set(names)) != len(names):
        raise ValueError(f"evaluate: models need different names, at least one; got {names}")
    if not ks or ks[0] < 1:
        raise ValueError(f"evaluate: k must be 1 or more; got {k}")
    protocol.check_cases(cases)
    for model in recommenders:
        protocol.check_model(model)
    size = batch_size or max(1, min(512, BLOCK_BYTES // (4 * max(cases.num_titles, 1))))
    answers = [
        ask(
            model, cases, ks, without_seen=protocol.exclude_seen, batch_size=size, advance=advance,
            ties=np.random.default_rng(seed) if protocol.score_ties == "drawn" else protocol.score_ties,
        )
        for model in recommenders
    ]  # fmt: skip
    values = {a.name: per_case(a.rank_B, ks) for a in answers}
    metric_names = list(values[names[0]])
    values_BM = np.column_stack([values[name][metric] for name in names for metric in metric_names])
    main = f"ndcg@{10 if 10 in ks else ks[0]}"
    figures, differences, best = _compare(
        names, metric_names, values_BM, cases, main=main, resamples=resamples, seed=seed,
        baselines=[model.name for model in recommenders if model.name in baselines and protocol.admits(model)],
    )  # fmt: skip
    for a in answers:
        for at, shown_N in a.shown_N.items():
            figures[a.name][f"coverage@{at}"] = Figure(float((shown_N > 0).mean()), None, None)
    top = 10 if 10 in ks else ks[0]
    main_BM = np.column_stack([values[name][main] for name in names])
    return Report(
        protocol=_protocol(cases, protocol, ks, resamples, seed) | dict(facts or {}),
        main=main,
        best_baseline=best,
        figures=figures,
        differences=differences,
        slices={
            "history length": _slices(names, main_BM, cases, cases.lengths_B, LENGTH_EDGES, resamples, seed),
            "session depth": _slices(names, main_BM, cases, cases.depth_B, DEPTH_EDGES, resamples, seed),
        },
        exposure=_exposure(answers, cases, top),
    )


def ask(
    model: Recommender | CaseRecommender,
    cases: Cases,
    ks: tuple[int, ...],
    *,
    without_seen: bool,
    batch_size: int,
    advance: Callable[[float], None],
    ties: Literal["code", "last"] | np.random.Generator = "code",
    session: bool = True,
) -> Answers:
    """Score all cases in blocks of `batch_size` x N, and keep ranks and how often each title was shown.

    Without `session` the model does not see what was done in the target's own session; what is excluded from the
    ranking stays the same.
    """
    rank_B, last_B = (np.empty(len(cases), dtype=np.int64) for _ in range(2))
    shown_N = {at: np.zeros(cases.num_titles, dtype=np.int64) for at in ks}
    for first in range(0, len(cases), batch_size):
        last = min(first + batch_size, len(cases))
        histories, target_B = cases.batch(first, last), cases.target_B[first:last]
        seen = histories if session else cases.batch(first, last, session=False)
        if isinstance(model, CaseRecommender):
            given_BN = model.scores_of(first, last, session=session)
        else:
            given_BN = model.scores(seen, cases.asof_B[first:last])
        scores_BN = _checked(model, given_BN, last - first, cases.num_titles)
        if without_seen:
            scores_BN = exclude_seen(scores_BN, histories, target_B)
        rank_B[first:last] = target_ranks(scores_BN, target_B, ties=ties)
        last_B[first:last] = target_ranks(scores_BN, target_B, ties="last")
        best_BK = best_titles(scores_BN, ks[-1])
        for at in ks:
            shown_N[at] += np.bincount(best_BK[:, :at].ravel() - 1, minlength=cases.num_titles)
        advance(last - first)
    return Answers(model.name, rank_B, last_B, shown_N)


def check_blind(model: Recommender, cases: Cases, *, sample: int = 32) -> None:
    """Raise ValueError where a model that stands in the time-blind track answers otherwise at another time.

    It is asked some cases twice, the second time thirty days later. Not for models that know only the cases' times.
    """
    last = min(sample, len(cases))
    histories, asof_B = cases.batch(0, last), cases.asof_B[:last]
    now_BN, later_BN = (model.scores(histories, at_B) for at_B in (asof_B, asof_B + LATER_US))
    if not np.allclose(now_BN, later_BN, rtol=1e-4, atol=1e-5):
        raise ValueError(f"{model.name} says that it reads no time of the question, but its scores change with it")


def _checked(
    model: Recommender | CaseRecommender, scores_BN: NDArray[np.float32], num_cases: int, num_titles: int
) -> NDArray[np.float32]:
    if scores_BN.shape != (num_cases, num_titles):
        raise ValueError(f"{model.name}: scores have shape {scores_BN.shape}, wanted {(num_cases, num_titles)}")
    if not np.isfinite(scores_BN).all():
        raise ValueError(f"{model.name}: {int((~np.isfinite(scores_BN)).sum())} scores are not finite")
    return scores_BN


def _compare(
    names: list[str],
    metric_names: list[str],
    values_BM: NDArray[np.float64],
    cases: Cases,
    *,
    main: str,
    baselines: Collection[str],
    resamples: int,
    seed: int,
) -> tuple[dict[str, dict[str, Figure]], dict[str, dict[str, Difference]], str | None]:
    """Figures of all models, and their paired differences to the best baseline by the main metric."""
    means_M = values_BM.mean(axis=0)
    means_RM = resampled_means(values_BM, cases.actor_B, resamples=resamples, seed=seed)
    place = {(name, metric): i * len(metric_names) + j for i, name in enumerate(names)
             for j, metric in enumerate(metric_names)}  # fmt: skip
    count = cases.num_actors
    figures = {
        name: {m: figure(means_M[place[name, m]], means_RM[:, place[name, m]], count) for m in metric_names}
        for name in names
    }
    own = [name for name in names if name in baselines]
    if not own:
        return figures, {}, None
    best = max(own, key=lambda name: means_M[place[name, main]])
    differences: dict[str, dict[str, Difference]] = {}
    for name in names:
        if name == best:
            continue
        differences[name] = {}
        for m in metric_names:
            one, two = place[name, m], place[best, m]
            gap_R = means_RM[:, one] - means_RM[:, two]
            differences[name][m] = difference(means_M[one] - means_M[two], gap_R, count, against=best)
    return figures, differences, best


def _slices(
    names: list[str],
    main_BM: NDArray[np.float64],
    cases: Cases,
    by_B: NDArray[np.int64],
    edges: tuple[int, ...],
    resamples: int,
    seed: int,
) -> list[Slice]:
    """Main metric of every model where `by_B` falls between neighbouring edges; empty slices are left out."""
    found = []
    for low, high in zip(edges, (*edges[1:], None), strict=True):
        rows = np.flatnonzero((by_B >= low) & ((by_B < high) if high is not None else True))
        if not len(rows):
            continue
        actor_B = cases.actor_B[rows]
        means_RM = resampled_means(main_BM[rows], actor_B, resamples=resamples, seed=seed)
        count = len(np.unique(actor_B))
        means_M = main_BM[rows].mean(axis=0)
        figures = {name: figure(means_M[m], means_RM[:, m], count) for m, name in enumerate(names)}
        label = f"{low}+" if high is None else str(low) if high == low + 1 else f"{low}-{high - 1}"
        found.append(Slice(label, len(rows), figures))
    return found


def _exposure(answers: list[Answers], cases: Cases, k: int) -> dict[str, list[float]]:
    """Share of recommended places that goes to the most popular titles, at even steps of the catalogue."""
    order = np.argsort(-cases.popularity_N, kind="stable")
    steps = np.linspace(0, cases.num_titles, EXPOSURE_POINTS + 1).round().astype(np.int64)
    counts = {a.name: a.shown_N[k] for a in answers}
    counts["what was chosen"] = np.bincount(cases.target_B - 1, minlength=cases.num_titles)
    return {
        name: np.concatenate([[0.0], np.cumsum(count_N[order]) / max(count_N.sum(), 1)])[steps].round(6).tolist()
        for name, count_N in counts.items()
    }


def _protocol(cases: Cases, protocol: Protocol, ks: tuple[int, ...], resamples: int, seed: int) -> dict[str, Any]:
    return protocol.model_dump(mode="json") | {
        "rules": protocol.text,
        "part": cases.which,
        "cases": len(cases),
        "actors": cases.num_actors,
        "titles": cases.num_titles,
        "catalogue": cases.catalogue_fingerprint,
        "targets_with_unknown_title": cases.num_unknown,
        "targets_never_chosen_in_training": round(cases.share_never_chosen, 4),
        "ranked": "whole catalogue",
        "score_ties": SCORE_TIES[protocol.score_ties],
        "k": list(ks),
        "mean_over": "cases",
        "interval": f"{LEVEL:.0%}, actors drawn with replacement",
        "resamples": resamples,
        "seed": seed,
    }
