"""What the ranker knows of a title as a candidate for a member at an instant: the same for training and requests.

Every row depends on its own request and title alone, and (rank and standing) on the pool it is in; batches of any size
give the same bits. Every value is finite.

Shapes: B requests, C candidates each, F columns, T interactions of all histories, N titles, N1 catalogue codes,
G genres, K kinds, W values of a signal.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import UNKNOWN_TIME, Catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import USUAL, Intent, LabelConfig, possible_classes
from foretaste.contracts.relations import recency_classes
from foretaste.contracts.sessions import SessionRule
from foretaste.signals.column_groups import Signals, own_history, signalled, slow
from foretaste.signals.crosses import (
    CHOOSING,
    DAY_US,
    chance,
    expected,
    genre_parts,
    kind_parts,
    logprobs,
    ranks,
    regrouped,
    standing,
)
from foretaste.signals.session import current_session, session_affinity
from foretaste.signals.views import MemberView, TitleView

CANDIDATE_COLUMNS: tuple[str, ...] = (
    "intent_logprob",  # of the title, by the intent model; not below LEAST_LOGPROB
    "intent_rank",  # log(1 + candidates of the pool that score higher)
    "intent_standing",  # standardised within the pool
    "genre_match",  # expected share of the predicted genre in the title's genres
    "kind_match",  # predicted probability of the title's kind
    "recency_match",  # predicted probability of the title's recency class
    "action_match",  # predicted probability of what choosing the title would be: contracts.intents.RELATIONS
    "session_genre",  # affinity of the session that is going on to the title's genres
    "session_kind",
    "session_genre_yes",  # the same of what it says yes to: signal session_genres_lately
    "session_genre_no",  # of what it refuses: session_genres_refused
    "past_genre",  # of the sessions before
    "past_kind",
    "query_match",  # share of the words of the session's newest query that the title's name or genres have
    "member_genre",  # long-term affinity of the member to the title's genres
    "member_kind",
    "plays_1d",  # log(1 + plays)
    "plays_7d",
    "plays_30d",
    "plays_all",
    "completion_rate",
    "first_seen",  # log(1 + days since its first interaction), 0 before it or when unknown
    "age",  # log(1 + days since release), 0 before it or when unknown
    "age_unknown",  # 1 where there is no release date
    "is_series",
    "seen_in_session",  # 1 where the session has an interaction with the title
    "chosen_in_session",  # 1 where it was chosen there
    "seen_before",  # 1 where the history has an interaction
    "since_seen",  # log(1 + hours since the newest), LONGEST_HOURS without any
    "since_chosen",
    "finished",  # 1 where it was played to its end before
    "listed",  # 1 where it was put on the list
    "continues",  # 1 where choosing it would be that: contracts.relations
    "resumes",
    "returns",
    "rewatches",
    "from_list",
)
_SIGNALS = ("session_genres_lately", "session_genres_refused", "past_genres", "past_kinds", "query_tokens")
_CELLS = 4_000_000  # floats of B x C x G held at a time


def candidate_features(
    histories: Histories,
    asof_B: NDArray[np.int64],
    candidates_BC: NDArray[np.int32],
    intent_scores_BN: NDArray[np.float32],
    intents: Mapping[str, NDArray[np.float32]],
    catalogue: Catalogue,
    members: MemberView,
    titles: TitleView,
    *,
    signals: Signals | None = None,
    first_B: NDArray[np.int64] | None = None,
    rule: SessionRule | None = None,
    labels: LabelConfig | None = None,
    classes: Mapping[str, tuple[str, ...]] | None = None,
) -> NDArray[np.float32]:
    """Describe candidates by CANDIDATE_COLUMNS: float32[B, C, F].

    `histories` hold what is visible at `asof_B` (microseconds since 1970). `candidates_BC` are catalogue codes; a row
    of code 0 is padding, stands in no pool and is 0 throughout. `intent_scores_BN` are log-probabilities, column j of
    code j + 1; `intents` holds probabilities by contracts.intents.Intent, a head that is off is missing and matches 0.
    `first_B` is of `session.current_session`, where it is at hand. `labels` says what the intents mean, `classes` the
    names of each head's columns, by default all of `labels`.
    Raises ValueError where shapes do not fit each other.
    """
    labels, signals = labels or USUAL, signals or {}
    classes = {name.value: of for name, of in possible_classes(catalogue, labels).items()} | dict(classes or {})
    _check(histories, asof_B, candidates_BC, intent_scores_BN, intents, classes, catalogue, members, titles)
    rows = max(1, _CELLS // max(1, candidates_BC.shape[1] * max(1, len(catalogue.genres))))
    size = len(asof_B)
    parts = [
        _features(
            histories if size <= rows else histories.rows(part),
            asof_B[part],
            candidates_BC[part],
            intent_scores_BN[part],
            {name: probability[part] for name, probability in intents.items()},
            catalogue,
            members if size <= rows else members.rows(part),
            titles,
            {name: value_BW[part] for name, value_BW in signals.items() if name in _SIGNALS},
            first_B if first_B is not None and size <= rows else None,
            rule or SessionRule(),
            labels,
            classes,
        )
        for part in (np.arange(first, min(first + rows, size)) for first in range(0, size, rows))
    ]
    empty = np.zeros((0, candidates_BC.shape[1], len(CANDIDATE_COLUMNS)), dtype=np.float32)
    return np.concatenate(parts) if parts else empty


def _features(
    histories: Histories,
    asof_B: NDArray[np.int64],
    candidates_BC: NDArray[np.int32],
    intent_scores_BN: NDArray[np.float32],
    intents: Mapping[str, NDArray[np.float32]],
    catalogue: Catalogue,
    members: MemberView,
    titles: TitleView,
    signals: Signals,
    first_B: NDArray[np.int64] | None,
    rule: SessionRule,
    labels: LabelConfig,
    classes: Mapping[str, tuple[str, ...]],
) -> NDArray[np.float32]:
    real_BC = candidates_BC > 0
    of_genres, of_kinds = partial(genre_parts, catalogue), partial(kind_parts, catalogue)
    genres_BCG = of_genres(candidates_BC)
    kind_BC = catalogue.kind_N1[candidates_BC]
    first_B = current_session(histories, asof_B, rule=rule) if first_B is None else first_B
    logprob_BC = logprobs(intent_scores_BN, candidates_BC)
    released_BC = catalogue.released_N1[candidates_BC]
    known_BC = released_BC != UNKNOWN_TIME
    age_BC = np.where(known_BC, asof_B[:, None] - np.where(known_BC, released_BC, 0), 0)
    relation_BC, columns = own_history(histories, asof_B, first_B, candidates_BC, catalogue, labels)
    columns |= slow(members, titles, candidates_BC, genres_BCG, kind_BC, asof_B)
    columns |= signalled(signals, catalogue, candidates_BC, genres_BCG, kind_BC)
    columns |= {
        "intent_logprob": logprob_BC,
        "intent_rank": np.log1p(ranks(np.where(real_BC, logprob_BC, -np.inf))),
        "intent_standing": standing(logprob_BC, real_BC),
        "genre_match": expected(genres_BCG, intents.get(Intent.GENRE)),
        "kind_match": chance(intents.get(Intent.KIND), kind_BC),
        "recency_match": chance(
            regrouped(intents, classes, Intent.RECENCY, tuple((name,) for name in labels.recency_classes)),
            recency_classes(age_BC, known_BC, labels),
        ),
        "action_match": chance(regrouped(intents, classes, Intent.ACTION, CHOOSING), relation_BC),
        "session_genre": expected(genres_BCG, session_affinity(histories, first_B, of_genres)),
        "session_kind": chance(session_affinity(histories, first_B, of_kinds), kind_BC),
        "age": np.log1p(np.maximum(age_BC, 0) / DAY_US),
        "age_unknown": ~known_BC,
        "is_series": catalogue.series_N1[candidates_BC],
    }
    features_BCF = np.empty((*candidates_BC.shape, len(CANDIDATE_COLUMNS)), dtype=np.float32)
    for place, name in enumerate(CANDIDATE_COLUMNS):
        features_BCF[:, :, place] = columns[name]
    features_BCF[~real_BC] = 0.0
    return features_BCF


def _check(
    histories: Histories,
    asof_B: NDArray[np.int64],
    candidates_BC: NDArray[np.int32],
    intent_scores_BN: NDArray[np.float32],
    intents: Mapping[str, NDArray[np.float32]],
    classes: Mapping[str, tuple[str, ...]],
    catalogue: Catalogue,
    members: MemberView,
    titles: TitleView,
) -> None:
    size, num_genres, num_kinds = len(asof_B), len(catalogue.genres), len(catalogue.kinds)
    heads = {name: len(of) for name, of in classes.items()} | {Intent.GENRE: num_genres, Intent.KIND: num_kinds}
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "histories": ((len(histories),), (size,)),
        "candidates": (candidates_BC.shape[:1], (size,)),
        "intent scores": (intent_scores_BN.shape, (size, len(catalogue))),
        "members' genres": (members.genre_affinity_BG.shape, (size, num_genres)),
        "members' kinds": (members.kind_affinity_BK.shape, (size, num_kinds)),
        "titles": (titles.plays_all.shape, (len(catalogue) + 1,)),
    } | {f"intent {name}": (intents[name].shape, (size, width)) for name, width in heads.items() if name in intents}
    wrong = [f"{name} {found}, wanted {wanted}" for name, (found, wanted) in shapes.items() if found != wanted]
    if candidates_BC.size and not 0 <= candidates_BC.min() <= candidates_BC.max() <= len(catalogue):
        wrong.append(f"candidates {candidates_BC.min()}..{candidates_BC.max()}, wanted codes 0..{len(catalogue)}")
    if wrong:
        raise ValueError(f"candidate features: {'; '.join(wrong)}")
