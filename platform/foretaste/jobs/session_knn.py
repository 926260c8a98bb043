"""The last `foretaste train` step: index the sessions that answer while no model can, and file them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.models.baselines.saved_knn import knn_arrays
from foretaste.models.baselines.session_knn import SessionKNN
from foretaste.ops.bundles import Bundle, fetch_bundle, file_bundle
from foretaste.ops.files import write_json
from foretaste.ops.tables import described, read_manifest, read_prepared, read_titles
from foretaste.ops.telemetry import say
from foretaste.signals.histories import pack

SESSION_KNN = "session_knn"
INDEX, CONFIG = "index.safetensors", "config.json"


def file_session_knn(settings: Settings, *, now: datetime) -> dict[str, Any]:
    """Index all prepared sessions, whatever their split, and file the index; returns its figures.

    It is no model to compare with others: those of the reports are fitted on what their split allows.
    """
    prepared = needed(settings.tables.prepared, made_by="prepare")
    manifest, known = read_manifest(prepared), catalogue(read_titles(prepared))
    log, _ = pack(read_prepared(prepared, "interactions"), known)
    model = SessionKNN.fit(log, known, config=settings.session_knn, actions=manifest["target_actions"])
    bundle = file_index(settings.tables.registry, model, known, now=now, about={"prepared": described(manifest)})
    figures = {"num_sessions": model.votes_SN.shape[0], "num_choices": int(model.votes_SN.nnz)}
    say(
        f"train session_knn: filed {bundle.version}, "
        f"{figures['num_sessions']:,} sessions, {figures['num_choices']:,} choices"
    )
    return {"version": bundle.version} | figures


def file_index(
    registry: Path, model: SessionKNN, known: Catalogue, *, now: datetime, about: Mapping[str, Any]
) -> Bundle:
    """File a fitted index with the catalogue whose codes it speaks of."""
    with file_bundle(registry, SESSION_KNN, at=now, about={"catalogue": known.fingerprint} | dict(about)) as folder:
        write_json(model.config.model_dump(mode="json"), folder / CONFIG)
        save_file(knn_arrays(model), folder / INDEX)
    return fetch_bundle(registry, SESSION_KNN)
