"""Final feedback that is not seen yet, predicted: rows that carry the version of the model that predicted them.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from foretaste.contracts.columns import predicted_outcomes
from foretaste.models.delayed import DelayedModel
from foretaste.models.delayed_rows import Pending
from foretaste.models.delayed_zoo import build_delayed
from foretaste.ops.bundles import fetch_bundle
from foretaste.ops.files import read_json

ROWS_AT_ONCE = 16_384


class Predictor(NamedTuple):
    """A filed model, and what it predicts."""

    what: str
    model: DelayedModel
    version: str


def fetch_predictor(registry: Path, what: str, version: str | None = None) -> Predictor:
    """Fetch the model of a feedback, by default the current one; raises as `fetch_bundle`."""
    bundle = fetch_bundle(registry, f"delayed-{what}", version)
    weights = load_file(bundle.path / "weights.safetensors")
    return Predictor(what, build_delayed(read_json(bundle.path / "config.json"), weights), bundle.version)


def chances(model: DelayedModel, pending: Pending, *, asked: bool = False) -> NDArray[np.float64]:
    """p(final | so far, time since), or with `asked` p(final | context), some rows at a time: float64[N]."""
    answer = model.final if asked else model.given
    parts = [np.zeros(0)]
    with torch.inference_mode():
        for first in range(0, len(pending), ROWS_AT_ONCE):
            batch = pending.rows(slice(first, first + ROWS_AT_ONCE)).tensors(torch.device("cpu"))
            parts.append(answer(batch).double().numpy())
    return np.concatenate(parts)


def predictions(
    predictor: Predictor, pending: Pending, *, decision_ids: Sequence[str], title_ids: Sequence[str], as_of: datetime
) -> pa.Table:
    """What is expected of decisions as of an instant, as columns.predicted_outcomes has it.

    What is seen is 1, what can no longer come 0. Raises ValueError where the rows are not as many as the keys.
    """
    size = len(pending)
    if not len(decision_ids) == len(title_ids) == size:
        raise ValueError(f"predictions: {len(decision_ids)} decisions and {len(title_ids)} titles for {size} rows")
    told_N = chances(predictor.model, pending)
    columns = [decision_ids, title_ids, [as_of] * size, [predictor.version] * size, told_N]
    schema = predicted_outcomes([predictor.what])
    return pa.table([pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)], schema=schema)
