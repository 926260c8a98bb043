"""What a member does around a choice, and the events that it leaves.

Shapes: X sessions that act (`rows` are their places among the S of the round), P places of the slate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.events import Action
from foretaste.worlds.choices import draw
from foretaste.worlds.intents import DISCOVER, pick
from foretaste.worlds.log import BROWSE, HOME, PLAYER, SEARCH
from foretaste.worlds.names import GENRES
from foretaste.worlds.scenes import Scene
from foretaste.worlds.viewing import Viewing, view

_LOOK_ODDS = ((0.6, 0.25, 0.1, 0.05), (0.3, 0.35, 0.2, 0.15))  # 0 to 3 titles looked at; the second when discovering
_SEARCHES = (0.06, 0.22)
_BROWSES = (0.08, 0.22)
_SEARCHES_GENRE = 0.75

Origin = dict[str, NDArray[Any]]
"""Where titles were found: surface, position, and whether the session's slate led there."""


def ask(scene: Scene, rows: NDArray[np.int64], chosen_X: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Some browse the row of a genre, some search for a genre or a word of the title; says who searched."""
    rng, num = scene.rng, len(rows)
    discovers_X = (scene.running.intents.action_S[rows] == DISCOVER).astype(np.int64)
    genre_X = scene.running.told_genre_S[rows]
    browses_X = rng.random(num) < np.array(_BROWSES)[discovers_X]
    searches_X = np.asarray(rng.random(num) < np.array(_SEARCHES)[discovers_X])
    query_X = np.where(rng.random(num) < _SEARCHES_GENRE, genre_X, chosen_X + len(GENRES))
    for action, mask_X, values_X in (
        (Action.BROWSE, browses_X, {"genre": genre_X, "surface": np.full(num, BROWSE)}),
        (Action.SEARCH, searches_X, {"query": query_X, "surface": np.full(num, SEARCH)}),
    ):
        who = rows[mask_X]
        values = {name: value[mask_X] for name, value in values_X.items()}
        scene.emit(action, who, **values)
        scene.wait(who, rng.exponential(6.0, len(who)) + 2.0)
    return searches_X


def look(
    scene: Scene,
    rows: NDArray[np.int64],
    cdf: NDArray[np.float64],
    searches_X: NDArray[np.bool_],
) -> None:
    """Open the page of up to three titles, each drawn as the choice is; some are put on the list."""
    rng, num, width = scene.rng, len(rows), len(scene.titles)
    discovers_X = (scene.running.intents.action_S[rows] == DISCOVER).astype(np.int64)
    looks_X = pick(np.array(_LOOK_ODDS)[discovers_X], rng)
    for count in range(3):
        who = np.flatnonzero(looks_X > count)
        title = draw(cdf, width, who, rng.random(len(who)))
        found_by = origin(scene, rows[who], title, searches_X[who])
        detail(scene, rows[who], title, np.zeros(len(who)), found_by)
        keeps = rng.random(len(who)) < 0.06
        keepers = rows[who[keeps]]
        scene.emit(
            Action.ADD_TO_LIST,
            keepers,
            title=title[keeps],
            surface=found_by["surface"][keeps],
        )
        scene.wait(keepers, np.full(len(keepers), 1.5))
    scene.wait(rows, rng.exponential(5.0, num) + 1.0)


def origin(scene: Scene, rows: NDArray[np.int64], title_X: NDArray[np.int64], searches_X: NDArray[np.bool_]) -> Origin:
    """Say where titles were found: on the slate, as often as it made them chosen, or elsewhere."""
    on_XP = scene.running.offer.slate_SP[rows] == title_X[:, None]
    place_X = on_XP.argmax(axis=1)
    boost_X = scene.config.slate_boost / (1.0 + place_X)
    slated_X = on_XP.any(axis=1) & (scene.rng.random(len(rows)) < boost_X / (1.0 + boost_X))
    return {
        "surface": np.where(slated_X, HOME, np.where(searches_X, SEARCH, BROWSE)),
        "position": np.where(slated_X, place_X, -1),
        "decided": slated_X,
    }


def detail(
    scene: Scene, rows: NDArray[np.int64], title_X: NDArray[np.int64], match_X: NDArray[np.float64], found_by: Origin
) -> None:
    """Read the page of a title, the longer the better it matches."""
    dwell_X = scene.rng.lognormal(2.0, 0.6, len(rows)) * (1.0 + match_X) + 1.0
    scene.emit(Action.DETAIL, rows, title=title_X, dwell=dwell_X, **found_by)
    scene.wait(rows, dwell_X + 1.0)


def play(
    scene: Scene,
    rows: NDArray[np.int64],
    chosen_X: NDArray[np.int64],
    match_X: NDArray[np.float64],
    found_by: Origin,
) -> Viewing:
    """Play the movie or the next episodes; each play ends with stop or complete."""
    titles, member_X = scene.titles, scene.round_.member_S[rows]
    released_X = titles.episodes_DN[scene.round_.day_S[rows], chosen_X].astype(np.int64)
    watched_X = scene.state.watched_MN[member_X, chosen_X].astype(np.int64)
    next_X = np.where(watched_X >= released_X, 0, watched_X)  # seen to the end: from the start again
    viewing = view(titles, chosen_X, match_X, next_X, released_X, scene.rng)
    first_X = len(titles) + titles.episodes.first_N1[chosen_X]
    for r in range(viewing.played_XR.shape[1]):
        x = np.flatnonzero(viewing.played_XR[:, r])
        who = rows[x]
        row = np.where(titles.show_N[chosen_X[x]], first_X[x] + viewing.episode_XR[x, r], chosen_X[x])
        started = found_by if r == 0 else {"surface": np.full(len(rows), PLAYER)}
        values = {name: value[x] for name, value in started.items()}
        scene.emit(Action.PLAY, who, title=row, **values)
        fraction = viewing.fraction_XR[x, r]
        dwell = fraction * titles.runtime_N[chosen_X[x]] * 60.0
        scene.wait(who, dwell + 1.0)
        for action, ends in ((Action.COMPLETE, viewing.complete_XR[x, r]), (Action.STOP, ~viewing.complete_XR[x, r])):
            scene.emit(
                action,
                who[ends],
                title=row[ends],
                surface=PLAYER,
                dwell=dwell[ends],
                fraction=fraction[ends],
            )
        scene.wait(who, np.full(len(who), 4.0))
    scene.state.watched_MN[member_X, chosen_X] = next_X + viewing.complete_XR.sum(axis=1)
    return viewing


def thumb(
    scene: Scene,
    rows: NDArray[np.int64],
    chosen_X: NDArray[np.int64],
    liking_X: NDArray[np.float64],
) -> None:
    """Some give a thumb, up or down."""
    u_X = scene.rng.random(len(rows))
    for action, mask_X in (
        (Action.THUMB_UP, u_X < 0.14 * liking_X),
        (Action.THUMB_DOWN, u_X > 1.0 - 0.06 * (1.0 - liking_X)),
    ):
        who = rows[mask_X]
        scene.emit(action, who, title=chosen_X[mask_X], surface=PLAYER)
    scene.wait(rows, scene.rng.exponential(12.0, len(rows)) + 2.0)
