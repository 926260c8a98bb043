"""The slow views of one workspace: what requests read of them, what training reads of the past, and their loading.

Feast holds definitions, joins offline and the rows online (store_feast). What it leaves open is decided here, alike
online and offline: a row is visible strictly after its version and until its view's TTL, inclusive; what is not there
is absent; the answer has the order of the question; joins see what was loaded when it was asked.

Shapes: B requests or cases, C titles asked for, D distinct instants.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.ops.files import parquet_files, read_json, read_parquet
from foretaste.signals.checks import check_rows
from foretaste.signals.joins import ON_RAY_FROM, JoinRule, join_rows
from foretaste.signals.loads import ONLINE, Loaded, read_loaded
from foretaste.signals.published import (
    MANIFEST,
    MEMBER_PARTS,
    SOURCES,
    TITLE_PARTS,
    TitleVersions,
    forget_rows,
    writing,
)
from foretaste.signals.published import generation as published
from foretaste.signals.store_feast import DATA_VARIABLE, KEY, MEMBERS, NOBODY, TITLES, FeastProject
from foretaste.signals.views import (
    MEMBER_COUNTS,
    MEMBER_LISTS,
    MEMBER_REALS,
    TITLE_COUNTS,
    TITLE_REALS,
    MemberView,
    TitleView,
    Vocabulary,
    member_view,
    title_view,
    versions,
    visible,
)

__all__ = ["DATA_VARIABLE", "MEMBERS", "ONLINE", "TITLES", "FeatureStore"]

_FOLDER = {MEMBERS: MEMBER_PARTS, TITLES: TITLE_PARTS}
_VERSION = {MEMBERS: "member_asof_ms", TITLES: "title_asof_ms"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OVERLAP = timedelta(days=1)
"""An incremental load begins so long before the last one ended: rows of a run that failed are loaded, too."""
_FOREVER_US = 1 << 62


class FeatureStore:
    """The slow views of one workspace; all connections are opened at first use."""

    def __init__(self, repo: Path, data: Path, url: str | None = None, registry: str | None = None) -> None:
        """`repo` holds the configuration and definitions, `data` (<workspace>/features) everything else.

        The online store is SQLite in `data`, or the Redis at `url`; Feast's registry is SQLite there, or the SQL
        database at `registry`, which belongs to this `data` alone.
        """
        self._repo, self._data, self._url, self._registry = repo.absolute(), data.absolute(), url, registry
        self._projects: dict[str, FeastProject] = {}
        self._title_versions: dict[tuple[str, str], TitleVersions] = {}

    # Loading.

    def apply(self) -> None:
        """Register the definitions; again changes nothing. Raises FileNotFoundError where there are no snapshots."""
        self._source.apply()

    def materialize(self, until: datetime, *, full: bool = False) -> dict[str, int]:
        """Load the newest row before `until` of each member and title into the online store, and leave no other there.

        What was published since the last load is loaded, or, for another generation or `full`, everything. Only after
        all is there does `online.json` say so. Returns rows loaded by view. Raises what the stores raise; ValueError
        where `until` has no time zone or lies before the last load, or a row is not fit to be written.
        """
        if until.tzinfo is None:
            raise ValueError(f"materialize: until {until} has no time zone")
        with writing(self._data):
            said = read_json(self._manifest_path())
            before = read_loaded(self._data) if (self._data / ONLINE).is_file() else None
            same = before is not None and before.generation == said["generation"]
            at_us = (until - _EPOCH) // timedelta(microseconds=1)
            through_ms = min((at_us - 1) // 1000, int(said["published_ms"]))
            loads = before.loads if before is not None and same else ()
            if loads and at_us < loads[-1][1]:
                raise ValueError(f"materialize: until {until} lies before the last load; an older row would win")
            start = _EPOCH if full or not loads else max(_EPOCH, _instant(loads[-1][0]) - OVERLAP)
            counts = self._load(start, _instant(through_ms))
            vocabulary = Vocabulary(tuple(said["genres"]), tuple(said["kinds"]))
            previous = before.previous if before is not None and same else None
            if before is not None and not same:
                previous = before.generation
            loaded = Loaded(
                said["generation"], said["fingerprint"], vocabulary, (*loads, (through_ms, at_us)), previous
            )
            loaded.write(self._data)
            if before is not None and not same and before.previous is not None:
                self._clear(before.previous)
        self.__dict__.pop("_loaded", None)
        return counts

    def forget(self, member_id: str) -> int:
        """Remove a member from the online store and from every published row; returns how many rows were published.

        Published rows that are being written by another process just then stay until the next publication, which is
        told of every deletion; so a request that deletes never waits for one.
        """
        if (self._data / ONLINE).is_file():
            loaded = read_loaded(self._data)
            for name in filter(None, (loaded.generation, loaded.previous)):
                self._project(name).remove(MEMBERS, [member_id])
        with writing(self._data, wait=False) as alone:
            return forget_rows(self._data, {member_id: _FOREVER_US}) if alone else 0

    # Requests.

    @property
    def generation(self) -> str:
        """Generation of the rows that are online: with their versions it says exactly what was read."""
        return self._loaded.generation

    def contract(self, service: str) -> dict[str, Any]:
        """What a model that reads a service depends on: its views with their versions, and what their rows mean."""
        said = read_json(self._manifest_path())
        return {"service": service, "views": self._source.service(service), "fingerprint": said["fingerprint"]}

    def check(self, catalogue: Catalogue, contract: Mapping[str, Any] | None = None) -> None:
        """Look at what is online now. Raises ValueError where it is not what a model was trained with.

        That is: other genres or kinds than the catalogue's, or other views, or rows of another meaning, than the
        `contract` says that was filed with the model.
        """
        self.__dict__.pop("_loaded", None)
        self._loaded.vocabulary.check(catalogue, what=f"online store of {self._data}")
        if contract is None:
            return
        found = {"views": self._online.service(contract["service"]), "fingerprint": self._loaded.fingerprint}
        for what, value in found.items():
            if contract[what] != value:
                raise ValueError(
                    f"online store of {self._data}: {what} of service {contract['service']!r} are {value}, the model "
                    f"was trained with {contract[what]}: train it again, or load the features it was trained with"
                )

    def members(self, ids: Sequence[str | None], at: int) -> MemberView:
        """Read members for a request at `at` (microseconds since 1970), all in one read; None is a guest: absent."""
        view = self._loaded.vocabulary.absent(len(ids))
        known = [(number, key) for number, key in enumerate(ids) if key is not None]
        if not known:
            return view
        online = self._online
        ttl_us = online.ttl_us(MEMBERS)
        for (number, _), row in zip(known, online.read(MEMBERS, [key for _, key in known]), strict=True):
            if row is None or not _visible(row["member_asof_ms"], at, ttl_us):
                continue
            for column, name in _MEMBER_ARRAYS:
                getattr(view, name)[number] = row[column]
        return view

    def titles(self, catalogue: Catalogue, at: int) -> TitleView:
        """Read all titles of a catalogue as they are at `at` (microseconds): a matrix to be kept by the caller."""
        view, online = TitleView.absent(catalogue), self._online
        ttl_us = online.ttl_us(TITLES)
        for code, row in enumerate(online.read(TITLES, catalogue.ids), start=1):
            if row is None or not _visible(row["title_asof_ms"], at, ttl_us):
                continue
            for column, name in _TITLE_ARRAYS:
                getattr(view, name)[code] = row[column]
        return view

    # The past.

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
        vocabulary = published(self._data).vocabulary
        if not len(ids):
            return vocabulary.absent(0)
        asked = [NOBODY if one is None else one for one in ids]
        rows = self._join(MEMBERS, asked, self._seen_from(at_B))
        seen_B = visible(versions(rows["member_asof_ms"]), at_B, ttl_us=self._source.ttl_us(MEMBERS))
        return member_view(rows, seen_B, vocabulary)

    def historical_titles(self, catalogue: Catalogue, at: int) -> TitleView:
        """Read all titles of a catalogue as they were seen at an instant of the past (microseconds since 1970)."""
        return self.historical_titles_of(catalogue, np.array([at], dtype=np.int64))[0][0]

    def historical_titles_of(
        self, catalogue: Catalogue, at_B: NDArray[np.int64]
    ) -> tuple[list[TitleView], NDArray[np.int64]]:
        """Read all titles as they were seen at each of many instants, in one join.

        Nothing changes between two instants at which a row becomes visible or expires: returns the D views in order of
        time and the number of each instant's view, int64[B].
        """
        if not len(at_B):
            return [], at_B
        version_V, ttl_us = self._title_versions_ms(), self._source.ttl_us(TITLES)
        place_B = np.searchsorted(version_V * 1000, self._seen_from(at_B))  # versions that lie before the instant
        gone_B = np.searchsorted(version_V * 1000 + ttl_us, at_B) if ttl_us else np.zeros_like(place_B)
        state_BS = np.stack([place_B, gone_B], axis=1)
        state_DS, first_D, view_B = np.unique(state_BS, axis=0, return_index=True, return_inverse=True)
        place_D, taken_D = np.unique(state_DS[:, 0], return_inverse=True)
        size = len(catalogue)
        asked = np.append(0, version_V * 1000 + 1)[place_D]
        rows = self._join(TITLES, list(catalogue.ids) * len(place_D), np.repeat(asked, size))
        views = []
        for at, taken in zip(at_B[first_D], taken_D, strict=True):
            part = rows.slice(taken * size, size)
            seen_N = visible(versions(part["title_asof_ms"]), int(at), ttl_us=ttl_us)
            views.append(title_view(part, seen_N, catalogue))
        return views, view_B.reshape(-1).astype(np.int64)

    def join_rule(self, name: str) -> JoinRule:
        """How a view is joined at past instants, for `joins.join_rows`: MEMBERS or TITLES."""
        said = read_json(self._manifest_path())
        return self._source.join_rule(name, len(said["buckets"]) if name == MEMBERS else 1)

    def online_keys(self, name: str, ids: Sequence[str]) -> tuple[str, list[bytes]]:
        """Where Feast keeps rows online, for benchmarks against the bare store: table and entity keys."""
        return self._online.table(name), self._online.keys(name, ids)

    def close(self) -> None:
        """Close every connection; the next use opens them again."""
        for project in self._projects.values():
            project.close()
        self._projects.clear()
        self.__dict__.pop("_loaded", None)

    # Of which generation.

    @cached_property
    def _loaded(self) -> Loaded:
        return read_loaded(self._data)

    @property
    def _online(self) -> FeastProject:
        return self._project(self._loaded.generation)

    @property
    def _source(self) -> FeastProject:
        return self._project(read_json(self._manifest_path())["generation"])

    def _project(self, generation: str) -> FeastProject:
        if generation not in self._projects:
            self._projects[generation] = FeastProject(self._repo, self._data, generation, self._url, self._registry)
        return self._projects[generation]

    def _manifest_path(self) -> Path:
        path = self._data / SOURCES / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there: build the snapshots first")
        return path

    def _seen_from(self, at_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Instants to join at, so that a row is seen when it was loaded, and none that a run has not committed."""
        said = read_json(self._manifest_path())
        limit_B = np.minimum(at_B, int(said["published_ms"]) * 1000 + 1)
        if not (self._data / ONLINE).is_file():
            return limit_B
        loaded = read_loaded(self._data)
        return np.minimum(limit_B, loaded.seen_from(at_B)) if loaded.generation == said["generation"] else limit_B

    def _join(self, name: str, ids: Sequence[str], at_B: NDArray[np.int64]) -> pa.Table:
        """Join bucket by bucket; many questions in Ray's tasks, where Ray runs."""
        ray = sys.modules.get("ray")
        spread = len(ids) >= ON_RAY_FROM and ray is not None and ray.is_initialized()
        return join_rows(self.join_rule(name), ids, at_B, ray=spread)

    def _title_versions_ms(self) -> NDArray[np.int64]:
        rows = read_parquet(self._data / SOURCES / TITLE_PARTS, columns=["title_asof_ms"])
        return np.unique(np.asarray(rows["title_asof_ms"]))

    def _load(self, start: datetime, end: datetime) -> dict[str, int]:
        """Load the views between two instants, and remove from online what is not published (any more)."""
        project = self._source
        published_keys = {name: self._checked(name, start, end) for name in (MEMBERS, TITLES)}
        counts = {name: count for name, (_, count) in published_keys.items()}
        some = [name for name, count in counts.items() if count]
        if some:
            project.load(some, start, end)
        for name, (keys, _) in published_keys.items():
            project.remove_others(name, keys)
        return counts

    def _checked(self, name: str, start: datetime, end: datetime) -> tuple[list[str], int]:
        """Keys published up to an instant, and how many rows lie between two, each fit to be written."""
        keys, count, version = set(), 0, _VERSION[name]
        for file in parquet_files(self._data / SOURCES / _FOLDER[name]):
            rows = read_parquet(file)
            rows = rows.filter(pc.less_equal(rows[version], _milliseconds(end)))
            keys.update(pc.unique(rows[KEY[name]]).to_pylist())
            new = rows.filter(pc.greater_equal(rows[version], _milliseconds(start)))
            check_rows(new, KEY[name], version, what=str(file))
            count += new.num_rows
        return sorted(keys), count

    def _clear(self, generation: str) -> None:
        """Remove all rows of a generation from the online store."""
        for name in (MEMBERS, TITLES):
            self._project(generation).remove_others(name, [])


_MEMBER_ARRAYS = tuple((MEMBER_LISTS | MEMBER_COUNTS | MEMBER_REALS).items())
_TITLE_ARRAYS = tuple((TITLE_COUNTS | TITLE_REALS).items())


def _visible(asof_ms: int, at: int, ttl_us: int) -> bool:
    """`views.visible` of one row."""
    age_us = at - asof_ms * 1000
    return age_us > 0 and (not ttl_us or age_us <= ttl_us)


def _instant(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


def _milliseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)
