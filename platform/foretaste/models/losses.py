"""What the intent model is trained on: sums over predictions, so that parts of a batch add up to the whole.

Shapes: P predictions, N titles, D width, S negatives shared by all predictions, C classes of a head, R classes of
recency, A relations, E pairs of a prediction and a title of its history.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foretaste.models.decoding import Pairs, Released

CHUNK_FLOATS = 1 << 21
"""Logits held at once by the full softmax: they stay in the processor's cache, and memory does not grow with P."""


@dataclass(frozen=True, slots=True)
class Added:
    """What is added to logits beside products of states and vectors; nothing by default."""

    released: Released | None = None  # which class of recency titles have
    class_PR: Tensor | None = None  # what each class adds
    pairs: Pairs | None = None
    relation_PA: Tensor | None = None  # what each relation adds; None: titles of the history are left out


NOTHING = Added()


def add(logits_PN: Tensor, rows: slice, added: Added) -> Tensor | None:
    """Add to the logits of some predictions, in place; returns where the pairs stand in the flattened logits."""
    if added.class_PR is not None and added.released is not None:
        logits_PN += added.released.rows(rows).spread(added.class_PR[rows])
    if added.pairs is None:
        return None
    start_P1 = added.pairs.start_P1[rows.start : rows.start + len(logits_PN) + 1]
    span = slice(int(start_P1[0]), int(start_P1[-1]))
    counts_P = torch.from_numpy(start_P1[1:] - start_P1[:-1]).to(logits_PN.device)
    row_E = torch.repeat_interleave(torch.arange(len(logits_PN), device=logits_PN.device), counts_P)
    place_E = row_E * logits_PN.shape[1] + added.pairs.column_E[span]
    flat = logits_PN.view(-1)
    if added.relation_PA is None:
        flat[place_E] = float("-inf")
        return None
    value_E = added.relation_PA[rows][row_E, added.pairs.relation_E[span]]
    flat.index_add_(0, place_E, value_E)
    return torch.stack([place_E, row_E * added.relation_PA.shape[1] + added.pairs.relation_E[span]])


class _FullSoftmax(torch.autograd.Function):
    """Cross-entropy over all titles that takes its gradients while each chunk of logits is at hand."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_PD: Tensor,
        title_ND: Tensor,
        bias_N: Tensor,
        class_PR: Tensor | None,
        relation_PA: Tensor | None,
        target_P: Tensor,
        weight_P: Tensor | None,
        added: Added,
    ) -> Tensor:
        size = max(1, CHUNK_FLOATS // len(title_ND))
        loss = hidden_PD.new_zeros(())
        grads = [None if one is None else torch.zeros_like(one) for one in (class_PR, relation_PA)]
        grad_hidden_PD, grad_title_ND, grad_bias_N = (
            torch.empty_like(hidden_PD), torch.zeros_like(title_ND), torch.zeros_like(bias_N),
        )  # fmt: skip
        for start in range(0, len(hidden_PD), size):
            chunk = slice(start, start + size)
            logits = torch.addmm(bias_N, hidden_PD[chunk], title_ND.T)
            hit = target_P[chunk, None]
            own = logits.gather(1, hit)
            places = add(logits, chunk, added)
            if added.pairs is not None and relation_PA is None:
                logits.scatter_(1, hit, own + _added_to_targets(chunk, hit, added))
            own = logits.gather(1, hit)
            top = logits.amax(dim=1, keepdim=True)
            logits -= top
            total = logits.exp_().sum(dim=1, keepdim=True)
            each = (total.log() + top - own)[:, 0]
            logits /= total
            logits.scatter_add_(1, hit, logits.new_full((), -1.0).expand(hit.shape))
            if weight_P is not None:
                each = each * weight_P[chunk]
                logits *= weight_P[chunk, None]
            loss += each.sum()
            torch.mm(logits, title_ND, out=grad_hidden_PD[chunk])
            grad_title_ND.addmm_(logits.T, hidden_PD[chunk])
            grad_bias_N += logits.sum(dim=0)
            _add_gradients(logits, chunk, places, added, grads)
        ctx.save_for_backward(grad_hidden_PD, grad_title_ND, grad_bias_N)
        ctx.grads = grads
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        dense = (saved * grad for saved in ctx.saved_tensors)
        return (*dense, *(None if one is None else one * grad for one in ctx.grads), None, None, None)


def _added_to_targets(chunk: slice, hit: Tensor, added: Added) -> Tensor:
    """What classes add to the targets themselves, which are never left out."""
    if added.class_PR is None or added.released is None:
        return torch.zeros(hit.shape, device=hit.device)
    return added.class_PR[chunk].gather(1, added.released.rows(chunk).own(hit[:, 0])[:, None])


def _add_gradients(
    grad_PN: Tensor, chunk: slice, places: Tensor | None, added: Added, grads: list[Tensor | None]
) -> None:
    of_classes, of_relations = grads
    if of_classes is not None and added.released is not None:
        of_classes[chunk] = added.released.rows(chunk).sums(grad_PN)
    if of_relations is not None and places is not None:
        part = of_relations[chunk].view(-1)
        part.index_add_(0, places[1], grad_PN.view(-1)[places[0]])


def _whole(values: Tensor) -> Tensor:
    return values.float() if values.dtype.itemsize < 4 else values


def full_softmax_loss(
    hidden_PD: Tensor,
    title_ND: Tensor,
    bias_N: Tensor,
    target_P: Tensor,
    *,
    weight_P: Tensor | None = None,
    added: Added = NOTHING,
) -> Tensor:
    """Summed cross-entropy of `target_P` (0..N-1) among all titles, each prediction weighed.

    It is taken in float32 at least, also where the network runs in less (autocast): sums over a catalogue need the
    digits.
    """
    class_PR, relation_PA = (None if one is None else _whole(one) for one in (added.class_PR, added.relation_PA))
    added = replace(added, class_PR=class_PR, relation_PA=relation_PA)
    with torch.autocast(hidden_PD.device.type, enabled=False):
        loss: Tensor = _FullSoftmax.apply(
            _whole(hidden_PD), _whole(title_ND), _whole(bias_N), class_PR, relation_PA, target_P, weight_P, added
        )  # type: ignore[no-untyped-call]
    return loss


def sampled_softmax_loss(
    hidden_PD: Tensor,
    title_SD: Tensor,
    shift_S: Tensor,
    own_P: Tensor,
    extra_PS: Tensor,
    weight_P: Tensor | None = None,
) -> Tensor:
    """Summed cross-entropy of targets, whose logits are `own_P`, among themselves and shared negatives.

    `shift_S` is the bias of each of S different negatives, plus the logarithm of how often it was drawn over how often
    it was to be drawn (logQ), so that the sum of the exponentials estimates, without bias, that of all other titles;
    the target, which is always there, is not shifted. `extra_PS` is added; it is -inf where a negative is the target
    itself or was left out. Bengio and Senecal 2008; Khrylchenko et al. 2025.
    """
    with torch.autocast(hidden_PD.device.type, enabled=False):  # as full_softmax_loss
        logits_PS = torch.addmm(shift_S.float(), hidden_PD.float(), title_SD.float().T) + extra_PS
    total_P = torch.logaddexp(own_P, torch.logsumexp(logits_PS, dim=1))
    each_P = total_P - own_P
    return (each_P if weight_P is None else each_P * weight_P).sum()


def extras(added: Added, column_S: Tensor, target_P: Tensor) -> tuple[Tensor, Tensor]:
    """What is added to the logits of negatives and of targets, [P, S] and [P]; -inf where they are the same title.

    `column_S` are catalogue codes - 1 in rising order, each once.
    """
    shape = (len(target_P), len(column_S))
    extra_PS, own_P = (torch.zeros(s, device=target_P.device) for s in (shape, shape[:1]))
    if added.class_PR is not None and added.released is not None:
        extra_PS = added.released.of(column_S).spread(added.class_PR)
        own_P = added.class_PR.gather(1, added.released.own(target_P)[:, None])[:, 0]
    if added.pairs is not None:
        counts_P = torch.from_numpy(added.pairs.start_P1[1:] - added.pairs.start_P1[:-1]).to(target_P.device)
        row_E = torch.repeat_interleave(torch.arange(len(target_P), device=target_P.device), counts_P)
        column_E = added.pairs.column_E
        place_E = torch.searchsorted(column_S, column_E).clamp(max=len(column_S) - 1)
        among_E, own_E = column_S[place_E] == column_E, target_P[row_E] == column_E
        if added.relation_PA is None:
            extra_PS = extra_PS.index_put((row_E[among_E], place_E[among_E]), torch.tensor(float("-inf")))
        else:
            value_E = added.relation_PA[row_E, added.pairs.relation_E]
            extra_PS = extra_PS.index_put((row_E[among_E], place_E[among_E]), value_E[among_E], accumulate=True)
            own_P = own_P.index_add(0, row_E[own_E], value_E[own_E])
    return extra_PS.masked_fill(column_S == target_P[:, None], float("-inf")), own_P


def class_loss(logits_PC: Tensor, label_P: Tensor, weight_P: Tensor | None = None) -> Tensor:
    """Summed cross-entropy over the predictions with a known label; -1 is unknown."""
    if weight_P is None:
        return F.cross_entropy(logits_PC.float(), label_P, ignore_index=-1, reduction="sum")
    return (F.cross_entropy(logits_PC.float(), label_P, ignore_index=-1, reduction="none") * weight_P).sum()


def multi_label_loss(logits_PC: Tensor, positive_PC: Tensor, weight_P: Tensor | None = None) -> Tensor:
    """Summed cross-entropy of a softmax against the positives, each of a prediction with the same weight.

    A prediction without a positive does not count. Only positives are known, so it has to be a softmax: a sigmoid of
    each class would be best off saying 1 to all.
    """
    share_PC = positive_PC / positive_PC.sum(dim=1, keepdim=True).clamp(min=1.0)
    if weight_P is not None:
        share_PC = share_PC * weight_P[:, None]
    return -(share_PC * F.log_softmax(logits_PC.float(), dim=1)).sum()
