"""Whether something may go in the place of what answers: promote, refuse, or collect more data, with reasons.

Pure: it reads what was measured. The policy's value is held against that of who logged, by the interval of their
difference and a margin below which a loss does not count (non-inferiority: Piaggio et al., JAMA 2012); an estimate that
the diagnostics refuse says nothing for or against, so more data are wanted. A model has to rank no worse than the best
that it was compared with, by a margin of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import Field

from foretaste.contracts.config import Frozen
from foretaste.evaluation.offpolicy.answer import Answer


class GateConfig(Frozen):
    """What has to be shown before something is promoted."""

    margin: float = Field(
        0.02, ge=0, lt=1, description="share of the logged reward by which a policy may be worse and still be promoted"
    )
    superior: bool = Field(False, description="whether it has to be better, not only no worse than by the margin")
    needs_log: bool = Field(
        True, description="whether nothing is promoted that logged decisions cannot speak for, once something answers"
    )
    ranking_metric: str = Field("ndcg@10", description="metric of `foretaste evaluate` that a model is held to")
    ranking_margin: float = Field(
        0.05, ge=0, lt=1, description="share of the best baseline's metric by which a model may be below it"
    )


class Verdict(StrEnum):
    """What is to be done."""

    PROMOTE = "promote"
    REFUSE = "refuse"
    COLLECT = "collect_more_data"


@dataclass(frozen=True, slots=True)
class Ranking:
    """How a model ranks beside the best that it was compared with, on the same cases."""

    metric: str
    against: str
    against_value: float
    difference: float
    low: float | None  # None: no interval could be made
    high: float | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is to be done, and why."""

    verdict: Verdict
    reasons: tuple[str, ...]
    lists_wanted: int | None = None  # that would do if the estimates stay as they are; None where none would

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"verdict": self.verdict.value, "reasons": list(self.reasons), "lists_wanted": self.lists_wanted}


def judge(
    answer: Answer | None,
    config: GateConfig,
    *,
    ranking: Ranking | None = None,
    num_lists: int = 0,
    why_none: str = "no logged decision was asked",
    replaces: bool = True,
) -> Judgement:
    """Decide. What speaks against comes before what is not known, and that before what speaks for.

    `answer` is what the log says, None where it could not be asked (`why_none`); `num_lists` is its length.
    `replaces` is false where nothing answers yet: then there is no logged policy to be held against.
    """
    found = [] if ranking is None else [_of_ranking(ranking, config)]
    if replaces:
        found.append(_of_log(answer, config, num_lists=num_lists, why_none=why_none))
    elif ranking is None:
        found.append(Judgement(Verdict.COLLECT, ("nothing was measured",)))
    else:
        found.append(Judgement(Verdict.PROMOTE, ("nothing answers yet that it would have to be held against",)))
    verdict = next(one for one in (Verdict.REFUSE, Verdict.COLLECT, Verdict.PROMOTE) if one in _verdicts(found))
    alike = [one for one in found if one.verdict is verdict]
    reasons = tuple(reason for one in alike for reason in one.reasons)
    return Judgement(verdict, reasons, next((one.lists_wanted for one in alike if one.lists_wanted), None))


def _verdicts(found: list[Judgement]) -> set[Verdict]:
    return {one.verdict for one in found}


def _of_log(answer: Answer | None, config: GateConfig, *, num_lists: int, why_none: str) -> Judgement:
    if answer is None or answer.difference is None or answer.logged is None:
        reasons = (why_none,) if answer is None else answer.reasons or ("no logged list is one of the policy's",)
        silent = tuple(f"the log cannot say what it would earn: {reason}" for reason in reasons)
        return Judgement(Verdict.COLLECT if config.needs_log else Verdict.PROMOTE, silent)
    gap, margin = answer.difference, config.margin * abs(answer.logged.value)
    said = (
        f"{answer.recommended}: {gap.value:+.4g} a place against the logged {answer.logged.value:.4g}, "
        f"{gap.level:.0%} interval {gap.low:+.4g} to {gap.high:+.4g}"
    )
    wanted = 0.0 if config.superior else -margin
    bound = "0" if config.superior else f"the margin of {-margin:.4g}"
    if gap.high < wanted:
        return Judgement(Verdict.REFUSE, (f"it would earn less than {bound} allows ({said})",))
    if gap.low > wanted or (not config.superior and gap.low == wanted):
        return Judgement(Verdict.PROMOTE, (f"it would earn no less than {bound} allows ({said})",))
    apart = gap.value - wanted
    more = math.ceil(num_lists * ((gap.value - gap.low) / apart) ** 2) if apart > 0 and num_lists else None
    return Judgement(Verdict.COLLECT, (f"the interval holds {bound} ({said})",), more)


def _of_ranking(ranking: Ranking, config: GateConfig) -> Judgement:
    margin = config.ranking_margin * abs(ranking.against_value)
    said = f"{ranking.metric} {ranking.difference:+.4f} to {ranking.against}"
    if ranking.low is not None and ranking.high is not None:
        said += f", interval {ranking.low:+.4f} to {ranking.high:+.4f}"
    low = ranking.difference if ranking.low is None else ranking.low
    high = ranking.difference if ranking.high is None else ranking.high
    if high < -margin:
        return Judgement(Verdict.REFUSE, (f"it ranks worse than the margin of {-margin:.4f} allows ({said})",))
    if low < -margin:
        return Judgement(Verdict.COLLECT, (f"it may rank worse than the margin of {-margin:.4f} allows ({said})",))
    return Judgement(Verdict.PROMOTE, (f"it ranks no worse than the margin of {-margin:.4f} allows ({said})",))
