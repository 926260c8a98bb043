"""What the ranker knows of a title as a candidate for a member at an instant: the same for training and requests.

Every row depends on its own request and title alone, and (rank and standing) on the pool it is in; batches of any size
give the same bits. Every value is finite.

Shapes: B requests, C candidates each, F columns, T interactions of all histories, N titles, N1 catalogue codes,
G genres, K kinds, X classes of one intent.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import UNKNOWN_TIME, Catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import DISCOVERIES, RELATIONS, USUAL, Intent, LabelConfig, possible_classes
from foretaste.contracts.relations import NEVER, Past, recency_classes, relations
from foretaste.contracts.sessions import SessionRule
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
    "member_genre",  # long-term affinity of the member to the title's genres
    "member_kind",
    "plays_7d",  # log(1 + plays)
    "plays_30d",
    "plays_all",
    "completion_rate",
    "age",  # log(1 + days since release), 0 before it or when unknown
    "age_unknown",  # 1 where there is no release date
    "seen_in_session",  # 1 where the session has an interaction with the title
    "seen_before",  # 1 where the history has
    "session_depth",  # log(1 + interactions of the session)
    "idle",  # log(1 + hours since the newest interaction), LONGEST_HOURS without any
    "member_plays_30d",  # log(1 + plays)
    "member_tenure",  # log(1 + days)
)
LEAST_LOGPROB = -30.0
LONGEST_HOURS = 24.0 * 365
HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
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
    rule: SessionRule | None = None,
    labels: LabelConfig | None = None,
    classes: Mapping[str, tuple[str, ...]] | None = None,
) -> NDArray[np.float32]:
    """Describe candidates by CANDIDATE_COLUMNS: float32[B, C, F].

    `histories` hold what is visible at `asof_B` (microseconds since 1970). `candidates_BC` are catalogue codes; a row
    of code 0 is padding, stands in no pool and is 0 throughout. `intent_scores_BN` are log-probabilities, column j of
    code j + 1; `intents` holds probabilities by contracts.intents.Intent, a head that is off is missing and matches 0.
    `labels` says what the intents mean and `classes` the names of each head's columns, by default all of `labels`.
    Raises ValueError where shapes do not fit each other.
    """
    labels = labels or USUAL
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
    rule: SessionRule,
    labels: LabelConfig,
    classes: Mapping[str, tuple[str, ...]],
) -> NDArray[np.float32]:
    real_BC = candidates_BC > 0
    genre_parts, kind_parts = partial(_genre_parts, catalogue), partial(_kind_parts, catalogue)
    genres_BCG = genre_parts(candidates_BC)
    kind_BC = catalogue.kind_N1[candidates_BC]
    first_B = current_session(histories, asof_B, rule=rule)
    row_BC = np.broadcast_to(np.arange(len(asof_B))[:, None], candidates_BC.shape)
    standing, newest_BC = Past(histories, labels).of(row_BC, candidates_BC)
    relation_BC = relations(standing, catalogue.series_N1[candidates_BC], asof_B[:, None], labels)
    logprob_BC = _logprobs(intent_scores_BN, candidates_BC)
    released_BC = catalogue.released_N1[candidates_BC]
    known_BC = released_BC != UNKNOWN_TIME
    age_BC = np.where(known_BC, asof_B[:, None] - np.where(known_BC, released_BC, 0), 0)
    columns: dict[str, NDArray[np.generic]] = {
        "intent_logprob": logprob_BC,
        "intent_rank": np.log1p(_ranks(np.where(real_BC, logprob_BC, -np.inf))),
        "intent_standing": _standing(logprob_BC, real_BC),
        "genre_match": _expected(genres_BCG, intents.get(Intent.GENRE)),
        "kind_match": _chance(intents.get(Intent.KIND), kind_BC),
        "recency_match": _chance(
            _regrouped(intents, classes, Intent.RECENCY, tuple((name,) for name in labels.recency_classes)),
            recency_classes(age_BC, known_BC, labels),
        ),
        "action_match": _chance(_regrouped(intents, classes, Intent.ACTION, CHOOSING), relation_BC),
        "session_genre": _expected(genres_BCG, session_affinity(histories, first_B, genre_parts)),
        "session_kind": _chance(session_affinity(histories, first_B, kind_parts), kind_BC),
        "member_genre": _expected(genres_BCG, members.genre_affinity_BG),
        "member_kind": _chance(members.kind_affinity_BK, kind_BC),
        "plays_7d": np.log1p(titles.plays_7d[candidates_BC]),
        "plays_30d": np.log1p(titles.plays_30d[candidates_BC]),
        "plays_all": np.log1p(titles.plays_all[candidates_BC]),
        "completion_rate": titles.completion_rate[candidates_BC],
        "age": np.log1p(np.maximum(age_BC, 0) / DAY_US),
        "age_unknown": ~known_BC,
        "seen_in_session": newest_BC >= first_B[:, None],
        "seen_before": standing.touched_at_X != NEVER,
        "session_depth": np.log1p(histories.offsets_B1[1:] - first_B)[:, None],
        "idle": np.log1p(_idle_hours(histories, asof_B))[:, None],
        "member_plays_30d": np.log1p(members.count_30d_B)[:, None],
        "member_tenure": np.log1p(members.tenure_days_B.astype(np.float64))[:, None],
    }
    features_BCF = np.empty((*candidates_BC.shape, len(CANDIDATE_COLUMNS)), dtype=np.float32)
    for place, name in enumerate(CANDIDATE_COLUMNS):
        features_BCF[:, :, place] = columns[name]
    features_BCF[~real_BC] = 0.0
    return features_BCF


CHOOSING: tuple[tuple[str, ...], ...] = tuple(
    (relation, *DISCOVERIES) if relation == "discover" else (relation,) for relation in RELATIONS
)
"""For each relation, the action classes that choosing such a title can have: how a discovery goes is not yet known."""


def _regrouped(
    intents: Mapping[str, NDArray[np.float32]],
    classes: Mapping[str, tuple[str, ...]],
    intent: Intent,
    groups: tuple[tuple[str, ...], ...],
) -> NDArray[np.float64] | None:
    """Probability of each group of classes, 0 for classes that the head does not have: float64[B, X]."""
    chance_BX = intents.get(intent)
    if chance_BX is None:
        return None
    sums_BX = np.zeros((len(chance_BX), len(groups)))
    for group, names in enumerate(groups):
        for name in names:
            if name in classes[intent]:
                sums_BX[:, group] += chance_BX[:, classes[intent].index(name)]
    return sums_BX


def _genre_parts(catalogue: Catalogue, codes: NDArray[np.int32]) -> NDArray[np.float64]:
    """Divide each title's weight of 1 between its genres: float64[..., G]."""
    parts: NDArray[np.float64] = catalogue.genres_N1G[codes].astype(np.float64)
    parts /= np.maximum(parts.sum(axis=-1, keepdims=True), 1.0)
    return parts


def _kind_parts(catalogue: Catalogue, codes: NDArray[np.int32]) -> NDArray[np.float64]:
    """Give each title's weight of 1 to its kind: float64[..., K]."""
    return np.asarray(catalogue.kind_N1[codes][..., None] == np.arange(len(catalogue.kinds)), dtype=np.float64)


def _logprobs(scores_BN: NDArray[np.float32], candidates_BC: NDArray[np.int32]) -> NDArray[np.float64]:
    found_BC = scores_BN[np.arange(len(scores_BN))[:, None], np.maximum(candidates_BC - 1, 0)]
    finite_BC = np.nan_to_num(found_BC.astype(np.float64), nan=LEAST_LOGPROB)
    return np.asarray(np.clip(finite_BC, LEAST_LOGPROB, -LEAST_LOGPROB))


def _ranks(scores_BC: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of candidates of the pool that score higher than each."""
    order_BC = np.argsort(-scores_BC, axis=1, kind="stable")
    sorted_BC = np.take_along_axis(scores_BC, order_BC, axis=1)
    new_BC = np.ones(scores_BC.shape, dtype=np.bool_)
    new_BC[:, 1:] = sorted_BC[:, 1:] != sorted_BC[:, :-1]
    higher_BC = np.maximum.accumulate(np.where(new_BC, np.arange(scores_BC.shape[1]), 0), axis=1)
    ranks_BC = np.empty_like(higher_BC)
    np.put_along_axis(ranks_BC, order_BC, higher_BC, axis=1)
    return ranks_BC


def _standing(logprob_BC: NDArray[np.float64], real_BC: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance from the pool's mean in standard deviations, 0 where all score alike."""
    count_B1 = np.maximum(real_BC.sum(axis=1, keepdims=True), 1)
    mean_B1 = np.where(real_BC, logprob_BC, 0.0).sum(axis=1, keepdims=True) / count_B1
    off_BC = np.where(real_BC, logprob_BC - mean_B1, 0.0)
    deviation_B1 = np.sqrt((off_BC * off_BC).sum(axis=1, keepdims=True) / count_B1)
    standing_BC: NDArray[np.float64] = off_BC / np.where(deviation_B1 > 1e-9, deviation_B1, np.inf)
    return standing_BC


def _expected(
    parts_BCG: NDArray[np.float64], share_BG: NDArray[np.float32] | NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Sum over genres of the title's part and the share. Not a matrix product: that depends on the batch's size."""
    if share_BG is None:
        return np.zeros(parts_BCG.shape[:2])
    total_BC: NDArray[np.float64] = (parts_BCG * share_BG[:, None, :]).sum(axis=2)
    return total_BC


def _chance(
    chance_BK: NDArray[np.float32] | NDArray[np.float64] | None, class_BC: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Look up the chance of each class, 0 for class -1."""
    if chance_BK is None or chance_BK.shape[1] == 0:
        return np.zeros(class_BC.shape)
    found_BC = chance_BK[np.arange(len(chance_BK))[:, None], np.maximum(class_BC, 0)]
    return np.where(class_BC >= 0, found_BC, 0.0)


def _idle_hours(histories: Histories, asof_B: NDArray[np.int64]) -> NDArray[np.float64]:
    hours_B = np.full(len(asof_B), LONGEST_HOURS)
    some_B = histories.lengths_B > 0
    newest_B = histories.at_T[histories.offsets_B1[1:][some_B] - 1]
    hours_B[some_B] = np.clip((asof_B[some_B] - newest_B) / HOUR_US, 0.0, LONGEST_HOURS)
    return hours_B


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
