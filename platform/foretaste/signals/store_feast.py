"""One generation of the slow views in Feast: definitions, registry, joins with DuckDB, the online store.

The only file that imports Feast, and only when something is first asked: the import takes seconds. A generation is a
Feast project of its own, so that its rows never stand beside those of another in a table or under a key.

Shapes: B questions.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import json
import os
import runpy
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pyarrow as pa
import yaml
from numpy.typing import NDArray

from foretaste.contracts.columns import AT
from foretaste.signals.joins import JoinRule
from foretaste.signals.midnights import DAY_US
from foretaste.signals.store_online import OnlineRows, RedisRows, SqliteRows

DATA_VARIABLE, GENERATION_VARIABLE = "FORETASTE_FEATURES", "FORETASTE_GENERATION"
REGISTRY_VARIABLE, ONLINE_VARIABLE = "FORETASTE_REGISTRY", "FORETASTE_ONLINE"
"""Variables of the configuration: folder of the data, generation, database of the registry, and where Redis is."""
DRIVERS = {"postgresql": "postgresql+psycopg2", "sqlite": "sqlite"}
ATTEMPTS = 6
"""How often a registry is asked that others write to: two that begin at once make its tables at once, and one fails."""
MEMBERS, TITLES = "member_taste", "title_popularity"
KEY = {MEMBERS: "member_id", TITLES: "title_id"}
NOBODY = ""
"""Stands for a guest in joins; no member has an empty id."""


class FeastProject:
    """One generation in Feast; connections are opened at first use."""

    def __init__(self, repo: Path, data: Path, generation: str, url: str | None, registry: str | None = None) -> None:
        """`repo` holds configuration and definitions.

        The online store is SQLite in `data`, or the Redis at `url`; the registry is SQLite there, or the SQL database
        at `registry`, which belongs to this `data` alone.
        """
        self._repo, self._data, self.generation, self._url = repo, data, generation, url
        self._registry = registry

    def apply(self) -> None:
        """Register the definitions; again changes nothing. Others may do the same at the same time."""
        defined = _definitions(self._repo, self._data)
        feast = self.feast
        with quiet():
            _again(lambda: feast.apply(defined))
        for name in (MEMBERS, TITLES):
            self._online.prepare(self.table(name))
        self.__dict__.pop("views", None)

    def load(self, names: Sequence[str], start: datetime, end: datetime) -> None:
        """Load the newest row of each key between two instants, both inclusive. Raises what the stores raise."""
        with batch():
            self.feast.materialize(start, end, list(names))

    def join(self, name: str, ids: Sequence[str | None], at_B: NDArray[np.int64]) -> pa.Table:
        """Rows of a view as they stood before each instant, in order of the question, null where there is none.

        Raises RuntimeError where Feast answers more or fewer rows than it was asked.
        """
        asked = {
            KEY[name]: [NOBODY if one is None else one for one in ids],
            "event_timestamp": pa.array(at_B - 1).cast(AT),  # Feast's join takes a row at the instant itself
            "row": np.arange(len(ids)),
        }
        features = [f"{name}:{field.name}" for field in self.views[name].features]
        frame = pa.table(asked).to_pandas()
        with batch():
            rows = self.feast.get_historical_features(frame, features).to_arrow().sort_by("row")
        if not np.array_equal(rows["row"], asked["row"]):
            raise RuntimeError(f"join of {name}: {len(ids)} questions, {rows.num_rows} answers")
        return rows

    def read(self, name: str, ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """Read rows online, all in one call: values by column, None where there is no row."""
        return self._online.read(self.table(name), self._fields[name], self.keys(name, ids))

    def keys(self, name: str, ids: Sequence[str]) -> list[bytes]:
        """Entity keys as Feast writes them."""
        return [self._entity(name, one) for one in ids]

    def remove(self, name: str, ids: Sequence[str]) -> None:
        """Remove rows from the online store."""
        self._online.remove(self.table(name), self.keys(name, ids))

    def remove_others(self, name: str, ids: Sequence[str]) -> None:
        """Remove from the online store whatever is not among these: no write of Feast's ever would."""
        self._online.remove_others(self.table(name), KEY[name], self.keys(name, ids))

    def join_rule(self, name: str, num_buckets: int) -> JoinRule:
        """How the registry says that a view is joined; the same as `join`, for `joins.join_rows`."""
        view = self.views[name]
        (key,) = view.join_keys
        folder = Path(view.batch_source.path).parent
        return JoinRule(name, key, tuple(self.columns(name)), self.ttl_us(name), folder, num_buckets)

    def ttl_us(self, name: str) -> int:
        """TTL of a view in microseconds, 0 for none. Raises ValueError unless it is of whole days."""
        ttl = self.views[name].ttl or timedelta()
        if ttl % timedelta(microseconds=DAY_US):
            raise ValueError(f"feature view {name}: its TTL must be whole days, is {ttl}")
        return int(ttl // timedelta(microseconds=1))

    def columns(self, name: str) -> list[str]:
        """Columns of values of a view."""
        return [field.name for field in self.views[name].features]

    def service(self, name: str) -> dict[str, str]:
        """Views of a model's service with their versions: what stands in their tags, and a digest of the columns."""
        service = self.feast.get_feature_service(name)
        return {one.name: self._version(one.name) for one in service.feature_view_projections}

    def table(self, name: str) -> str:
        """Name of a view in the online store."""
        if self._url is None:
            from feast.infra.online_stores.helpers import compute_table_id

            versioned = self.feast.config.registry.enable_online_feature_view_versioning
            return str(compute_table_id(self.feast.config.project, self.views[name], versioned))
        from feast.infra.online_stores.helpers import compute_versioned_name

        return str(
            compute_versioned_name(self.views[name], self.feast.config.registry.enable_online_feature_view_versioning)
        )

    def close(self) -> None:
        """Close every connection; the next use opens them again."""
        online = self.__dict__.pop("_online", None)
        if online is not None:
            online.close()
        store = self.__dict__.pop("feast", None)
        self.__dict__.pop("views", None)
        if store is not None:
            connection = getattr(store._get_provider().online_store, "_conn", None)
            if connection is not None:
                connection.close()
            store.registry.write_engine.dispose()

    @cached_property
    def feast(self) -> Any:
        """Feast's own store."""
        feast = _feast_module()
        from feast.repo_config import RepoConfig

        self._data.mkdir(parents=True, exist_ok=True)
        name = "feature_store.yaml" if self._url is None else "feature_store.redis.yaml"
        said = {DATA_VARIABLE: str(self._data), GENERATION_VARIABLE: self.generation}
        said[REGISTRY_VARIABLE] = registry_path(self._registry or f"sqlite:///{self._data}/registry.db")
        if self._url is not None:
            said[ONLINE_VARIABLE] = connection_string(self._url)
        config = RepoConfig(**_substituted(yaml.safe_load((self._repo / name).read_text()), said))
        config.repo_path = self._repo
        return _again(lambda: feast.FeatureStore(config=config))

    @cached_property
    def views(self) -> dict[str, Any]:
        """The registered views; asking the registry costs milliseconds, so it is asked once."""
        return {name: self.feast.get_feature_view(name) for name in (MEMBERS, TITLES)}

    @cached_property
    def _fields(self) -> dict[str, dict[str, str]]:
        """By view and column, where Feast's protobuf keeps a value of its type."""
        from feast.types import Array, Float32, Int64

        kept = {Int64: "int64_val", Float32: "float_val", Array(Float32): "float_list_val"}
        return {name: {one.name: kept[one.dtype] for one in view.features} for name, view in self.views.items()}

    @cached_property
    def _online(self) -> OnlineRows:
        config = self.feast.config
        if self._url is None:
            return SqliteRows(Path(config.online_store.path))
        return RedisRows(self.feast._get_provider().online_store._get_client(config.online_store), config.project)

    def _entity(self, name: str, value: str) -> bytes:
        from feast.infra.key_encoding_utils import serialize_entity_key
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        key = EntityKey(join_keys=[KEY[name]], entity_values=[Value(string_val=value)])
        return bytes(serialize_entity_key(key, self.feast.config.entity_key_serialization_version))

    def _version(self, name: str) -> str:
        view = self.views[name]
        fields = [(field.name, str(field.dtype)) for field in view.features]
        digest = hashlib.blake2b(json.dumps([fields, str(view.ttl)]).encode(), digest_size=4).hexdigest()
        return f"{view.tags['version']}-{digest}"


def connection_string(url: str) -> str:
    """Say redis://[user:password@]host:port/db (rediss: with TLS) as Feast wants it.

    What the client wants to know besides stands in the query: ?ssl_ca_certs=/path/ca.crt. Raises ValueError for another
    scheme or without a host.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ValueError(f"online features: wanted a URL like redis://host:6379/0, found scheme {parts.scheme!r}")
    said = {"username": parts.username or None, "password": parts.password, "db": parts.path.strip("/") or None}
    said["ssl"] = "true" if parts.scheme == "rediss" else None
    said |= dict(parse_qsl(parts.query))  # e.g. ssl_ca_certs, as for the session log
    options = [f"{name}={value}" for name, value in said.items() if value is not None]
    return ",".join([f"{parts.hostname}:{parts.port or 6379}", *options])


def registry_path(url: str) -> str:
    """Say the URL of a SQL database as Feast wants it, with the driver that is installed.

    Raises ValueError, which does not show it, for a database of another kind.
    """
    scheme, mark, rest = url.partition("://")
    if scheme not in DRIVERS or not mark:
        raise ValueError(
            f"registry of features: wanted a URL like postgresql://user:password@host:5432/database, found scheme "
            f"{scheme if mark else ''!r}"
        )
    return f"{DRIVERS[scheme]}://{rest}"


def database(url: str) -> str:
    """Which database answers at a URL of the registry.

    Raises ConnectionError, which does not show the URL, where none does.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError

    engine = create_engine(registry_path(url))
    try:
        with engine.connect() as connection:
            version = ".".join(str(part) for part in connection.dialect.server_version_info or ())
    except DBAPIError as error:
        raise ConnectionError(str(error.orig).strip().partition("\n")[0]) from None
    finally:
        engine.dispose()
    return f"{engine.dialect.name} {version}".strip()


def _again(do: Callable[[], Any]) -> Any:
    """Do what is safe to repeat, again where another process was at the same rows, or made the same tables."""
    from feast.errors import ConcurrentVersionConflict
    from sqlalchemy.exc import DBAPIError

    for attempt in range(1, ATTEMPTS + 1):
        try:
            return do()
        except (DBAPIError, ConcurrentVersionConflict):
            if attempt == ATTEMPTS:
                raise
            time.sleep(0.05 * 2**attempt)
    raise AssertionError("an attempt returns or raises")


def _substituted(value: Any, said: Mapping[str, str]) -> Any:
    """Fill in variables after the file was parsed: what stands in a password is no YAML."""
    if isinstance(value, dict):
        return {key: _substituted(one, said) for key, one in value.items()}
    return Template(value).substitute(said) if isinstance(value, str) else value


def _definitions(repo: Path, data: Path) -> list[Any]:
    """Everything that the definitions define, for one folder of data."""
    feast = _feast_module()
    with _environment(DATA_VARIABLE):
        os.environ[DATA_VARIABLE] = str(data)
        found = [value for path in sorted(repo.glob("*.py")) for value in runpy.run_path(str(path)).values()]
    views = (feast.FeatureView, feast.OnDemandFeatureView)
    kinds = (feast.Entity, *views, feast.FeatureService, feast.data_source.DataSource)
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
def quiet() -> Iterator[None]:
    """Keep Feast's announcements and bars off the terminal; errors are raised all the same."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.filterwarnings("ignore", message="fetch_arrow_table", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="On demand feature view", category=RuntimeWarning)
        yield


@contextlib.contextmanager
def batch() -> Iterator[None]:
    """Be quiet, and leave no DuckDB behind.

    A DuckDB connection that lives until the interpreter ends makes it print pages on leaks (seen beside torch).
    """
    import ibis  # type: ignore[import-untyped]

    try:
        with quiet():
            yield
    finally:
        ibis.options.default_backend = None
        gc.collect()
