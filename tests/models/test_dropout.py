"""Dropout by bytes: it drops what it should, scales the rest, and leaves evaluation alone."""

from __future__ import annotations

import pytest
import torch

from foretaste.models.dropout import Dropout


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.9])
def test_the_share_is_dropped_and_the_mean_is_kept(share: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1_001, 203, requires_grad=True)
    kept = Dropout(share)(x)
    dropped = (kept == 0).float()
    assert dropped.mean().item() == pytest.approx(share, abs=0.005)
    assert dropped.mean(dim=0).std().item() == pytest.approx((share * (1 - share) / 1_001) ** 0.5, rel=0.3)
    assert kept.mean().item() == pytest.approx(1.0, abs=0.02)
    kept.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, kept)


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(100_000)) > 0).float()
    for apart in (1, 2, 4, 8, 16):
        together = (kept[:-apart] * kept[apart:]).mean().item()
        assert together == pytest.approx(0.25, abs=0.01)


def test_evaluation_and_a_share_of_nothing_change_nothing() -> None:
    x = torch.randn(5, 3)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_the_same_dice_drop_the_same() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(4)
        drawn.append(Dropout(0.3)(torch.ones(37, 5)))
    assert torch.equal(*drawn)
