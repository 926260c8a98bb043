"""Search for settings: a declared space, the score of every trial by epoch, and which trial to give up."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from foretaste.contracts.config import Frozen

Value = float | int | str | bool


class Choice(Frozen):
    """One of some values."""

    kind: Literal["choice"] = "choice"
    values: tuple[Value, ...] = Field(min_length=1, description="what to choose from")


class Number(Frozen):
    """A number between two bounds, both included."""

    kind: Literal["real", "whole"] = Field("real", description="whether it has a fraction")
    low: float = Field(description="smallest")
    high: float = Field(description="largest")
    log: bool = Field(False, description="whether it is drawn on a logarithmic scale")

    @model_validator(mode="after")
    def _has_room(self) -> Number:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError(f"wanted low <= high, and low > 0 on a logarithmic scale; found {self.low}, {self.high}")
        if self.kind == "whole" and (self.low % 1 or self.high % 1):
            raise ValueError(f"wanted whole bounds of a whole number; found {self.low}, {self.high}")
        return self


Dimension = Annotated[Choice | Number, Field(discriminator="kind")]

SPACE: dict[str, Dimension] = {
    "intent.width": Choice(values=(32, 64, 128)),
    "intent.dropout": Number(low=0.0, high=0.5),
    "intent.intent_weight": Number(low=0.01, high=1.0, log=True),
    "training.learning_rate": Number(low=1e-3, high=2e-2, log=True),
    "training.weight_decay": Number(low=1e-3, high=0.3, log=True),
}


class TuneConfig(Frozen):
    """What is searched, and how long."""

    space: dict[str, Dimension] = Field(SPACE, description="dimension of the search by dotted key of the settings")
    trials: int = Field(20, ge=1, description="trials in all, those of earlier runs of the same search counted in")
    parallel: int = Field(2, ge=1, description="trials trained at once, each by one CPU of Ray")
    seed: int = Field(0, ge=0, description="of what is tried; what comes out repeats with one trial at a time")
    prune: bool = Field(True, description="whether a trial below the median of the others at its epoch is given up")
    full_trials: int = Field(5, ge=1, description="trials that are trained to the end before any is given up")


class Board:
    """Proposes trials and keeps their scores in a journal on disk; a search that was cut off goes on from it.

    The sampler is Optuna's TPE. Trials that were under way when the search was cut off are proposed again.
    """

    def __init__(self, journal: Path, config: TuneConfig) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
        from optuna.trial import TrialState

        logging.getLogger("optuna").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        journal.parent.mkdir(parents=True, exist_ok=True)
        self._config = config
        self._ended = {"failed": TrialState.FAIL, "pruned": TrialState.PRUNED, "done": TrialState.COMPLETE}
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name="search",
            direction="maximize",
            load_if_exists=True,
        )
        before = self._study.get_trials(deepcopy=False)
        for trial in before:
            if trial.state == TrialState.RUNNING:
                self._study.tell(trial.number, state=TrialState.FAIL)
                self._study.enqueue_trial(trial.params)
        self._cut_off = {t.number for t in before if t.state == TrialState.RUNNING} | {
            t.number for t in before if t.state == TrialState.FAIL and "why" not in t.user_attrs
        }
        self._study.sampler = optuna.samplers.TPESampler(
            seed=config.seed + len(before), n_startup_trials=config.full_trials, constant_liar=config.parallel > 1
        )
        self._study.pruner = (
            optuna.pruners.MedianPruner(n_startup_trials=config.full_trials, n_warmup_steps=1)
            if config.prune
            else optuna.pruners.NopPruner()
        )
        self._trials: dict[int, optuna.trial.Trial] = {}

    def ask(self) -> tuple[int, dict[str, Value]] | None:
        """Propose a trial: its number and its values by key; None when there are enough."""
        begun = [t for t in self._study.get_trials(deepcopy=False) if t.number not in self._cut_off]
        waiting = [t for t in begun if t.state.name == "WAITING"]
        if len(begun) - len(waiting) >= self._config.trials:
            return None
        trial = self._study.ask()
        self._trials[trial.number] = trial
        values: dict[str, Value] = {}
        for key, of in self._config.space.items():
            if isinstance(of, Choice):
                values[key] = cast(Value, trial.suggest_categorical(key, of.values))
            elif of.kind == "whole":
                values[key] = trial.suggest_int(key, int(of.low), int(of.high), log=of.log)
            else:
                values[key] = trial.suggest_float(key, of.low, of.high, log=of.log)
        return trial.number, values

    def report(self, number: int, epoch: int, score: float) -> bool:
        """Keep a trial's score after an epoch, and say whether the trial is to be given up."""
        trial = self._trials[number]
        trial.report(score, epoch)
        return trial.should_prune()

    def end(self, number: int, state: Literal["done", "pruned", "failed"], score: float | None, why: str = "") -> None:
        """Keep how a trial ended; `why` it failed."""
        self._trials[number].set_user_attr("why", why)
        self._study.tell(number, score if state == "done" else None, state=self._ended[state])

    def table(self) -> list[dict[str, Any]]:
        """All trials, the best first: number, state, NDCG (of the best epoch reported), epochs, values."""
        rows = [
            {
                "trial": t.number,
                "state": "cut off" if t.number in self._cut_off else t.state.name.lower(),
                "ndcg": t.value if t.value is not None else max(t.intermediate_values.values(), default=None),
                "epochs": len(t.intermediate_values),
                "values": dict(t.params),
                **({"why": t.user_attrs["why"]} if t.user_attrs.get("why") else {}),
            }
            for t in self._study.get_trials(deepcopy=False)
        ]
        return sorted(rows, key=lambda row: (row["state"] != "complete", -(row["ndcg"] or 0.0), row["trial"]))


def best_of(table: list[dict[str, Any]]) -> Mapping[str, Any]:
    """The best trial that was trained to its end. Raises ValueError without one."""
    done = [row for row in table if row["state"] == "complete"]
    if not done:
        raise ValueError(f"none of {len(table)} trials was trained to its end: {[row.get('why') for row in table][:3]}")
    return done[0]
