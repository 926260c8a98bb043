"""One vector a title: its own, its genres' and its kind's. The same for input and output.

Shapes: N titles, N1 = N + 1 rows with row 0 for an unknown title, X titles asked for, D width, G genres.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foretaste.contracts.catalogue import Catalogue


class TitleVectors(nn.Module):
    """Vectors of the catalogue's titles; without `described`, a title is its own vector and nothing else.

    With `sparse`, the gradient of the own vectors and biases is that of the rows asked for alone.
    """

    genres_N1G: Tensor
    kind_N1: Tensor

    def __init__(self, width: int, catalogue: Catalogue, *, described: bool = True, sparse: bool = False) -> None:
        super().__init__()
        self.described = described
        self.own = nn.Embedding(len(catalogue) + 1, width, sparse=sparse)
        self.bias = nn.Embedding(len(catalogue) + 1, 1, sparse=sparse)
        nn.init.normal_(self.own.weight, std=1.0 / math.sqrt(width) / 2)
        nn.init.zeros_(self.bias.weight)
        if not described:
            return
        self.of_genres = nn.Linear(max(1, len(catalogue.genres)), width, bias=False)
        self.of_kind = nn.Embedding(len(catalogue.kinds) + 1, width)
        genres_N1G = F.pad(torch.from_numpy(catalogue.genres_N1G), (0, 0 if catalogue.genres else 1))
        share_N1G = genres_N1G / genres_N1G.sum(1, keepdim=True).clamp(min=1.0)
        self.register_buffer("genres_N1G", share_N1G, persistent=False)
        self.register_buffer("kind_N1", torch.from_numpy(catalogue.kind_N1).long() + 1, persistent=False)
        for table in (self.of_kind, self.of_genres):
            nn.init.normal_(table.weight, std=1.0 / math.sqrt(width) / 2)

    def forward(self, code_X: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Vectors [X, D] and biases [X] of titles by code, by default of all codes [N1]."""
        if code_X is None:
            return self._described(self.own.weight, None), self.bias.weight[:, 0]
        return self._described(self.own(code_X), code_X), self.bias(code_X)[:, 0]

    @property
    def num_columns(self) -> int:
        """Genres, kinds, and one for an unknown kind."""
        return self.genres_N1G.shape[1] + self.of_kind.num_embeddings if self.described else 0

    def columns(self, code_X: Tensor) -> Tensor:
        """Shares of genres and the kind of titles by code, [X, K]; zeros for code 0."""
        kind_XK = F.one_hot(self.kind_N1[code_X], self.of_kind.num_embeddings) * (code_X > 0)[:, None]
        return torch.cat([self.genres_N1G[code_X], kind_XK.to(self.genres_N1G.dtype)], dim=1)

    def _described(self, own_XD: Tensor, code_X: Tensor | None) -> Tensor:
        if not self.described:
            return own_XD
        genres_XG = self.genres_N1G if code_X is None else self.genres_N1G[code_X]
        kind_X = self.kind_N1 if code_X is None else self.kind_N1[code_X]
        vectors_XD: Tensor = own_XD + self.of_genres(genres_XG) + self.of_kind(kind_X)
        return vectors_XD
