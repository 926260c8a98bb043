"""Make logged answers again, from the event log and the sources of the slow views, and compare every value.

Nothing that the request path keeps is read: what was visible follows from the sequence mark, slow views come by their
logged version, models by their fingerprint. The network runs an answer at a time, as it did (other batches round
otherwise); everything else in batches.

Shapes: B answers of one batch, C candidates of a pool, N titles (column j is code j + 1).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.histories import Histories
from foretaste.feedback.past import Past
from foretaste.models.intent import IntentPrediction
from foretaste.policies.epsilon_greedy import replay as choose_again
from foretaste.serving.logged import LeftOutError, Logged, logged, same_titles
from foretaste.serving.models import Models, Predictor, models_of
from foretaste.serving.recommender import SURFACES
from foretaste.serving.record import SIGNALS
from foretaste.serving.tally import Tally
from foretaste.signals.candidates import candidate_features
from foretaste.signals.differences import differences
from foretaste.signals.offline import acts_of_many
from foretaste.signals.served import POOL, Values, of_answer
from foretaste.signals.signals import session_signals_batch
from foretaste.signals.views import ABSENT, MemberView, TitleView, Vocabulary
from foretaste.surfaces.prequery import blocked, pool

BATCH = 256
MODELS_KEPT = 4


@runtime_checkable
class VersionedViews(Protocol):
    """Published rows of the slow views by exact version; `signals.store.FeatureStore` gives them."""

    def members_at(
        self, ids: Sequence[str | None], asof_ms_B: NDArray[np.int64], generation: str | None = None
    ) -> MemberView:
        """Read members. Raises ValueError for a version that never was."""
        ...

    def titles_at(
        self,
        catalogue: Catalogue,
        codes_C: NDArray[Any],
        asof_ms_C: NDArray[np.int64] | int,
        generation: str | None = None,
    ) -> TitleView:
        """Read titles, all others absent. Raises ValueError for a version that never was."""
        ...


class Replay:
    """Makes answers of one workspace again."""

    def __init__(self, registry: Path, prepared: Path, views: VersionedViews | None) -> None:
        """`views` is None where nothing was ever published."""
        self._views = views

        def load(intent: str | None, ranker: str | None) -> Models:
            return models_of(registry, prepared, intent=intent, ranker=ranker)

        self._models = lru_cache(MODELS_KEPT)(load)

    def compare(self, decisions: Sequence[Mapping[str, Any]], past: Past) -> Tally:
        """Compare DECISIONS rows (times in microseconds) whose `served` is not null with what `past` gives.

        A decision that cannot be made again is counted with its reason; nothing is raised for it.
        """
        tally = Tally()
        kinds: dict[tuple[Any, ...], list[Logged]] = {}
        for row in decisions:
            try:
                one = self._logged(row)
            except LeftOutError as why:
                tally.leave_out(row["decision_id"], str(why))
                continue
            kinds.setdefault(one.kind, []).append(one)
        with _one_thread():
            for alike in kinds.values():
                for first in range(0, len(alike), BATCH):
                    self._batch(alike[first : first + BATCH], past, tally)
        return tally

    def _logged(self, row: Mapping[str, Any]) -> Logged:
        try:
            models = self._models(row["intent_model"], row["ranker_model"])
        except FileNotFoundError as error:
            raise LeftOutError("a model of the decision is gone from the registry") from error
        except ValueError as error:
            raise LeftOutError("a model of the decision cannot be loaded") from error
        return logged(row, models)

    def _batch(self, batch: Sequence[Logged], past: Past, tally: Tally) -> None:
        """Compare answers of one kind together, or one by one where one of them is in the way of all."""
        try:
            offline = self._again(batch, past)
        except Exception as error:  # whatever a row of a log holds, the others are compared
            if len(batch) > 1:
                for one in batch:
                    self._batch([one], past, tally)
            else:
                tally.leave_out(batch[0].decision_id, f"{type(error).__name__}: {error}"[:200])
            return
        for one, values in zip(batch, offline, strict=True):
            served = one.values
            sizes = {name: int(np.asarray(array).size) for name, array in values.items()}
            tally.compared(one.decision_id, sizes, differences(served, values))
            tally.describe(failed=one.failed, fallback=one.row["fallback"])

    def _again(self, batch: Sequence[Logged], past: Past) -> list[Values]:
        models = batch[0].models
        asof_B = np.array([one.asof_us for one in batch], dtype=np.int64)
        seen = [one.visible(past) for one in batch]
        events = past.events.take(np.concatenate(seen))
        offsets_B1 = np.concatenate([[0], np.cumsum([len(rows) for rows in seen])]).astype(np.int64)
        known = acts_of_many(events, offsets_B1, asof_B, catalogue=models.catalogue, rule=models.rule)
        histories = known.histories()
        signals = session_signals_batch(known, models.catalogue, models.rule)
        members = self._members(batch, models.catalogue)
        predictions = _predictions(batch, histories, asof_B, models.intent)
        pools = [
            None if found is None else _pool(one, histories.rows(np.array([b])), found.scores_BN[0])
            for b, (one, found) in enumerate(zip(batch, predictions, strict=True))
        ]
        codes = [_order(one, pool_C) for one, pool_C in zip(batch, pools, strict=True)]
        found: dict[int, Values] = {}
        for part in _of_like_titles(batch):
            titles = self._titles([batch[b] for b in part], models.catalogue)
            features = _features(part, batch, codes, histories, asof_B, predictions, members, titles)
            for b in part:
                history = histories.rows(np.array([b]))
                values = of_answer(
                    history,
                    {} if SIGNALS in batch[b].failed else {name: value_BW[b] for name, value_BW in signals.items()},
                    members.rows(np.array([b])),
                    titles,
                    codes[b],
                    predictions[b],
                    features.get(b),
                )
                found[b] = values | _seen(past, seen[b]) | _decided(batch[b], codes[b], predictions[b], features.get(b))
                if (pool_C := pools[b]) is not None:
                    found[b][POOL] = pool_C
        return [found[b] for b in range(len(batch))]

    def _members(self, batch: Sequence[Logged], catalogue: Catalogue) -> MemberView:
        """Rows by their logged version; absent, so that it shows as a difference, where there never was such a row."""
        view = Vocabulary(catalogue.genres, catalogue.kinds).absent(len(batch))
        asked = [b for b, one in enumerate(batch) if one.member_version != ABSENT]
        if self._views is None or not asked:
            return view
        for rows in (asked, *([b] for b in asked)):
            ids = [batch[b].row["member_id"] for b in rows]
            version_R = np.array([batch[b].member_version for b in rows], dtype=np.int64)
            try:
                found = self._views.members_at(ids, version_R, batch[0].generation)
            except ValueError:
                continue
            for field in fields(view):
                getattr(view, field.name)[rows] = getattr(found, field.name)
            if rows is asked:
                break
        return view

    def _titles(self, part: Sequence[Logged], catalogue: Catalogue) -> TitleView:
        wanted = {code: version for one in part for code, version in one.title_versions.items() if version != ABSENT}
        if self._views is None or not wanted:
            return TitleView.absent(catalogue)
        codes, versions = (np.array(list(values), dtype=np.int64) for values in (wanted.keys(), wanted.values()))
        try:
            return self._views.titles_at(catalogue, codes, versions, part[0].titles_generation)
        except ValueError:
            if len(part) > 1:
                raise
            return TitleView.absent(catalogue)


def _of_like_titles(batch: Sequence[Logged]) -> Iterator[list[int]]:
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


def _predictions(
    batch: Sequence[Logged], histories: Histories, asof_B: NDArray[np.int64], model: Predictor | None
) -> list[IntentPrediction | None]:
    return [
        model.predict(histories.rows(np.array([b])), asof_B[[b]]) if model is not None and one.has_intent else None
        for b, one in enumerate(batch)
    ]


def _features(
    part: Sequence[int],
    batch: Sequence[Logged],
    codes: Sequence[NDArray[np.int32]],
    histories: Histories,
    asof_B: NDArray[np.int64],
    predictions: Sequence[IntentPrediction | None],
    members: MemberView,
    titles: TitleView,
) -> dict[int, NDArray[np.float32]]:
    """Features of the pools of those answers that the ranker ordered, all at once, by number of the answer."""
    told = [(b, found) for b in part if batch[b].has_ranker and (found := predictions[b]) is not None]
    if not told:
        return {}
    rows = np.array([b for b, _ in told])
    models = batch[part[0]].models
    codes_BC = np.zeros((len(rows), max(len(codes[b]) for b in rows)), dtype=np.int32)
    for place, b in enumerate(rows):
        codes_BC[place, : len(codes[b])] = codes[b]
    features_BCF = candidate_features(
        histories.rows(rows),
        asof_B[rows],
        codes_BC,
        np.concatenate([found.scores_BN for _, found in told]),
        {head: np.concatenate([found.intents[head] for _, found in told]) for head in told[0][1].intents},
        models.catalogue,
        members.rows(rows),
        titles,
        rule=models.rule,
        labels=told[0][1].labels,
        classes=told[0][1].classes,
    )
    return {int(b): features_BCF[place, : len(codes[b])] for place, b in enumerate(rows)}


def _seen(past: Past, rows: NDArray[np.int64]) -> Values:
    newest = past.events["at"][int(rows[-1])].cast(pa.int64()).as_py() if len(rows) else -1
    return {
        "decision.num_events_visible": np.array(len(rows), dtype=np.int64),
        "decision.newest_event_at": np.array(newest, dtype=np.int64),
    }


def _decided(
    one: Logged,
    codes_C: NDArray[np.int32],
    prediction: IntentPrediction | None,
    features_CF: NDArray[np.float32] | None,
) -> Values:
    """What was decided by those values: the order of the titles of the pool, and the slate."""
    scores_C = None
    if prediction is not None:
        scores_C = prediction.scores_BN[0][codes_C - 1].astype(np.float64)
    if features_CF is not None and one.models.ranker is not None:
        ranked_C = one.models.ranker.scores(np.ascontiguousarray(features_CF[None]))[0]
        order_C = np.argsort(-ranked_C, kind="stable")
        codes_C, scores_C = codes_C[order_C], ranked_C[order_C]
    if scores_C is None:  # of the popularity of all titles, of which only the pool's versions are logged
        codes_C, scores_C = one.values["decision.candidates"], one.values["decision.scores"]
    slate = choose_again(
        scores_C,
        k=one.request.k,
        params=json.loads(one.row["policy_params"]),
        seed=one.row["seed"],
        version=one.row["policy_version"],
    )
    return {
        "decision.candidates": codes_C,
        "decision.scores": scores_C,
        "decision.slate": codes_C[slate.order_K],
        "decision.propensity": slate.propensity_K,
    }


def _order(one: Logged, pool_C: NDArray[np.int32] | None) -> NDArray[np.int32]:
    """The titles in the order in which they are compared: the served pool's, so that one difference makes no others."""
    if one.pool_C is not None:
        return one.pool_C
    return pool_C if pool_C is not None and same_titles(pool_C, one.candidates_C) else one.candidates_C


def _pool(one: Logged, history: Histories, scores_N: NDArray[np.float32]) -> NDArray[np.int32]:
    models = one.models
    blocked_N1 = blocked(
        history,
        asof=one.asof_us,
        catalogue=models.catalogue,
        windows=models.windows,
        exclude=models.catalogue.codes(list(one.request.exclude_ids)).tolist(),
        repeats=models.repeats,
        rule=models.rule,
    )
    return pool(scores_N, blocked_N1, size=SURFACES[one.row["surface"]].pool_size)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute as the service does, one thread a request: sums divided otherwise round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
