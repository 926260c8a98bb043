"""Posteriors are whole or absent on disk, and replicas lose nothing of each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foretaste.policies.contextual import Published
from foretaste.policies.posterior import Posterior, PosteriorConfig
from foretaste.policies.posterior_files import (
    Gathered,
    load_posterior,
    load_published,
    save_posterior,
    save_published,
)
from foretaste.policies.slate import dice

D = 3
PRIOR = Posterior.of(PosteriorConfig(kind="linear", half_life_days=3.0), D)


def learned(seed: int = 0, at_us: int = 0) -> Posterior:
    """A posterior of ten rounds."""
    return PRIOR.learned(PRIOR.gathered(dice(seed).normal(size=(10, D)), dice(seed).random(10), at_us=at_us))


def test_what_was_saved_is_read_again_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save_posterior(learned(), path)
    assert load_posterior(path).fingerprint == learned().fingerprint
    published = Published.of(learned(), num_draws=8)
    save_published(published, path)
    again = load_published(path)
    assert (again.fingerprint, again.kind) == (published.fingerprint, "linear")
    for name in ("mean_D", "root_DD", "draws_MD"):
        assert getattr(again, name).tobytes() == np.ascontiguousarray(getattr(published, name)).tobytes()
    assert [file.name for file in tmp_path.iterdir()] == ["one.safetensors"]


def test_a_file_that_is_none_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    with pytest.raises(FileNotFoundError, match="no posterior at"):
        load_posterior(path)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"one\.safetensors holds no posterior"):
        load_posterior(path)
    save_posterior(learned(), path)
    with pytest.raises(ValueError, match="without mean, root, draws, fingerprint, kind"):
        load_published(path)


def test_replicas_add_what_they_gather_in_any_order_and_nothing_counts_twice(tmp_path: Path) -> None:
    parts = [learned(seed, at_us=seed * 86_400_000_000).evidence for seed in range(4)]
    one, other = Gathered(tmp_path / "one", PRIOR), Gathered(tmp_path / "other", PRIOR)
    for writer, number in (("a", 0), ("b", 1), ("a", 2), ("b", 3)):
        one.add(writer, parts[number])
    for writer, number in (("b", 3), ("a", 2), ("c", 1), ("a", 0)):
        other.add(writer, parts[number])
    whole = PRIOR
    for part in parts:
        whole = whole.learned(part)
    for found in (one.total(), one.total(), other.total()):
        np.testing.assert_allclose(found.mean_D, whole.mean_D, rtol=1e-9)
        assert found.evidence.num_rounds == pytest.approx(whole.evidence.num_rounds)
    assert one.total().fingerprint == one.total().fingerprint


def test_evidence_under_another_prior_is_not_added(tmp_path: Path) -> None:
    Gathered(tmp_path, PRIOR).add("a", learned().evidence)
    other = Gathered(tmp_path, Posterior.of(PosteriorConfig(kind="linear"), D))
    with pytest.raises(ValueError, match="under another prior"):
        other.total()
    with pytest.raises(ValueError, match="under another prior"):
        other.add("a", learned().evidence)
    assert Gathered(tmp_path / "none", PRIOR).total().fingerprint == PRIOR.fingerprint
