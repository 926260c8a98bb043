"""`foretaste train session_knn` files what the service answers by while no model can."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from foretaste.jobs.session_knn import file_session_knn
from foretaste.jobs.settings import load
from foretaste.models.baselines.session_knn import SessionKNN
from foretaste.ops.tables import read_manifest, read_prepared
from foretaste.serving.models import load_models
from foretaste.signals.histories import pack
from foretaste.testing.builders import prepared_folder, random_interactions, titles_table

AT = datetime(2026, 1, 2, tzinfo=UTC)


def test_the_index_of_prepared_sessions_is_filed_and_scores_as_it_was_fitted(tmp_path: Path) -> None:
    titles = titles_table(30)
    prepared = prepared_folder(tmp_path / "prepared", random_interactions(titles, actors=12, per_actor=9), titles)
    settings = load(None, [f"workspace={tmp_path}", "session_knn.neighbours=7"])
    done = file_session_knn(settings, now=AT)
    models = load_models(tmp_path / "registry", prepared)
    assert models.neighbours is not None
    assert done["num_sessions"] > 12
    log, _ = pack(read_prepared(prepared, "interactions"), models.catalogue)
    actions = read_manifest(prepared)["target_actions"]
    fitted = SessionKNN.fit(log, models.catalogue, config=settings.session_knn, actions=actions)
    asof_B = np.zeros(len(log), dtype=np.int64)
    assert np.array_equal(models.neighbours.scores(log, asof_B), fitted.scores(log, asof_B))
    again = file_session_knn(settings, now=AT + timedelta(days=1))
    assert again["version"].split("-")[1] == done["version"].split("-")[1], "the same sessions are the same index"
