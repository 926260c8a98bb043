"""The command line is a contract: its verbs and flags change on purpose or not at all."""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from foretaste.cli import main, parser

ROOT = Path(__file__).parents[2]
COMMON = ["--config", "--set", "--workspace", "--json"]
FLAGS = {
    "demo": ["--leave"],
    "validate": ["files", "--titles", "--quarantine"],
    "import": ["name", "--from", "--fetch", "--out"],
    "prepare": ["--from", "--full"],
    "features": ["--until", "--full"],
    "train": ["model", "--split"],
    "tune": ["--trials", "--split", "--out"],
    "evaluate": ["--split", "--targets", "--limit"],
    "intents": ["--as-of", "--out", "--segments"],
    "serve": ["--host", "--port"],
    "recommend": ["--url", "--member", "--session", "--k", "--policy"],
    "keys": ["action", "--tenant", "--role", "--rate", "--burst", "--key"],
    "releases": ["--check", "--mirror"],
    "promote": ["release", "--share", "--arm", "--shadow"],
    "rollback": ["release"],
    "parity": ["--decisions", "--sample", "--limit", "--since"],
    "doctor": ["--url"],
    "learn": ["--rewards", "--program", "--objective"],
    "outcomes": ["--as-of"],
    "foresee": ["--feedback", "--outcomes"],
    "rewards": ["--program", "--programs", "--outcomes", "--predicted"],
    "evaluate-policy": [
        "--policy",
        "--release",
        "--probabilities",
        "--program",
        "--programs",
        "--outcomes",
        "--predicted",
        "--places",
        "--since",
    ],
    "posteriors": ["--policy", "--program", "--programs", "--outcomes", "--anew"],
    "retrain": ["--program", "--anew"],
    "size": ["--members", "--against"],
    "bench": [
        "name",
        "--quick",
        "--size",
        "--seconds",
        "--url",
        "--data",
        "--from",
        "--part",
        "--models",
        "--against",
        "--seeds",
        "--split",
        "--targets",
        "--track",
        "--ties",
        "--refit",
    ],
}


def _verbs() -> dict[str, argparse.ArgumentParser]:
    action = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def test_the_verbs_and_their_flags_are_the_agreed_ones() -> None:
    found = {
        name: [(a.option_strings or [a.dest])[0] for a in verb._actions if a.dest != "help"]
        for name, verb in _verbs().items()
    }
    assert found == {name: COMMON + flags for name, flags in FLAGS.items()}


def test_every_flag_says_what_it_is_for() -> None:
    silent = [(name, a.dest) for name, verb in _verbs().items() for a in verb._actions if not a.help]
    assert silent == []


def test_python_m_foretaste_is_the_same_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "foretaste", "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"foretaste \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prepare", "--set", "prepare.num_bucket=3"], ["prepare.num_bucket"]),
        (["prepare", "--set", "prepare.num_buckets=none"], ["prepare.num_buckets"]),
        (["prepare", "--set", "nonsense"], ["KEY=VALUE"]),
        (["prepare", "--config", "absent.yaml"], ["absent.yaml"]),
        (["import", "deskdrop"], ["--from"]),
        (["import", "deskdrop", "--fetch"], ["movielens-1m"]),
        (["recommend", "--url", "http://127.0.0.1:9"], ["127.0.0.1:9"]),
    ],
)
def test_a_wrong_call_exits_2_and_names_what_is_wrong(
    arguments: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--workspace", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message


def test_a_stage_without_its_input_says_which_verb_makes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = {"prepare": "foretaste import", "features": "foretaste prepare", "train": "foretaste prepare"}
    for verb, maker in wanted.items():
        assert main([verb, "--workspace", str(tmp_path)]) == 2
        assert maker in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_verb_that_is_stopped_says_so_by_its_status(
    number: signal.Signals,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}

    def stopped(*args: object, **more: object) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        raise KeyboardInterrupt  # as Ray does, which takes the first one

    monkeypatch.setattr("foretaste.jobs.prepare.prepare", stopped)
    try:
        assert main(["prepare", "--workspace", str(tmp_path)]) == status
    finally:
        for one, answer in before.items():
            signal.signal(one, answer)
    assert f"foretaste prepare: stopped ({number.name})" in capsys.readouterr().err
