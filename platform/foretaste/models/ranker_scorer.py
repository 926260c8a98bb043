"""The trained ranker as requests use it, and its bundle.

Shapes: B requests, C candidates each, D width of title vectors, N1 catalogue codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.models.ranker import Ranker, RankerConfig
from foretaste.models.ranker_heads import Head, combined
from foretaste.models.ranker_inputs import RankerInputs
from foretaste.models.steady import STEADY_CANDIDATES


class RankerScorer:
    """The trained ranker in evaluation mode."""

    def __init__(self, model: Ranker) -> None:
        self.model = model.eval()
        on = tuple(head for place, head in enumerate(Head) if model.on_H[place] > 0)
        self.heads: tuple[Head, ...] = on or (Head.PLAY,)
        """Heads that were taught; `play` alone where none is known to be."""
        self._order = {head: weight for head, weight in model.config.order.items() if weight > 0}

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the candidates' features, in order."""
        return self.model.columns

    @property
    def recent(self) -> int:
        """How many of the newest interactions it reads."""
        return self.model.config.recent

    @property
    def num_candidates(self) -> int:
        """How many candidates a case had in training."""
        return self.model.config.num_candidates

    def check_columns(self, columns: Sequence[str], request_columns: Sequence[str]) -> None:
        """Raise ValueError, naming the columns that differ, unless these are those it was trained with."""
        for mine, given in ((self.columns, columns), (self.model.request_columns, request_columns)):
            if tuple(given) == mine:
                continue
            missing = [name for name in mine if name not in given]
            unknown = [name for name in given if name not in mine]
            what = f"missing {missing}, not known to it {unknown}" if missing or unknown else f"order is {list(given)}"
            raise ValueError(f"ranker was trained with columns {list(mine)}: {what}")

    def scores(self, inputs: RankerInputs) -> NDArray[np.float64]:
        """Value of each candidate by the configured order, above 0: with the default the probability of a choice.

        float64[B, C]. Raises ValueError where the number of features is not that of the columns or one is not finite.
        """
        needed = [head for head in self.heads if head is Head.PLAY or head in self._order]
        total: NDArray[np.float64] = combined(self._chances(inputs, needed), self._order).numpy()
        return total

    def chances(self, inputs: RankerInputs) -> dict[Head, NDArray[np.float64]]:
        """Calibrated probability (`fraction`: expected share) of every head that is on; float64[B, C] each."""
        return {head: chance_BC.numpy() for head, chance_BC in self._chances(inputs, self.heads).items()}

    @torch.inference_mode()
    def hidden(self, inputs: RankerInputs) -> NDArray[np.float64]:
        """The deep network's last activations of each candidate, float64[B, C, E]: what policies learn on top of it.

        To the same bits whatever it is batched with. Raises ValueError as `scores`.
        """
        self._check(inputs)
        num = inputs.code_BC.shape[1]
        even = inputs.filled(length=self.recent, multiple=STEADY_CANDIDATES)
        _, deep_BCE = self.model.last(even.tensors(self.model.slope_H.device))
        found: NDArray[np.float64] = deep_BCE.double().cpu().numpy()[:, :num]
        return found

    @torch.inference_mode()
    def _chances(self, inputs: RankerInputs, heads: Sequence[Head]) -> dict[Head, Tensor]:
        """Each request to the same bits whatever it is batched with: all have as many places."""
        self._check(inputs)
        num = inputs.code_BC.shape[1]
        even = inputs.filled(length=self.recent, multiple=STEADY_CANDIDATES)
        logits_BCH = self.model.calibrated(self.model(even.tensors(self.model.slope_H.device))).double().cpu()
        logits_BCH = logits_BCH.clamp(-30.0, 30.0)
        return {head: torch.sigmoid(logits_BCH[..., list(Head).index(head)].contiguous())[:, :num] for head in heads}

    def _check(self, inputs: RankerInputs) -> None:
        for what, array, columns in (
            ("candidates", inputs.features_BCF, self.columns),
            ("requests", inputs.request_BR, self.model.request_columns),
        ):
            if array.shape[-1] != len(columns):
                raise ValueError(f"ranker wants {len(columns)} columns of {what}, {columns}, got {array.shape}")
            if not np.isfinite(array).all():
                places = np.unique(np.nonzero(~np.isfinite(array))[-1])
                raise ValueError(f"ranker features are not finite in columns {[columns[place] for place in places]}")
        if inputs.context_BX.shape[1] != self.model.context_width or not np.isfinite(inputs.context_BX).all():
            raise ValueError(
                f"ranker wants {self.model.context_width} finite numbers of the intents, got {inputs.context_BX.shape}"
            )


def ranker_bundle_config(model: Ranker) -> dict[str, Any]:
    """What `build_ranker` needs beside the weights and the title vectors."""
    return {
        "model": model.config.model_dump(mode="json"),
        "columns": list(model.columns),
        "request_columns": list(model.request_columns),
        "num_about": model.num_about,
        "context_width": model.context_width,
    }


def build_ranker(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], title_N1D: NDArray[np.float32]
) -> RankerScorer:
    """Make a scorer of a bundle's configuration and weights and its intent model's title vectors.

    Raises ValueError for a bundle of an earlier kind, RuntimeError (of torch) where the weights do not fit.
    """
    if "request_columns" not in config:
        raise ValueError("ranker was trained before it read the session and the history: train it again")
    model = Ranker(
        RankerConfig(**config["model"]), config["columns"], config["request_columns"],
        config["num_about"], config["context_width"], title_N1D,
    )  # fmt: skip
    model.load_state_dict(dict(weights))
    return RankerScorer(model)
