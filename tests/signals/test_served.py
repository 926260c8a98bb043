"""What was served is logged to the bit, of a share that everyone agrees on; what differs is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from foretaste.signals.differences import differences
from foretaste.signals.served import decode, encode, sampled

KINDS = ["bool", "int32", "int64", "uint8", "float32", "float64"]
anything = st.sampled_from(KINDS).flatmap(
    lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4))
)


@given(st.dictionaries(st.text(min_size=1), anything, max_size=4))
def test_what_is_encoded_is_decoded_to_the_bit(values: dict[str, Any]) -> None:
    found = decode(encode(values))
    assert list(found) == list(values)
    assert differences(found, values) == []
    for name, array in values.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def test_bytes_are_little_endian_and_read_row_by_row() -> None:
    big = np.array([[1, 2], [3, 4]], dtype=">i4").T
    one = encode({"x": big})[0]
    assert (one["dtype"], one["shape"]) == ("int32", [2, 2])
    assert one["values"] == encode({"x": np.array([[1, 3], [2, 4]], dtype="<i4")})[0]["values"]


def test_text_is_refused_and_so_is_what_is_not_what_it_says() -> None:
    with pytest.raises(ValueError, match="title is of <U1"):
        encode({"title": np.array(["a"])})
    good = encode({"x": np.zeros(3, dtype=np.float32)})[0]
    for bad in ({"dtype": "float64"}, {"dtype": "object"}, {"shape": [4]}, {"values": "!"}, {"dtype": "nothing"}):
        with pytest.raises(ValueError, match="served: x cannot be read"):
            decode([good | bad])


def test_the_share_is_of_the_names_and_grows_with_them() -> None:
    names = [f"{number:032x}" for number in range(20_000)]
    few, many = ({name for name in names if sampled(name, share)} for share in (0.02, 0.3))
    assert few < many
    assert 0.01 < len(few) / len(names) < 0.03
    assert not any(sampled(name, 0.0) for name in names)
    assert all(sampled(name, 1.0) for name in names)


def test_equal_values_do_not_differ_and_nan_equals_nan() -> None:
    one = {"a": np.array([1.0, np.nan]), "b": np.array(3), "c": np.array([True])}
    other = {"a": np.array([1.0, -np.float64("nan")]), "b": np.array(3), "c": np.array([True])}
    assert differences(one, other) == []


@pytest.mark.parametrize(
    ("served", "offline", "count", "place", "told"),
    [
        (np.array([1.0, 2.0]), np.array([1.0, 2.0000000000000004]), 1, [1], (2.0, 2.0000000000000004)),
        (np.array([0.0]), np.array([-0.0]), 1, [0], (0.0, -0.0)),
        (np.array([[1, 2], [3, 4]]), np.array([[1, 0], [0, 4]]), 2, [0, 1], (2, 0)),
        (np.array(5), np.array(6), 1, [], (5, 6)),
        (np.array([1.0, np.nan], dtype="f4"), np.array([1.0, 2.0], dtype="f4"), 1, [1], None),
        (np.zeros(2, dtype="f4"), np.zeros(2), 2, None, ("float32[2]", "float64[2]")),
        (np.zeros(2), np.zeros(3), 3, None, ("float64[2]", "float64[3]")),
        (np.zeros(2), None, 2, None, ("float64[2]", "nothing")),
        (None, np.zeros(0), 1, None, ("nothing", "float64[0]")),
    ],
)
def test_a_difference_says_where_and_what(
    served: Any, offline: Any, count: int, place: list[int] | None, told: tuple[Any, Any] | None
) -> None:
    sides = [{} if array is None else {"x": array} for array in (served, offline)]
    (found,) = differences(*sides)
    assert (found.feature, found.count, found.place) == ("x", count, place)
    if told is not None:
        assert str((found.served, found.offline)) == str(told)
