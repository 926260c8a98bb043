"""What a replica answers with: the catalogue, the intent model and the ranker, and that they belong together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.sessions import SessionRule
from foretaste.contracts.title_fields import TitleColumns
from foretaste.models.baselines.saved_knn import build_knn
from foretaste.models.intent import IntentPrediction, IntentRecommender, build_intent
from foretaste.models.ranker_inputs import RankerInputs
from foretaste.models.ranker_scorer import build_ranker
from foretaste.models.title_query import TitleTable
from foretaste.ops.bundles import CURRENT, Bundle, fetch_bundle, find_bundle
from foretaste.ops.files import read_json, read_parquet
from foretaste.ops.releases import Release, current_release
from foretaste.ops.tables import read_titles, titles_file
from foretaste.serving.nearest import NearestConfig
from foretaste.serving.title_index import TitleIndex
from foretaste.signals.candidates import CANDIDATE_COLUMNS
from foretaste.signals.declared import SIGNALS_VERSION
from foretaste.signals.requests import REQUEST_COLUMNS
from foretaste.surfaces.prequery import Availability, availability
from foretaste.surfaces.sources import Likeness

INTENT = "intent"
RANKER = "ranker"
SESSION_KNN = "session_knn"
WEIGHTS = "weights.safetensors"

_log = logging.getLogger(__name__)


class Predictor(Protocol):
    """The intent model as the chain uses it."""

    def predict(self, histories: Histories, asof_B: NDArray[np.int64]) -> IntentPrediction:
        """Predict what B members are about to do."""
        ...

    @property
    def title_N1D(self) -> NDArray[np.float32]:
        """Title vectors, row 0 for an unknown title."""
        ...

    @property
    def steady(self) -> bool:
        """Whether a prediction is the same to the bit whatever it is batched with."""
        ...


class Scorer(Protocol):
    """The ranker as the chain uses it."""

    @property
    def recent(self) -> int:
        """How many of the newest interactions it reads."""
        ...

    def scores(self, inputs: RankerInputs) -> NDArray[np.float64]:
        """Score the candidates of B requests."""
        ...


class Neighbours(Protocol):
    """The nearest sessions as the chain uses them while no intent model answers."""

    @property
    def prior_N(self) -> NDArray[np.float32]:
        """What every history without a neighbour is given."""
        ...

    def scores(self, histories: Histories, asof_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Score the catalogue for B histories."""
        ...


@dataclass(frozen=True)
class Models:
    """A set of models that belong together; without an intent model there is no ranker either."""

    catalogue: Catalogue
    windows: Availability
    columns: TitleColumns  # what a request may say of titles
    repeats: bool  # whether members choose a title again; if not, seen titles are not shown
    rule: SessionRule  # when a session ended in the data of the models
    intent: Predictor | None = None
    ranker: Scorer | None = None
    intent_fingerprint: str | None = None
    ranker_fingerprint: str | None = None
    likeness: Likeness | None = None  # by the intent model's title vectors
    views: Mapping[str, Any] | None = None  # what the ranker was trained with of the slow views; None: not known
    neighbours: Neighbours | None = None
    neighbours_fingerprint: str | None = None
    index: TitleIndex | None = None  # where the intent model scores no titles, because there are too many


class Parts(Protocol):
    """Makes of bundles what computes, in this process or in others."""

    def intent(self, bundle: Bundle, known: Catalogue) -> Predictor:
        """Make an intent model. Raises ValueError where it is not of this catalogue."""
        ...

    def without_scores(self, bundle: Bundle, known: Catalogue) -> tuple[Predictor, TitleTable]:
        """Make the same without scores of titles, which are made of its queries and the table; raises alike."""
        ...

    def ranker(self, bundle: Bundle, intent: Bundle, predictor: Predictor) -> Scorer:
        """Make the ranker that was trained with an intent model. Raises ValueError for one of other columns."""
        ...


class WithoutScores:
    """An intent model that is asked for no score of any title: there are too many."""

    def __init__(self, model: IntentRecommender) -> None:
        self.model = model

    @property
    def title_N1D(self) -> NDArray[np.float32]:
        """Title vectors, row 0 for an unknown title."""
        return self.model.title_N1D

    @property
    def steady(self) -> bool:
        """As the model itself."""
        return self.model.steady

    def predict(self, histories: Histories, asof_B: NDArray[np.int64]) -> IntentPrediction:
        """Predict all but the scores; the query is what they are made of."""
        return self.model.ask(histories, asof_B)


class Here:
    """Makes what computes in this process."""

    def intent(self, bundle: Bundle, known: Catalogue) -> IntentRecommender:
        """Load configuration and weights."""
        return build_intent(read_json(bundle.path / "config.json"), known, load_file(bundle.path / WEIGHTS))

    def without_scores(self, bundle: Bundle, known: Catalogue) -> tuple[Predictor, TitleTable]:
        """Load the same."""
        model = self.intent(bundle, known)
        return WithoutScores(model), model.titles

    def ranker(self, bundle: Bundle, intent: Bundle, predictor: Predictor) -> Scorer:
        """Load configuration and weights; the title vectors are the intent model's."""
        config = read_json(bundle.path / "config.json")
        scorer = build_ranker(config, load_file(bundle.path / WEIGHTS), predictor.title_N1D)
        scorer.check_columns(CANDIDATE_COLUMNS, REQUEST_COLUMNS)
        return scorer


HERE = Here()


def load_models(
    registry: Path,
    prepared: Path,
    *,
    rule: SessionRule | None = None,
    parts: Parts = HERE,
    nearest: NearestConfig | None = None,
) -> Models:
    """Load the models of the current release; without an intent model only the catalogue, from the prepared tables.

    Where nothing was ever released, those that were filed last.

    `rule` counts where the prepared data does not say by which rule its sessions were made; `nearest` says from which
    size on a catalogue is searched by an index, None that none is.
    Raises ValueError where the ranker was trained with another intent model or other columns than there are, or a
    bundle's files are not those that were filed; FileNotFoundError where there is neither a model nor a catalogue.
    """
    return models_in(registry, prepared, current_release(registry), rule=rule, parts=parts, nearest=nearest)


def models_in(
    registry: Path,
    prepared: Path,
    release: Release | None,
    *,
    rule: SessionRule | None = None,
    parts: Parts = HERE,
    nearest: NearestConfig | None = None,
) -> Models:
    """Load the models of a release, of None those that were filed last; raises as `load_models`."""
    intent = _bundle_in(registry, release, INTENT)
    if intent is None:
        _log.warning("no intent model in %s: answers come from the nearest sessions, or are what is popular", registry)
        return _with_neighbours(_without_models(prepared, rule), registry, release)
    loaded = _loaded(intent, _bundle_in(registry, release, RANKER), rule, parts, nearest)
    return _with_neighbours(loaded, registry, release)


def current_fingerprints(registry: Path) -> tuple[str | None, str | None]:
    """Fingerprints of the intent model and the ranker that `load_models` would load; raises as it does."""
    released = current_release(registry)
    intent, ranker = (_bundle_in(registry, released, name) for name in (INTENT, RANKER))
    return None if intent is None else intent.fingerprint, None if ranker is None else ranker.fingerprint


def models_of(
    registry: Path,
    prepared: Path,
    *,
    intent: str | None,
    ranker: str | None,
    parts: Parts = HERE,
    nearest: NearestConfig | None = None,
) -> Models:
    """Load the models that a decision names by their fingerprints; raises as `load_models`."""
    if intent is None:
        return _without_models(prepared, None)
    bundle = find_bundle(registry, INTENT, intent)
    return _loaded(bundle, None if ranker is None else find_bundle(registry, RANKER, ranker), None, parts, nearest)


def neighbours_of(registry: Path, known: Catalogue, fingerprint: str) -> Neighbours:
    """Load the nearest sessions that a decision names.

    Raises ValueError where they are of another catalogue or not as they were filed, FileNotFoundError without them.
    """
    return _load_neighbours(find_bundle(registry, SESSION_KNN, fingerprint), known)


def _with_neighbours(models: Models, registry: Path, release: Release | None) -> Models:
    """Add the nearest sessions of a release; what there is of them must not keep a service from starting."""
    try:
        bundle = _bundle_in(registry, release, SESSION_KNN)
        if bundle is None:
            return models
        found = _load_neighbours(bundle, models.catalogue)
    except Exception:
        _log.exception("the nearest sessions cannot be loaded; the chain of fallbacks goes on without")
        return models
    return replace(models, neighbours=found, neighbours_fingerprint=bundle.fingerprint)


def _load_neighbours(bundle: Bundle, known: Catalogue) -> Neighbours:
    of = bundle.manifest["about"].get("catalogue")
    if of != known.fingerprint:
        raise ValueError(
            f"session_knn {bundle.version} is of catalogue {of}, served is {known.fingerprint}: "
            "run `foretaste train session_knn`"
        )
    config, arrays = read_json(bundle.path / "config.json"), load_arrays(bundle.path / "index.safetensors")
    return build_knn(config, arrays, num_titles=len(known))


def _loaded(
    intent: Bundle, ranker: Bundle | None, rule: SessionRule | None, parts: Parts, nearest: NearestConfig | None
) -> Models:
    titles = read_parquet(intent.path / "titles.parquet")
    known, index = catalogue(titles), None
    if nearest is not None and len(known) > nearest.exact_up_to_titles:
        predictor, table = parts.without_scores(intent, known)
        index = TitleIndex(table, nearest)
    else:
        predictor = parts.intent(intent, known)
    about = intent.manifest["about"]["prepared"]
    return Models(
        catalogue=known,
        windows=availability(titles, known),
        columns=TitleColumns(titles, known),
        repeats=bool(about["repeats"]),
        rule=_rule(about, rule),
        intent=predictor,
        ranker=None if ranker is None else _load_ranker(ranker, intent, predictor, parts),
        intent_fingerprint=intent.fingerprint,
        ranker_fingerprint=None if ranker is None else ranker.fingerprint,
        likeness=Likeness(predictor.title_N1D),
        views=None if ranker is None else ranker.manifest["about"].get("views"),
        index=index,
    )


def _load_ranker(ranker: Bundle, intent: Bundle, predictor: Predictor, parts: Parts) -> Scorer:
    trained_with = ranker.manifest["about"].get("intent_fingerprint")
    if trained_with != intent.fingerprint:
        raise ValueError(
            f"ranker {ranker.version} was trained with intent model {trained_with}, current is {intent.fingerprint}: "
            "train the ranker, or promote the intent model that belongs to it"
        )
    signals = ranker.manifest["about"].get("signals", SIGNALS_VERSION)
    if signals != SIGNALS_VERSION:
        raise ValueError(
            f"ranker {ranker.version} was trained with signals {signals}, this code computes {SIGNALS_VERSION}: "
            "train the ranker again, or serve it with the code that it was trained with"
        )
    return parts.ranker(ranker, intent, predictor)


def _without_models(prepared: Path, rule: SessionRule | None) -> Models:
    if not titles_file(prepared).is_file():
        raise FileNotFoundError(f"neither a model nor a catalogue at {prepared}: run `foretaste prepare` first")
    titles = read_titles(prepared)
    known = catalogue(titles)
    manifest = prepared / "manifest.json"
    about = read_json(manifest) if manifest.is_file() else {}
    repeats = bool(about.get("repeats", True))
    return Models(
        catalogue=known,
        windows=availability(titles, known),
        columns=TitleColumns(titles, known),
        repeats=repeats,
        rule=_rule(about, rule),
    )


def _rule(about: Mapping[str, Any], otherwise: SessionRule | None) -> SessionRule:
    """The rule in the manifest of prepared data: the request has to see the sessions that training saw."""
    said = about.get("config", {}).get("rule")
    return SessionRule(**said) if said is not None else otherwise or SessionRule()


def _bundle_in(registry: Path, release: Release | None, name: str) -> Bundle | None:
    """The bundle of a release, of None the one filed last; a name that is in none is no error, a damaged one is."""
    if release is not None:
        version = release.models.get(name)
        return None if version is None else fetch_bundle(registry, name, version)
    return fetch_bundle(registry, name) if (registry / name / CURRENT).is_file() else None
