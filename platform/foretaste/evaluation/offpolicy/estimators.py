"""What a policy would have earned in each round of a log, by inverse propensities, a reward model, or both.

All of these are one family. An estimator starts from nothing or from what a reward model expects of the target policy,
and adds a correction: what was earned beyond that start, times the round's importance weight in some shape. The
correction is a mean, or is divided by the sum of the weights.

Shapes: R rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from foretaste.evaluation.offpolicy.rounds import Floats, Rounds
from foretaste.evaluation.offpolicy.terms import Terms

Shape = Callable[[Rounds, float], Floats]


def plain(rounds: Rounds, _: float) -> Floats:
    """Weights as they are."""
    return rounds.weight_R


def matched(rounds: Rounds, _: float) -> Floats:
    """1 where the target policy was sure to choose what was chosen, else 0; the logging policy must be uniform."""
    matched_R: Floats = np.equal(rounds.target_R, 1.0).astype(np.float64)
    return matched_R


def clipped(rounds: Rounds, ceiling: float) -> Floats:
    """Weights of at most `ceiling`. Bottou et al., JMLR 2013."""
    return np.minimum(rounds.weight_R, ceiling)


def switched(rounds: Rounds, ceiling: float) -> Floats:
    """Weights above `ceiling` are 0, the model answers there. Wang, Agarwal and Dudik, ICML 2017."""
    return np.where(rounds.weight_R <= ceiling, rounds.weight_R, 0.0)


def shrunk(rounds: Rounds, strength: float) -> Floats:
    """Weights w become strength w / (w^2 + strength); 0 leaves the model alone, infinity is plain.

    Su, Dimakopoulou, Krishnamurthy and Dudik, ICML 2020.
    """
    weight_R = rounds.weight_R
    if np.isinf(strength):
        return weight_R
    shrunk_R: Floats = strength * weight_R / (weight_R * weight_R + strength) if strength > 0 else np.zeros(len(rounds))
    return shrunk_R


def harmonic(rounds: Rounds, share: float) -> Floats:
    """Weights w become w / (1 - share + share w), at most 1 / share. Metelli, Russo and Restelli, NeurIPS 2021."""
    harmonic_R: Floats = rounds.weight_R / (1.0 - share + share * rounds.weight_R)
    return harmonic_R


@dataclass(frozen=True, slots=True)
class Estimator:
    """A way to estimate a policy's mean reward from rounds that another logged; see `Estimates`."""

    name: str
    shape: Shape | None  # of the weights of the correction; None: there is none
    modelled: bool = False  # starts from what a reward model expects
    normalised: bool = False  # the correction is divided by the sum of the weights
    tuning: float | None = None  # what the shape takes; None: it takes nothing

    def tuned(self, tuning: float) -> Estimator:
        """The same with another tuning; raises ValueError for a negative one, or where there is nothing to tune."""
        if self.tuning is None:
            raise ValueError(f"{self.name} has nothing to tune")
        if not tuning >= 0:
            raise ValueError(f"{self.name}: wanted a tuning of 0 or more, found {tuning}")
        return replace(self, tuning=float(tuning))

    def __call__(self, rounds: Rounds, /) -> Terms:
        """Terms of each round; raises ValueError where the rounds have no predictions that it needs."""
        if not self.modelled:
            return self._corrected(rounds, None, rounds.reward_R)
        if rounds.expected_R is None or (self.shape is not None and rounds.predicted_R is None):
            rounds.need(self.name, "expected_R", *(() if self.shape is None else ("predicted_R",)))
        return self._corrected(rounds, rounds.expected_R, rounds.surprise_R)

    def _corrected(self, rounds: Rounds, base_R: Floats | None, surprise_R: Floats) -> Terms:
        if self.shape is None:
            return Terms(len(rounds), base_R)
        weight_R = self.shape(rounds, 0.0 if self.tuning is None else self.tuning)
        return Terms(len(rounds), base_R, weight_R * surprise_R, weight_R if self.normalised else None)


REPLAY = Estimator("replay", matched, normalised=True)  # Li et al., WSDM 2011
IPS = Estimator("ips", plain)  # Horvitz and Thompson, 1952
CLIPPED_IPS = Estimator("clipped_ips", clipped, tuning=100.0)
SNIPS = Estimator("snips", plain, normalised=True)  # Swaminathan and Joachims, NeurIPS 2015
DM = Estimator("dm", None, modelled=True)  # Beygelzimer and Langford, KDD 2009
DR = Estimator("dr", plain, modelled=True)  # Dudik, Langford and Li, ICML 2011
SNDR = Estimator("sndr", plain, modelled=True, normalised=True)  # Kallus and Uehara, NeurIPS 2019
SWITCH_DR = Estimator("switch_dr", switched, modelled=True, tuning=100.0)
DROS = Estimator("dros", shrunk, modelled=True, tuning=100.0)
HARMONIC_IPS = Estimator("harmonic_ips", harmonic, tuning=0.01)
HARMONIC_DR = Estimator("harmonic_dr", harmonic, modelled=True, tuning=0.01)

WITHOUT_MODEL = (REPLAY, IPS, CLIPPED_IPS, SNIPS, HARMONIC_IPS)
"""Those that need no reward model."""

EVERY = (*WITHOUT_MODEL, DM, DR, SNDR, SWITCH_DR, DROS, HARMONIC_DR)
