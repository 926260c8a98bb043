"""Figures of intents equal a plain walk over the cases, on both horizons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import ACTION_CLASSES, CONTINUING
from foretaste.evaluation.cases import Cases, cases
from foretaste.evaluation.intents import intent_figures
from foretaste.models.intent import IntentPrediction
from foretaste.sessions.label import intent_labels
from foretaste.signals.histories import pack
from foretaste.testing.builders import random_interactions, titles_table

TITLES = titles_table(10)
KNOWN = catalogue(TITLES)
TABLE = random_interactions(TITLES, actors=30, per_actor=25)
KINDS, GENRES = KNOWN.kinds, KNOWN.genres
ACTIONS = ("look", "discover", "rewatch", "return_after_gap")
SOME = (KINDS[2], KINDS[0])  # a head need not have every class, nor in order


class Seer:
    """Gives the kind and the genres of the newest title most of the probability."""

    def predict(self, histories: Histories, asof_B: NDArray[np.int64]) -> IntentPrediction:
        kind_BC = np.full((len(histories), 2), 0.25, dtype=np.float32)
        genre_BC = np.full((len(histories), len(GENRES)), 0.1, dtype=np.float32)
        for b in range(len(histories)):
            if histories.lengths_B[b]:
                code = int(histories.title_T[histories.offsets_B1[b + 1] - 1])
                kind_BC[b, int(KINDS[KNOWN.kind_N1[code]] == SOME[1])] = 0.75
                genre_BC[b] += KNOWN.genres_N1G[code]
        genre_BC /= genre_BC.sum(axis=1, keepdims=True)
        nothing = np.zeros((len(histories), 0), dtype=np.float32)
        classes = {"kind": SOME, "genre": GENRES}
        return IntentPrediction(
            nothing, {"kind": kind_BC, "genre": genre_BC}, classes, nothing, ("kind", "genre"), nothing, nothing
        )


def asked() -> tuple[Cases, dict[str, NDArray[np.int32] | NDArray[np.float32]], NDArray[np.bool_]]:
    made = cases(TABLE, KNOWN, split="time", target_actions={"play", "complete", "stop"})
    timeline, _ = pack(TABLE, KNOWN)
    learned_T = np.asarray([mark == "train" for mark in TABLE["split_time"].to_pylist()])
    return made, intent_labels(timeline, KNOWN), learned_T


def classes_of(rows: list[int], timeline: Histories, head: str, names: tuple[str, ...]) -> list[int]:
    """Columns of the classes of some interactions, those that the head has."""
    found = []
    for t in rows:
        code = int(timeline.title_T[t])
        said = (
            [KINDS[KNOWN.kind_N1[code]]]
            if head == "kind"
            else [g for i, g in enumerate(GENRES) if KNOWN.genres_N1G[code, i]]
        )
        found += [names.index(name) for name in said if name in names]
    return found


@pytest.mark.parametrize("head", ["kind", "genre"])
@pytest.mark.parametrize("horizon", ["next", "rest"])
def test_figures_equal_those_of_a_walk_over_the_cases(head: str, horizon: str) -> None:
    made, labels, learned_T = asked()
    declared: Mapping[str, tuple[str, ...]] = {"kind": KINDS, "genre": GENRES}
    found = intent_figures(Seer(), made, labels, declared, learned_T, resamples=50)[head][horizon]
    answer = Seer().predict(made.histories, made.asof_B)
    names, timeline = answer.classes[head], made.timeline
    begins = {int(begin) for begin in timeline.offsets_B1}
    learned = classes_of(np.flatnonzero(learned_T).tolist(), timeline, head, names)
    prior = [(learned.count(c) + 1) / (len(learned) + len(names)) for c in range(len(names))]
    hits, losses, prior_losses = [], [], []
    for b, t in enumerate(made.stop_B.tolist()):
        rows = [t]
        while horizon == "rest" and rows[-1] + 1 < len(timeline.at_T) and rows[-1] + 1 not in begins:
            if timeline.session_T[rows[-1] + 1] != timeline.session_T[t]:
                break
            rows.append(rows[-1] + 1)
        wanted = classes_of(rows, timeline, head, names)
        if wanted:
            chance = answer.intents[head][b]
            hits.append(int(chance.argmax()) in wanted)
            losses.append(-sum(math.log(chance[c]) for c in wanted) / len(wanted))
            prior_losses.append(-sum(math.log(prior[c]) for c in wanted) / len(wanted))
    assert found["cases"] == len(hits) > 10
    assert found["hit"] == pytest.approx(np.mean(hits))
    assert found["log_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["log_loss_prior"] == pytest.approx(np.mean(prior_losses))
    gain = found["gain"]
    assert gain["value"] == pytest.approx(np.mean(prior_losses) - np.mean(losses), rel=1e-4)
    assert gain["low"] <= gain["value"] <= gain["high"]


class Returner(Seer):
    """Expects whoever has a past to go on with it, by a head that also knows one class that chooses nothing."""

    def predict(self, histories: Histories, asof_B: NDArray[np.int64]) -> IntentPrediction:
        said = super().predict(histories, asof_B)
        back_B = np.where(histories.lengths_B > 3, 0.6, 0.2)
        action_BC = np.stack([0.1 + 0 * back_B, 0.9 - back_B, back_B / 2, back_B / 2], axis=1).astype(np.float32)
        return replace(said, intents=said.intents | {"action": action_BC}, classes=said.classes | {"action": ACTIONS})


def test_the_layout_hint_is_measured_on_those_who_choose_against_the_prior() -> None:
    made, labels, learned_T = asked()
    declared = {"kind": KINDS, "genre": GENRES, "action": ACTION_CLASSES}
    found = intent_figures(Returner(), made, labels, declared, learned_T, resamples=20)["layout"]["next"]
    side = {ACTION_CLASSES.index(one): one in CONTINUING for one in ACTIONS if one != "look"}
    learned = [side[c] for c in labels["action"][learned_T].tolist() if c in side]
    prior = (sum(learned) + 1) / (len(learned) + 2)
    hits, losses, prior_losses = [], [], []
    for b, t in enumerate(made.stop_B.tolist()):
        label = int(labels["action"][t])
        if label in side:
            share = 0.6 / 0.9 if made.lengths_B[b] > 3 else 0.2 / 0.9
            hits.append(side[label] == (share > 0.5))
            losses.append(-math.log(share if side[label] else 1 - share))
            prior_losses.append(-math.log(prior if side[label] else 1 - prior))
    assert found["cases"] == len(hits) > 10
    assert found["hit"] == pytest.approx(np.mean(hits))
    assert found["log_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["log_loss_prior"] == pytest.approx(np.mean(prior_losses))
    assert "layout" not in intent_figures(Seer(), made, labels, declared, learned_T, resamples=5)


def test_at_most_so_many_cases_are_asked() -> None:
    made, labels, learned_T = asked()
    found = intent_figures(Seer(), made, labels, {"kind": KINDS, "genre": GENRES}, learned_T, limit=7, resamples=5)
    assert found["genre"]["next"]["cases"] <= 7 < len(made)
