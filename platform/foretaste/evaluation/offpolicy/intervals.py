"""How sure an estimate is: Student, empirical Bernstein, bootstrap; of means and of ratios, by round or by actor.

All of them read sums that add up over blocks, so that none needs the log at once.

Shapes: R rounds, U actors, B resamples, 4 columns (one, base, gain, mass).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from foretaste.evaluation.offpolicy.rounds import Floats, Ints
from foretaste.evaluation.offpolicy.terms import Sums, Terms

LEVEL = 0.95

_CELLS_AT_ONCE = 4_000_000
_TIMES_AT_16_BITS = np.searchsorted(
    special.pdtr(np.arange(12), 1.0), (np.arange(65_536) + 0.5) / 65_536, side="right"
).astype(np.float32)
"""How often a unit is drawn, by 16 even bits: Poisson with mean 1, the tail beyond 2^-16 cut off."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value, where it lies with a stated certainty, and by which method."""

    value: float
    low: float
    high: float
    standard_error: float
    method: str
    level: float = LEVEL

    @property
    def half_width(self) -> float:
        """Half of its width."""
        return (self.high - self.low) / 2

    def holds(self, truth: float) -> bool:
        """Whether the truth lies in it."""
        return self.low <= truth <= self.high


def student(sums: Sums, *, level: float = LEVEL) -> Interval:
    """Student's interval of a mean, or of a ratio by the delta method; rounds are independent.

    Raises ValueError for fewer than two rounds.
    """
    return _student(sums.value, sums.standard_error, sums.num_rounds, "rounds", level)


def student_of_actors(terms: Terms, actor_R: Ints, *, level: float = LEVEL) -> Interval:
    """Student's interval where rounds of one actor belong together: the variance is of actors' summed influences.

    Liang and Zeger 1986, with the correction U / (U - 1). Raises ValueError for fewer than two actors.
    """
    influence_R = influences(terms)
    _, place_R = np.unique(actor_R, return_inverse=True)
    summed_U = np.bincount(place_R, weights=influence_R)
    num_actors = len(summed_U)
    spread = num_actors / max(num_actors - 1, 1) * float(summed_U @ summed_U)
    return _student(Sums.of(terms).value, np.sqrt(spread) / terms.num_rounds, num_actors, "actors", level)


def skewed(terms: Terms, actor_R: Ints | None = None, *, level: float = LEVEL) -> Interval:
    """The interval for contributions with a tail: turned by their skewness, with degrees of freedom of their kurtosis.

    Few large weights make the mean of most logs too low and its error too small. Hall's transformation of Student's t
    (JRSS B 54, 1992) turns the interval toward the tail; Satterthwaite's degrees of freedom, 2 U / (kurtosis - 1),
    say how well the variance itself is known. By actor where `actor_R` is given.
    Raises ValueError for fewer than two units.
    """
    influence_U = influences(terms)
    if actor_R is not None:
        _, place_R = np.unique(actor_R, return_inverse=True)
        influence_U = np.bincount(place_R, weights=influence_U) * (place_R.max() + 1) / terms.num_rounds
    num_units = len(influence_U)
    _enough(num_units, "rounds" if actor_R is None else "actors")
    value, error = Sums.of(terms).value, float(influence_U.std(ddof=1) / np.sqrt(num_units))
    if not error > 1e-12 * max(abs(value), 1.0):
        return Interval(value, value - error, value + error, error, "skewed", level)
    skewness, kurtosis = float(stats.skew(influence_U)), float(stats.kurtosis(influence_U, fisher=False))
    freedom = min(num_units - 1.0, max(2.0 * num_units / max(kurtosis - 1.0, 1e-9), 2.0))
    reach = float(stats.t.ppf((1 + level) / 2, freedom))
    low, high = (value - error * _turned(end, skewness, num_units) for end in (reach, -reach))
    return Interval(value, low, high, error, "skewed", level)


def _turned(t: float, skewness: float, num_units: int) -> float:
    """Where Hall's transformed statistic is t."""
    if abs(skewness) < 1e-9:
        return t
    root = np.sqrt(num_units)
    cubed = 1.0 + skewness * (t / root - skewness / (6.0 * num_units))
    return float(3.0 * root / skewness * (np.cbrt(cubed) - 1.0))


def influences(terms: Terms) -> Floats:
    """What each round moves the value by, times the number of rounds (mean 0): float64[R]."""
    _, base_R, gain_R, mass_R = terms.columns_4R
    mass = mass_R.mean()
    influence_R: Floats = base_R - base_R.mean() + (gain_R - gain_R.mean() / mass * mass_R) / mass
    return influence_R


def bernstein(sums: Sums, *, low: float, high: float, level: float = LEVEL) -> Interval:
    """Empirical Bernstein's interval of a mean of numbers in [low, high]: it holds at any length of a log.

    `low` and `high` must be known beforehand (bounds of the reward times bounds of the weight), not seen in the log.
    Maurer and Pontil, COLT 2009, theorem 4, on both sides. Raises ValueError for self-normalised sums (the theorem is
    of means), for fewer than two rounds and where a round lies outside of the bounds.
    """
    num_rounds = sums.num_rounds
    _enough(num_rounds, "rounds")
    if not np.isclose(sums.moments_44[3, 3] * num_rounds, sums.moments_44[0, 3] ** 2, rtol=1e-9):
        raise ValueError("bernstein: wanted a mean, found a self-normalised estimate; student and bootstrap take both")
    slack = 1e-9 * max(abs(low), abs(high), 1.0)
    if sums.low < low - slack or sums.high > high + slack:
        raise ValueError(f"bernstein: wanted rounds in [{low}, {high}], found [{sums.low}, {sums.high}]")
    error = sums.standard_error
    logarithm = np.log(4.0 / (1.0 - level))
    reach = error * np.sqrt(2.0 * logarithm) + 7.0 * (high - low) * logarithm / (3.0 * (num_rounds - 1))
    lowest, highest = max(low, sums.value - reach), min(high, sums.value + reach)
    return Interval(sums.value, float(lowest), float(highest), error, "bernstein", level)


@dataclass(frozen=True, slots=True)
class Resamples:
    """Sums of B Poisson bootstraps: each unit stands so often in each as a hash of (seed, unit, resample) says.

    The dice depend on the unit alone, so blocks may be cut anywhere, and rounds of one actor are drawn together.
    Poisson bootstrap: Chamandy et al., Estimating uncertainty for massive data streams, 2012.
    """

    sums_4B: Floats

    @classmethod
    def of(cls, terms: Terms, unit_R: Ints, *, resamples: int, seed: int) -> Resamples:
        """Sums of a block. `unit_R` is the actor of each round, or its number in the log if rounds are independent."""
        columns_4R = terms.columns_4R
        sums_4B = np.zeros((4, resamples))
        block = max(1, _CELLS_AT_ONCE // max(resamples, 1))
        for first in range(0, terms.num_rounds, block):
            times_RB = drawn_times(unit_R[first : first + block], resamples=resamples, seed=seed)
            sums_4B += columns_4R[:, first : first + block] @ times_RB
        return cls(sums_4B)

    def __add__(self, other: Resamples) -> Resamples:
        return Resamples(self.sums_4B + other.sums_4B)

    @property
    def values_B(self) -> Floats:
        """The estimate of each resample that has mass."""
        one_B, base_B, gain_B, mass_B = self.sums_4B
        some_B = (one_B > 0) & (mass_B > 0)
        values_B: Floats = base_B[some_B] / one_B[some_B] + gain_B[some_B] / mass_B[some_B]
        return values_B

    def interval(self, value: float, *, level: float = LEVEL) -> Interval:
        """The percentile interval around `value`, the estimate of the log itself."""
        values_B = self.values_B
        _enough(len(values_B), "resamples")
        low, high = np.quantile(values_B, [(1 - level) / 2, (1 + level) / 2])
        return Interval(value, float(low), float(high), float(values_B.std(ddof=1)), "bootstrap", level)


def drawn_times(unit_R: Ints, *, resamples: int, seed: int) -> Floats:
    """How often each unit stands in each resample, Poisson with mean 1: float64[R, B], the same for the same unit."""
    lanes = -(-resamples // 4)
    keys_R = _scrambled(unit_R.astype(np.uint64) + _scrambled(np.array([seed], dtype=np.uint64)))
    bits_RL = _scrambled(keys_R[:, None] ^ _scrambled(np.arange(1, lanes + 1, dtype=np.uint64))[None, :])
    sixteen_RB = bits_RL.view(np.uint16).reshape(len(unit_R), 4 * lanes)[:, :resamples]
    return _TIMES_AT_16_BITS[sixteen_RB].astype(np.float64)


def _scrambled(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Splitmix64: Steele, Lea and Flood, OOPSLA 2014."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = words ^ (words >> np.uint64(31))
    return mixed


def _student(value: float, error: float, num_units: int, units: str, level: float) -> Interval:
    _enough(num_units, units)
    reach = float(stats.t.ppf((1 + level) / 2, num_units - 1)) * error
    return Interval(value, value - reach, value + reach, float(error), "student", level)


def _enough(number: int, what: str) -> None:
    if number < 2:
        raise ValueError(f"an interval needs at least two {what}, found {number}")
