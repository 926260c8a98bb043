"""`foretaste bench learn`: every objective beside the supervised ones, judged by what it truly earns."""

from __future__ import annotations

from foretaste.jobs.bench_learn import (
    BENT,
    EVEN,
    LEARNERS,
    PEAKED,
    QUICK,
    QUICK_CELLS,
    STRAIGHT,
    Cell,
    compared,
    held,
    one_world,
)


def test_one_world_has_all_policies_and_learning_from_an_even_log_beats_what_logged() -> None:
    found = one_world(Cell(STRAIGHT, EVEN, 1_500), QUICK, seed=7, quick=True)
    names = {"logging", "best", "best_of_form", "cross_entropy", "regression_best", "regression_softmax"}
    assert found.keys() == names | {f"{one.value}{more}" for one in LEARNERS for more in ("", "_penalised")}
    assert found["best"] >= found["best_of_form"] >= max(found[name] for name in found if name not in ("best",)) - 0.02
    for name in ("dr", "ips", "snips", "shifted", "regression_best"):
        assert found[name] > found["logging"] + 0.02, name


def test_intervals_are_of_worlds_and_bars_of_their_ends() -> None:
    learners = [f"{one.value}{more}" for one in LEARNERS for more in ("", "_penalised")]
    fixed = {"logging": 0.2, "best": 0.6, "best_of_form": 0.4, "cross_entropy": 0.25}
    one = fixed | {"regression_best": 0.3, "regression_softmax": 0.3} | dict.fromkeys(learners, 0.35)
    other = one | {"dr_penalised": 0.37}
    found = compared([one, other])
    share = found["policies"]["dr_penalised"]["share"]
    assert (share["mean"], found["worlds"]) == (0.8, 2) or abs(share["mean"] - 0.8) < 1e-12
    assert share["low"] < 0.75 < 0.85 < share["high"]
    assert found["gains"]["dr"]["cross_entropy"]["low"] > 0.4
    assert held(found)["dr_beats_logging"]["holds"] is (share["low"] > 0)
    assert {cell.logging for cell in QUICK_CELLS.values()} == {EVEN, PEAKED}
    assert {cell.world for cell in QUICK_CELLS.values()} == {BENT}
