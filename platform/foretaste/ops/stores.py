"""Object stores, and folders, by URI (`s3://`, `gs://`, `file://`), through pyarrow.fs.

A URI may say how to get there: `s3://bucket/prefix?endpoint_override=host:port&scheme=http&region=eu-west-1`; what it
does not say comes from the environment (AWS_ENDPOINT_URL, AWS_REGION, credentials) as pyarrow reads it.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import parse_qsl, urlencode

import pyarrow as pa
import pyarrow.fs as pafs

SCHEMES = ("s3", "gs", "gcs", "file")
GCS_SECONDS = "20"
"""How long a Google store that does not answer is tried, where the URI does not say it."""


def checked(place: str) -> str:
    """Give back a URI. Raises ValueError where its scheme is not known."""
    scheme = place.partition("://")[0]
    if scheme not in SCHEMES:
        raise ValueError(f"{place}: scheme {scheme!r} is not known; wanted a path or one of {', '.join(SCHEMES)}")
    return place


@lru_cache(maxsize=64)
def filesystem_of(place: str, query: str) -> tuple[pafs.FileSystem, str]:
    """The store of a URI without its query, and the path in it. Raises ValueError for a URI that leads nowhere."""
    scheme = checked(place).partition("://")[0]
    said = dict(parse_qsl(query))
    if scheme in ("gs", "gcs"):
        said.setdefault("retry_limit_seconds", GCS_SECONDS)
    uri = f"{place}?{urlencode(said)}" if said else place
    try:
        found, path = pafs.FileSystem.from_uri(uri)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise ValueError(f"{place}: {error}; wanted e.g. s3://bucket/prefix?region=eu-west-1") from error
    return found, path
