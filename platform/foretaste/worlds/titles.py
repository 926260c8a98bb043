"""The catalogue of a world: movies, shows and episodes, with what is planted in them.

Shapes: N titles that can be recommended, in order of release; E episodes, those of a show together;
G genres; D days of the window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.columns import AT, TITLES, conform
from foretaste.contracts.truth import TRUTH_TITLES
from foretaste.worlds.config import DAY_US, WorldConfig
from foretaste.worlds.names import GENRES, NEIGHBOURS, names

KINDS = ("movie", "show")
SECOND_GENRE = 0.7
"""How much of a title a genre is that is not its first."""

_EPISODE_OPENINGS = ("Pilot", "The Return", "Crossroads", "Old Debts", "Open Water", "The Visit", "Aftermath", "Finale")


@dataclass(frozen=True)
class Episodes:
    """E episodes in order of show, season and number."""

    ids: tuple[str, ...]
    show_E: NDArray[np.int64]  # index into N
    season_E: NDArray[np.int64]
    number_E: NDArray[np.int64]
    day_E: NDArray[np.int64]  # of release, 0 is the first day of the window
    first_N1: NDArray[np.int64]  # episodes of title n are first_N1[n]:first_N1[n + 1]


@dataclass(frozen=True)
class Titles:
    """N titles in order of release, so that those available on a day are the first ones."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    genre_NG: NDArray[np.float64]  # 1 for the first genre, SECOND_GENRE for others, else 0
    first_genre_N: NDArray[np.int64]
    show_N: NDArray[np.bool_]
    day_N: NDArray[np.int64]  # of release, 0 is the first day of the window
    appeal_N: NDArray[np.float64]  # log weight
    quality_N: NDArray[np.float64]  # 0..1
    runtime_N: NDArray[np.float64]  # minutes
    available_D: NDArray[np.int64]  # titles released by each day of the window
    episodes_DN: NDArray[np.int32]  # episodes released by each day
    episodes: Episodes

    def __len__(self) -> int:
        return len(self.ids)


def make_titles(config: WorldConfig) -> Titles:
    """Draw the catalogue of a world; it depends on the configuration alone."""
    rng = np.random.default_rng([config.seed, 1])
    num = config.num_movies + config.num_shows
    show_N = np.arange(num) >= config.num_movies
    genre_NG, first_genre_N = _genres(num, rng)
    day_N = _release_days(config, num, rng)
    appeal_N = -config.popularity_exponent * np.log(rng.permutation(num) + 1.0)
    standard_N = (appeal_N - appeal_N.mean()) / max(float(appeal_N.std()), 1e-9)
    quality_N = 1.0 / (1.0 + np.exp(-(0.4 * standard_N + 1.2 * rng.standard_normal(num))))
    runtime_N = np.round(np.where(show_N, rng.uniform(22.0, 58.0, num), rng.uniform(82.0, 148.0, num)))
    name_N = names([GENRES[g] for g in first_genre_N], rng)
    id_N = [f"show-{n - config.num_movies + 1:05d}" if show_N[n] else f"movie-{n + 1:05d}" for n in range(num)]

    order = np.argsort(day_N, kind="stable")
    ids = tuple(id_N[n] for n in order)
    episodes = _episodes(config, ids, show_N[order], day_N[order], rng)
    days = np.arange(config.days)
    return Titles(
        ids=ids,
        names=tuple(name_N[n] for n in order),
        genre_NG=genre_NG[order],
        first_genre_N=first_genre_N[order],
        show_N=show_N[order],
        day_N=day_N[order],
        appeal_N=appeal_N[order],
        quality_N=quality_N[order],
        runtime_N=runtime_N[order].astype(np.float64),
        available_D=np.searchsorted(day_N[order], days, side="right"),
        episodes_DN=_released_by(episodes, num, config.days),
        episodes=episodes,
    )


def _genres(num: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    share_G = 1.0 / np.sqrt(1.0 + rng.permutation(len(GENRES)))
    first_N = rng.choice(len(GENRES), size=num, p=share_G / share_G.sum())
    genre_NG = np.zeros((num, len(GENRES)))
    neighbour_GX = np.array([[GENRES.index(other) for other in NEIGHBOURS[genre]] for genre in GENRES])
    for chance, odds in ((0.6, (0.6, 0.3, 0.1)), (0.15, (0.2, 0.4, 0.4))):
        also_N = neighbour_GX[first_N, rng.choice(3, size=num, p=odds)]
        rows = np.flatnonzero(rng.random(num) < chance)
        genre_NG[rows, also_N[rows]] = SECOND_GENRE
    genre_NG[np.arange(num), first_N] = 1.0
    return genre_NG, first_N


def _release_days(config: WorldConfig, num: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Some during the window, some in the eight weeks before it, the rest over decades."""
    u_N = rng.random(num)
    during_N = rng.integers(1, config.days, num)
    before_N = -rng.integers(1, 57, num)
    long_ago_N = -57 - np.minimum(rng.exponential(6.0 * 365, num), 35.0 * 365).astype(np.int64)
    recent_N = u_N < config.released_share + 0.1
    return np.where(u_N < config.released_share, during_N, np.where(recent_N, before_N, long_ago_N))


def _episodes(
    config: WorldConfig,
    ids: tuple[str, ...],
    show_N: NDArray[np.bool_],
    day_N: NDArray[np.int64],
    rng: np.random.Generator,
) -> Episodes:
    """One to four seasons a show; three shows in ten run weekly during the window."""
    rows: list[tuple[int, int, int, int]] = []
    first_N1 = np.zeros(len(ids) + 1, dtype=np.int64)
    for n in range(len(ids)):
        if show_N[n]:
            weekly = rng.random() < 0.3
            final_start = int(rng.integers(-28, max(config.days - 7, -27)))
            seasons, length = int(rng.integers(1, 5)), int(rng.integers(5, 9))
            for season in range(seasons):
                start = int(day_N[n]) + 370 * season
                if weekly and season == seasons - 1 and season > 0:
                    start = max(start, final_start)
                days = [start + 7 * number for number in range(length)]
                rows.extend((n, season + 1, k + 1, day) for k, day in enumerate(days) if day < config.days)
        first_N1[n + 1] = len(rows)
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    return Episodes(
        ids=tuple(f"{ids[n]}-s{season:02d}e{number:02d}" for n, season, number, _ in rows),
        show_E=table[:, 0],
        season_E=table[:, 1],
        number_E=table[:, 2],
        day_E=table[:, 3],
        first_N1=first_N1,
    )


def _released_by(episodes: Episodes, num: int, days: int) -> NDArray[np.int32]:
    count_DN = np.zeros((days, num), dtype=np.int32)
    np.add.at(count_DN, (np.maximum(episodes.day_E, 0), episodes.show_E), 1)
    return np.cumsum(count_DN, axis=0, dtype=np.int32)


def titles_table(titles: Titles, config: WorldConfig) -> pa.Table:
    """TITLES: recommendable titles in order of release, then all episodes."""
    episodes = titles.episodes
    show_E = episodes.show_E.tolist()
    genres_N = [
        [GENRES[g] for g in np.argsort(-row, kind="stable")[: np.count_nonzero(row)]] for row in titles.genre_NG
    ]
    released = np.concatenate([titles.day_N, episodes.day_E]) * DAY_US + config.first_us
    n, e = len(titles), len(episodes.ids)
    table = pa.table(
        {
            "title_id": [*titles.ids, *episodes.ids],
            "kind": [KINDS[int(show)] for show in titles.show_N] + ["episode"] * e,
            "name": [*titles.names, *(_episode_name(episodes, titles, row) for row in range(e))],
            "genres": genres_N + [genres_N[show] for show in show_E],
            "released_at": pa.array(released, AT),
            "available_from": pa.array(released, AT),
            "series_id": [None] * n + [titles.ids[show] for show in show_E],
            "season": pa.array([None] * n + episodes.season_E.tolist(), pa.int32()),
            "episode": pa.array([None] * n + episodes.number_E.tolist(), pa.int32()),
            "text": [_synopsis(titles.names[row], genres_N[row], bool(titles.show_N[row])) for row in range(n)]
            + [None] * e,
            "artworks": pa.array([[] for _ in range(n + e)], pa.list_(pa.string())),
        }
    )
    return conform(table, TITLES, what="titles of the world")


def _episode_name(episodes: Episodes, titles: Titles, row: int) -> str:
    season, number = int(episodes.season_E[row]), int(episodes.number_E[row])
    opening = _EPISODE_OPENINGS[(number - 1) % len(_EPISODE_OPENINGS)]
    return f"{titles.names[int(episodes.show_E[row])]} S{season:02d}E{number:02d}: {opening}"


def _synopsis(name: str, genres: list[str], show: bool) -> str:
    also = f" with a touch of {' and '.join(genres[1:])}" if genres[1:] else ""
    article = "An" if genres[0][0] in "aeiou" else "A"
    return f"{article} {genres[0]} {'series' if show else 'film'}{also}: {name}."


def truth_titles(titles: Titles) -> pa.Table:
    """TRUTH_TITLES, in the order of the titles."""
    table = pa.table(
        {
            "title_id": list(titles.ids),
            "appeal": titles.appeal_N,
            "quality": titles.quality_N,
            "runtime_minutes": titles.runtime_N,
            "num_episodes": np.diff(titles.episodes.first_N1),
        }
    )
    return conform(table, TRUTH_TITLES, what="truth of titles")
