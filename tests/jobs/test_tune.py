"""`foretaste tune` finds settings by validation rows alone and writes what --config takes."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pytest

from foretaste.jobs.settings import Settings, load
from foretaste.jobs.tune import tune, with_values
from foretaste.ops.files import read_json
from foretaste.testing.builders import prepared_folder, random_interactions, titles_table
from foretaste.training.config import TrainingConfig
from foretaste.training.search import Choice, Number, TuneConfig

SPACE = {"intent.width": Choice(values=(16, 10)), "training.learning_rate": Number(low=1e-3, high=1e-1, log=True)}


def settings(root: Path, **space: Choice | Number) -> Settings:
    return Settings(
        workspace=root,
        training=TrainingConfig(epochs=2, batch_size=256),
        tune=TuneConfig(space=space or SPACE, trials=4, parallel=1, full_trials=4),
    )


def test_keys_that_no_model_setting_has_are_refused(tmp_path: Path) -> None:
    (tmp_path / "prepared").mkdir()
    with pytest.raises(ValueError, match=r"no key 'intent\.withd'"):
        tune(settings(tmp_path, **{"intent.withd": Choice(values=(1,))}))
    with pytest.raises(ValueError, match=r"'evaluation\.seed' is not of the intent model"):
        tune(settings(tmp_path, **{"evaluation.seed": Choice(values=(1,))}))


def test_every_key_of_the_default_space_is_a_setting() -> None:
    defaults = Settings()
    for key, of in TuneConfig().space.items():
        value = of.values[0] if isinstance(of, Choice) else of.low
        assert with_values(defaults, {key: value}) != defaults or value == 0.0


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_search_ends_with_settings_goes_on_when_asked_again_and_reads_no_test_row(
    tmp_path: Path, local_ray: None
) -> None:
    titles = titles_table(12)
    table = random_interactions(titles, actors=30, per_actor=12)
    tested = pc.equal(table["split_time"], "test")
    other = pc.if_else(tested, "t0001", table["title_id"])
    changed = table.set_column(table.column_names.index("title_id"), table.schema.field("title_id"), other)
    tables = []
    for name, rows in (("a", table), ("b", changed)):
        prepared_folder(tmp_path / name / "prepared", rows, titles)
        found = tune(settings(tmp_path / name))
        tables.append(read_json(Path(found["best"]).parent / "trials.json"))
    assert tables[0] == tables[1]  # whatever its test rows hold
    assert {row["state"] for row in tables[0]} == {"complete", "fail"}  # 10 is no multiple of the heads

    chosen = load(Path(found["best"]))
    assert chosen.intent.width == 16
    assert chosen.training.learning_rate == pytest.approx(found["values"]["training.learning_rate"])
    assert chosen.training.executor == TrainingConfig().executor
    assert not (tmp_path / "b" / "registry").exists()
    again = tune(settings(tmp_path / "b"), trials=5)
    assert again["trials"] == 5
    assert again["ndcg"] >= found["ndcg"]
