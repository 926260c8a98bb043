"""Published posteriors: what policies that learn know, filed like models and read again when they are filed anew.

    registry/posteriors/logistic_thompson/20260102T030405-1f2e3d4c5b6a/
        published.safetensors   what a policy reads: mean, covariance, draws
        posterior.safetensors   what it was made of, to learn on from
        described.json          what candidates are described by

A decision names the bundle by its fingerprint, so that a replay reads the same draws, to the bit.

Shapes: C candidates of the pool, D features of a candidate.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from foretaste.contracts.config import Frozen
from foretaste.models.ranker_inputs import RankerInputs
from foretaste.ops.bundles import CURRENT, Bundle, fetch_bundle, file_bundle, find_bundle
from foretaste.ops.files import read_json, write_json
from foretaste.policies.contextual import Published
from foretaste.policies.posterior import Posterior
from foretaste.policies.posterior_files import load_posterior, load_published, save_posterior, save_published
from foretaste.policies.register import CONTEXTUAL
from foretaste.signals.candidates import CANDIDATE_COLUMNS

FOLDER = "posteriors"
LARGEST = 8.0
"""Deviations beyond which a described column counts as these."""

_log = logging.getLogger(__name__)


@runtime_checkable
class Describes(Protocol):
    """A ranker that tells what its last layer reads; one that computes elsewhere does not."""

    def hidden(self, inputs: RankerInputs) -> NDArray[np.float64]:
        """Activations of the candidates of B requests, float64[B, C, E]."""
        ...


class Described(Frozen):
    """What candidates are described by: 1, then columns that the ranker is told, or what its last layer reads."""

    by: Literal["columns", "last_layer"]
    columns: tuple[str, ...] = ()  # names among signals.candidates.CANDIDATE_COLUMNS
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()  # above 0
    ranker: str | None = None  # fingerprint of the ranker whose last layer it is

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.by == "last_layer":
            if self.ranker is None or self.columns:
                raise ValueError("described: by the last layer, of a ranker that is named, and by no columns")
            return self
        unknown = [name for name in self.columns if name not in CANDIDATE_COLUMNS]
        if unknown or not len(self.columns) == len(self.mean) == len(self.deviation):
            raise ValueError(f"described: columns {unknown} are not known, or not each has a mean and a deviation")
        if not all(value > 0 for value in self.deviation):
            raise ValueError("described: a deviation is not above 0")
        return self

    def features(
        self, inputs: RankerInputs, codes_C: NDArray[np.int32], *, ranker: object, fingerprint: str | None
    ) -> NDArray[np.float64] | None:
        """Features of the candidates in order of their codes, float64[C, D]; `inputs` are of one request.

        None where the ranker is another one, or does not tell.
        """
        if self.by == "last_layer":
            if not isinstance(ranker, Describes):
                ranker = getattr(ranker, "model", None)  # of one that batches
            if self.ranker != fingerprint or not isinstance(ranker, Describes):
                return None
            told_CD = ranker.hidden(inputs)[0]
        else:
            places = [CANDIDATE_COLUMNS.index(name) for name in self.columns]
            apart_CD = inputs.features_BCF[0][:, places].astype(np.float64) - np.array(self.mean)
            told_CD = np.clip(apart_CD / np.array(self.deviation), -LARGEST, LARGEST)
        row_of = {code: row for row, code in enumerate(inputs.code_BC[0].tolist())}
        rows = [row_of[code] for code in codes_C.tolist()]
        return np.concatenate([np.ones((len(rows), 1)), told_CD[rows]], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """A published posterior and what it is of; its name is that of its bundle."""

    published: Published
    described: Described


def publish(
    registry: Path,
    policy: str,
    posterior: Posterior,
    described: Described,
    *,
    at: datetime,
    num_draws: int = 128,
    also: Mapping[str, Any] | None = None,
) -> str:
    """File a posterior for a policy and make it the current one; returns its fingerprint.

    `also` goes into the manifest, as JSON. Raises ValueError for a policy that reads none.
    """
    if policy not in CONTEXTUAL:
        raise ValueError(f"policy {policy!r} reads no posterior; those that do are {sorted(CONTEXTUAL)}")
    about = {"posterior": posterior.fingerprint, "num_rounds": posterior.evidence.num_rounds} | dict(also or {})
    with file_bundle(registry / FOLDER, policy, at=at, about=about) as folder:
        save_published(Published.of(posterior, num_draws=num_draws), folder / "published.safetensors")
        save_posterior(posterior, folder / "posterior.safetensors")
        write_json(described.model_dump(mode="json"), folder / "described.json")
    return fetch_bundle(registry / FOLDER, policy).fingerprint


def current_posterior(registry: Path, policy: str) -> tuple[Posterior, Described]:
    """What was published last, to learn on from. Raises FileNotFoundError where nothing was, ValueError if damaged."""
    bundle = fetch_bundle(registry / FOLDER, policy)
    return load_posterior(bundle.path / "posterior.safetensors"), _described(bundle)


def learned_of(registry: Path, policy: str, fingerprint: str) -> Learned:
    """The posterior that a decision names. Raises FileNotFoundError where it is gone, ValueError if damaged."""
    return _learned(find_bundle(registry / FOLDER, policy, fingerprint))


class PublishedPosteriors:
    """The current posterior of each policy; none is no error, and one that cannot be read changes none."""

    def __init__(self, registry: Path | None) -> None:
        """Read what there is; a registry of None has nothing."""
        self._registry = registry
        self._read: dict[str, str] = {}
        self._learned: dict[str, Learned] = {}
        self.refresh_if_new()

    def of(self, policy: str) -> Learned | None:
        """The posterior that a policy chooses by now."""
        return self._learned.get(policy)

    def refresh_if_new(self) -> None:
        """Read what was published since; where that fails, what was read before stays."""
        if self._registry is None:
            return
        for policy in CONTEXTUAL:
            pointer = self._registry / FOLDER / policy / CURRENT
            try:
                if not pointer.is_file() or (version := str(read_json(pointer)["version"])) == self._read.get(policy):
                    continue
                found = _learned(fetch_bundle(self._registry / FOLDER, policy, version))
            except (OSError, ValueError, KeyError, TypeError):
                _log.exception("the posterior of %s cannot be read; the one before stays", policy)
                continue
            self._learned = self._learned | {policy: found}
            self._read[policy] = version


def _learned(bundle: Bundle) -> Learned:
    published = load_published(bundle.path / "published.safetensors")
    return Learned(replace(published, fingerprint=bundle.fingerprint), _described(bundle))


def _described(bundle: Bundle) -> Described:
    return Described.model_validate(read_json(bundle.path / "described.json"))
