"""What is loaded belongs together, or nothing is served."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.sessions import SessionRule
from foretaste.ops.bundles import fetch_bundle, file_bundle, promote
from foretaste.ops.files import read_json, write_json
from foretaste.ops.releases import file_release, promote_release, roll_back
from foretaste.serving.models import load_models
from foretaste.signals.candidates import CANDIDATE_COLUMNS
from foretaste.signals.declared import SIGNALS_VERSION
from foretaste.signals.histories import pack
from foretaste.signals.ranking import ranker_inputs
from foretaste.signals.views import MemberView, TitleView
from foretaste.testing.builders import interactions_table, prepared_folder
from foretaste.testing.bundles import file_intent, file_ranker
from foretaste.testing.fakes import NOW, two_genre_titles

TITLES = two_genre_titles()


def file_pair(registry: Path) -> tuple[str, str]:
    """File an intent model and its ranker; their fingerprints."""
    intent = file_intent(registry, TITLES, at=NOW).fingerprint
    return intent, file_ranker(registry, intent=intent, at=NOW).fingerprint


def test_models_that_belong_together_are_loaded(tmp_path: Path) -> None:
    intent = file_intent(tmp_path, TITLES, at=NOW, repeats=False).fingerprint
    ranker = file_ranker(tmp_path, intent=intent, at=NOW).fingerprint
    models = load_models(tmp_path, tmp_path / "prepared")
    assert (models.intent_fingerprint, models.ranker_fingerprint) == (intent, ranker)
    assert models.repeats is False
    assert models.catalogue.fingerprint == catalogue(TITLES).fingerprint
    assert len(models.windows.from_N1) == len(models.catalogue) + 1
    assert models.ranker is not None
    assert models.intent is not None
    history, _ = pack(interactions_table([("m", 0.0, TITLES["title_id"][0].as_py())]), models.catalogue)
    asof_B, known = history.at_T + 1, models.catalogue
    inputs = ranker_inputs(
        history, asof_B, np.array([[1, 2, 3]], dtype=np.int32), models.intent.predict(history, asof_B), {}, known,
        MemberView.absent(1, num_genres=len(known.genres), num_kinds=len(known.kinds)), TitleView.absent(known),
        length=models.ranker.recent, rule=models.rule,
    )  # fmt: skip
    assert models.ranker.scores(inputs).shape == (1, 3)


def test_a_ranker_of_another_intent_model_is_refused(tmp_path: Path) -> None:
    old, _ = file_pair(tmp_path)
    new = file_intent(tmp_path, TITLES, seed=1, at=NOW + timedelta(seconds=1)).fingerprint
    with pytest.raises(ValueError, match=f"trained with intent model {old}, current is {new}"):
        load_models(tmp_path, tmp_path / "prepared")
    promote(tmp_path, "intent", f"{NOW:%Y%m%dT%H%M%S}-{old}")
    assert load_models(tmp_path, tmp_path / "prepared").intent_fingerprint == old


def test_a_release_goes_on_answering_while_a_new_intent_model_waits_for_its_ranker(tmp_path: Path) -> None:
    old = file_pair(tmp_path)
    models = {name: fetch_bundle(tmp_path, name).version for name in ("intent", "ranker")}
    promote_release(tmp_path, file_release(tmp_path, models, at=NOW, about={}).name, at=NOW)
    new = file_intent(tmp_path, TITLES, at=NOW + timedelta(hours=1), seed=1).fingerprint
    found = load_models(tmp_path, tmp_path / "prepared")
    assert (found.intent_fingerprint, found.ranker_fingerprint) == old
    file_ranker(tmp_path, intent=new, at=NOW + timedelta(hours=1))
    models = {name: fetch_bundle(tmp_path, name).version for name in ("intent", "ranker")}
    promote_release(tmp_path, file_release(tmp_path, models, at=NOW + timedelta(hours=1), about={}).name, at=NOW)
    assert load_models(tmp_path, tmp_path / "prepared").intent_fingerprint == new
    roll_back(tmp_path, at=NOW)
    assert load_models(tmp_path, tmp_path / "prepared").intent_fingerprint == old[0]


def test_a_ranker_that_does_not_say_its_intent_model_is_refused(tmp_path: Path) -> None:
    file_intent(tmp_path, TITLES, at=NOW)
    file_ranker(tmp_path, intent=None, at=NOW)
    with pytest.raises(ValueError, match="trained with intent model None"):
        load_models(tmp_path, tmp_path / "prepared")


def test_a_ranker_of_other_columns_is_refused(tmp_path: Path) -> None:
    intent = file_intent(tmp_path, TITLES, at=NOW).fingerprint
    file_ranker(tmp_path, intent=intent, at=NOW, columns=(*CANDIDATE_COLUMNS[1:], "moon"))
    with pytest.raises(ValueError, match="moon"):
        load_models(tmp_path, tmp_path / "prepared")


def file_ranker_about(registry: Path, about: dict[str, Any]) -> None:
    """File a ranker that belongs to the current intent model and says this of itself, too."""
    intent = file_intent(registry, TITLES, at=NOW).fingerprint
    plain = file_ranker(registry, intent=intent, at=NOW)
    with file_bundle(
        registry, "ranker", at=NOW + timedelta(seconds=1), about=plain.manifest["about"] | about
    ) as folder:
        for file in plain.path.iterdir():
            if file.name != "manifest.json":
                shutil.copy(file, folder)


def test_a_ranker_of_other_signals_is_refused(tmp_path: Path) -> None:
    file_ranker_about(tmp_path, {"signals": "older"})
    with pytest.raises(ValueError, match="trained with signals older, this code computes"):
        load_models(tmp_path, tmp_path / "prepared")


def test_what_the_ranker_was_trained_with_of_the_slow_views_is_known(tmp_path: Path) -> None:
    contract = {"service": "ranker", "views": {"member_taste": "2-ab"}, "fingerprint": "f"}
    file_ranker_about(tmp_path, {"signals": SIGNALS_VERSION, "views": contract})
    assert load_models(tmp_path, tmp_path / "prepared").views == contract


def test_a_damaged_bundle_is_refused(tmp_path: Path) -> None:
    weights = file_intent(tmp_path, TITLES, at=NOW).path / "weights.safetensors"
    body = bytearray(weights.read_bytes())
    body[-1] ^= 1
    weights.write_bytes(bytes(body))
    with pytest.raises(ValueError, match="fingerprint"):
        load_models(tmp_path, tmp_path / "prepared")


def test_a_pointer_to_nothing_is_refused(tmp_path: Path) -> None:
    write_json({"version": "gone"}, tmp_path / "intent" / "current.json")
    with pytest.raises(FileNotFoundError, match="gone"):
        load_models(tmp_path, tmp_path / "prepared")


def test_without_models_the_prepared_catalogue_is_served(tmp_path: Path) -> None:
    rows: list[Any] = [("m1", 0.0, "t00"), ("m1", 1.0, "t00")]
    prepared = prepared_folder(tmp_path / "prepared", interactions_table(rows), TITLES)
    models = load_models(tmp_path / "registry", prepared)
    assert models.intent is None
    assert models.ranker is None
    assert models.repeats is True
    assert len(models.catalogue) == 40


def test_sessions_end_as_they_did_in_the_prepared_data(tmp_path: Path) -> None:
    prepared = prepared_folder(tmp_path / "prepared", interactions_table([("m1", 0.0, "t00")]), TITLES)
    asked = SessionRule(gap_minutes=7)
    assert load_models(tmp_path / "registry", prepared, rule=asked).rule == asked
    manifest = read_json(prepared / "manifest.json")
    write_json(manifest | {"config": {"rule": {"gap_minutes": 9.0, "native": False}}}, prepared / "manifest.json")
    assert load_models(tmp_path / "registry", prepared, rule=asked).rule == SessionRule(gap_minutes=9, native=False)


def test_without_models_and_catalogue_nothing_is_served(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="foretaste prepare"):
        load_models(tmp_path / "registry", tmp_path / "prepared")
