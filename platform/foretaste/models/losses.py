"""What the intent model is trained on: sums over predictions, so that parts of a batch add up to the whole.

Shapes: P predictions, N titles, D width, S negatives shared by all predictions, C classes of a head.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_FLOATS = 1 << 21
"""Logits held at once by the full softmax: they stay in the processor's cache, and memory does not grow with P."""


class _FullSoftmax(torch.autograd.Function):
    """Cross-entropy over all titles that takes its gradients while each chunk of logits is at hand."""

    @staticmethod
    def forward(ctx: Any, hidden_PD: Tensor, title_ND: Tensor, bias_N: Tensor, target_P: Tensor) -> Tensor:
        rows = max(1, CHUNK_FLOATS // len(title_ND))
        loss = hidden_PD.new_zeros(())
        grad_hidden_PD = torch.empty_like(hidden_PD)
        grad_title_ND, grad_bias_N = torch.zeros_like(title_ND), torch.zeros_like(bias_N)
        for start in range(0, len(hidden_PD), rows):
            chunk = slice(start, start + rows)
            logits = torch.addmm(bias_N, hidden_PD[chunk], title_ND.T)
            hit = target_P[chunk, None]
            logits -= logits.amax(dim=1, keepdim=True)
            own = logits.gather(1, hit)
            total = logits.exp_().sum(dim=1, keepdim=True)
            loss += (total.log() - own).sum()
            logits /= total
            logits.scatter_add_(1, hit, logits.new_full((), -1.0).expand(hit.shape))
            torch.mm(logits, title_ND, out=grad_hidden_PD[chunk])
            grad_title_ND.addmm_(logits.T, hidden_PD[chunk])
            grad_bias_N += logits.sum(dim=0)
        ctx.save_for_backward(grad_hidden_PD, grad_title_ND, grad_bias_N)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        return (*(saved * grad for saved in ctx.saved_tensors), None)


def full_softmax_loss(hidden_PD: Tensor, title_ND: Tensor, bias_N: Tensor, target_P: Tensor) -> Tensor:
    """Summed cross-entropy of `target_P` (0..N-1) among all titles."""
    loss: Tensor = _FullSoftmax.apply(hidden_PD, title_ND, bias_N, target_P)  # type: ignore[no-untyped-call]
    return loss


def sampled_softmax_loss(
    hidden_PD: Tensor, title_ND: Tensor, bias_N: Tensor, target_P: Tensor, negative_S: Tensor, log_q_N: Tensor
) -> Tensor:
    """Summed cross-entropy of `target_P` among itself and shared negatives drawn with probability exp(log_q_N).

    The negatives' logits are lowered by log(S q) (logQ), so that the sum of their exponentials estimates, without
    bias, that of all other titles; the target, which is always there, is not lowered, and a negative that is the
    target itself does not count. Bengio and Senecal 2008; Khrylchenko et al. 2025.
    """
    log_expected_N = log_q_N + math.log(len(negative_S))
    logits_PS = hidden_PD @ title_ND[negative_S].T + (bias_N - log_expected_N)[negative_S]
    logits_PS = logits_PS.masked_fill(negative_S == target_P[:, None], float("-inf"))
    own_P = (hidden_PD * title_ND[target_P]).sum(dim=1) + bias_N[target_P]
    total_P = torch.logaddexp(own_P, torch.logsumexp(logits_PS, dim=1))
    return (total_P - own_P).sum()


def class_loss(logits_PC: Tensor, label_P: Tensor) -> Tensor:
    """Summed cross-entropy over the predictions with a known label; -1 is unknown."""
    return F.cross_entropy(logits_PC, label_P, ignore_index=-1, reduction="sum")


def multi_label_loss(logits_PC: Tensor, positive_PC: Tensor) -> Tensor:
    """Summed cross-entropy of a softmax against the positives, each of a prediction with the same weight.

    A prediction without a positive does not count.
    """
    weight_PC = positive_PC / positive_PC.sum(dim=1, keepdim=True).clamp(min=1.0)
    return -(weight_PC * F.log_softmax(logits_PC, dim=1)).sum()
