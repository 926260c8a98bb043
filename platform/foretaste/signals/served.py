"""What an answer was computed from, by name: logged with a share of the decisions, computed again by the replay.

Groups of names: `history.*` (contracts.histories), `signal.*` (of the request), `member.*` and `title.*` (slow views,
titles in order of the pool), `intent.*` (what the model predicted), `candidate.*` and `request.*` (a column each),
`recent.*` (the interactions that candidates attend to), and `pool`.

Shapes: C candidates of the pool in the order in which they were described, F columns, G columns of a view.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.histories import ARRAYS, Histories
from foretaste.models.intent import IntentPrediction
from foretaste.models.ranker_inputs import RECENT, RankerInputs
from foretaste.signals.candidates import CANDIDATE_COLUMNS
from foretaste.signals.requests import REQUEST_COLUMNS
from foretaste.signals.views import MemberView, TitleView

Values = dict[str, NDArray[Any]]
"""Named arrays of one answer."""
POOL = "pool"

_SHAPE = re.compile(r"_[A-Z][A-Z0-9]*$")
_KINDS = "biuf"


def sampled(decision_id: str, share: float) -> bool:
    """Say whether a decision is among the share whose values are logged; the same for everyone who asks."""
    return zlib.crc32(decision_id.encode()) < share * 2**32


def encode(values: Mapping[str, NDArray[Any]]) -> list[dict[str, Any]]:
    """Make a `served` cell of DECISIONS: bytes little-endian, row by row, as base64.

    Raises ValueError for an array that is neither of numbers nor of truth values.
    """
    return [_encoded(name, np.asarray(array)) for name, array in values.items()]


def decode(served: Iterable[Mapping[str, Any]] | None) -> Values:
    """Read a `served` cell, nothing where it is null. Raises ValueError naming the array that is not what it says."""
    return {one["name"]: _decoded(**one) for one in served or ()}


def of_answer(
    history: Histories,
    signals: Mapping[str, NDArray[Any]],
    members: MemberView,
    titles: TitleView,
    codes_C: NDArray[np.int32],
    prediction: IntentPrediction | None,
    inputs: RankerInputs | None,
) -> Values:
    """Name what one answer was computed from; `codes_C` is the pool, a stage that was left out has no names."""
    values: Values = {f"history.{bare(name)}": getattr(history, name) for name in ARRAYS}
    values |= {f"signal.{name}": np.asarray(value) for name, value in signals.items()}
    values |= {f"member.{bare(f.name)}": getattr(members, f.name)[0] for f in fields(members)}
    values |= {f"title.{bare(f.name)}": getattr(titles, f.name)[codes_C] for f in fields(titles)}
    if prediction is not None:
        values |= {f"intent.{head}": share_BK[0] for head, share_BK in prediction.intents.items()}
        values["intent.attention"] = prediction.attention_BI[0]
        values["intent.scores"] = prediction.scores_BN[0, codes_C - 1]
    if prediction is not None and inputs is not None:
        features_CF, request_R = inputs.features_BCF[0], inputs.request_BR[0]
        values |= {f"candidate.{name}": features_CF[:, place] for place, name in enumerate(CANDIDATE_COLUMNS)}
        values |= {f"request.{name}": request_R[place : place + 1] for place, name in enumerate(REQUEST_COLUMNS)}
        values |= {f"recent.{bare(name)}": getattr(inputs, name)[0] for name in RECENT}
        values["intent.embedding"] = prediction.z_BD[0]
    return values | {POOL: codes_C}


def bare(name: str) -> str:
    """The name of an array without its shape."""
    return _SHAPE.sub("", name)


def _encoded(name: str, array: NDArray[Any]) -> dict[str, Any]:
    kind, little = _stored(array.dtype)
    if kind is None:
        raise ValueError(f"served: {name} is of {array.dtype}, wanted numbers")
    body = (array if array.dtype == little else array.astype(little)).tobytes()  # row by row, whatever its strides
    return {"name": name, "dtype": kind, "shape": list(array.shape), "values": base64.b64encode(body).decode()}


@lru_cache
def _stored(dtype: np.dtype[Any]) -> tuple[str | None, np.dtype[Any]]:
    """Name of a type, None where it is none of numbers, and the same with its bytes in order."""
    return (dtype.name if dtype.kind in _KINDS else None), dtype.newbyteorder("<")


def _decoded(name: str, dtype: str, shape: list[int], values: str) -> NDArray[Any]:
    try:
        kind = np.dtype(dtype)
        if kind.kind not in _KINDS:
            raise ValueError("it is not of numbers")
        flat = np.frombuffer(base64.b64decode(values, validate=True), dtype=kind.newbyteorder("<"))
        return flat.astype(kind).reshape(shape)
    except (ValueError, TypeError, binascii.Error) as error:
        raise ValueError(f"served: {name} cannot be read as {dtype}{shape}: {error}") from error
