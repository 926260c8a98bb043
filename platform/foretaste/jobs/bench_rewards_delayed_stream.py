"""Streams of decisions in the service whose feedback comes late: what is known of them on a day, and who is asked.

Shapes: N decisions, F columns, L landmarks, S signals.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from foretaste.models.delayed_rows import Pending
from foretaste.worlds.delays import SIGNALS, DelayWorld, Journeys

NUM_MARKS = 8

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shown:
    """Decisions with their whole journeys."""

    at_N: Floats
    code_N: Ints
    context_NF: Singles
    journeys: Journeys
    mark_NL: Singles
    marked_NLS: Singles


@dataclass
class Stream:
    """All decisions so far; their journeys are whole, what may be read of them depends on the day."""

    world: DelayWorld
    rng: np.random.Generator
    parts: list[Shown] = field(default_factory=list)

    def add(self, member_N: Ints, title_N: Ints, at_N: Floats) -> Shown:
        """Show titles to members and let their journeys begin."""
        journeys = self.world.journeys(member_N, title_N, at_N, self.rng)
        mark_NL, marked_NLS = landmarks(journeys, self.world.config.horizon_days, self.rng)
        context_NF = self.world.context(member_N, title_N, at_N)
        self.parts.append(Shown(at_N, title_N + 1, context_NF, journeys, mark_NL, marked_NLS))
        return self.parts[-1]

    def known(self, now: float, *, since: float = -np.inf, final: bool = False) -> Pending:
        """Decisions of `since` to `now` as they are known then; final labels are for the oracle and for scoring."""
        return Pending.join([self._known(part, now, since, final) for part in self.parts])

    def _known(self, part: Shown, now: float, since: float, final: bool) -> Pending:
        rows = np.flatnonzero((part.at_N < now) & (part.at_N >= since))
        journeys, age_N = part.journeys.rows(rows), now - part.at_N[rows]
        seen_N = journeys.finished_N <= np.minimum(age_N, self.world.config.horizon_days)
        single_N = age_N.astype(np.float32)
        delay_N = np.minimum(np.where(seen_N, journeys.finished_N, 0.0).astype(np.float32), single_N)
        return Pending(
            part.context_NF[rows],
            part.code_N[rows],
            single_N,
            np.where(seen_N, delay_N, np.float32(np.inf)),
            journeys.signals(age_N),
            part.mark_NL[rows],
            part.marked_NLS[rows],
            self.world.final(journeys).astype(np.float32) if final else np.full(len(rows), np.nan, np.float32),
        )


def landmarks(journeys: Journeys, horizon: float, rng: np.random.Generator) -> tuple[Singles, Singles]:
    """Ages from 0 to the horizon, early ones dense, one drawn from each of as many strata; and the signals then."""
    size = len(journeys.finished_N)
    share_NL = (np.arange(NUM_MARKS)[None, :] - 1.0 + rng.random((size, NUM_MARKS))) / (NUM_MARKS - 1)
    mark_NL = horizon * np.maximum(share_NL, 0.0) ** 2.5
    mark_NL[:, 0] = 0.0
    marked_NLS = np.stack([journeys.signals(mark_NL[:, number]) for number in range(NUM_MARKS)], axis=1)
    return mark_NL.astype(np.float32), marked_NLS.astype(np.float32)


def asked(world: DelayWorld, member_N: Ints, title_N: Ints, at_N: Floats) -> Pending:
    """Decisions that are about to be made."""
    size = len(member_N)
    zero_N, signals_NS = np.zeros(size, np.float32), np.zeros((size, len(SIGNALS)), np.float32)
    unknown_N, never_N = np.full(size, np.nan, np.float32), np.full(size, np.inf, np.float32)
    context_NF = world.context(member_N, title_N, at_N)
    return Pending(
        context_NF, title_N + 1, zero_N, never_N, signals_NS, zero_N[:, None], signals_NS[:, None, :], unknown_N
    )
