"""The pieces of an answer that is made again; `replay` puts them together.

Shapes: B answers of one batch, C candidates of a pool, N titles (column j is code j + 1), F features.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from foretaste.contracts.histories import Histories
from foretaste.feedback.past import Past
from foretaste.models.intent import IntentPrediction
from foretaste.models.ranker_inputs import RankerInputs
from foretaste.policies.arrange import dealt
from foretaste.policies.register import replay as choose_again
from foretaste.policies.slate import Slate
from foretaste.serving.exploring import COLD_PLAYS, cold_of, read_as
from foretaste.serving.fallback import nearest
from foretaste.serving.logged import LeftOutError, Logged, same_titles
from foretaste.serving.models import Models, Predictor
from foretaste.serving.posteriors import Described
from foretaste.serving.record import SIGNALS
from foretaste.serving.shaping import Shaped, arrange, may_not, shape
from foretaste.signals.column_groups import Signals
from foretaste.signals.declared import SESSION_SIGNALS
from foretaste.signals.ranking import ranker_inputs
from foretaste.signals.served import Values
from foretaste.signals.views import MemberView, TitleView


def of_like_titles(batch: Sequence[Logged]) -> Iterator[list[int]]:
    """Divide answers, by time, into runs that read no title in two versions: as a rule those between two refreshes."""
    part: list[int] = []
    known: dict[int, int] = {}
    for b in sorted(range(len(batch)), key=lambda number: batch[number].asof_us):
        versions = batch[b].title_versions
        if any(known.get(code, version) != version for code, version in versions.items()):
            yield part
            part, known = [], {}
        part.append(b)
        known |= versions
    if part:
        yield part


def predicted(
    batch: Sequence[Logged], histories: Histories, asof_B: NDArray[np.int64], model: Predictor | None
) -> list[IntentPrediction | None]:
    """Ask the intent model again, one answer at a time; None where the answer did not ask it or had no answer of it."""
    return [
        model.predict(histories.rows(np.array([b])), asof_B[[b]]) if model is not None and one.has_intent else None
        for b, one in enumerate(batch)
    ]


def near(batch: Sequence[Logged], histories: Histories, asof_B: NDArray[np.int64]) -> list[NDArray[np.float32] | None]:
    """Scores of the catalogue by the nearest sessions, float32[N]; None where those of an answer were not theirs."""
    return [
        nearest(histories.rows(np.array([b])), asof_B[[b]], one.models.neighbours)
        if one.by_neighbours and one.models.neighbours is not None
        else None
        for b, one in enumerate(batch)
    ]


def described(
    part: Sequence[int],
    batch: Sequence[Logged],
    codes: Mapping[int, NDArray[np.int32]],
    histories: Histories,
    asof_B: NDArray[np.int64],
    predictions: Sequence[IntentPrediction | None],
    members: MemberView,
    titles: TitleView,
    signals: Signals,
) -> dict[int, RankerInputs]:
    """What the ranker reads of those answers that it ordered, made all at once, by number of the answer."""
    told = [(b, found) for b in part if batch[b].has_ranker and (found := predictions[b]) is not None]
    if not told:
        return {}
    rows = np.array([b for b, _ in told])
    models = batch[part[0]].models
    assert models.ranker is not None
    codes_BC = np.zeros((len(rows), max(len(codes[b]) for b in rows)), dtype=np.int32)
    for place, b in enumerate(rows):
        codes_BC[place, : len(codes[b])] = codes[b]
    inputs = ranker_inputs(
        histories.rows(rows),
        asof_B[rows],
        codes_BC,
        _together([found for _, found in told]),
        signals_of(signals, batch, rows),
        models.catalogue,
        members.rows(rows),
        titles,
        length=models.ranker.recent,
        rule=models.rule,
    )
    return {int(b): inputs.alone(place) for place, b in enumerate(rows)}


def signals_of(signals: Signals, batch: Sequence[Logged], rows: NDArray[np.int64]) -> Signals:
    """Signals of some answers; where those of an answer failed, it had their fallback."""
    failed_R = np.array([SIGNALS in batch[b].failed for b in rows], dtype=np.bool_)
    known = {name: value_BW[rows] for name, value_BW in signals.items()}
    if failed_R.any():
        for signal in SESSION_SIGNALS:
            known[signal.name] = known[signal.name].copy()
            known[signal.name][failed_R] = signal.fallback
    return known


def _together(predictions: Sequence[IntentPrediction]) -> IntentPrediction:
    """Predictions, made one at a time, after each other."""
    first = predictions[0]
    arrays = ("scores_BN", "attention_BI", "z_BD", "item_BD")
    values = {name: np.concatenate([getattr(one, name) for one in predictions]) for name in arrays}
    intents = {head: np.concatenate([one.intents[head] for one in predictions]) for head in first.intents}
    return replace(first, intents=intents, **values)  # type: ignore[arg-type]


def num_after(past: Past, rows: NDArray[np.int64], mark: int) -> int:
    """Count visible events (their numbers in `past` are given) that came after a mark of the session log."""
    sequence = past.events["sequence"].take(pa.array(rows))
    return int((np.asarray(sequence, dtype=np.int64) > mark).sum())


def counted(past: Past, rows: NDArray[np.int64]) -> Values:
    """How many events were visible (their numbers in `past` are given), and when the newest of them happened."""
    newest = past.events["at"][int(rows[-1])].cast(pa.int64()).as_py() if len(rows) else -1
    return {
        "decision.num_events_visible": np.array(len(rows), dtype=np.int64),
        "decision.newest_event_at": np.array(newest, dtype=np.int64),
    }


@dataclass(frozen=True, slots=True)
class Arranged:
    """The pool of an answer in order of its list, before the policy, and what policies may be told of it."""

    codes_C: NDArray[np.int32]
    scores_C: NDArray[np.float64]  # the titles' own
    log: bool  # whether these are the intent model's
    protected: tuple[int, ...]
    inputs: RankerInputs | None  # what the ranker was told, where its scores count
    titles: TitleView

    def features(self, described: Described | None, models: Models) -> NDArray[np.float64] | None:
        """Features of the pool as a posterior has them described; None where nobody can tell them."""
        if described is None or self.inputs is None:
            return None
        return described.features(
            self.inputs, self.codes_C, ranker=models.ranker, fingerprint=models.ranker_fingerprint
        )


def arranged_again(
    one: Logged,
    codes_C: NDArray[np.int32],
    scores_N: NDArray[np.float32] | None,
    inputs: RankerInputs | None,
    shaped: Shaped,
    titles: TitleView,
    *,
    num_new: int,
) -> Arranged:
    """The order of the titles of the pool by those values; `num_new` events were new since the list before."""
    scores_C = None
    if inputs is not None and one.models.ranker is not None:
        scores_C = shaped.lifted(one.models.ranker.scores(inputs)[0], codes_C, log=False)
    elif scores_N is not None:
        scores_C = shaped.lifted(scores_N[codes_C - 1].astype(np.float64), codes_C, log=one.has_intent)
    if scores_C is None:  # of the popularity of all titles, of which only the pool's versions are logged
        codes_C, scores_C = one.values["decision.candidates"], one.values["decision.scores"]
        order_C = np.lexsort((codes_C, -scores_C))
    else:
        order_C = np.argsort(-scores_C, kind="stable")
    codes_C, scores_C = codes_C[order_C], scores_C[order_C]
    order_C, protected = arrange(one.models, codes_C, one.asked, num_new=num_new)
    log = inputs is None and scores_N is not None and one.has_intent
    return Arranged(codes_C[order_C], scores_C[order_C], log, protected, inputs, titles)


def decided(one: Logged, pool: Arranged) -> Values:
    """What was decided of an arranged pool: the slate. Raises ValueError where the decision's policy cannot choose."""
    slate = _chosen_again(one, pool)
    return {
        "decision.candidates": pool.codes_C,
        "decision.scores": pool.scores_C,
        "decision.slate": pool.codes_C[slate.order_K],
        "decision.propensity": slate.propensity_K,
    }


def _chosen_again(one: Logged, pool: Arranged) -> Slate:
    """The list that the decision's policy chooses of arranged candidates. Raises ValueError where it cannot choose."""
    params = json.loads(one.row["policy_params"])
    if COLD_PLAYS in params:
        params |= {"cold": cold_of(pool.titles, pool.codes_C, cold_plays=params[COLD_PLAYS])}
    features_CD = pool.features(None if one.learned is None else one.learned.described, one.models)
    if one.learned is not None and features_CD is None:
        raise LeftOutError(f"{one.row['policy']} chose by what another ranker, or one elsewhere, tells of titles")
    published = None if one.learned is None else one.learned.published
    kind = None if published is None else published.kind
    return choose_again(
        read_as(one.row["policy"], dealt(pool.scores_C), log=pool.log, kind=kind),
        name=one.row["policy"],
        version=one.row["policy_version"],
        params=params,
        seed=one.row["seed"],
        k=one.request.k,
        protected=pool.protected,
        posterior=published,
        features_CD=features_CD,
    )


def in_order(one: Logged, pool_C: NDArray[np.int32] | None) -> NDArray[np.int32]:
    """The titles in the order in which they are compared: the served pool's, so that one difference makes no others."""
    if one.otherwise and pool_C is not None:
        return pool_C
    if one.pool_C is not None:
        return one.pool_C
    return pool_C if pool_C is not None and same_titles(pool_C, one.candidates_C) else one.candidates_C


def shaped_again(
    one: Logged, history: Histories, signals: Mapping[str, NDArray[Any]], members: MemberView, titles: TitleView
) -> Shaped:
    """Say again what may be on the list, who brings it and what is boosted.

    What was played most is among the candidates, of which versions are logged; of no other title plays are known here.
    """
    plays_7d_N1 = titles.plays_7d
    if not one.otherwise:
        plays_7d_N1 = np.zeros_like(plays_7d_N1)
        plays_7d_N1[one.candidates_C] = titles.plays_7d[one.candidates_C]
    return shape(
        one.models,
        history,
        signals,
        members,
        plays_7d_N1,
        one.asked,
        asof=one.asof_us,
        blocked_N1=may_not(one.models, history, one.asked, asof=one.asof_us),
        similar=one.has_intent,
    )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute as the service does, one thread a request: sums divided otherwise round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
