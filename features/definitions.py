"""What Feast knows of foretaste: members, titles, their slow views, and what each model reads.

Definitions only. The rows are written by `foretaste.signals.snapshots`; FORETASTE_FEATURES names their folder.
A model is pinned to a service; a change of what a view's rows mean gets a new number in its tags, a change of its
columns or its TTL is noticed by itself.
"""

import os
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, Float32, Int64, String

SOURCES = f"{os.environ['FORETASTE_FEATURES']}/sources"

member = Entity(name="member", join_keys=["member_id"], value_type=ValueType.STRING)
title = Entity(name="title", join_keys=["title_id"], value_type=ValueType.STRING)

member_snapshots = FileSource(
    name="member_snapshots",
    path=f"{SOURCES}/members/*.parquet",
    file_format=ParquetFormat(),
    timestamp_field="at",
)
title_snapshots = FileSource(
    name="title_snapshots",
    path=f"{SOURCES}/titles/*.parquet",
    file_format=ParquetFormat(),
    timestamp_field="at",
)

# A row is written when a value changes, so an old row is not a wrong one, and how old it is stands in every answer.
# The limit is a backstop that even public logs of the last decades stay within; shorten it where taste must not last.
BELIEVED_FOR = timedelta(days=30 * 365)

member_taste = FeatureView(
    name="member_taste",
    description="Long-term taste and activity of a member at midnight UTC",
    entities=[member],
    ttl=BELIEVED_FOR,
    schema=[
        Field(name="member_id", dtype=String),
        Field(
            name="member_asof_ms",
            dtype=Int64,
            description="version: midnight or correction, milliseconds since 1970",
        ),
        Field(name="member_genre_affinity", dtype=Array(Float32), description="shares, by catalogue genre"),
        Field(name="member_kind_affinity", dtype=Array(Float32), description="shares, by catalogue kind"),
        Field(name="member_plays_7d", dtype=Int64, description="choices in the 7 days before"),
        Field(name="member_plays_30d", dtype=Int64, description="choices in the 30 days before"),
        Field(name="member_plays_180d", dtype=Int64, description="choices in the 180 days before"),
        Field(name="member_visits_30d", dtype=Int64, description="sessions that began in the 30 days before"),
        Field(name="member_tenure_days", dtype=Float32, description="days from the first to the newest interaction"),
    ],
    source=member_snapshots,
    online=True,
    tags={"version": "2"},
)

title_popularity = FeatureView(
    name="title_popularity",
    description="How often a title was chosen and finished, at midnight UTC",
    entities=[title],
    ttl=BELIEVED_FOR,
    schema=[
        Field(name="title_id", dtype=String),
        Field(
            name="title_asof_ms",
            dtype=Int64,
            description="version: midnight or correction, milliseconds since 1970",
        ),
        Field(name="title_plays_1d", dtype=Int64, description="choices on the day before"),
        Field(name="title_plays_7d", dtype=Int64, description="choices in the 7 days before"),
        Field(name="title_plays_30d", dtype=Int64, description="choices in the 30 days before"),
        Field(name="title_plays_all", dtype=Int64, description="choices of all time"),
        Field(name="title_completion_rate", dtype=Float32, description="completed share of plays, shrunk to 0"),
        Field(name="title_first_seen_ms", dtype=Int64, description="first interaction, milliseconds since 1970"),
    ],
    source=title_snapshots,
    online=True,
    tags={"version": "2"},
)

ranker = FeatureService(
    name="ranker",
    description="The slow views that the ranker reads",
    features=[member_taste, title_popularity],
)
intent = FeatureService(
    name="intent",
    description="The intent model reads the history alone; its pool is filled by popularity where there is no model",
    features=[title_popularity],
)
