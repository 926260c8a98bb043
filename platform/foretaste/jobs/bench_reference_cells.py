"""A model of a reference library in a comparison: trained in its own environment on the comparison's rows."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from foretaste.evaluation.cases import Cases, cases
from foretaste.jobs.reference import ReferenceResult, train_reference, training_rows
from foretaste.jobs.reference_models import RECIPES, ReferenceModel
from foretaste.models.contract import Recommender
from foretaste.models.intent import IntentModelConfig
from foretaste.ops.telemetry import say

if TYPE_CHECKING:
    from foretaste.jobs.bench_models_cells import Comparison


class Reference:
    """One reference model of one seed; its width, depth, heads, length and dropout are those of ours of its kind."""

    def __init__(self, comparison: Comparison, name: str, seed: int) -> None:
        self.comparison, self.name, self.seed = comparison, name, seed
        self.config = comparison.settings.references
        self.model = reference_model(comparison, name, seed)
        self.validation_cases = comparison.settings.training.validation_cases
        self.about = {
            "model": name,
            "config": self.model.model_dump(mode="json"),
            "data": comparison.log(seed).fingerprint,
            "fit_on": list(comparison.protocol(seed).fit_on),
            "validation_cases": self.validation_cases,
            "program": self._program(),
        }

    def _program(self) -> str:
        """Twelve hexadecimal digits of the program and of what its environment was made of, where they are."""
        files = (self.config.program, self.config.program.with_name("requirements.txt"))
        body = b"\0".join(file.read_bytes() for file in files if file.is_file())
        return hashlib.blake2b(body, digest_size=6).hexdigest()

    @property
    def recommender(self) -> Recommender:
        """The model, trained."""
        return self.result.recommender

    @cached_property
    def result(self) -> ReferenceResult:
        """The trained model; with refit trained again, on validation rows too, for as many epochs as were best."""
        protocol, given = self.comparison.protocol(self.seed), self.comparison.log(self.seed)
        found = self._train(self.model, ("train",))
        if protocol.fit == "strict":
            return found
        again = self._train(self.model.model_copy(update={"epochs": found.facts["best_epoch"]}), protocol.fit_on)
        say(f"{self.name}: trained again on {' and '.join(protocol.fit_on)} rows of {given.name}")
        return ReferenceResult(again.recommender, found.facts | {"parameters": again.facts["parameters"]})

    def _train(self, model: ReferenceModel, fit_on: tuple[str, ...]) -> ReferenceResult:
        given, asked = self.comparison.log(self.seed), self.comparison.cases(self.seed)
        validation = self._validation()
        dice = np.random.default_rng(self.seed)
        number = min(self.validation_cases, len(validation)) if "validation" not in fit_on else 0
        return train_reference(
            model,
            training_rows(given.interactions, asked, target_actions=given.target_actions, fit_on=fit_on),
            asked,
            validation,
            validation_rows_V=np.sort(dice.choice(len(validation), size=number, replace=False)),
            exclude_seen=self.comparison.protocol(self.seed).exclude_seen,
            config=self.config,
            on_epoch=self._say,
        )

    def _validation(self) -> Cases:
        given = self.comparison.log(self.seed)
        return cases(
            given.interactions, given.catalogue, split=self.comparison.split, target_actions=given.target_actions,
            which="validation",
        )  # fmt: skip

    def _say(self, epoch: dict[str, Any]) -> None:
        ndcg = "" if epoch["ndcg"] is None else f"  ndcg {epoch['ndcg']:.4f}"
        cost = f"{epoch['cpu_seconds']:.1f} CPU s"
        say(f"{self.name} epoch {epoch['number']}/{self.model.epochs}  loss {epoch['loss']:.4f}{ndcg}  {cost}")

    def facts(self) -> dict[str, Any]:
        """What training cost; validation, which is not the library's, is not in it."""
        facts = self.result.facts
        cpu = [float(epoch["cpu_seconds"]) for epoch in facts["epochs"]]
        best = facts["epochs"][facts["best_epoch"] - 1]
        return {
            "parameters": facts["parameters"],
            "epochs": len(cpu),
            "best_epoch": facts["best_epoch"],
            "cpu_seconds_per_epoch": float(np.mean(cpu)),
            "cpu_seconds_to_best": float(np.sum(cpu[: facts["best_epoch"]])),
            "validation": {} if best["ndcg"] is None else {"ndcg": best["ndcg"]},
            "sequences": facts["sequences"],
            "interactions": facts["interactions"],
            "peak_bytes": facts["peak_bytes"],
            "versions": facts["versions"],
            "intents": {},
        }


def reference_model(comparison: Comparison, name: str, seed: int) -> ReferenceModel:
    """The reference model of that name, in the shape of our network of its kind."""
    recipe = RECIPES[name]
    shape, asked = comparison.network(recipe["kind"], seed), comparison.settings.references
    return ReferenceModel(
        name=name,
        width=shape.width,
        depth=depth(shape),
        heads=shape.num_attention_heads,
        length=shape.max_length,
        dropout=shape.dropout,
        epochs=min(asked.epochs, comparison.training(seed).epochs) if comparison.options.quick else asked.epochs,
        patience=comparison.settings.training.patience,
        learning_rate=asked.learning_rate,
        batch_size=asked.batch_size,
        time_aware=recipe["kind"] == "hstu" and comparison.protocol(seed).track == "aware",
        seed=seed,
        **recipe,
    )


def depth(config: IntentModelConfig) -> int:
    """Blocks of a network of one encoder."""
    return int(getattr(config.body, "blocks"))  # noqa: B009 # bodies of two encoders have none
