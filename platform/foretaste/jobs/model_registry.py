"""Releases in MLflow's model registry, for those who look there: a mirror of the file registry, which is what serves.

Each release is a version of one registered model; `champion` is what answers, `challenger` the first arm, else the
shadow. Nothing here is on the way of a request, and a mirror that fails is said and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foretaste.jobs.settings import Settings
from foretaste.ops.releases import Rollout, releases, rollout
from foretaste.ops.telemetry import say

MODEL = "foretaste"
CHAMPION, CHALLENGER = "champion", "challenger"
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
RELEASE = "release"
"""Tag of a version that names its release."""


def mirror(settings: Settings) -> dict[str, str]:
    """Bring MLflow in line with the file registry; gives the release by alias, nothing where that did not succeed."""
    if not settings.tracking.enabled:
        return {}
    try:
        with _impatient():
            return _mirrored(_client(settings), settings.tables.registry)
    except Exception as error:  # models answer all the same, and the next call makes up for it
        say(f"not mirrored to MLflow: {type(error).__name__}: {str(error)[:200]}")
        return {}


def named_in_mlflow(settings: Settings, alias: str) -> str:
    """The release that an alias of MLflow's model stands for. Raises ValueError where there is none, or no tracking."""
    from mlflow.exceptions import MlflowException

    if not settings.tracking.enabled:
        raise ValueError(f"@{alias} is an alias of MLflow, and tracking.enabled is false")
    try:
        found = _client(settings).get_model_version_by_alias(MODEL, alias)
    except MlflowException as error:
        raise ValueError(f"MLflow has no alias {alias!r} of model {MODEL!r}: {error}") from error
    if RELEASE not in found.tags:
        raise ValueError(f"MLflow's {MODEL} {found.version} ({alias}) names no release of a file registry")
    return str(found.tags[RELEASE])


def _mirrored(client: Any, registry: Path) -> dict[str, str]:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(MODEL, description="sets of models that answer together")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = {one.tags.get(RELEASE): one for one in client.search_model_versions(f"name='{MODEL}'")}
    for one in releases(registry):
        if one.name not in known:
            tags = {RELEASE: one.name, "created_at": one.created_at, **one.models}
            known[one.name] = client.create_model_version(MODEL, source=registry.absolute().as_uri(), tags=tags)
    wanted, found = _aliases(rollout(registry)), client.get_registered_model(MODEL).aliases
    for alias, name in wanted.items():
        if str(found.get(alias)) != str(known[name].version):
            client.set_registered_model_alias(MODEL, alias, str(known[name].version))
    for alias in (CHAMPION, CHALLENGER):
        if alias in found and alias not in wanted:
            client.delete_registered_model_alias(MODEL, alias)
    return wanted


def _aliases(known: Rollout | None) -> dict[str, str]:
    if known is None:
        return {}
    beside = [arm.release for arm in known.arms] + ([] if known.shadow is None else [known.shadow])
    return {CHAMPION: known.current} | ({CHALLENGER: beside[0]} if beside else {})


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Have MLflow give up soon on a server that does not answer: nobody who rolls back waits for minutes."""
    said = {name: os.environ.get(name) for name in IMPATIENT}
    os.environ.update({name: value for name, value in IMPATIENT.items() if said[name] is None})
    try:
        yield
    finally:
        for name in (name for name, value in said.items() if value is None):
            os.environ.pop(name, None)


def _client(settings: Settings) -> Any:
    warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")  # MLflow's own
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    where = settings.tables.runs.parent  # as training.tracking has it
    where.mkdir(parents=True, exist_ok=True)
    return MlflowClient(settings.tracking.uri or f"sqlite:///{(where / 'mlflow.db').absolute()}")
