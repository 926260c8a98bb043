"""Compare what was served with what is computed again: value by value, type by type, to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the values of one feature of one answer differ."""

    feature: str
    count: int  # values that differ; all where type or shape do
    place: list[int] | None  # of the first of them; null where type or shape differ
    served: Any
    offline: Any


def differences(served: Mapping[str, NDArray[Any]], offline: Mapping[str, NDArray[Any]]) -> list[Difference]:
    """List the features whose type, shape or values differ, or that only one side has; NaN equals NaN."""
    found = []
    for name in sorted(served.keys() | offline.keys()):
        one, other = served.get(name), offline.get(name)
        if one is None or other is None:
            there = np.asarray(one if one is not None else other)
            found.append(Difference(name, max(1, there.size), None, _kind(one), _kind(other)))
        elif one.dtype != other.dtype or one.shape != other.shape:
            found.append(Difference(name, max(1, one.size, other.size), None, _kind(one), _kind(other)))
        elif one.tobytes() != other.tobytes() and (differing := _differing(one, other)).any():
            place = [int(index) for index in np.argwhere(differing)[0]]
            values = (array[tuple(place)].item() for array in (one, other))
            found.append(Difference(name, int(differing.sum()), place, *values))
    return found


def _differing(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    if one.dtype.kind != "f":
        return np.asarray(one != other)
    bits = np.dtype(f"u{one.dtype.itemsize}")
    alike = np.ascontiguousarray(one).view(bits) == np.ascontiguousarray(other).view(bits)
    differ: NDArray[np.bool_] = ~(alike.reshape(one.shape) | (np.isnan(one) & np.isnan(other)))
    return differ


def _kind(array: NDArray[Any] | None) -> str:
    return "nothing" if array is None else f"{array.dtype}{list(array.shape)}"
