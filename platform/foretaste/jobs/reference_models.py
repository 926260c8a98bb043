"""Which model of a reference library is trained, how, and where the library is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from foretaste.contracts.config import Frozen

Kind = Literal["sasrec", "bert4rec", "esasrec", "hstu"]


class ReferenceConfig(Frozen):
    """Where the reference libraries are, and how long they may take."""

    python: Path = Field(
        Path(".venv-references/bin/python"),
        description="interpreter that has the reference libraries; `make references`",
    )
    program: Path = Field(
        Path("deployments/references/rectools_program.py"), description="program that trains one of their models"
    )
    timeout_seconds: float = Field(7_200.0, gt=0, description="seconds after which a program is ended")
    epochs: int = Field(20, ge=1, description="passes over the training rows at most")
    batch_size: int = Field(128, ge=1, description="sequences a step")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam, as the library takes it: without a schedule")

    def needed(self) -> None:
        """Raise FileNotFoundError, saying how to get it, where the environment or the program is missing."""
        if not self.python.is_file():
            raise FileNotFoundError(
                f"{self.python}: the reference libraries are not installed; `make references` installs them beside the "
                "platform, or name an interpreter that has them: references.python"
            )
        if not self.program.is_file():
            raise FileNotFoundError(
                f"{self.program}: not here; run from a checkout, or name the program: references.program"
            )


class ReferenceModel(Frozen):
    """One model of a reference library and its training; what is not said here is as the library has it."""

    name: str = Field(description="name in reports")
    kind: Kind
    width: int = Field(64, ge=1)
    depth: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    length: int = Field(200, ge=1, description="newest interactions that are read; and that are trained on")
    dropout: float = Field(0.2, ge=0, lt=1)
    epochs: int = Field(10, ge=1)
    patience: int = Field(3, ge=1, description="epochs without a better validation value after which training ends")
    learning_rate: float = Field(1e-3, gt=0)
    batch_size: int = Field(128, ge=1, description="sequences a step")
    loss: Literal["softmax", "sampled_softmax", "BCE", "gBCE"] = "softmax"
    num_negatives: int = Field(256, ge=1, description="uniform negatives for each position, for sampled losses")
    temperature: float = Field(0.05, gt=0, description="what the cosine scores of hstu are divided by")
    mask_share: float = Field(0.15, gt=0, lt=1, description="share of interactions that bert4rec masks")
    time_aware: bool = Field(False, description="whether hstu reads the times, that of what is asked for included")
    seed: int = Field(0, ge=0)
    threads: int = Field(1, ge=1)


RECIPES: dict[str, dict[str, Any]] = {
    "rectools-sasrec": {"kind": "sasrec", "loss": "softmax"},
    "rectools-sasrec-sampled": {"kind": "sasrec", "loss": "sampled_softmax", "num_negatives": 256},
    "rectools-bert4rec": {"kind": "bert4rec", "loss": "softmax"},
    "rectools-esasrec": {"kind": "esasrec", "loss": "sampled_softmax", "num_negatives": 256},
    "rectools-hstu": {"kind": "hstu", "loss": "sampled_softmax", "num_negatives": 128},
}
"""Reference models by name, each with the loss that the library's own benchmarks give it: the model cards of RecTools
0.19, its HSTU tutorial, and bert4rec_repro (Petrov and Macdonald 2022) as the library's authors keep it. SASRec's
cheaper loss is there so that cost is compared with the library at its best."""
