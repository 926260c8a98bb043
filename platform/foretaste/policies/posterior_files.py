"""Posteriors on disk: one file each, whole or absent, without pickle; and what replicas gathered, side by side.

    posteriors/NAME/replica-a.safetensors    evidence of one writer, replaced whole with each of its updates

Each writer counts its own rounds in a file of its own, so no update of another is lost or counted twice, whoever reads
them when; the sum of all files is what is known. Arrays are little-endian, their names and all the rest JSON
(safetensors).

Shapes: D features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from foretaste.ops.files import PARTIAL, whole_file
from foretaste.policies.contextual import Published
from foretaste.policies.posterior import Evidence, Posterior

SUFFIX = ".safetensors"
_ABOUT = "about"


def save_posterior(posterior: Posterior, path: Path) -> None:
    """Write a posterior in place of the one there was."""
    _save(posterior.arrays(), posterior.about(), path)


def load_posterior(path: Path) -> Posterior:
    """Read a posterior, bit for bit. Raises ValueError where the file is none, FileNotFoundError without one."""
    return Posterior.restored(*_load(path))


def save_published(published: Published, path: Path) -> None:
    """Write what policies read of a posterior."""
    arrays = {"mean": published.mean_D, "root": published.root_DD, "draws": published.draws_MD}
    _save(arrays, {"fingerprint": published.fingerprint, "kind": published.kind}, path)


def load_published(path: Path) -> Published:
    """Read it again, bit for bit; raises as `load_posterior`."""
    arrays, about = _load(path)
    missing = [name for name in ("mean", "root", "draws") if name not in arrays]
    missing += [name for name in ("fingerprint", "kind") if name not in about]
    if missing:
        raise ValueError(f"{path}: a published posterior without {', '.join(missing)}")
    return Published(about["fingerprint"], about["kind"], arrays["mean"], arrays["root"], arrays["draws"])


class Gathered:
    """Evidence of one posterior by writer, in a folder; one writer at a time under each name."""

    def __init__(self, folder: Path, prior: Posterior) -> None:
        """`prior` says what is believed before any reward, the same for all writers; its own evidence counts too."""
        self._folder, self._prior = folder, prior

    def add(self, writer: str, evidence: Evidence) -> None:
        """Add to what a writer has; durable and whole."""
        path = self._folder / f"{writer}{SUFFIX}"
        known = load_posterior(path) if path.is_file() else self._empty
        self._check(known, path)
        save_posterior(known.learned(evidence), path)

    def total(self) -> Posterior:
        """The prior with the evidence of all. Raises ValueError for a file of another prior."""
        total = self._prior
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            if not path.name.startswith(PARTIAL):
                found = load_posterior(path)
                self._check(found, path)
                total = total.learned(found.evidence)
        return total

    @property
    def _empty(self) -> Posterior:
        return Posterior.of(self._prior.config, self._prior.prior_D)

    def _check(self, found: Posterior, path: Path) -> None:
        if found.config != self._prior.config or found.prior_D.tobytes() != self._prior.prior_D.tobytes():
            raise ValueError(f"{path}: evidence under another prior ({found.config}) than {self._prior.config}")


def _save(arrays: Mapping[str, NDArray[np.float64]], about: Mapping[str, Any], path: Path) -> None:
    with whole_file(path) as partial:
        kept = {name: np.ascontiguousarray(array, dtype=np.float64) for name, array in arrays.items()}
        save_file(kept, partial, metadata={_ABOUT: json.dumps(about, sort_keys=True)})


def _load(path: Path) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"no posterior at {path}")
    try:
        with safe_open(path, framework="numpy") as opened:
            about = json.loads((opened.metadata() or {})[_ABOUT])
            return {name: opened.get_tensor(name) for name in opened.keys()}, about  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} holds no posterior: {error}") from error
