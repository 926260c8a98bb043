"""The losses against their plain definitions."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foretaste.models import losses
from foretaste.models.decoding import UNKNOWN_MINUTE, Pairs, Released
from foretaste.models.losses import Added, extras, full_softmax_loss, multi_label_loss, sampled_softmax_loss


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


def test_what_is_added_by_class_and_relation_is_in_the_loss_and_has_its_gradient() -> None:
    hidden, table, bias, target = problem()
    dice = torch.Generator().manual_seed(5)
    released, classes = some_releases(dice)
    class_PR, relation_PA = (torch.randn(23, n, generator=dice, dtype=torch.float64) for n in (4, 4))
    weight = torch.rand(23, generator=dice, dtype=torch.float64)
    pairs, dense = some_pairs(dice)
    inputs = [t.requires_grad_() for t in (hidden, table, bias, class_PR, relation_PA)]
    logits = hidden @ table.T + bias + class_PR.gather(1, classes)
    for row, column, relation in dense:
        logits = logits.index_put(
            (torch.tensor(row), torch.tensor(column)), relation_PA[row, relation], accumulate=True
        )
    plain = (F.cross_entropy(logits, target, reduction="none") * weight).sum()
    expected = gradients(plain, *inputs)
    added = Added(released, class_PR, pairs, relation_PA)
    for floats in (17 * 4, 1 << 20):
        losses.CHUNK_FLOATS, before = floats, losses.CHUNK_FLOATS
        try:
            chunked = full_softmax_loss(hidden, table, bias, target, weight_P=weight, added=added)
        finally:
            losses.CHUNK_FLOATS = before
        torch.testing.assert_close(chunked, plain)
        for mine, other in zip(gradients(chunked, *inputs), expected, strict=True):
            torch.testing.assert_close(mine, other)


def test_titles_of_the_history_are_left_out_unless_they_are_the_target() -> None:
    hidden, table, bias, target = problem()
    pairs, dense = some_pairs(torch.Generator().manual_seed(6))
    inputs = [t.requires_grad_() for t in (hidden, table, bias)]
    logits = hidden @ table.T + bias
    for row, column, _ in dense:
        if column != int(target[row]):
            logits = logits.index_put((torch.tensor(row), torch.tensor(column)), torch.tensor(-1e30).double())
    plain = F.cross_entropy(logits, target, reduction="sum")
    assert any(column == int(target[row]) for row, column, _ in dense)
    loss = full_softmax_loss(hidden, table, bias, target, added=Added(pairs=pairs))
    torch.testing.assert_close(loss, plain)
    for mine, other in zip(gradients(loss, *inputs), gradients(plain, *inputs), strict=True):
        torch.testing.assert_close(mine, other)


def some_pairs(dice: torch.Generator) -> tuple[Pairs, list[tuple[int, int, int]]]:
    """About five titles of the history of each of 23 predictions, as pairs and as a list."""
    there = torch.rand(23, 17, generator=dice) < 0.3
    row_E, column_E = there.nonzero().unbind(1)
    relation_E = torch.randint(4, row_E.shape, generator=dice)
    start = np.searchsorted(row_E.numpy(), np.arange(24))
    triples = zip(row_E.tolist(), column_E.tolist(), relation_E.tolist(), strict=True)
    return Pairs(start, column_E, relation_E), list(triples)


def some_releases(dice: torch.Generator) -> tuple[Released, Tensor]:
    """When 17 titles came out and 23 predictions ask, some not known or on a bound, and the class of each pair."""
    bounds = (5, 20)
    released_N = torch.randint(60, (17,), generator=dice, dtype=torch.int32)
    released_N[3] = UNKNOWN_MINUTE
    now_P = torch.randint(30, 90, (23,), generator=dice, dtype=torch.int32)
    now_P[:2] = released_N[0] + torch.tensor([5, 6])
    age_PN = now_P[:, None] - released_N
    class_PN = (age_PN > bounds[0]).long() + (age_PN > bounds[1]).long()
    class_PN[:, 3] = 3
    assert set(class_PN.flatten().tolist()) == {0, 1, 2, 3}
    assert class_PN[:2, 0].tolist() == [0, 1]
    return Released.among(bounds, released_N, now_P), class_PN


def test_every_title_has_what_its_class_of_recency_has_and_its_gradient_goes_there() -> None:
    dice = torch.Generator().manual_seed(9)
    released, class_PN = some_releases(dice)
    value_PR = torch.randn(23, 4, generator=dice, dtype=torch.float64).requires_grad_()
    weight_PN = torch.randn(23, 17, generator=dice, dtype=torch.float64)
    some = torch.tensor([16, 3, 0, 9])
    for chosen, classes in ((released, class_PN), (released.of(some), class_PN[:, some])):
        assert torch.equal(
            chosen.own(torch.arange(23) % classes.shape[1]), classes[range(23), torch.arange(23) % classes.shape[1]]
        )
        assert torch.equal(chosen.spread(value_PR), value_PR.gather(1, classes))
        weight = weight_PN[:, : classes.shape[1]]
        mine = gradients((chosen.spread(value_PR) * weight).sum(), value_PR)
        torch.testing.assert_close(mine, gradients((value_PR.gather(1, classes) * weight).sum(), value_PR))
    part = released.rows(slice(4, 9))
    assert torch.equal(part.spread(value_PR[4:9]), value_PR.gather(1, class_PN)[4:9])


def sampled(hidden: Tensor, table: Tensor, bias: Tensor, target: Tensor, drawn: Tensor, q: Tensor) -> Tensor:
    """The sampled softmax with negatives `drawn` of probability `q`."""
    column, times = torch.unique(drawn, return_counts=True)
    shift = bias[column] - torch.log(len(drawn) * q[column] / times)
    own = (hidden * table[target]).sum(dim=1) + bias[target]
    extra, _ = extras(Added(), column, target)
    return sampled_softmax_loss(hidden, table[column], shift, own, extra.double())


def test_with_many_negatives_the_sampled_softmax_tends_to_the_full_one() -> None:
    hidden, table, bias, target = problem()
    inputs = [t.requires_grad_() for t in (hidden, table, bias)]
    full = full_softmax_loss(hidden, table, bias, target)
    q = torch.softmax(torch.arange(17, dtype=torch.float64) / 8, dim=0)  # far from uniform
    negatives = torch.multinomial(q, 200_000, replacement=True, generator=torch.Generator().manual_seed(1))
    loss = sampled(hidden, table, bias, target, negatives, q)
    assert math.isclose(float(loss.detach()), float(full.detach()), rel_tol=0.01)
    for mine, other in zip(gradients(loss, *inputs), gradients(full, *inputs), strict=True):
        assert float((mine - other).norm() / other.norm()) < 0.03


def test_the_sampled_softmax_adds_the_same_as_the_full_one_to_negatives_and_targets() -> None:
    *_, target = problem()
    dice = torch.Generator().manual_seed(5)
    released, classes = some_releases(dice)
    class_PR, relation_PA = (torch.randn(23, n, generator=dice) for n in (4, 4))
    pairs, dense = some_pairs(dice)
    for relation in (relation_PA, None):
        added = Added(released, class_PR, pairs, relation)
        column = torch.arange(17)
        extra, own = extras(added, column, target)
        expected = class_PR.gather(1, classes)
        for row, place, kind in dense:
            expected[row, place] += float("-inf") if relation is None else float(relation[row, kind])
        wanted_own = class_PR.gather(1, classes)[torch.arange(23), target]
        if relation is not None:
            wanted_own = expected[torch.arange(23), target]
        expected[torch.arange(23), target] = float("-inf")
        torch.testing.assert_close(extra, expected)
        torch.testing.assert_close(own, wanted_own)


def test_without_the_correction_popular_negatives_would_push_too_hard() -> None:
    hidden, table, bias, target = problem()
    q = torch.softmax(torch.arange(17, dtype=torch.float64) / 4, dim=0)
    negatives = torch.multinomial(q, 50_000, replacement=True, generator=torch.Generator().manual_seed(1))
    full = float(full_softmax_loss(hidden, table, bias, target))
    right = float(sampled(hidden, table, bias, target, negatives, q))
    wrong = float(sampled(hidden, table, bias, target, negatives, torch.full_like(q, 1 / 17)))
    assert abs(right - full) < 0.5 * abs(wrong - full)


def test_a_sigmoid_trained_on_positives_alone_would_say_yes_to_everything() -> None:
    torch.manual_seed(0)
    positives = torch.nn.functional.one_hot(torch.randint(4, (200,)), 4).float()
    ends = {}
    for name in ("softmax", "sigmoid"):
        logits = torch.zeros(4, requires_grad=True)
        optimiser = torch.optim.Adam([logits], lr=0.3)
        for _ in range(300):
            rows = logits.expand(200, 4)
            alone = -(positives * F.logsigmoid(rows)).sum()
            loss = multi_label_loss(rows, positives) if name == "softmax" else alone
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        ends[name] = logits.detach()
    assert (torch.sigmoid(ends["sigmoid"]) > 0.99).all()  # the trivial optimum
    torch.testing.assert_close(torch.softmax(ends["softmax"], 0), positives.mean(0), atol=0.01, rtol=0)


def test_genres_share_one_softmax_and_rows_without_a_genre_do_not_count() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.3, -1.0, 2.0]], requires_grad=True)
    positives = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    loss = multi_label_loss(logits, positives)
    log_p = F.log_softmax(logits[0].detach(), dim=0)
    torch.testing.assert_close(loss.detach(), -(log_p[0] + log_p[1]) / 2)
    (grad,) = gradients(loss, logits)
    assert grad[1].abs().sum() == 0
    torch.testing.assert_close(grad[0].sum(), torch.tensor(0.0), atol=1e-6, rtol=0)  # a sigmoid's would not
