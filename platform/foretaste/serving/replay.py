"""Make logged answers again, from the event log and the sources of the slow views, and compare every value.

Nothing that the request path keeps is read: what was visible follows from the sequence mark, slow views come by their
logged version, models by their fingerprint. The network runs an answer at a time, as it did (other batches round
otherwise); everything else in batches.

Shapes: B answers of one batch, C candidates of a pool, N titles (column j is code j + 1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.feedback.past import Past
from foretaste.policies.register import CONTEXTUAL
from foretaste.serving.logged import LeftOutError, Logged, index_named, logged, neighbours_named, otherwise
from foretaste.serving.models import HERE, Models, Neighbours, Parts, models_of, neighbours_of
from foretaste.serving.nearest import NearestConfig
from foretaste.serving.posteriors import Learned, learned_of
from foretaste.serving.recompute import (
    Arranged,
    arranged_again,
    counted,
    decided,
    described,
    in_order,
    near,
    num_after,
    of_like_titles,
    one_thread,
    predicted,
    shaped_again,
)
from foretaste.serving.record import SIGNALS
from foretaste.serving.shaping import Shaped
from foretaste.serving.tally import Tally
from foretaste.signals.differences import differences
from foretaste.signals.offline import acts_of_many
from foretaste.signals.served import POOL, Values, of_answer
from foretaste.signals.signals import session_signals_batch
from foretaste.signals.views import ABSENT, MemberView, TitleView, Vocabulary

BATCH = 256
SCORES_AT_ONCE = 50_000_000
"""Titles times answers of a batch: scores of all titles are held of each."""
MODELS_KEPT = 4
POSTERIORS_KEPT = 32


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


@runtime_checkable
class PastViews(Protocol):
    """Title features of the past; `signals.store.FeatureStore` gives them."""

    def historical_titles(self, catalogue: Catalogue, at: int) -> TitleView:
        """Read all titles as they were seen at an instant in microseconds."""
        ...


class Replay:
    """Makes answers of one workspace again."""

    def __init__(self, registry: Path, prepared: Path, views: VersionedViews | None, *, parts: Parts = HERE) -> None:
        """`views` is None where nothing was ever published; `parts` compute, as they did for the answers."""
        self.views = views

        def load(intent: str | None, ranker: str | None, index: str | None = None) -> Models:
            nearest = None if index is None else NearestConfig.named(index)
            return models_of(registry, prepared, intent=intent, ranker=ranker, parts=parts, nearest=nearest)

        def learned(policy: str, fingerprint: str) -> Learned:
            return learned_of(registry, policy, fingerprint)

        self._models = lru_cache(MODELS_KEPT)(load)
        self._learned = lru_cache(POSTERIORS_KEPT)(learned)
        self._registry = registry
        self._neighbours: dict[tuple[str, str], Neighbours] = {}

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
        with one_thread():
            for alike in kinds.values():
                size = max(1, min(BATCH, SCORES_AT_ONCE // len(alike[0].models.catalogue)))
                for first in range(0, len(alike), size):
                    self._batch(alike[first : first + size], past, tally)
        return tally

    def remake(self, row: Mapping[str, Any], past: Past, models: Models | None = None) -> tuple[Logged, Values]:
        """Make one DECISIONS row again, served values or not, by default with its own models; and what it is made of.

        Raises LeftOutError where it cannot be made again, ValueError where `models` are of another catalogue.
        """
        one = self._logged(row)
        if models is not None:
            if models.catalogue.fingerprint != one.models.catalogue.fingerprint:
                raise ValueError("is of another catalogue than the decision")
            one = otherwise(one, models)
        with one_thread():
            return one, self._again([one], past)[0]

    def models(self, intent: str | None, ranker: str | None) -> Models:
        """Models by fingerprint, kept at hand; raises as `models_of`."""
        return self._models(intent, ranker)

    def _logged(self, row: Mapping[str, Any]) -> Logged:
        try:
            models = self._models(row["intent_model"], row["ranker_model"], index := index_named(row))
            if index is not None and (models.index is None or models.index.name != index):
                raise LeftOutError("the index that found its pool is not made by this version")
            if (named := neighbours_named(row)) is not None:
                models = self._with_neighbours(models, named)
        except FileNotFoundError as error:
            raise LeftOutError("a model of the decision is gone from the registry") from error
        except ValueError as error:
            raise LeftOutError("a model of the decision cannot be loaded") from error
        return replace(logged(row, models), learned=self._posterior(row))

    def _posterior(self, row: Mapping[str, Any]) -> Learned | None:
        if row["policy"] not in CONTEXTUAL:
            return None
        try:
            return self._learned(row["policy"], json.loads(row["policy_params"])["posterior"])
        except FileNotFoundError as error:
            raise LeftOutError("the posterior of the decision is gone from the registry") from error
        except (ValueError, KeyError) as error:
            raise LeftOutError("the posterior of the decision cannot be loaded") from error

    def _with_neighbours(self, models: Models, fingerprint: str) -> Models:
        key = (models.catalogue.fingerprint, fingerprint)
        if key not in self._neighbours:
            if len(self._neighbours) >= MODELS_KEPT:
                self._neighbours.clear()
            self._neighbours[key] = neighbours_of(self._registry, models.catalogue, fingerprint)
        return replace(models, neighbours=self._neighbours[key], neighbours_fingerprint=fingerprint)

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

    def pools(
        self, decisions: Sequence[Mapping[str, Any]], past: Past, models: Models | None = None
    ) -> list[tuple[Logged, Arranged] | LeftOutError]:
        """The arranged pools of DECISIONS rows, before any policy, by default as their own models made them.

        In order of the rows; why not, where one cannot be made again.
        """
        found: dict[int, tuple[Logged, Arranged] | LeftOutError] = {}
        kinds: dict[tuple[Any, ...], list[tuple[int, Logged]]] = {}
        for number, row in enumerate(decisions):
            try:
                one = self._logged(row)
                if models is not None:
                    if models.catalogue.fingerprint != one.models.catalogue.fingerprint:
                        raise LeftOutError("the models to judge are of another catalogue than the decision")
                    one = otherwise(one, models)
            except LeftOutError as why:
                found[number] = why
                continue
            kinds.setdefault(one.kind, []).append((number, one))
        with one_thread():
            for alike in kinds.values():
                size = max(1, min(BATCH, SCORES_AT_ONCE // len(alike[0][1].models.catalogue)))
                for first in range(0, len(alike), size):
                    self._pools(alike[first : first + size], past, found)
        return [found[number] for number in range(len(decisions))]

    def _pools(
        self,
        batch: Sequence[tuple[int, Logged]],
        past: Past,
        found: dict[int, tuple[Logged, Arranged] | LeftOutError],
    ) -> None:
        try:
            made = self._arranged([one for _, one in batch], past)
        except Exception as error:  # as `_batch`: whatever a row holds, the others are made
            if len(batch) > 1:
                for each in batch:
                    self._pools([each], past, found)
            else:
                found[batch[0][0]] = LeftOutError(f"{type(error).__name__}: {error}"[:200])
            return
        for (number, one), (_, pool) in zip(batch, made, strict=True):
            found[number] = (one, pool)

    def _again(self, batch: Sequence[Logged], past: Past) -> list[Values]:
        made = zip(batch, self._arranged(batch, past), strict=True)
        return [values | decided(one, pool) for one, (values, pool) in made]

    def _arranged(self, batch: Sequence[Logged], past: Past) -> list[tuple[Values, Arranged]]:
        models = batch[0].models
        asof_B = np.array([one.asof_us for one in batch], dtype=np.int64)
        seen = [one.visible(past) for one in batch]
        events = past.events.take(np.concatenate(seen))
        offsets_B1 = np.concatenate([[0], np.cumsum([len(rows) for rows in seen])]).astype(np.int64)
        known = acts_of_many(events, offsets_B1, asof_B, catalogue=models.catalogue, rule=models.rule)
        histories = known.histories()
        signals = session_signals_batch(known, models.catalogue, models.rule)
        members = self._members(batch, models.catalogue)
        predictions = predicted(batch, histories, asof_B, models.intent)
        whole = near(batch, histories, asof_B)
        pools: dict[int, NDArray[np.int32] | None] = {}
        codes: dict[int, NDArray[np.int32]] = {}
        shaped: dict[int, Shaped] = {}
        found: dict[int, tuple[Values, Arranged]] = {}
        for part in of_like_titles(batch):
            titles = self._titles([batch[b] for b in part], models.catalogue)
            if batch[part[0]].otherwise:
                self._add_titles(titles, batch[part[0]])
            for b in part:
                one, scores_N = batch[b], whole[b]
                told = {} if SIGNALS in one.failed else {name: value_BW[b] for name, value_BW in signals.items()}
                rows = np.array([b])
                shaped[b] = shaped_again(one, histories.rows(rows), told, members.rows(rows), titles)
                pools[b] = None
                if (prediction := predictions[b]) is not None:
                    prediction = shaped[b].scored(one.models, prediction, size=one.asked.pool_size)
                    predictions[b], scores_N = prediction, prediction.scores_BN[0]
                    whole[b] = scores_N
                if scores_N is not None:
                    pools[b] = shaped[b].pool(scores_N, size=one.asked.pool_size, log=one.has_intent)
                codes[b] = in_order(one, pools[b])
            inputs = described(part, batch, codes, histories, asof_B, predictions, members, titles, signals)
            for b in part:
                history = histories.rows(np.array([b]))
                values = of_answer(
                    history,
                    {} if SIGNALS in batch[b].failed else {name: value_BW[b] for name, value_BW in signals.items()},
                    members.rows(np.array([b])),
                    titles,
                    codes[b],
                    predictions[b],
                    inputs.get(b),
                )
                num_new = num_after(past, seen[b], batch[b].asked.controls.before_mark)
                values |= counted(past, seen[b])
                if (pool_C := pools[b]) is not None:
                    values[POOL] = pool_C
                found[b] = (
                    values,
                    arranged_again(batch[b], codes[b], whole[b], inputs.get(b), shaped[b], titles, num_new=num_new),
                )
        return [found[b] for b in range(len(batch))]

    def _members(self, batch: Sequence[Logged], catalogue: Catalogue) -> MemberView:
        """Rows by their logged version; absent, so that it shows as a difference, where there never was such a row."""
        view = Vocabulary(catalogue.genres, catalogue.kinds).absent(len(batch))
        asked = [b for b, one in enumerate(batch) if one.member_version != ABSENT]
        if self.views is None or not asked:
            return view
        for rows in (asked, *([b] for b in asked)):
            ids = [batch[b].row["member_id"] for b in rows]
            version_R = np.array([batch[b].member_version for b in rows], dtype=np.int64)
            try:
                found = self.views.members_at(ids, version_R, batch[0].generation)
            except ValueError:
                continue
            for field in fields(view):
                getattr(view, field.name)[rows] = getattr(found, field.name)
            if rows is asked:
                break
        return view

    def _titles(self, part: Sequence[Logged], catalogue: Catalogue) -> TitleView:
        wanted = {code: version for one in part for code, version in one.title_versions.items() if version != ABSENT}
        if self.views is None or not wanted:
            return TitleView.absent(catalogue)
        codes, versions = (np.array(list(values), dtype=np.int64) for values in (wanted.keys(), wanted.values()))
        try:
            return self.views.titles_at(catalogue, codes, versions, part[0].titles_generation)
        except ValueError:
            if len(part) > 1:
                raise
            return TitleView.absent(catalogue)

    def _add_titles(self, titles: TitleView, one: Logged) -> None:
        """Rows of titles that the decision names no version of, as they were seen at its instant."""
        views: object = self.views
        if not isinstance(views, PastViews):
            return
        found = views.historical_titles(one.models.catalogue, one.asof_us)
        unnamed_N1 = np.ones(len(titles.asof_ms), dtype=np.bool_)
        unnamed_N1[[0, *one.title_versions]] = False
        for field in fields(titles):
            getattr(titles, field.name)[unnamed_N1] = getattr(found, field.name)[unnamed_N1]
