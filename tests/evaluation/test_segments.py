"""Planted segments are found, noise is not called a finding, and sums by part equal sums of all."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.segments import Segments, nearest
from foretaste.evaluation.behaviours import Behaviours, Moments, behaviours, lifts, moments, over_represented
from foretaste.evaluation.intervals import resampled_means
from foretaste.evaluation.segment_config import SegmentConfig
from foretaste.evaluation.segments import agreement, explained, fit_centres, plane, stability
from foretaste.sessions.label import intent_labels
from foretaste.signals.histories import pack
from foretaste.testing.builders import interactions_table, random_interactions, titles_table

CONFIG = SegmentConfig(num=4, restarts=4, repeats=2)


def planted(num: int = 400, *, apart: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    own_B = rng.choice(4, size=num, p=[0.4, 0.3, 0.2, 0.1])
    centre_KD = apart * np.eye(4, 6)
    return (centre_KD[own_B] + rng.normal(size=(num, 6))).astype(np.float32), own_B


def test_planted_segments_are_found_and_numbered_by_size() -> None:
    z_BD, own_B = planted()
    centre_KD = fit_centres(z_BD, CONFIG)
    found_B, distance_B = nearest(z_BD, centre_KD)
    assert agreement(found_B, {"planted": own_B.astype(str).tolist()})["planted"] > 0.95
    assert (np.diff(np.bincount(found_B)) <= 0).all()
    assert distance_B == pytest.approx(np.linalg.norm(z_BD - centre_KD[found_B], axis=1))
    assert (fit_centres(z_BD, CONFIG) == centre_KD).all()


def test_stability_tells_structure_from_none() -> None:
    z_BD, _ = planted()
    found = stability(z_BD, fit_centres(z_BD, CONFIG), CONFIG)
    assert found["seeds"]["least"] > 0.95
    assert found["halves"]["least"] > 0.9
    share = explained(z_BD, fit_centres(z_BD, CONFIG), CONFIG)
    assert share["segments"] > share["shuffled"] + 0.2
    noise_BD = np.random.default_rng(0).normal(size=(300, 6))
    assert stability(noise_BD, fit_centres(noise_BD, CONFIG), CONFIG)["halves"]["mean"] < 0.7
    share = explained(noise_BD, fit_centres(noise_BD, CONFIG), CONFIG)
    assert share["segments"] == pytest.approx(share["shuffled"], abs=0.05)
    by_dice_B = np.random.default_rng(1).integers(4, size=400).astype(np.int32)
    assert abs(agreement(by_dice_B, {"dice": planted()[1].astype(str).tolist()})["dice"]) < 0.05


def test_too_few_different_members_are_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match="only 2 of 5"):
        fit_centres(np.array([[0.0], [0.0], [1.0], [1.0], [1.0]]), SegmentConfig(num=3))
    with pytest.raises(ValueError, match="width 3"):
        nearest(np.zeros((1, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="2 labels, 1 centres"):
        Segments(model="m", as_of="2026-01-01T00:00:00Z", labels=("a", "b"), centres=((1.0,),))


def test_the_plane_holds_the_directions_of_most_variance() -> None:
    rng = np.random.default_rng(0)
    z_BD = rng.normal(size=(500, 3)) * np.array([1.0, 9.0, 3.0])
    mean_D, direction_D2, share_2 = plane(z_BD)
    assert mean_D == pytest.approx(z_BD.mean(axis=0))
    assert np.abs(direction_D2).argmax(axis=0).tolist() == [1, 2]
    variance_D = z_BD.var(axis=0)
    assert share_2 == pytest.approx(np.array([variance_D[1], variance_D[2]]) / variance_D.sum(), rel=0.05)


def drawn(lift: float, *, num: int = 600, seed: int = 0) -> tuple[Behaviours, np.ndarray]:
    """Members in 4 segments with 20 behaviours each of its own frequency; segment 1 has the first more often."""
    rng = np.random.default_rng(seed)
    segment_M = rng.integers(4, size=num).astype(np.int32)
    share_MX = np.broadcast_to(np.linspace(0.1, 0.5, 20), (num, 20)).copy()
    share_MX[segment_M == 1, 0] *= lift
    own_MX = rng.beta(2 * share_MX, 2 * (1 - share_MX))  # members differ: what they do is not independent
    of_MX = np.repeat(rng.integers(1, 30, size=(num, 1)), 20, axis=1).astype(float)
    count_MX = rng.binomial(of_MX.astype(int), own_MX).astype(float)
    names = tuple(("thing", str(x)) for x in range(20))
    return Behaviours(names, count_MX, of_MX), segment_M


def test_what_is_planted_is_found_and_chance_is_not() -> None:
    found, segment_M = drawn(3.0)
    kept = over_represented(lifts(moments(found, segment_M, 4), found.names, least_members=10), level=0.05)
    assert [one.name for one in kept[1]] == ["0"]
    assert kept[1][0].low > 1.5
    false = 0
    for seed in range(40):
        found, segment_M = drawn(1.0, seed=seed)
        kept = over_represented(lifts(moments(found, segment_M, 4), found.names, least_members=10), level=0.05)
        false += any(kept)
    assert false <= 8  # of 40 runs of 80 comparisons each; without a correction it would be all of them


def test_lifts_have_the_interval_that_drawing_members_again_gives() -> None:
    found, segment_M = drawn(2.0)
    one = lifts(moments(found, segment_M, 4), found.names, least_members=2)[1][0]
    inside_M = segment_M == 1
    assert one.share == found.count_MX[inside_M, 0].sum() / found.of_MX[inside_M, 0].sum()
    assert one.share_all == found.count_MX[:, 0].sum() / found.of_MX[:, 0].sum()
    assert one.lift == pytest.approx(one.share / one.share_all)
    assert (one.count, one.members) == (found.count_MX[inside_M, 0].sum(), (found.count_MX[inside_M, 0] > 0).sum())
    sums_M4 = np.column_stack(
        [values[:, 0] * inside for inside in (inside_M, 1.0) for values in (found.count_MX, found.of_MX)]
    )
    again_R4 = resampled_means(sums_M4, np.arange(len(segment_M)), resamples=2_000, seed=0)
    low, high = np.quantile(again_R4[:, 0] / again_R4[:, 1] / (again_R4[:, 2] / again_R4[:, 3]), [0.025, 0.975])
    assert [one.low, one.high] == pytest.approx([low, high], rel=0.04)


def test_sums_of_parts_are_the_sums_of_all_and_survive_being_written() -> None:
    found, segment_M = drawn(2.0)
    parts = [
        moments(Behaviours(found.names, found.count_MX[rows], found.of_MX[rows]), segment_M[rows], 4)
        for rows in (slice(0, 200), slice(200, None))
    ]
    together = Moments.of_plain(parts[0].plain()) + parts[1]
    for name in ("count", "of", "count_count", "count_of", "of_of", "having", "members"):
        assert getattr(together, name) == pytest.approx(getattr(moments(found, segment_M, 4), name))


def test_behaviours_of_a_few_interactions_are_those_one_counts_by_hand() -> None:
    titles = titles_table([{"title_id": "a", "genres": ["x"]}, {"title_id": "b", "genres": ["x", "y"]}])
    known = catalogue(titles)
    table = interactions_table(
        [
            ("m1", "2026-01-02T23:30:00", "a"),  # a Friday
            ("m1", "2026-01-02T23:45:00", "b"),
            ("m1", "2026-01-03T07:00:00", "a"),
            ("m2", "2026-01-05T12:00:00", "b"),
        ]
    )
    histories, _ = pack(table, known)
    labels = {"genre": intent_labels(histories, known)["genre"]}
    device_T = np.array([0, 0, -1, 1], dtype=np.int32)
    everything = np.ones(4, dtype=np.bool_)
    found = behaviours(histories, labels, {"genre": known.genres}, everything, device_T, ["tv", "phone"])

    def of(what: str, name: str) -> list[tuple[float, float]]:
        x = found.names.index((what, name))
        return list(zip(found.count_MX[:, x].tolist(), found.of_MX[:, x].tolist(), strict=True))

    assert of("genre", "y") == [(1, 3), (1, 1)]
    assert of("time of day", "evening (18-24 UTC)") == [(2, 3), (0, 1)]
    assert of("day", "weekend") == [(1, 3), (0, 1)]
    assert of("device", "tv") == [(2, 2), (0, 1)]
    assert of("session", "2 to 3 titles") == [(1, 2), (0, 1)]
    assert of("familiarity", "titles again") == [(1, 3), (0, 1)]
    late = behaviours(histories, labels, {"genre": known.genres}, ~everything, device_T, ["tv"])
    assert late.of_MX.sum() == 0


def test_segments_by_dice_have_no_findings_in_what_members_did() -> None:
    titles = titles_table(30)
    known = catalogue(titles)
    histories, actors = pack(random_interactions(titles, actors=300, per_actor=15), known)
    labels = {name: value for name, value in intent_labels(histories, known).items() if name != "search"}
    classes = {"action": range(13), "genre": known.genres, "kind": known.kinds, "recency": range(4)}
    every = np.ones(len(histories.at_T), dtype=np.bool_)
    found = behaviours(histories, labels, {n: list(map(str, c)) for n, c in classes.items()}, every, every * 0, ["tv"])
    by_dice_M = np.random.default_rng(1).integers(5, size=len(actors)).astype(np.int32)
    kept = over_represented(lifts(moments(found, by_dice_M, 5), found.names, least_members=10), level=0.05)
    assert sum(map(len, kept)) <= 1
