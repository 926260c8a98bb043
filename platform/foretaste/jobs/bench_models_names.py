"""Models by name for the benchmark: classic ones, networks, and how much code a result of each depends on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foretaste.evaluation.protocols import BESIDE, Protocol
from foretaste.jobs.bench_models_data import WORLDS
from foretaste.jobs.reference_models import RECIPES
from foretaste.jobs.settings import Settings
from foretaste.models.baselines import BASELINES, BaselineConfig, baseline
from foretaste.models.intent import IntentModelConfig
from foretaste.models.zoo import NETWORKS, network

PACKAGE = Path(__file__).parents[1]
CONFIGURED = "intent"
"""Name of the network that the settings configure."""

LADDER = (
    "popularity", "markov", "session_knn", "vstan", "gru4rec", "sasrec", "transact", "v0", "v1", "v2", "v3",
    "foretaste",
)  # fmt: skip
"""From counting to ours; popularity of the last days stands beside any list."""

CHOSEN: dict[str, dict[str, dict[str, Any]]] = {
    "yoochoose": {
        "session_knn": {"seen_weight": 0.1},
        "vstan": {
            "query_length": 5, "neighbours": 1500, "question_decay": 8.0, "age_days": 10.0, "neighbour_decay": 4.0,
            "match_decay": 1.0, "rarity_weight": 5.0, "seen_weight": 0.1,
        },
    },
    "deskdrop": {
        "vstan": {
            "query_length": 50, "neighbours": 500, "question_decay": 0.7, "age_days": None, "neighbour_decay": 0.5,
            "match_decay": None, "rarity_weight": 0.3,
        },
    },
    "movietweetings": {"vstan": {"age_days": 5.0, "match_decay": 2.0, "rarity_weight": 1.0}},
    "world": {
        "vstan": {
            "query_length": 3, "neighbours": 1500, "question_decay": 8.0, "age_days": 320.0, "neighbour_decay": 50.0,
            "match_decay": 4.0, "rarity_weight": 0.3, "seen_weight": 0.2,
        },
    },
}  # fmt: skip
"""Settings of classic models that differ from the defaults, by log: the best of each on its validation rows."""

_JUDGED = (
    "evaluation/cases.py", "evaluation/intents.py", "evaluation/metrics.py", "evaluation/ranking.py",
    "signals/histories.py",
)  # fmt: skip
_TRAINED = ("models/*.py", "training/*.py", "sessions/label.py", "sessions/intent_rules.py", "contracts/*.py")
_APART = ("ranker", "zoo.py", "tracking.py", "on_ray.py", "wire.py", "truth.py", "decisions.py")


def networks() -> tuple[str, ...]:
    """Names of the networks."""
    return (CONFIGURED, *NETWORKS)


def model_names(wanted: Sequence[str] | None, default: Sequence[str] = LADDER) -> tuple[str, ...]:
    """Check the names that were asked for and add popularity of the last days; without any, the default that there is.

    Raises ValueError naming those that do not exist.
    """
    there = (*BASELINES, *networks(), *RECIPES)
    names = tuple(wanted) if wanted else tuple(name for name in default if name in there)
    unknown = [name for name in names if name not in there]
    if unknown or len(set(names)) != len(names):
        raise ValueError(f"bench models: {unknown or names} must each be one, once, of {', '.join(there)}")
    return names if BESIDE in names else (BESIDE, *names)


def network_config(settings: Settings, name: str, protocol: Protocol, *, quick: bool) -> IntentModelConfig:
    """The configuration of a network under the protocol's track, with the sizes of the settings; small where quick."""
    config = settings.intent if name == CONFIGURED else network(name, settings.intent)
    small = {"width": 16, "max_length": 30} if quick else {}
    return config.model_copy(update=small | ({"time_aware": False} if protocol.track == "blind" else {}))


def baseline_config(name: str, protocol: Protocol, log: str) -> BaselineConfig:
    """The configuration of a classic model for a log, under the protocol's track; the yardstick is the same in both."""
    found = baseline(name).model_copy(update=CHOSEN.get("world" if log in WORLDS else log, {}).get(name, {}))
    blind = protocol.track == "blind" and name == "vstan"
    return found.model_copy(update={"age_days": None}) if blind else found


def code_of_training(config: IntentModelConfig | BaselineConfig) -> str:
    """Twelve hexadecimal digits of all code that a trained model depends on, and of torch and numpy."""
    if not isinstance(config, IntentModelConfig):
        return _digest([*PACKAGE.glob("models/baselines/*.py"), PACKAGE / "signals/histories.py"])
    files = [file for pattern in _TRAINED for file in PACKAGE.glob(pattern)]
    files = [file for file in files if not any(part in file.name for part in _APART)]
    return _digest([*files, *_bodies(config.body)])


def code_of_evaluation() -> str:
    """The same of what asks and measures."""
    return _digest([PACKAGE / name for name in _JUDGED])


def _bodies(body: Any) -> list[Path]:
    """The module of a body and those of its kind that it is made of, so that another body changes nothing here."""
    folder = PACKAGE / "models" / "bodies"
    found: list[Path] = []
    waiting = [type(body).__module__.rpartition(".")[2]]
    while waiting:
        file = folder / f"{waiting.pop()}.py"
        if file in found or not file.is_file():
            continue
        found.append(file)
        waiting += re.findall(r"models\.bodies\.(\w+) import", file.read_text())
    return found


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.blake2b(f"torch {torch.__version__} numpy {np.__version__}".encode(), digest_size=6)
    for file in sorted(set(files)):
        digest.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
