"""The ranker: standardisation, columns, probabilities, padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foretaste.models.ranker import Ranker, RankerConfig, RankerScorer, build_ranker, ranker_bundle_config

COLUMNS = ("score", "age", "same_genre")


def ranker(seed: int = 0) -> Ranker:
    """One whose weights are drawn, as if trained: an untrained one gives the order of one column."""
    torch.manual_seed(seed)
    model = Ranker(RankerConfig(hidden=(16, 8)), COLUMNS)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def features(cases: int = 4, candidates: int = 6, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.normal([0.0, 900.0, 0.5], [1.0, 300.0, 0.2], size=(cases, candidates, 3)).astype(np.float32)


def test_a_change_of_unit_changes_nothing_once_standardised() -> None:
    here, scaled = features(), features() * np.array([1.0, 60.0, 100.0], dtype=np.float32)
    scores = []
    for batch in (here, scaled):
        model = ranker()
        rows = torch.from_numpy(batch).flatten(0, 1)
        model.standardise(rows.mean(0), rows.std(0))
        scores.append(RankerScorer(model).scores(batch))
    assert np.allclose(scores[0], scores[1], atol=1e-5)


def test_a_column_that_never_varied_does_not_blow_up() -> None:
    model = ranker()
    model.standardise(torch.zeros(3), torch.tensor([1.0, 0.0, 1.0]))
    assert np.isfinite(RankerScorer(model).scores(features())).all()


def test_scores_are_probabilities_strictly_between_zero_and_one() -> None:
    model = ranker()
    with torch.no_grad():
        model.out.bias.fill_(1e4)
    high = RankerScorer(model).scores(features())
    with torch.no_grad():
        model.out.bias.fill_(-1e4)
    low = RankerScorer(model).scores(features())
    assert high.dtype == np.float64
    assert ((high > 0) & (high < 1)).all()
    assert ((low > 0) & (low < 1)).all()


def test_a_mismatch_of_columns_is_named() -> None:
    scorer = RankerScorer(ranker())
    scorer.check_columns(COLUMNS)
    with pytest.raises(ValueError, match=r"missing \['age'\], not known to it \['tenure'\]"):
        scorer.check_columns(("score", "tenure", "same_genre"))
    with pytest.raises(ValueError, match="order is"):
        scorer.check_columns(("age", "score", "same_genre"))
    with pytest.raises(ValueError, match=r"wants \[B, C, 3\]"):
        scorer.scores(features()[:, :, :2])


def test_features_that_are_not_finite_are_named() -> None:
    batch = features()
    batch[0, 1, 1] = np.nan
    with pytest.raises(ValueError, match=r"not finite in columns \['age'\]"):
        RankerScorer(ranker()).scores(batch)


def test_padding_has_no_part_in_the_loss() -> None:
    model = ranker().eval()
    batch = torch.from_numpy(features())
    chosen = torch.zeros(4, 6)
    chosen[:, 1] = 1.0
    real = torch.ones(4, 6, dtype=torch.bool)
    real[:, 4:] = False
    before = model.loss(batch, chosen, real)
    batch[:, 4:] = 1e3
    torch.testing.assert_close(model.loss(batch, chosen, real), before)
    torch.testing.assert_close(model.loss(batch[:, :4], chosen[:, :4], real[:, :4]), before)


def test_the_ranker_learns_the_order_and_the_probability_of_a_planted_choice() -> None:
    rng = np.random.default_rng(3)
    batch = features(800, 5, seed=3)
    odds = np.exp(2.0 * batch[..., 0] - (batch[..., 1] - 900) / 300)
    none = 2.0  # weight of choosing nothing
    share = odds / (odds.sum(axis=1, keepdims=True) + none)
    draws = (rng.random((800, 1)) > np.cumsum(share, axis=1)).sum(axis=1)
    chosen = np.zeros((800, 5), dtype=np.float32)
    chosen[np.flatnonzero(draws < 5), draws[draws < 5]] = 1.0
    model = ranker()
    rows = torch.from_numpy(batch).flatten(0, 1)
    model.standardise(rows.mean(0), rows.std(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    real = torch.ones(800, 5, dtype=torch.bool)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model.loss(torch.from_numpy(batch), torch.from_numpy(chosen), real) / 800
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    scores = RankerScorer(model).scores(batch)
    assert (scores.argmax(axis=1) == share.argmax(axis=1)).mean() > 0.85
    assert scores.mean() == pytest.approx(chosen.mean(), abs=0.03)
    assert np.corrcoef(scores.ravel(), share.ravel())[0, 1] > 0.8  # no more: a share depends on the others


def test_a_bundle_scores_as_the_ranker_it_was_made_of() -> None:
    model = ranker()
    model.standardise(torch.tensor([0.0, 900.0, 0.5]), torch.tensor([1.0, 300.0, 0.2]))
    again = build_ranker(ranker_bundle_config(model), {k: v.clone() for k, v in model.state_dict().items()})
    assert again.columns == COLUMNS
    assert np.array_equal(again.scores(features()), RankerScorer(model).scores(features()))


def test_an_untrained_ranker_gives_the_logits_of_the_column_that_it_starts_from() -> None:
    batch = torch.from_numpy(features())
    model = Ranker(RankerConfig(start_from="score"), COLUMNS).eval()
    rows = batch.flatten(0, 1)
    model.standardise(rows.mean(0), rows.std(0))
    shifted_BC = model(batch) - batch[..., 0]
    assert torch.allclose(shifted_BC, shifted_BC[0, 0].expand_as(shifted_BC), atol=1e-5)
