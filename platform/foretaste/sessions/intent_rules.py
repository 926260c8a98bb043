"""The rules that the intent specifications name: of interactions, what the member came for.

Every rule reads the past and the present of an interaction within its own history; `search` also what the search led
to afterwards. Labels are targets, never inputs.

Shapes: T interactions of all histories together, G genres.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.catalogue import UNKNOWN_TIME, Catalogue
from foretaste.contracts.events import ACTION_CODES, ENTRIES, Action
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import ACTION_CLASSES, SEARCH_CLASSES, LabelConfig
from foretaste.contracts.relations import DISCOVER, Past, chosen, recency_classes, relations

BROWSE, SEARCH, MESSAGE = range(len(ENTRIES))
FETCH, FIND, EXPLORE = range(len(SEARCH_CLASSES))


@dataclass(frozen=True, slots=True)
class Queries:
    """The searches that led to interactions; histories do not hold their words."""

    query_T: NDArray[np.int32]  # number of the query in `words`, -1 where no search led there
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """What a rule may read."""

    histories: Histories
    catalogue: Catalogue
    queries: Queries
    config: LabelConfig


Rule = Callable[[Labelled], NDArray[np.int32] | NDArray[np.float32]]


def queries_of(interactions: pa.Table) -> Queries:
    """Read the queries of an INTERACTIONS table, row t of which is interaction t."""
    coded = interactions["query"].combine_chunks().dictionary_encode()
    return Queries(
        np.asarray(coded.indices.fill_null(-1), dtype=np.int32),
        tuple(word or "" for word in coded.dictionary.to_pylist()),
    )


def action(given: Labelled) -> NDArray[np.int32]:
    """Code in `ACTION_CLASSES` of every interaction, -1 for a title outside the catalogue; int32[T]."""
    histories, config = given.histories, given.config
    code = {name: np.int32(number) for number, name in enumerate(ACTION_CLASSES)}
    series_T = given.catalogue.series_N1[histories.title_T]
    label_T = relations(Past(histories, config).before_each(), series_T, histories.at_T, config)
    new_T = label_T == DISCOVER
    label_T[new_T & (histories.fraction_T < np.float32(config.sample_below))] = code["sample"]
    label_T[new_T & (histories.entry_T == MESSAGE)] = code["message_then_play"]
    label_T[new_T & (histories.entry_T == SEARCH)] = code["search_then_play"]
    did_T = histories.action_T
    instead_T = np.full(len(label_T), code["look"])
    instead_T[did_T == ACTION_CODES[Action.ADD_TO_LIST]] = code["save_for_later"]
    instead_T[np.isin(did_T, [ACTION_CODES[Action.RATE], ACTION_CODES[Action.THUMB_UP]])] = code["rate"]
    label_T = np.where(chosen(histories, config), label_T, instead_T)
    label_T[did_T == ACTION_CODES[Action.THUMB_DOWN]] = code["dislike"]
    label_T[histories.title_T == 0] = -1
    return label_T


def genre(given: Labelled) -> NDArray[np.float32]:
    """1 for each genre of the title, 0 throughout when unknown; float32[T, G]."""
    return given.catalogue.genres_N1G[given.histories.title_T]


def kind(given: Labelled) -> NDArray[np.int32]:
    """Code of `Catalogue.kinds`, -1 for a title outside the catalogue; int32[T]."""
    return given.catalogue.kind_N1[given.histories.title_T]


def recency(given: Labelled) -> NDArray[np.int32]:
    """Code in `LabelConfig.recency_classes`, -1 without a release date; int32[T]."""
    released_T = given.catalogue.released_N1[given.histories.title_T]
    known_T = released_T != UNKNOWN_TIME
    return recency_classes(given.histories.at_T - np.where(known_T, released_T, 0), known_T, given.config)


def search(given: Labelled) -> NDArray[np.int32]:
    """Code in `SEARCH_CLASSES` of every interaction that a search led to, -1 of any other; int32[T].

    Neighbours in one session that the same query led to are of one search, and all have its label.
    """
    histories, query_T = given.histories, given.queries.query_T
    led_T = (query_T >= 0) & (histories.entry_T == SEARCH)
    if not led_T.any():
        return np.full(len(led_T), -1, dtype=np.int32)
    row_T = np.repeat(np.arange(len(histories)), histories.lengths_B)
    opens_T = np.ones(len(led_T), dtype=np.bool_)
    for same in (row_T, histories.session_T, query_T, led_T):
        opens_T[1:] &= same[1:] == same[:-1]
    opens_T[1:] = ~opens_T[1:]
    first_R = np.flatnonzero(opens_T)
    run_T = np.cumsum(opens_T) - 1
    chosen_T = chosen(histories, given.config) & (histories.action_T != ACTION_CODES[Action.THUMB_DOWN])
    none = len(led_T)
    choice_R = np.minimum.reduceat(np.where(chosen_T, np.arange(none), none), first_R)
    some_R = choice_R < none
    at_R = np.where(some_R, choice_R, 0)
    soon_R = at_R - first_R < given.config.explore_looks
    label_R = np.where(some_R & soon_R, FIND, EXPLORE).astype(np.int32)
    named_R = some_R & led_T[first_R]
    named_R[named_R] = names(given.queries, at_R[named_R], histories, given.catalogue)
    label_R[named_R] = FETCH
    return np.where(led_T, label_R[run_T], np.int32(-1))


def names(
    queries: Queries, index_X: NDArray[np.int64], histories: Histories, catalogue: Catalogue
) -> NDArray[np.bool_]:
    """Say of interactions whether the query that led there names the title; bool[X]."""
    width = len(catalogue) + 1
    pairs, place_X = np.unique(
        queries.query_T[index_X].astype(np.int64) * width + histories.title_T[index_X], return_inverse=True
    )
    asked = [words(query) for query in queries.words]
    said = {title: words(catalogue.names[title - 1]) for title in set((pairs % width).tolist()) - {0}}
    found = [
        bool(asked[query]) and asked[query] <= said.get(title, frozenset())
        for query, title in zip((pairs // width).tolist(), (pairs % width).tolist(), strict=True)
    ]
    return np.array(found, dtype=np.bool_)[place_X]


def is_named(query: str, name: str) -> bool:
    """Whether every word of the query is a word of the name; case, accents and punctuation do not count."""
    asked, said = words(query), words(name)
    return bool(asked) and asked <= said


def words(text: str) -> frozenset[str]:
    """Normalise a text to its words."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return frozenset("".join(c if c.isalnum() else " " for c in plain).split())


RULES: dict[str, Rule] = {"action": action, "genre": genre, "kind": kind, "recency": recency, "search": search}
"""The rules by name."""
