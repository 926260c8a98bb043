"""Gradients as sums over predictions, added up over workers while the rest of them are still being computed.

Dense gradients live in one flat buffer, in buckets; a bucket is shared as soon as the last backward pass of a step
has filled it, as torch's DistributedDataParallel does. That class is not used because it means (here the number of
predictions differs between workers), wants as many passes from every worker, and refuses a table of rows that one
worker did not touch. Gradients of rows (`nn.Embedding(sparse=True)`) travel as rows.

Shapes: R rows touched, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

BUCKET_FLOATS = 1 << 20
"""Floats in a bucket (4 MiB)."""
ALIGNED_TO = 16
"""Every gradient begins at a multiple of so many floats (a cache line), which vectorised kernels want."""


class Sharing(Protocol):
    """What the gradients ask of the place where the loop runs."""

    world_size: int
    device: torch.device

    def start_adding(self, flat: Tensor) -> Callable[[], None]:
        """Begin to replace a tensor by its sum over all workers; the answer waits for it."""
        ...

    def gather(self, rows: Tensor) -> list[Tensor]:
        """Every worker's tensor, in order of rank; they may differ in length."""
        ...


class Gradients:
    """The gradients of a network during one step: cleared, added to, shared, scaled."""

    def __init__(self, network: nn.Module, sharing: Sharing) -> None:
        self.sharing = sharing
        tables = sparse_tables(network)
        trained = [p for p in network.parameters() if p.requires_grad]
        self.rows = [p for p in trained if any(p is table for table in tables)]
        self.dense = [p for p in reversed(trained) if not any(p is table for table in tables)]  # as backward goes
        starts, size = [], 0
        for parameter in self.dense:
            starts.append(size)
            size += -(-parameter.numel() // ALIGNED_TO) * ALIGNED_TO
        self._flat = torch.zeros(size + 2, device=sharing.device)  # ends with the summed loss and the number
        self._views = [self._flat[s : s + p.numel()].view_as(p) for s, p in zip(starts, self.dense, strict=True)]
        self._edges = [0]  # where buckets begin and end
        bucket_of = []
        for start in starts:
            if start - self._edges[-1] >= BUCKET_FLOATS:
                self._edges.append(start)
            bucket_of.append(len(self._edges) - 1)
        self._edges.append(size + 2)
        self._sizes = [bucket_of.count(n) for n in range(len(self._edges) - 1)]
        self._missing = list(self._sizes)
        self._last, self._started = False, 0
        self._waits: list[Callable[[], None]] = []
        if sharing.world_size > 1:
            for bucket, parameter in zip(bucket_of, self.dense, strict=True):
                parameter.register_post_accumulate_grad_hook(self._arrived(bucket))  # type: ignore[no-untyped-call]

    def clear(self) -> None:
        """Begin a step."""
        self._flat.zero_()
        for parameter, view in zip(self.dense, self._views, strict=True):
            parameter.grad = view
        for parameter in self.rows:
            parameter.grad = None
        self._missing = list(self._sizes)
        self._last, self._started = False, 0

    def add(self, loss: Tensor, count: int, *, last: bool) -> None:
        """Add the gradients of a micro-batch's summed loss; `last` says that no other of this step follows."""
        self._flat[-2] += loss.detach()
        self._flat[-1] += count
        self._last = last
        loss.backward()  # type: ignore[no-untyped-call]

    def share(self, max_norm: float) -> Tensor:
        """Make every gradient the mean over all predictions of all workers, scaled down to a norm of `max_norm`.

        Returns the summed loss and the number of predictions, on the device.
        """
        if self.sharing.world_size > 1:
            self._start(len(self._edges) - 1)
            for wait in self._waits:
                wait()
            self._waits = []
        shared = [self._share_rows(parameter) for parameter in self.rows]
        norms = [torch.linalg.vector_norm(self._flat[:-2])]
        norms += [torch.linalg.vector_norm(rows.values()) for rows in shared]
        count = self._flat[-1].clamp(min=1.0)
        norm = torch.linalg.vector_norm(torch.stack(norms)) / count
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0) / count
        self._flat[:-2].mul_(factor)
        for parameter, rows in zip(self.rows, shared, strict=True):
            rows.values().mul_(factor)
            parameter.grad = rows
        return self._flat[-2:]

    def _arrived(self, bucket: int) -> Callable[[Tensor], None]:
        def arrived(_: Tensor) -> None:
            if not self._last:
                return
            self._missing[bucket] -= 1
            ready = self._started
            while ready < len(self._missing) - 1 and self._missing[ready] == 0:
                ready += 1
            self._start(ready)

        return arrived

    def _start(self, until: int) -> None:
        """Share buckets in their order, the same on every worker; the last one, with loss and number, by `share`."""
        while self._started < until:
            begin, end = self._edges[self._started : self._started + 2]
            self._waits.append(self.sharing.start_adding(self._flat[begin:end]))
            self._started += 1

    def _share_rows(self, parameter: nn.Parameter) -> Tensor:
        grad = parameter.grad
        if grad is None:
            size = (0, parameter.shape[1])
            grad = torch.sparse_coo_tensor(
                torch.zeros((1, 0), dtype=torch.int64, device=parameter.device),
                torch.zeros(size, device=parameter.device),
                parameter.shape,
                is_coalesced=True,
                check_invariants=False,
            )
        elif grad.layout != torch.sparse_coo:
            raise ValueError("a table declared sparse was also used whole: its gradient is dense")
        grad = grad.coalesce()
        if self.sharing.world_size == 1:
            return grad
        index_R = torch.cat(self.sharing.gather(grad.indices()[0]))
        value_RD = torch.cat(self.sharing.gather(grad.values()))
        return torch.sparse_coo_tensor(index_R[None], value_RD, parameter.shape, check_invariants=False).coalesce()


def sparse_tables(network: nn.Module) -> list[nn.Parameter]:
    """Weights of the embeddings whose gradients are rows."""
    kinds = (nn.Embedding, nn.EmbeddingBag)
    return [one.weight for one in network.modules() if isinstance(one, kinds) and one.sparse]  # type: ignore[misc]
