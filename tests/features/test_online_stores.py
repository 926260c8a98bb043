"""SQLite and Redis hold the same rows of the same definitions, and keep what Feast does not promise."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.columns import AT, MEMBER_SNAPSHOTS
from foretaste.ops.files import read_json, write_json, write_parquet
from foretaste.signals.checks import check_rows
from foretaste.signals.snapshots import SnapshotConfig, build_snapshots
from foretaste.signals.store import FeatureStore
from foretaste.signals.store_feast import connection_string
from foretaste.signals.views import ABSENT
from foretaste.testing.builders import START, interactions_table, prepared_folder, random_interactions, titles_table

REPO = Path(__file__).parents[2] / "features"
TITLES = titles_table(12, seed=2)
KNOWN = catalogue(TITLES)
IDS = [*(f"m{number:03d}" for number in range(8)), None, "nobody"]
NOW = START + timedelta(days=40)


def us(at: datetime) -> int:
    return round((at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "sqlite" else str(request.getfixturevalue("redis_url"))


@pytest.fixture
def store(tmp_path: Path, url: str | None) -> Iterator[FeatureStore]:
    write(tmp_path, random_interactions(TITLES, actors=8, days=35, seed=3))
    build(tmp_path, NOW)
    made = FeatureStore(REPO, tmp_path / "features", url)
    made.apply()
    yield made
    for name in ("member_taste", "title_popularity"):
        made._source.remove_others(name, [])  # the server is shared
    made.close()


def write(folder: Path, rows: pa.Table) -> None:
    prepared_folder(folder / "prepared", rows, TITLES)


def build(folder: Path, now: datetime, **settings: Any) -> None:
    # A weight of its own for each folder keeps generations, and so keys in a shared Redis, apart.
    weight = (zlib.crc32(str(folder).encode()) % 9_973) / 10_000
    config = SnapshotConfig(step_days=1, browse_weight=weight)
    build_snapshots(folder / "prepared", folder / "features", config, now=now, **settings)


def same(one: Any, other: Any) -> None:
    for name in type(one).__slots__:
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine.dtype, mine.tobytes()) == (theirs.dtype, theirs.tobytes()), name


def test_online_after_loading_is_offline_at_that_instant(store: FeatureStore) -> None:
    for until in (START + timedelta(days=3), START + timedelta(days=20, hours=7), NOW):
        store.materialize(until)
        same(store.members(IDS, us(until)), store.historical_members(IDS, np.full(len(IDS), us(until))))
        same(store.titles(KNOWN, us(until)), store.historical_titles(KNOWN, us(until)))
    assert (store.members(IDS, us(NOW)).asof_ms_B != ABSENT).sum() == 8


def test_loading_everything_again_changes_nothing(store: FeatureStore) -> None:
    store.materialize(NOW)
    before = store.members(IDS, us(NOW))
    store.materialize(NOW, full=True)
    same(store.members(IDS, us(NOW)), before)


def test_a_straggler_with_older_rows_does_not_win(store: FeatureStore) -> None:
    store.materialize(NOW)
    before = store.members(IDS, us(NOW))
    store._online.load(["member_taste"], START, START + timedelta(days=10))
    same(store.members(IDS, us(NOW)), before)


def test_a_forgotten_member_is_nowhere_and_does_not_come_back(store: FeatureStore, tmp_path: Path) -> None:
    store.materialize(NOW)
    assert store.forget("m001") > 0
    assert store.members(["m001", "m002"], us(NOW)).asof_ms_B.tolist()[0] == ABSENT
    build(tmp_path, NOW + timedelta(days=1), deleted={"m001": us(NOW)})
    later = NOW + timedelta(days=1)
    store.materialize(later, full=True)
    seen = store.members(["m001", "m002"], us(later)).asof_ms_B
    assert (seen == ABSENT).tolist() == [True, False]
    assert (store.historical_members(["m001"], np.array([us(NOW)])).asof_ms_B == ABSENT).all()


def test_milliseconds_survive(store: FeatureStore, tmp_path: Path) -> None:
    """A correction has a version within a second; what is read back is exactly it."""
    store.materialize(NOW)
    rows = random_interactions(TITLES, actors=8, days=35, seed=3).to_pylist()
    late = [(row["actor_id"], row["at"], row["title_id"], row["action"]) for row in rows]
    write(tmp_path, interactions_table([*late, ("m000", START + timedelta(days=1.25), "t0003")]))
    later = NOW + timedelta(hours=5, milliseconds=345, microseconds=7)
    build(tmp_path, later)
    store.materialize(later)
    version = int(store.members(["m000"], us(later)).asof_ms_B[0])
    assert version == us(later) // 1000
    assert version % 1000 == 345


def test_any_value_that_the_writer_takes_comes_back_bit_by_bit(store: FeatureStore, tmp_path: Path) -> None:
    dice = np.random.default_rng(8)
    size, genres, kinds = 200, len(KNOWN.genres), len(KNOWN.kinds)
    ids = [f"é {number}/{chr(0x4E00 + number)}" for number in range(size)]
    edges = np.array([0, 1, 2**31, 2**53 - 1])
    counts = np.where(
        dice.uniform(size=(4, size)) < 0.5, dice.choice(edges, (4, size)), dice.integers(0, 2**53, (4, size))
    )
    reals = dice.integers(0, 2**32, size * (genres + kinds + 1), dtype=np.uint32).view(np.float32)
    reals = np.where(np.isfinite(reals), reals, np.float32(1e-45))
    published_ms = read_json(tmp_path / "features" / "sources" / "manifest.json")["published_ms"]
    version = published_ms - dice.integers(0, 5_000, size)
    of_genres, of_kinds, tenure = np.split(reals, [size * genres, size * (genres + kinds)])
    columns = {
        "member_id": pa.array(ids),
        "at": pa.array(version * 1000).cast(AT),
        "member_asof_ms": pa.array(version),
        "member_genre_affinity": pa.array(of_genres.reshape(size, genres).tolist(), pa.list_(pa.float32())),
        "member_kind_affinity": pa.array(of_kinds.reshape(size, kinds).tolist(), pa.list_(pa.float32())),
        "member_tenure_days": pa.array(tenure),
    }
    names = ("member_plays_7d", "member_plays_30d", "member_plays_180d", "member_visits_30d")
    columns |= {name: pa.array(count) for name, count in zip(names, counts, strict=True)}
    table = pa.table({name: columns[name] for name in MEMBER_SNAPSHOTS.names}).cast(MEMBER_SNAPSHOTS)
    write_parquet(table, tmp_path / "features" / "sources" / "members" / "00000-999999999999999-00000.parquet")
    store.materialize(NOW)
    found = store.members(ids, us(NOW))
    same(found, store.members_at(ids, version))
    assert found.tenure_days_B.tobytes() == tenure.tobytes()
    assert found.genre_affinity_BG.tobytes() == of_genres.tobytes()
    assert found.visits_30d_B.tolist() == counts[3].tolist()
    assert found.asof_ms_B.tolist() == version.tolist()


def test_when_the_store_is_down_loading_raises_and_the_watermark_stays(store: FeatureStore, tmp_path: Path) -> None:
    store.materialize(START + timedelta(days=10))
    before = (tmp_path / "features" / "online.json").read_bytes()
    down = FeatureStore(REPO, tmp_path / "features", "redis://127.0.0.1:1/0")
    with pytest.raises(Exception, match=r"127\.0\.0\.1:1"):
        down.materialize(NOW)
    assert (tmp_path / "features" / "online.json").read_bytes() == before
    store.materialize(NOW)
    assert store.members(IDS, us(NOW)).asof_ms_B.max() > us(START + timedelta(days=10)) // 1000


def test_keys_in_redis_outlive_every_ttl(tmp_path: Path, redis_url: str) -> None:
    import redis

    write(tmp_path, interactions_table([("m", 0.5, "t0001")]))
    build(tmp_path, NOW)
    store = FeatureStore(REPO, tmp_path / "features", redis_url)
    store.apply()
    store.materialize(NOW)
    client: Any = redis.Redis.from_url(redis_url)
    mine = [key for key in client.scan_iter() if key.endswith(f"foretaste_{store.generation}".encode())]
    ttl_seconds = store._online.ttl_us("member_taste") // 1_000_000
    assert len(mine) == 2
    assert all(ttl_seconds < client.ttl(key) for key in mine)
    client.delete(*mine)
    client.close()
    store.close()


def test_both_configurations_differ_in_the_online_store_alone() -> None:
    import yaml

    local, cluster = (
        yaml.safe_load((REPO / name).read_text()) for name in ("feature_store.yaml", "feature_store.redis.yaml")
    )
    assert local.pop("online_store")["type"] == "sqlite"
    assert cluster.pop("online_store")["type"] == "redis"
    assert local == cluster


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("redis://h:1/0", "h:1,db=0"),
        ("redis://h", "h:6379"),
        ("rediss://u:p@h:2/3", "h:2,username=u,password=p,db=3,ssl=true"),
    ],
)
def test_a_url_is_said_as_feast_wants_it(given: str, wanted: str) -> None:
    assert connection_string(given) == wanted


def test_another_kind_of_url_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="scheme 'http'") as error:
        connection_string("http://user:secret@h/0")
    assert "secret" not in str(error.value)


def row(**said: Any) -> pa.Table:
    plain: dict[str, Any] = {field.name: 1 for field in MEMBER_SNAPSHOTS}
    plain |= {"member_id": "m", "at": START, "member_asof_ms": us(START) // 1000, "member_tenure_days": 0.5}
    plain |= {"member_genre_affinity": [0.5], "member_kind_affinity": []}
    good, bad = plain | {"member_id": "good"}, plain | said
    return pa.Table.from_pylist(
        [good, bad], schema=pa.schema([field.with_nullable(True) for field in MEMBER_SNAPSHOTS])
    )


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"member_plays_7d": None}, "row 1 .member_id 'm'.: member_plays_7d is None, wanted a value"),
        ({"member_tenure_days": float("nan")}, "member_tenure_days is nan, wanted a finite number"),
        ({"member_genre_affinity": [0.5, None]}, r"member_genre_affinity is \[0.5, None\], wanted finite numbers only"),
        ({"member_genre_affinity": [float("inf")]}, r"member_genre_affinity is \[inf\], wanted finite numbers only"),
        ({"member_plays_7d": 2**53}, "wanted an integer below 2.53"),
        ({"member_id": ""}, "wanted an id that is not empty"),
        ({"at": START + timedelta(microseconds=1)}, "wanted whole milliseconds, those of `at`"),
    ],
)
def test_the_writer_refuses_what_would_not_come_back(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_rows(row(**said), "member_id", "member_asof_ms", what="part")
    check_rows(row(), "member_id", "member_asof_ms", what="part")


def test_the_writer_refuses_numbers_for_ids() -> None:
    table = row()
    numbers = table.set_column(0, "member_id", pa.array([1, 2]))
    with pytest.raises(ValueError, match="column member_id is int64, wanted string"):
        check_rows(numbers, "member_id", "member_asof_ms", what="part")
    assert table["at"].type == AT


def test_a_model_of_other_views_is_refused(tmp_path: Path) -> None:
    write(tmp_path, interactions_table([("m", 0.5, "t0001")]))
    build(tmp_path, NOW)
    store = FeatureStore(REPO, tmp_path / "features")
    store.apply()
    contract = store.contract("ranker")
    assert contract["views"].keys() == {"member_taste", "title_popularity"}
    store.materialize(NOW)
    store.check(KNOWN, contract)
    with pytest.raises(ValueError, match=r"views of service 'ranker' are .*trained with .*1-other"):
        store.check(KNOWN, contract | {"views": contract["views"] | {"member_taste": "1-other"}})
    later = NOW + timedelta(days=1)
    build_snapshots(tmp_path / "prepared", tmp_path / "features", SnapshotConfig(step_days=1, prior_plays=3), now=later)
    store.check(KNOWN, contract)  # the new rows are not loaded yet
    store.apply()
    store.materialize(later)
    with pytest.raises(ValueError, match="fingerprint of service 'ranker'"):
        store.check(KNOWN, contract)
    store.close()


def test_an_online_state_of_an_earlier_version_asks_for_a_load(tmp_path: Path) -> None:
    write_json({"genres": [], "kinds": [], "until": "2026-01-01T00:00:00+00:00"}, tmp_path / "online.json")
    with pytest.raises(FileNotFoundError, match="earlier version: load the online store again"):
        FeatureStore(REPO, tmp_path).check(KNOWN)
    assert "loads" not in read_json(tmp_path / "online.json")
