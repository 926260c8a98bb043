"""Reward programs: declared, checked, computed; what is missing is said and never counts as 0."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from foretaste.contracts.columns import OUTCOMES, REWARDS, predicted_outcomes
from foretaste.rewards.fields import OBSERVED
from foretaste.rewards.library import parse_programs, read_programs
from foretaste.rewards.programs import Program, rewards

ROOT = Path(__file__).parents[2]
START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WINDOW = ["click", "add_to_list", "play", "discovery", "complete", "abandon", "thumb_up", "thumb_down", "watching"]


def outcome(title_id: str = "t", **values: Any) -> dict[str, Any]:
    row = {
        "decision_id": "d", "actor_id": "m", "member_id": "m", "session_id": "s", "at": START, "title_id": title_id,
        "position": 0, "propensity": 0.5, "as_of": START + 10 * DAY, "closes_at": START + DAY, "num_plays": 0,
        "num_completions": 0, "session_ended_at": START, "reported": [], "open": [], "surface": "home",
    }  # fmt: skip
    return row | values


def given(program: Program, *rows: dict[str, Any], predicted: list[dict[str, Any]] | None = None) -> list[Any]:
    told = None
    if predicted is not None:
        whole = [{"as_of": START, "model_version": "1"} | row for row in predicted]
        told = pa.Table.from_pylist(whole, schema=predicted_outcomes(sorted(OBSERVED)))
    found = rewards(program, pa.Table.from_pylist(list(rows), schema=OUTCOMES), told)
    assert found.schema == REWARDS
    return list(zip(found["reward"].to_pylist(), found["reward_state"].to_pylist(), strict=True))


def program(reward: str, **values: Any) -> Program:
    return Program(name="p", version=1, reward=reward, **values)


def test_every_program_of_the_library_can_be_read_and_gives_a_number_of_a_row_that_is_closed() -> None:
    library = read_programs(ROOT / "deployments" / "rewards.yaml")
    assert {"clicks", "plays", "completion", "long_term"} <= set(library)
    played = outcome(
        clicked_at=START, played_at=START + HOUR, completed_at=START + 3 * HOUR, discovered_at=START + HOUR,
        num_plays=1, num_completions=1, dwell_seconds=5_400.0, played_fraction=1.0, returned_at=START + 2 * DAY,
    )  # fmt: skip
    wanted = {
        "clicks": 1.0, "plays": 1.0, "minutes": 90.0, "completion": 1.0, "quick_completion": 1 / (1 + 2 / 24),
        "explicit": 0.0, "discovery": 1.0, "returning": 1.0, "long_term": 0.2, "long_term_early": 0.5, "survey": 0.0,
    }  # fmt: skip
    assert {name: given(one, played)[0] for name, one in library.items()} == {
        name: (pytest.approx(value), "final") for name, value in wanted.items()
    }
    nothing = {name: given(one, outcome())[0] for name, one in library.items()}
    assert set(nothing.values()) == {(0.0, "final")}
    assert len({one.identity for one in library.values()}) == len(library)


def test_what_is_open_makes_no_reward_and_a_prediction_may_stand_for_it() -> None:
    waits = outcome(open=WINDOW)
    assert given(program("play"), waits) == [(None, "open")]
    early = program("if(known(play), play, predicted_play)")
    assert given(early, waits) == [(None, "no_prediction")]
    assert given(early, waits, predicted=[{"decision_id": "d", "title_id": "other", "predicted_play": 0.3}]) == [
        (None, "no_prediction")
    ]
    guess = [{"decision_id": "d", "title_id": "t", "predicted_play": 0.3}]
    assert given(early, waits, predicted=guess) == [(0.3, "predicted")]
    assert given(early, outcome(), predicted=guess) == [(0.0, "final")]
    assert given(program("predicted_play"), outcome(), predicted=guess) == [(0.3, "predicted")]
    assert given(program("click"), outcome(clicked_at=START, open=["play"])) == [(1.0, "final")]


def test_what_a_row_will_never_have_is_undefined_and_what_was_not_shown_has_no_reward() -> None:
    guest = outcome(member_id=None, session_ended_at=None)
    assert given(program("return_7d"), guest) == [(None, "undefined")]
    assert given(program("1 / play"), outcome()) == [(None, "undefined")]
    assert given(program("days_to_return"), outcome()) == [(None, "undefined")]
    assert given(program("play"), outcome(shown=False, played_at=START)) == [(None, "not_shown")]
    assert given(program("play"), outcome(shown=None)) == [(0.0, "final")]
    assert given(program("2"), outcome()) == [(2.0, "final")]


def test_a_return_counts_by_days_and_is_unknown_until_it_came_or_was_waited_for() -> None:
    after = outcome(returned_at=START + 3 * DAY)
    both = program("return_1d + 10 * return_7d")
    assert given(both, after) == [(10.0, "final")]
    assert given(both, outcome(open=["return_7d", "return_30d"])) == [(None, "open")]
    assert given(program("return_1d"), outcome(open=["return_7d", "return_30d"])) == [(0.0, "final")]
    assert given(program("days_to_return"), after) == [(3.0, "final")]


def test_reported_feedback_is_read_by_its_name_and_unknown_where_nobody_said_anything() -> None:
    said = outcome(reported=[{"feedback": "survey", "value": 4.0, "at": START}])
    assert given(program("reported_survey"), said, outcome("u")) == [(4.0, "final"), (None, "undefined")]
    assert given(program("if(known(reported_survey), reported_survey, 0)"), outcome()) == [(0.0, "final")]


def test_parts_are_read_in_order_and_change_the_identity_while_words_about_it_do_not() -> None:
    blend = program("2 * double", parts={"single": "play + 1", "double": "2 * single", "unused": "predicted_play"})
    assert given(blend, outcome(played_at=START)) == [(8.0, "final")]
    assert blend.identity == blend.model_copy(update={"about": "words"}).identity
    assert blend.identity != program("2 * double", parts={"single": "play + 1", "double": "3 * single"}).identity


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("programs:\n  p:\n    version: 1\n    reward: clic\n", "line 4: program p: reward: wanted one of"),
        ("programs:\n  p:\n    version: 1\n    reward: play +\n", "at character 6, found the end"),
        ("programs:\n  p:\n    version: 1\n    reward: play > 1\n", "wanted a number as a whole"),
        ("programs:\n  p:\n    version: 1\n    reward: predicted_clic\n", "line 4: program p: reward: wanted one of"),
        ("programs:\n  p:\n    version: '1'\n    reward: play\n", "line 3: program p: version: "),
        ("programs:\n  p:\n    version: 1\n", "line 3: program p: reward: Field required"),
        ("programs:\n  p:\n    version: 1\n    reward: play\n    reward: click\n", "line 5: 'reward' stands twice"),
        ("programs:\n  p: 3\n", "line 2: program p: wanted a mapping, found '3'"),
        ("programs:\n  P:\n    version: 1\n    reward: play\n", "program P: name: "),
        (
            "programs:\n  p:\n    version: 1\n    parts:\n      play: 1\n    reward: play\n",
            "line 5: program p: parts.play",
        ),
        (
            "programs:\n  p:\n    version: 1\n    parts:\n      a: '1'\n      b: c\n    reward: a\n",
            "line 6: program p: parts.b: wanted one of",
        ),
        ("programs:\n  p:\n    version: 1\n    reward: play\n    unit: x\n", "line 5: program p: unit: "),
        ("rewards: {}\n", "line 1: wanted programs, found 'rewards'"),
        ("programs: {}\n", "line 1: wanted programs by name, found none"),
        ("", "wanted a mapping of programs, found nothing"),
        ("programs: [\n", "wanted YAML, found"),
    ],
)
def test_an_error_names_the_line_the_program_its_field_what_was_wanted_and_what_was_found(
    text: str, wanted: str
) -> None:
    with pytest.raises(ValueError) as caught:
        parse_programs(text, what="rewards.yaml")
    assert wanted in str(caught.value)
    assert str(caught.value).startswith("rewards.yaml")


def test_predictions_of_two_models_or_two_of_one_title_are_refused() -> None:
    guess = {"decision_id": "d", "title_id": "t", "predicted_play": 0.3}
    with pytest.raises(ValueError, match="one model version, found 1, 2"):
        given(program("play"), outcome(), predicted=[guess, guess | {"model_version": "2", "title_id": "u"}])
    with pytest.raises(ValueError, match="decision d, title t: two rows"):
        given(program("play"), outcome(), predicted=[guess, guess])
