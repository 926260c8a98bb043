"""The causal encoder: attention knows distances, sees only the past, and never sees padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foretaste.models.encoder import CausalEncoder, rotate, turns
from foretaste.models.intent import IntentModelConfig
from foretaste.models.layout import Layout, layout


def encoder(seed: int = 0) -> CausalEncoder:
    torch.manual_seed(seed)
    return CausalEncoder(width=16, num_blocks=2, num_heads=2, feedforward=32, dropout=0.0).eval()


def laid(*lengths: int) -> Layout:
    return layout(np.array(lengths, dtype=np.int64))


def test_products_of_rotated_vectors_depend_on_their_distance_alone() -> None:
    cos_T1R, sin_T1R = turns(torch.arange(50), 8)
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    queries = rotate(query.expand(50, 1, 8), cos_T1R, sin_T1R)[:, 0]
    keys = rotate(key.expand(50, 1, 8), cos_T1R, sin_T1R)[:, 0]
    products = queries @ keys.T
    for distance in (0, 1, 7, 30):
        along = products.diagonal(-distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(products[7, 0], products[0, 0], atol=1e-3)


def test_gradients_of_rotated_vectors_are_exact() -> None:
    cos_T1R, sin_T1R = (one.double() for one in turns(torch.arange(5), 6))
    x_T2E = torch.randn(5, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotate(x, cos_T1R, sin_T1R), x_T2E)


def test_half_precision_is_kept_where_training_uses_it() -> None:
    made, placed = encoder(), laid(6, 3)
    x_TD = torch.randn(9, 16, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(made(x_TD, placed).float(), made.float()(x_TD, placed).float(), atol=0.1, rtol=0.1)
        made(x_TD, placed).float().sum().backward()


def test_order_matters_and_the_future_does_not() -> None:
    made, placed = encoder(), laid(6)
    x_TD = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))
    swapped = x_TD[[1, 0, 2, 3, 4, 5]]
    assert not torch.allclose(made(x_TD, placed)[5], made(swapped, placed)[5], atol=1e-4)
    changed = x_TD.clone()
    changed[4:] += 1.0
    torch.testing.assert_close(made(changed, placed)[:4], made(x_TD, placed)[:4])


def test_sequences_that_are_packed_together_do_not_see_each_other() -> None:
    made = encoder()
    lengths = (3, 90, 1, 17, 90, 16)
    parts = [torch.randn(n, 16, generator=torch.Generator().manual_seed(n)) for n in lengths]
    together = made(torch.cat(parts), laid(*lengths))
    for part, alone in zip(together.split(lengths), parts, strict=True):
        torch.testing.assert_close(part, made(alone, laid(len(alone))), atol=1e-5, rtol=1e-4)


def test_gradients_through_packing_are_those_of_sequences_alone() -> None:
    made = encoder()
    lengths = (3, 50, 7)
    parts = [torch.randn(n, 16, generator=torch.Generator().manual_seed(n), requires_grad=True) for n in lengths]
    together = torch.autograd.grad(made(torch.cat(parts), laid(*lengths)).pow(3).sum(), parts)
    for part, expected in zip(parts, together, strict=True):
        (alone,) = torch.autograd.grad(made(part, laid(len(part))).pow(3).sum(), part)
        torch.testing.assert_close(alone, expected, atol=1e-4, rtol=1e-3)


def test_a_width_that_does_not_divide_into_even_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 2 x num_attention_heads = 6"):
        IntentModelConfig(width=64, num_attention_heads=3)
