"""The ranker: standardisation, columns, probabilities, padding, empty sessions, the order that it starts from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foretaste.contracts.events import ACTIONS
from foretaste.models.ranker import Ranker, RankerConfig
from foretaste.models.ranker_heads import Head, combined
from foretaste.models.ranker_inputs import RankerInputs, join_inputs
from foretaste.models.ranker_scorer import RankerScorer, build_ranker, ranker_bundle_config

COLUMNS = ("score", "age", "same_genre")
REQUEST = ("depth", "idle")
ABOUT, CONTEXT, WIDTH, TITLES = 3, 4, 8, 12
VECTORS: NDArray[np.float32] = np.random.default_rng(9).normal(size=(TITLES, WIDTH)).astype(np.float32)


def ranker(seed: int = 0, **config: Any) -> Ranker:
    """One whose weights are drawn, as if trained: an untrained one gives the order of one column."""
    torch.manual_seed(seed)
    model = Ranker(RankerConfig(hidden=(16, 8), **config), COLUMNS, REQUEST, ABOUT, CONTEXT, VECTORS)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def inputs(cases: int = 4, candidates: int = 6, recent: int = 5, seed: int = 0) -> RankerInputs:
    rng = np.random.default_rng(seed)
    told = rng.normal([0.0, 900.0, 0.5], [1.0, 300.0, 0.2], size=(cases, candidates, 3))
    return RankerInputs(
        told.astype(np.float32),
        rng.normal(size=(cases, len(REQUEST))).astype(np.float32),
        rng.normal(size=(cases, CONTEXT)).astype(np.float32),
        rng.integers(1, TITLES, size=(cases, candidates)).astype(np.int32),
        rng.integers(0, TITLES, size=(cases, recent)).astype(np.int32),
        rng.integers(1, len(ACTIONS), size=(cases, recent)).astype(np.int32),
        rng.normal(size=(cases, recent, ABOUT)).astype(np.float32),
        np.arange(recent)[None, :] >= rng.integers(0, recent + 1, size=(cases, 1)),
    )


def standardised(model: Ranker, told: RankerInputs) -> Ranker:
    rows = torch.from_numpy(told.features_BCF).flatten(0, 1)
    zeros, ones = torch.zeros(len(REQUEST)), torch.ones(len(REQUEST))
    model.standardise(
        torch.cat([rows.mean(0), zeros]), torch.cat([rows.std(0), ones]), torch.zeros(CONTEXT), torch.ones(CONTEXT)
    )
    return model


def test_a_change_of_unit_changes_nothing_once_standardised() -> None:
    here = inputs()
    scaled = replace(here, features_BCF=here.features_BCF * np.array([1.0, 60.0, 100.0], dtype=np.float32))
    one, other = (RankerScorer(standardised(ranker(), told)).scores(told) for told in (here, scaled))
    assert np.allclose(one, other, atol=1e-5)


def test_a_column_that_never_varied_does_not_blow_up() -> None:
    same = inputs()
    same.features_BCF[..., 1] = 7.0
    assert np.isfinite(RankerScorer(standardised(ranker(), same)).scores(inputs())).all()


@pytest.mark.parametrize("bias", [1e4, -1e4])
def test_scores_are_probabilities_strictly_between_zero_and_one(bias: float) -> None:
    model = ranker()
    with torch.no_grad():
        model.out.bias.fill_(bias)
    scores = RankerScorer(model).scores(inputs())
    assert scores.dtype == np.float64
    assert ((scores > 0) & (scores < 1)).all()


def test_a_mismatch_of_columns_is_named() -> None:
    scorer = RankerScorer(ranker())
    scorer.check_columns(COLUMNS, REQUEST)
    with pytest.raises(ValueError, match=r"missing \['age'\], not known to it \['tenure'\]"):
        scorer.check_columns(("score", "tenure", "same_genre"), REQUEST)
    with pytest.raises(ValueError, match="order is"):
        scorer.check_columns(COLUMNS, REQUEST[::-1])
    told = inputs()
    with pytest.raises(ValueError, match="wants 3 columns of candidates"):
        scorer.scores(replace(told, features_BCF=told.features_BCF[:, :, :2]))
    with pytest.raises(ValueError, match="wants 4 finite numbers of the intents"):
        scorer.scores(replace(told, context_BX=told.context_BX[:, :3]))


def test_features_that_are_not_finite_are_named() -> None:
    told = inputs()
    told.features_BCF[0, 1, 1] = np.nan
    with pytest.raises(ValueError, match=r"not finite in columns \['age'\]"):
        RankerScorer(ranker()).scores(told)


def test_an_untrained_ranker_gives_the_logits_of_the_column_that_it_starts_from() -> None:
    told = inputs(recent=7)
    torch.manual_seed(0)
    model = Ranker(RankerConfig(start_from="score"), COLUMNS, REQUEST, ABOUT, CONTEXT, VECTORS).eval()
    play_BC = standardised(model, told)(told.tensors())[..., 0].detach()
    shifted_BC = play_BC - torch.from_numpy(told.features_BCF[..., 0])
    assert torch.allclose(shifted_BC, shifted_BC[0, 0].expand_as(shifted_BC), atol=1e-5)


def test_an_empty_session_and_an_empty_history_are_inputs_of_their_own() -> None:
    told = inputs(cases=1)
    empty = replace(
        told, **{name: getattr(told, name)[:, :0] for name in ("title_BL", "action_BL", "about_BLA", "now_BL")}
    )
    padded = replace(told, action_BL=told.action_BL * 0, now_BL=told.now_BL & False)
    scorer = RankerScorer(ranker())
    assert np.isfinite(scorer.scores(empty)).all()
    assert np.allclose(scorer.scores(empty), scorer.scores(padded), atol=1e-6)
    before = scorer.scores(empty)
    with torch.no_grad():
        scorer.model.attention.nothing.add_(1.0)
    assert not np.allclose(scorer.scores(empty), before)


def test_what_is_done_in_the_session_and_before_it_is_seen_apart() -> None:
    told = inputs(cases=1)
    session, before = (replace(told, now_BL=np.full_like(told.now_BL, now)) for now in (True, False))
    scorer = RankerScorer(ranker())
    assert not np.allclose(scorer.scores(session), scorer.scores(before))


def test_a_request_scores_alone_as_it_does_beside_others() -> None:
    parts = [inputs(cases=1, candidates=count, recent=recent, seed=count)
             for count, recent in ((1, 0), (6, 2), (16, 5), (17, 3), (50, 5), (3, 1), (100, 4))]  # fmt: skip
    together = join_inputs(parts)
    model = standardised(ranker(), together)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    scorer = RankerScorer(model)
    for size in (2, 3, 7):
        for first in range(0, len(parts), size):
            rows = np.arange(first, min(first + size, len(parts)))
            beside = scorer.scores(together.rows(rows))
            for place, b in enumerate(rows):
                alone = scorer.scores(parts[b])
                assert beside[place, : alone.shape[1]].tobytes() == alone[0].tobytes()
    for row, part in enumerate(parts):
        assert scorer.scores(together.alone(row)).tobytes() == scorer.scores(part).tobytes()


def test_the_order_follows_the_configured_heads_and_heads_that_are_off_count_nothing() -> None:
    chances = {
        Head.PLAY: torch.tensor([0.5, 0.2]),
        Head.FRACTION: torch.tensor([0.1, 0.9]),
        Head.LIST: torch.tensor([0.0, 0.3]),
    }
    assert combined(chances, {Head.PLAY: 1.0}).tolist() == pytest.approx([0.5, 0.2])
    assert combined(chances, {Head.PLAY: 1.0, Head.FRACTION: 2.0}).tolist() == pytest.approx([0.6, 0.56])
    assert combined(chances, {Head.PLAY: 1.0, Head.LIST: 2.0, Head.THUMB: 9.0}).tolist() == pytest.approx([0.5, 0.8])
    with pytest.raises(ValueError, match="has to weigh play above 0"):
        RankerConfig(order={Head.LIST: 1.0})


def test_calibration_moves_probabilities_and_not_the_order() -> None:
    model, told = ranker(), inputs()
    before = RankerScorer(model).scores(told)
    model.calibrate({Head.PLAY: (0.5, -2.0), Head.LIST: (1.0, 0.0)})
    scorer = RankerScorer(model)
    after = scorer.scores(told)
    assert scorer.heads == (Head.PLAY, Head.LIST)
    assert (np.argsort(before, axis=1) == np.argsort(after, axis=1)).all()
    logit = np.log(before / (1 - before))
    assert np.allclose(np.log(after / (1 - after)), 0.5 * logit - 2.0, atol=1e-4)


def test_a_bundle_scores_as_the_ranker_it_was_made_of() -> None:
    model = standardised(ranker(), inputs())
    model.calibrate({Head.PLAY: (0.7, 0.1), Head.THUMB: (1.0, 0.0)})
    again = build_ranker(ranker_bundle_config(model), {k: v.clone() for k, v in model.state_dict().items()}, VECTORS)
    assert (again.columns, again.heads, again.recent) == (COLUMNS, (Head.PLAY, Head.THUMB), 50)
    assert np.array_equal(again.scores(inputs()), RankerScorer(model).scores(inputs()))
    assert "title_N1D" not in model.state_dict()
    with pytest.raises(ValueError, match="train it again"):
        build_ranker({"model": {}, "columns": []}, {}, VECTORS)
