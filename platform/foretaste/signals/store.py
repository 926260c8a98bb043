"""The slow views in Feast: joins at past instants with DuckDB, one read a request from the online store.

The only file that imports Feast, and only when a store is first used: the import takes seconds.
What Feast leaves open is decided here, alike online and offline: a view is visible strictly after its midnight and
until its view's TTL, inclusive; what is not there is absent; the answer has the order of the question.

Shapes: B requests or cases, D days.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import runpy
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.columns import AT
from foretaste.ops.files import read_json, read_parquet, write_json
from foretaste.signals.midnights import DAY_US
from foretaste.signals.published import MANIFEST, SOURCES, TitleVersions
from foretaste.signals.published import generation as published
from foretaste.signals.views import MemberView, TitleView, Vocabulary, member_view, title_view, versions, visible

DATA_VARIABLE = "FORETASTE_FEATURES"
"""Environment variable by which the configuration and the definitions know the folder of the data."""
MEMBERS, TITLES = "member_taste", "title_popularity"
ONLINE = "online.json"
"""What the online store was loaded with: until when, and the order of genres and kinds."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEY = {MEMBERS: "member_id", TITLES: "title_id"}
_FOLDER = {MEMBERS: "members", TITLES: "titles"}
_TITLES_AT_ONCE = 1_000
NOBODY = ""
"""Stands for a guest in joins; no member has an empty id."""


class FeatureStore:
    """The slow views of one workspace; all connections are opened at first use."""

    def __init__(self, repo: Path, data: Path) -> None:
        """`repo` holds feature_store.yaml and the definitions, `data` (<workspace>/features) everything else."""
        self._repo, self._data = repo.absolute(), data.absolute()
        self._title_versions: dict[tuple[str, str], TitleVersions] = {}

    def apply(self) -> None:
        """Register the definitions; again changes nothing. Raises FileNotFoundError where there are no snapshots."""
        self._vocabulary(self._data / SOURCES / MANIFEST)
        defined = _definitions(self._repo, self._data)
        with _batch():
            self._feast.apply(defined)
        if self._feast.config.online_store.type == "sqlite":
            with contextlib.closing(sqlite3.connect(self._feast.config.online_store.path)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")  # reads go on while rows are written
        self.__dict__.pop("_views", None)

    def materialize(self, until: datetime) -> None:
        """Load the newest row before `until` of each member and title into the online store, and leave no other there.

        The whole past is gone through each time, so that late rows and rebuilt snapshots arrive. Raises what the
        stores raise, ValueError where `until` has no time zone.
        """
        if until.tzinfo is None:
            raise ValueError(f"materialize: until {until} has no time zone")
        vocabulary = self._vocabulary(self._data / SOURCES / MANIFEST)
        newest = until.astimezone(UTC) - timedelta(microseconds=1)
        with _batch():
            self._feast.materialize(_EPOCH, newest, [MEMBERS, TITLES])
        for name in (MEMBERS, TITLES):
            self._remove_others(name, newest)
        name = published(self._data).name
        loaded = {
            "until": until.isoformat(),
            "generation": name,
            "genres": list(vocabulary.genres),
            "kinds": list(vocabulary.kinds),
        }
        write_json(loaded, self._data / ONLINE)
        self._forget_loaded()

    def check(self, catalogue: Catalogue) -> None:
        """Raise ValueError where affinities online are not, or no longer, of the genres and kinds of the catalogue."""
        self._forget_loaded()
        self._online.check(catalogue, what=f"online store of {self._data}")

    def members(self, ids: Sequence[str | None], at: int) -> MemberView:
        """Read members for a request at `at` (microseconds since 1970), all in one read; None is a guest: absent."""
        view = self._online.absent(len(ids))
        for number, row in self._read(MEMBERS, ids):
            asof_ms = row["member_asof_ms"].int64_val
            if visible(asof_ms, at, ttl_us=self._ttl_us(MEMBERS)):
                view.genre_affinity_BG[number] = row["member_genre_affinity"].float_list_val.val
                view.kind_affinity_BK[number] = row["member_kind_affinity"].float_list_val.val
                view.count_7d_B[number] = row["member_plays_7d"].int64_val
                view.count_30d_B[number] = row["member_plays_30d"].int64_val
                view.tenure_days_B[number] = row["member_tenure_days"].float_val
                view.asof_ms_B[number] = asof_ms
        return view

    def titles(self, catalogue: Catalogue, at: int) -> TitleView:
        """Read all titles of a catalogue as they are at `at` (microseconds): a matrix to be kept by the caller."""
        view = TitleView.absent(catalogue)
        for first in range(0, len(catalogue), _TITLES_AT_ONCE):
            for number, row in self._read(TITLES, catalogue.ids[first : first + _TITLES_AT_ONCE]):
                asof_ms, code = row["title_asof_ms"].int64_val, first + number + 1
                if visible(asof_ms, at, ttl_us=self._ttl_us(TITLES)):
                    view.plays_7d[code] = row["title_plays_7d"].int64_val
                    view.plays_30d[code] = row["title_plays_30d"].int64_val
                    view.plays_all[code] = row["title_plays_all"].int64_val
                    view.completion_rate[code] = row["title_completion_rate"].float_val
                    view.asof_ms[code] = asof_ms
        return view

    @property
    def generation(self) -> str:
        """Generation of the rows that are online: with their versions it says exactly what was read."""
        return self._loaded_generation

    def members_at(
        self, ids: Sequence[str | None], asof_ms_B: NDArray[np.int64], generation: str | None = None
    ) -> MemberView:
        """Read members by exact version, by default of the generation that is published to, without Feast.

        None or version ABSENT is absent. Raises ValueError for a generation or a version that never was.
        """
        return published(self._data, generation).members(ids, asof_ms_B)

    def titles_at(
        self,
        catalogue: Catalogue,
        codes_C: NDArray[Any],
        asof_ms_C: NDArray[np.int64] | int,
        generation: str | None = None,
    ) -> TitleView:
        """Read titles by code and exact version (one for all, or one each), without Feast; all others are absent.

        Rows are kept in memory and read again when one is missing. Raises ValueError as `members_at` does.
        """
        found = published(self._data, generation)
        key = (found.name, catalogue.fingerprint)
        try:
            if key in self._title_versions:
                return self._title_versions[key].at(codes_C, asof_ms_C)
        except ValueError:
            pass  # published since they were read
        self._title_versions[key] = TitleVersions(found, catalogue)
        return self._title_versions[key].at(codes_C, asof_ms_C)

    def historical_members(self, ids: Sequence[str | None], at_B: NDArray[np.int64]) -> MemberView:
        """Read each member as they were seen at an instant of the past (microseconds since 1970); None is absent."""
        vocabulary = self._vocabulary(self._data / SOURCES / MANIFEST)
        if not len(ids):
            return vocabulary.absent(0)
        rows = self._join(MEMBERS, list(ids), at_B)
        seen_B = visible(versions(rows["member_asof_ms"]), at_B, ttl_us=self._ttl_us(MEMBERS))
        return member_view(rows, seen_B, vocabulary)

    def historical_titles(self, catalogue: Catalogue, at: int) -> TitleView:
        """Read all titles of a catalogue as they were seen at an instant of the past (microseconds since 1970)."""
        return self.historical_titles_of(catalogue, np.array([at], dtype=np.int64))[0][0]

    def historical_titles_of(
        self, catalogue: Catalogue, at_B: NDArray[np.int64]
    ) -> tuple[list[TitleView], NDArray[np.int64]]:
        """Read all titles as they were seen at each of many instants, in one join.

        Nothing changes between two midnights, so there is one view a day: returns the D views in order of time and
        the number of each instant's view, int64[B].
        """
        if not len(at_B):
            return [], at_B
        day_D, view_B = np.unique((at_B - 1) // DAY_US, return_inverse=True)
        step = int(read_json(self._data / SOURCES / MANIFEST)["step_days"])
        midnight_M, taken_D = np.unique(day_D // step * step, return_inverse=True)  # with snapshots, seen from then on
        size, at_D = len(catalogue), (day_D + 1) * DAY_US  # a TTL of whole days treats the instants of a day alike
        rows = self._join(TITLES, list(catalogue.ids) * len(midnight_M), np.repeat(midnight_M * DAY_US + 1, size))
        views = []
        for at, taken in zip(at_D, taken_D, strict=True):
            part = rows.slice(taken * size, size)
            seen_N = visible(versions(part["title_asof_ms"]), int(at), ttl_us=self._ttl_us(TITLES))
            views.append(title_view(part, seen_N, catalogue))
        return views, view_B.astype(np.int64)

    def close(self) -> None:
        """Close every connection; the next use opens them again."""
        store = self.__dict__.pop("_feast", None)
        for name in ("_views", "_online", "_loaded_generation"):
            self.__dict__.pop(name, None)
        if store is not None:
            connection = getattr(store._get_provider().online_store, "_conn", None)
            if connection is not None:
                connection.close()
            store.registry.write_engine.dispose()

    # What Feast is asked, and how.

    @cached_property
    def _feast(self) -> Any:
        feast = _feast_module()
        from feast.repo_config import RepoConfig

        self._data.mkdir(parents=True, exist_ok=True)
        text = (self._repo / "feature_store.yaml").read_text()
        config = RepoConfig(**yaml.safe_load(Template(text).substitute({DATA_VARIABLE: str(self._data)})))
        config.repo_path = self._repo
        return feast.FeatureStore(config=config)

    @cached_property
    def _views(self) -> dict[str, Any]:
        """The registered views; asking the registry costs milliseconds, so it is asked once."""
        return {name: self._feast.get_feature_view(name) for name in (MEMBERS, TITLES)}

    @cached_property
    def _online(self) -> Vocabulary:
        return self._vocabulary(self._data / ONLINE)

    @cached_property
    def _loaded_generation(self) -> str:
        if not (self._data / ONLINE).is_file():
            raise FileNotFoundError(f"{self._data / ONLINE} is not there: load the online store first")
        return str(read_json(self._data / ONLINE)["generation"])

    def _vocabulary(self, path: Path) -> Vocabulary:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there: build the snapshots and load the online store first")
        found = read_json(path)
        return Vocabulary(tuple(found["genres"]), tuple(found["kinds"]))

    def _forget_loaded(self) -> None:
        for name in ("_online", "_loaded_generation"):
            self.__dict__.pop(name, None)

    def _ttl_us(self, name: str) -> int:
        """TTL of a view in microseconds, 0 for none. Raises ValueError unless it is of whole days."""
        ttl_us = (self._views[name].ttl or timedelta()) // timedelta(microseconds=1)
        if ttl_us % DAY_US:
            raise ValueError(f"feature view {name}: its TTL must be whole days, is {self._views[name].ttl}")
        return ttl_us

    def _read(self, name: str, ids: Sequence[str | None]) -> Iterator[tuple[int, Any]]:
        """Number and values of each id that the online store has."""
        known = [(number, key) for number, key in enumerate(ids) if key is not None]
        if not known:
            return
        view = self._views[name]
        keys = [_entity_key(_KEY[name], key) for _, key in known]
        found = self._feast._get_provider().online_read(self._feast.config, view, keys)
        for (number, _), (_, row) in zip(known, found, strict=True):
            if row is not None:
                yield number, row

    def _join(self, name: str, ids: Sequence[str | None], at_B: NDArray[np.int64]) -> pa.Table:
        """Rows of a view as they stood before each instant, in order of the question, null where there is none.

        Raises RuntimeError where Feast answers more or fewer rows than it was asked.
        """
        asked = {
            _KEY[name]: [NOBODY if one is None else one for one in ids],
            "event_timestamp": pa.array(at_B - 1).cast(AT),  # Feast's join takes a row at the instant itself
            "row": np.arange(len(ids)),
        }
        features = [f"{name}:{field.name}" for field in self._views[name].features]
        frame = pa.table(asked).to_pandas()
        with _batch():
            rows = self._feast.get_historical_features(frame, features).to_arrow().sort_by("row")
        if not np.array_equal(rows["row"], asked["row"]):
            raise RuntimeError(f"join of {name}: {len(ids)} questions, {rows.num_rows} answers")
        return rows

    def _remove_others(self, name: str, newest: datetime) -> None:
        """Remove from SQLite what the snapshots do not have (any more): no write of Feast's ever would."""
        if self._feast.config.online_store.type != "sqlite":
            return
        from feast.infra.key_encoding_utils import serialize_entity_key
        from feast.infra.online_stores.helpers import compute_table_id

        config = self._feast.config
        rows = read_parquet(self._data / SOURCES / _FOLDER[name], columns=[_KEY[name], "at"])
        kept = pc.unique(rows.filter(pc.less_equal(rows["at"], pa.scalar(newest, rows["at"].type)))[_KEY[name]])
        version = config.entity_key_serialization_version
        keys = [(serialize_entity_key(_entity_key(_KEY[name], one), version),) for one in kept.to_pylist()]
        table = compute_table_id(
            config.project, self._views[name], config.registry.enable_online_feature_view_versioning
        )
        with contextlib.closing(sqlite3.connect(config.online_store.path, timeout=60)) as connection, connection:
            connection.execute("CREATE TEMP TABLE kept (entity_key BLOB PRIMARY KEY) WITHOUT ROWID")
            connection.executemany("INSERT INTO kept VALUES (?)", keys)
            connection.execute(f'DELETE FROM "{table}" WHERE entity_key NOT IN (SELECT entity_key FROM kept)')


def _entity_key(name: str, value: str) -> Any:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    return EntityKey(join_keys=[name], entity_values=[Value(string_val=value)])


def _definitions(repo: Path, data: Path) -> list[Any]:
    """Everything that the definitions define, for one folder of data."""
    feast = _feast_module()
    with _environment(DATA_VARIABLE):
        os.environ[DATA_VARIABLE] = str(data)
        found = [value for path in sorted(repo.glob("*.py")) for value in runpy.run_path(str(path)).values()]
    kinds = (feast.Entity, feast.FeatureView, feast.FeatureService, feast.data_source.DataSource)
    return [value for value in found if isinstance(value, kinds)]


def _feast_module() -> Any:
    """Import Feast, but not into the multi-process mode of Prometheus that it sets for us and all that we start."""
    with _environment("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR"):
        import prometheus_client  # noqa: F401  decides by the environment, when first imported

        # isort: split
        import feast.data_source

    return feast


@contextlib.contextmanager
def _environment(*names: str) -> Iterator[None]:
    """Give environment variables back the values that they had."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _batch() -> Iterator[None]:
    """Keep Feast's announcements and bars off the terminal, and leave no DuckDB behind; errors are raised all the same.

    A DuckDB connection that lives until the interpreter ends makes it print pages on leaks (seen beside torch).
    """
    import ibis  # type: ignore[import-untyped]

    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.filterwarnings("ignore", message="fetch_arrow_table", category=DeprecationWarning)
        try:
            yield
        finally:
            ibis.options.default_backend = None
            gc.collect()
