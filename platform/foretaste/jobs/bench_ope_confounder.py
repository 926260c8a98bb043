"""What playing a title does to returning, in worlds whose mood the log does not hold: who finds it?

Shapes: S sessions, D controls.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression, LogisticRegression

from foretaste.evaluation.causal.instruments import least_squares, recentred, two_stage
from foretaste.evaluation.causal.moments import Moments, moments, total
from foretaste.evaluation.causal.strength import anderson_rubin, first_stage, wu_hausman
from foretaste.evaluation.seeds import over_seeds
from foretaste.jobs.bench_ope_causal_bars import Found, at_least, at_most, over
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.moods import MoodConfig, MoodSessions, mood_sessions

SESSIONS, QUICK_SESSIONS = 1_500_000, 100_000
BLOCKS = 8


def confounder_part(num_seeds: int, quick: bool) -> Found:
    """Relative errors of each way to tell what playing does to returning, over worlds."""
    sessions = QUICK_SESSIONS if quick else SESSIONS
    confounded = [_one_world(MoodConfig(num_sessions=sessions), seed) for seed in range(num_seeds)]
    without = MoodConfig(num_sessions=sessions, returns_if_good=0.0)
    control = [_one_world(without, seed) for seed in range(min(num_seeds, 5))]
    errors = {way: [one["errors"][way] for one in confounded] for way in confounded[0]["errors"]}
    worst = {way: float(min(np.abs(one["errors"][way]) for one in confounded)) for way in errors}
    instrument = over_seeds(errors["instrument"])
    ends = [abs(end) for end in (instrument.low, instrument.high, instrument.value) if end is not None]
    figures = {
        "sessions": sessions,
        "seeds": num_seeds,
        "true_effect": over([one["truth"] for one in confounded]),
        "relative_error": {way: over(values) for way, values in errors.items()},
        "relative_error_without_confounder": {way: over([o["errors"][way] for o in control]) for way in errors},
        "instrument_furthest_seed": float(np.abs(errors["instrument"]).max()),
        "instrument_intervals_that_hold_the_truth": float(np.mean([one["covered"] for one in confounded])),
        "first_world": confounded[0]["facts"],
    }
    bars = {
        "least squares, least relative error of any seed": at_least(worst["least_squares"], 0.3),
        "IPS, least relative error of any seed": at_least(min(worst["ips"], worst["snips"]), 0.3),
    }
    if quick:
        return figures, bars, {"instrument": f"{sessions:,} sessions a world are too few to tell 5% from chance"}
    bars |= {
        "instrument, mean relative error, further end of its interval": at_most(max(ends), 0.05),
        "instrument, relative error of the furthest seed": at_most(float(figures["instrument_furthest_seed"]), 0.05),
    }
    return figures, bars, {}


def _one_world(config: MoodConfig, seed: int) -> dict[str, Any]:
    drawn = mood_sessions(WorldConfig(num_members=1_250), config, seed=seed)
    truth, all_ = drawn.effect_on_compliers, drawn.effect_on_all
    sums = _summed(drawn)
    instrument, plain = two_stage(sums).effect(), least_squares(sums).effect()
    assert instrument.low is not None
    assert instrument.high is not None
    first = first_stage(sums)
    told = {"least_squares": plain.value} | _by_propensity(drawn)
    errors = {name: min(((value - one) / one for one in (truth, all_)), key=abs) for name, value in told.items()}
    facts = {
        "instrument": [instrument.value, instrument.low, instrument.high],
        "anderson_rubin": anderson_rubin(sums),
        "effective_f": [first.effective_f, first.effective_f_wanted],
        "wu_hausman_p": wu_hausman(sums).p,
        "effect_on_all": all_,
        "played": float(drawn.played_S.mean()),
        "compliers": float((drawn.plays_if_shown_S & ~drawn.plays_if_not_S).mean()),
    }
    covered = bool(instrument.low <= truth <= instrument.high)
    return {
        "truth": truth,
        "errors": {"instrument": (instrument.value - truth) / truth} | errors,
        "covered": covered,
        "facts": facts,
    }


def _summed(drawn: MoodSessions) -> Moments:
    """As a stream would: a block is the sessions of some members."""
    instrument_S = recentred(drawn.shown_S, drawn.propensity_S)
    control_SD = np.column_stack([np.ones(len(instrument_S)), drawn.control_SD])
    blocks = []
    for block in range(BLOCKS):
        rows = np.flatnonzero(drawn.member_S % BLOCKS == block)
        parts = (drawn.returned_S[rows], drawn.played_S[rows], control_SD[rows], instrument_S[rows])
        blocks.append(moments(*parts, cluster_N=drawn.member_S[rows]))
    return total(blocks)


def _by_propensity(drawn: MoodSessions) -> dict[str, float]:
    """What weighing by propensities of playing says, fitted on all that the log holds; and by those of being shown."""
    played, returned = drawn.played_S, drawn.returned_S.astype(np.float64)
    model = LogisticRegression(C=1e6).fit(drawn.control_SD, played)
    e = model.predict_proba(drawn.control_SD)[:, 1]
    up, down = played / e, ~played / (1.0 - e)
    lines = [LinearRegression().fit(drawn.control_SD[rows], returned[rows]) for rows in (played, ~played)]
    if_played, if_not = (line.predict(drawn.control_SD) for line in lines)
    robust = if_played - if_not + up * (returned - if_played) - down * (returned - if_not)
    return {
        "ips": float((returned * (up - down)).mean()),
        "snips": float((returned * up).sum() / up.sum() - (returned * down).sum() / down.sum()),
        "doubly_robust": float(robust.mean()),
        "ips_of_being_shown": float((returned * recentred(drawn.shown_S, drawn.propensity_S)).mean()),
    }
