"""The whole chain in an evaluation: an untrained ranker is the intent model, and lifts are of the same cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.columns import EVENTS
from foretaste.contracts.events import PLAY_LIKE
from foretaste.contracts.sessions import SessionRule
from foretaste.evaluation.cases import Cases, cases
from foretaste.evaluation.chain import Chain
from foretaste.evaluation.protocols import Protocol
from foretaste.evaluation.ranking import evaluate
from foretaste.models.ranker import Ranker, RankerConfig
from foretaste.models.ranker_heads import Head
from foretaste.models.ranker_scorer import RankerScorer
from foretaste.signals.candidates import CANDIDATE_COLUMNS
from foretaste.signals.past_acts import PastActs
from foretaste.signals.ranked_past import Reading
from foretaste.signals.requests import NUM_ABOUT, REQUEST_COLUMNS
from foretaste.signals.views import MemberView, TitleView
from foretaste.testing.builders import random_interactions, titles_table
from foretaste.testing.fakes import FakeIntent

TITLES = titles_table(15)
KNOWN = catalogue(TITLES)
LOG = random_interactions(TITLES, actors=30, seed=3)


class Alike:
    """Slow views before anything was computed."""

    def contract(self, service: str) -> dict[str, Any]:
        return {}

    def historical_members(self, ids: Sequence[str | None], at_B: NDArray[np.int64]) -> MemberView:
        return MemberView.absent(len(ids), num_genres=len(KNOWN.genres), num_kinds=len(KNOWN.kinds))

    def historical_titles_of(
        self, known: Catalogue, at_B: NDArray[np.int64]
    ) -> tuple[list[TitleView], NDArray[np.int64]]:
        return [TitleView.absent(known)], np.zeros(len(at_B), dtype=np.int64)


class Named(FakeIntent):
    """The fake intent model, as a recommender."""

    name = "intent"

    def scores(self, histories: Any, asof_B: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.predict(histories, asof_B).scores_BN


def chain(asked: Cases, *, trained: bool) -> Chain:
    intent = Named(KNOWN)
    context = 2 * len(KNOWN.genres) + 3
    torch.manual_seed(0)
    model = Ranker(RankerConfig(hidden=(4,)), CANDIDATE_COLUMNS, REQUEST_COLUMNS, NUM_ABOUT, context, intent.title_N1D)
    ones = torch.ones(len(CANDIDATE_COLUMNS) + len(REQUEST_COLUMNS))
    model.standardise(torch.zeros_like(ones), ones, torch.zeros(context), torch.ones(context))
    if trained:
        torch.nn.init.normal_(model.out.weight)
    model.calibrate({Head.PLAY: (1.0, 0.0), Head.THUMB: (1.0, 0.0)})
    acts = PastActs(EVENTS.empty_table(), KNOWN, SessionRule(), limit=200)
    return Chain(RankerScorer(model), Reading(intent, KNOWN, Alike(), acts, SessionRule(), True, 8, 10), asked)


def asked() -> Cases:
    return cases(LOG, KNOWN, split="time", target_actions=PLAY_LIKE)


def test_the_chain_of_an_untrained_ranker_is_the_intent_model() -> None:
    questions = asked()
    plain = chain(questions, trained=False)
    report = evaluate(
        [Named(KNOWN), plain], questions, protocol=Protocol(exclude_seen=False), seed=0, advance=lambda _: None,
        baselines=("intent",), resamples=20, batch_size=7,
    )  # fmt: skip
    assert report.figures["ranker"] == report.figures["intent"]
    told = plain.report(resamples=20, seed=0)
    assert told["cases"] == len(questions)
    assert (told["lift"]["ndcg@10"].value, told["lift"]["ndcg@10"].against) == (0.0, "intent")


def test_the_lift_is_the_difference_of_the_report_and_heads_that_are_off_are_not_told() -> None:
    questions = asked()
    other = chain(questions, trained=True)
    report = evaluate(
        [Named(KNOWN), other], questions, protocol=Protocol(exclude_seen=False), seed=0, advance=lambda _: None,
        baselines=("intent",), resamples=20,
    )  # fmt: skip
    told = other.report(resamples=20, seed=0)
    gap = report.differences["ranker"]["ndcg@10"].value
    assert gap != 0.0
    assert told["lift"]["ndcg@10"].value == pytest.approx(gap)
    assert told["heads"][Head.LIST] is None
    assert told["heads"][Head.PLAY].count == 8 * len(questions)


def test_candidates_stand_above_all_other_titles_and_a_session_can_be_cut_off() -> None:
    questions = asked()
    scores_BN = chain(questions, trained=True).scores_of(0, 5)
    assert np.isfinite(scores_BN).all()
    assert (np.sort(scores_BN, axis=1)[:, -8:] > 900).all()
    assert (np.sort(scores_BN, axis=1)[:, :-8] < 0).all()
    cut = chain(questions, trained=True)
    assert not np.array_equal(cut.scores_of(0, len(questions)), cut.scores_of(0, len(questions), session=False))
    with pytest.raises(ValueError, match="no case was asked"):
        chain(questions, trained=True).report(resamples=5, seed=0)
