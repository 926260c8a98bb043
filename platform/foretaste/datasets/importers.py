"""Every log that can be imported, by name, and how its tables are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretaste.datasets import deskdrop, movielens, movietweetings, yoochoose
from foretaste.datasets.logs import Log
from foretaste.ops.files import read_json, whole_folder, write_json, write_parquet

FILE_ROWS = 250_000


@dataclass(frozen=True, slots=True)
class Importer:
    """One log: what it is, under which terms, and how to read it."""

    name: str
    about: str
    terms: str  # licence, as stated by its source
    load: Callable[[Path], Log]
    caution: str | None = None  # what figures on it must not be taken for; stands beside all of them


IMPORTERS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        Importer(
            "movielens-1m",
            "ratings of films, 2000-2003, by members of a recommendation site",
            "GroupLens: no redistribution without permission, not for commercial use",
            movielens.load,
            "«sessions» are sign-up forms: 54% of the gaps within them are 0 s, and 61% of the ratings lie in a "
            "member's first; order within equal times is that of the file, which members share, so that models of "
            "order gain from how the form listed films (compare with ties shuffled)",
        ),
        Importer(
            "movietweetings",
            "ratings of films named in tweets, 2013",
            "MIT",
            movietweetings.load,
            "1.2 ratings a session: nothing can be said about adapting within sessions",
        ),
        Importer("deskdrop", "articles read inside a company, with native sessions", "none stated", deskdrop.load),
        Importer(
            "yoochoose",
            "clicks of a shop's anonymous sessions, 2014",
            "none stated",
            yoochoose.load,
            "anonymous: an actor is one session, so that there is no history before it",
        ),
    )
}


def import_dataset(name: str, source: Path, out: Path) -> dict[str, Any]:
    """Write events/, titles.parquet and manifest.json of a log to `out`, whole or not at all; returns its counts.

    Raises ValueError for an unknown name and for a source that is not the log, saying which files were wanted.
    """
    if name not in IMPORTERS:
        raise ValueError(f"no importer {name!r}; there are {sorted(IMPORTERS)}")
    importer = IMPORTERS[name]
    log = importer.load(source)
    counts = log.counts()
    with whole_folder(out) as folder:
        for number, start in enumerate(range(0, log.events.num_rows, FILE_ROWS)):
            write_parquet(log.events.slice(start, FILE_ROWS), folder / "events" / f"{number:04d}.parquet")
        write_parquet(log.titles, folder / "titles.parquet")
        about = {
            "dataset": name,
            "about": importer.about,
            "terms": importer.terms,
            "source": source.name,
            "caution": importer.caution,
        }
        write_json(about | {"counts": counts}, folder / "manifest.json")
    return counts


def caution(raw: Path) -> str | None:
    """What must be said beside figures on the log of a raw folder; None where nothing is known against it."""
    found: str | None = _about(raw).get("caution")
    return found


def ties_seed(raw: Path) -> int | None:
    """Seed by which the order of equal times was drawn in a raw folder; None where it is the log's own."""
    found: int | None = _about(raw).get("ties_seed")
    return found


def _about(raw: Path) -> dict[str, Any]:
    path = raw / "manifest.json"
    about: dict[str, Any] = read_json(path) if path.is_file() else {}
    return about
