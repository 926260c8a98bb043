"""The rules of a comparison: what they refuse, and what they say of themselves."""

from __future__ import annotations

from typing import Any

import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.events import PLAY_LIKE
from foretaste.evaluation.cases import cases
from foretaste.evaluation.protocols import BESIDE, Protocol
from foretaste.models.baselines import BASELINES
from foretaste.testing.builders import random_interactions, titles_table

TITLES = titles_table(15)
LOG = random_interactions(TITLES, actors=20, seed=3)


class Model:
    """Has a name, and says whether it reads the time, or does not say."""

    def __init__(self, name: str, time_aware: bool | None = None) -> None:
        self.name = name
        if time_aware is not None:
            self.time_aware = time_aware


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"split": "last", "targets": "all"}, "one target a member"),
        ({"ties": "shuffled"}, "shuffled ties need one"),
        ({"ties_seed": 3}, "ties are stable, with seed 3"),
        ({"track": "both"}, "track"),
        ({"sampled": 100}, "sampled"),
    ],
)
def test_rules_that_cannot_be_are_refused(rules: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Protocol(**rules)


def test_the_headline_is_all_targets_of_the_time_split_and_leave_one_out_has_one() -> None:
    assert Protocol.of().targets == "all"
    assert Protocol.of("last").targets == "first"
    assert Protocol.of("time", "first", ties_seed=2).ties == "shuffled"
    with pytest.raises(ValueError, match="one target a member"):
        Protocol.of("last", "all")


def test_every_rule_is_said_in_the_line_and_changes_the_fingerprint() -> None:
    plain = Protocol()
    others = [
        Protocol.of("last"), Protocol.of("time", "first"), Protocol.of(ties_seed=1), Protocol.of(track="blind"),
        Protocol.of(refit=True), Protocol.of(exclude_seen=False), Protocol(score_ties="last"),
    ]  # fmt: skip
    assert len({one.text for one in (plain, *others)}) == len(others) + 1
    assert len({one.fingerprint() for one in (plain, *others)}) == len(others) + 1


def test_the_blind_track_admits_who_says_that_it_reads_no_time_and_the_yardstick() -> None:
    blind = Protocol(track="blind")
    blind.check_model(Model("a", time_aware=False))
    blind.check_model(Model(BESIDE, time_aware=True))
    for model in (Model("b", time_aware=True), Model("c")):
        with pytest.raises(ValueError, match="cannot stand in the time-blind track"):
            blind.check_model(model)
        Protocol().check_model(model)
    assert BESIDE in BASELINES


def test_cases_and_models_of_other_rules_are_refused() -> None:
    asked = cases(LOG, catalogue(TITLES), split="time", target_actions=PLAY_LIKE, targets="first")
    Protocol.of("time", "first").check_cases(asked)
    with pytest.raises(ValueError, match="wants split time, targets all"):
        Protocol().check_cases(asked)
    Protocol().check_training("ours", split="time", refit=False)
    with pytest.raises(ValueError, match="ours was trained with split 'last'"):
        Protocol().check_training("ours", split="last", refit=False)
    with pytest.raises(ValueError, match="ours was trained with validation rows; the protocol says strict"):
        Protocol().check_training("ours", split="time", refit=True)
