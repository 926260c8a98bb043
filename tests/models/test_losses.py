"""The losses against their plain definitions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from foretaste.models import losses
from foretaste.models.losses import full_softmax_loss, multi_label_loss, sampled_softmax_loss


def problem(seed: int = 0, *, predictions: int = 23, titles: int = 17, width: int = 6) -> tuple[Tensor, ...]:
    dice = torch.Generator().manual_seed(seed)
    hidden = torch.randn(predictions, width, generator=dice, dtype=torch.float64)
    table = torch.randn(titles, width, generator=dice, dtype=torch.float64)
    bias = torch.randn(titles, generator=dice, dtype=torch.float64)
    target = torch.randint(titles, (predictions,), generator=dice)
    return hidden, table, bias, target


def gradients(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


def test_the_full_softmax_in_chunks_equals_the_plain_one_with_its_gradients() -> None:
    hidden, table, bias, target = problem()
    inputs = [t.requires_grad_() for t in (hidden, table, bias)]
    plain = F.cross_entropy(hidden @ table.T + bias, target, reduction="sum")
    for floats in (17, 17 * 5, 1 << 20):
        losses.CHUNK_FLOATS, before = floats, losses.CHUNK_FLOATS
        try:
            chunked = full_softmax_loss(hidden, table, bias, target)
        finally:
            losses.CHUNK_FLOATS = before
        torch.testing.assert_close(chunked, plain)
        for mine, other in zip(gradients(chunked * 2, *inputs), gradients(plain * 2, *inputs), strict=True):
            torch.testing.assert_close(mine, other)
        plain = F.cross_entropy(hidden @ table.T + bias, target, reduction="sum")


def test_with_many_negatives_the_sampled_softmax_tends_to_the_full_one() -> None:
    hidden, table, bias, target = problem()
    inputs = [t.requires_grad_() for t in (hidden, table, bias)]
    full = full_softmax_loss(hidden, table, bias, target)
    q = torch.softmax(torch.arange(17, dtype=torch.float64) / 8, dim=0)  # far from uniform
    negatives = torch.multinomial(q, 200_000, replacement=True, generator=torch.Generator().manual_seed(1))
    sampled = sampled_softmax_loss(hidden, table, bias, target, negatives, q.log())
    assert math.isclose(float(sampled.detach()), float(full.detach()), rel_tol=0.01)
    for mine, other in zip(gradients(sampled, *inputs), gradients(full, *inputs), strict=True):
        assert float((mine - other).norm() / other.norm()) < 0.03


def test_without_the_correction_popular_negatives_would_push_too_hard() -> None:
    hidden, table, bias, target = problem()
    q = torch.softmax(torch.arange(17, dtype=torch.float64) / 4, dim=0)
    negatives = torch.multinomial(q, 50_000, replacement=True, generator=torch.Generator().manual_seed(1))
    full = float(full_softmax_loss(hidden, table, bias, target))
    uniform = torch.full_like(q, 1 / 17).log()
    right = float(sampled_softmax_loss(hidden, table, bias, target, negatives, q.log()))
    wrong = float(sampled_softmax_loss(hidden, table, bias, target, negatives, uniform))
    assert abs(right - full) < 0.5 * abs(wrong - full)


def test_genres_share_one_softmax_and_rows_without_a_genre_do_not_count() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.3, -1.0, 2.0]], requires_grad=True)
    positives = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    loss = multi_label_loss(logits, positives)
    log_p = F.log_softmax(logits[0].detach(), dim=0)
    torch.testing.assert_close(loss.detach(), -(log_p[0] + log_p[1]) / 2)
    (grad,) = gradients(loss, logits)
    assert grad[1].abs().sum() == 0
    torch.testing.assert_close(grad[0].sum(), torch.tensor(0.0), atol=1e-6, rtol=0)  # a sigmoid's would not
