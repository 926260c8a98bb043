"""The causal encoder: attention knows distances, sees only the past, and never sees padding."""

from __future__ import annotations

import pytest
import torch

from foretaste.models.encoder import CausalEncoder, rotate, turns
from foretaste.models.intent import IntentModelConfig


def encoder(seed: int = 0) -> CausalEncoder:
    torch.manual_seed(seed)
    return CausalEncoder(width=16, num_blocks=2, num_heads=2, feedforward=32, dropout=0.0).eval()


def test_products_of_rotated_vectors_depend_on_their_distance_alone() -> None:
    cos_LR, sin_LR = turns(50, 8, torch.device("cpu"))
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    queries = rotate(query.expand(1, 1, 50, 8), cos_LR, sin_LR)[0, 0]
    keys = rotate(key.expand(1, 1, 50, 8), cos_LR, sin_LR)[0, 0]
    products = queries @ keys.T
    for distance in (0, 1, 7, 30):
        along = products.diagonal(-distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(products[7, 0], products[0, 0], atol=1e-3)


def test_order_matters_and_the_future_does_not() -> None:
    made = encoder()
    x_BLD = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(1))
    swapped = x_BLD[:, [1, 0, 2, 3, 4, 5]]
    assert not torch.allclose(made(x_BLD)[:, 5], made(swapped)[:, 5], atol=1e-4)
    changed = x_BLD.clone()
    changed[:, 4:] += 1.0
    torch.testing.assert_close(made(changed)[:, :4], made(x_BLD)[:, :4])


def test_padding_on_the_right_changes_nothing() -> None:
    made = encoder()
    x_BLD = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(2))
    padded = torch.cat([x_BLD, torch.full((2, 9, 16), 50.0)], dim=1)
    torch.testing.assert_close(made(padded)[:, :5], made(x_BLD))


def test_a_width_that_does_not_divide_into_even_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 2 x num_attention_heads = 6"):
        IntentModelConfig(width=64, num_attention_heads=3)
