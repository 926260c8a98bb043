"""Feedback on its way into the log of reports: each is checked on its own and stored before the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime, timedelta
from typing import Any, Protocol

from pydantic import ValidationError

from foretaste.contracts.tenants import DEFAULT, inside
from foretaste.contracts.wire import Rejected
from foretaste.contracts.wire_rewards import Reward, RewardsAnswer
from foretaste.feedback.reports import ReportLog
from foretaste.feedback.session_log import microseconds
from foretaste.serving.intake import rejected

UNKNOWN, NOT_ON_LIST, FUTURE, BEFORE, REFUSED = (
    "unknown_decision", "not_on_list", "future_time", "before_decision", "no_consent",
)  # fmt: skip


class FindsDecisions(Protocol):
    """Gives a decision of a tenant; `accounts.Accounts` does."""

    def decision(self, decision_id: str, *, tenant: str = DEFAULT) -> dict[str, Any] | None:
        """A DECISIONS row, times in microseconds; None where the tenant has none."""
        ...


class RewardIntake:
    """Takes batches of feedback."""

    def __init__(
        self,
        log: ReportLog,
        decisions: FindsDecisions,
        *,
        clock: Callable[[], datetime],
        future_minutes: float,
        refused: Callable[[], Set[str]] = frozenset,
    ) -> None:
        """`refused` says who does not consent: nothing of them is stored."""
        self._log = log
        self._decisions = decisions
        self._clock = clock
        self._ahead = timedelta(minutes=future_minutes)
        self._refused = refused

    def accept(self, rewards: Sequence[Any], *, tenant: str = DEFAULT) -> RewardsAnswer:
        """Store what is well formed and about a decision of the tenant; durable when this returns.

        Raises ConnectionError where the consents cannot be read, sqlite3.Error or OSError where nothing is taken.
        """
        now = self._clock()
        try:
            refused = self._refused()
        except (ValueError, OSError) as error:
            raise ConnectionError("the consents cannot be read") from error
        known: dict[str, dict[str, Any] | None] = {}
        good: list[dict[str, Any]] = []
        bad: list[Rejected] = []
        for index, raw in enumerate(rewards):
            try:
                reward = Reward.model_validate(raw)
            except ValidationError as error:
                bad.append(rejected(index, error))
                continue
            if reward.decision_id not in known:
                known[reward.decision_id] = self._decisions.decision(reward.decision_id, tenant=tenant)
            decision = known[reward.decision_id]
            wrong = self._wrong(reward, decision, now, refused)
            if wrong is not None:
                bad.append(Rejected(index=index, code=wrong[0], message=wrong[1]))
                continue
            assert decision is not None
            good.append(_row(reward, decision, now, tenant))
        new = self._log.append(good) if good else []
        return RewardsAnswer(accepted=sum(new), duplicate=len(new) - sum(new), rejected=bad)

    def _wrong(
        self, reward: Reward, decision: Mapping[str, Any] | None, now: datetime, refused: Set[str]
    ) -> tuple[str, str] | None:
        """Code and message of what keeps a reward out; None where nothing does."""
        if decision is None:
            return UNKNOWN, "decision_id: there is no such decision"
        if reward.title_id is not None and all(reward.title_id != item["title_id"] for item in decision["items"]):
            return NOT_ON_LIST, f"title_id: {reward.title_id!r:.100} is not on the list of the decision"
        if reward.at > now + self._ahead:
            return FUTURE, f"at: {reward.at.isoformat()} is more than {self._ahead} after {now.isoformat()}"
        if microseconds(reward.at + self._ahead) < decision["at"]:
            return BEFORE, f"at: {reward.at.isoformat()} is more than {self._ahead} before the decision"
        if decision["member_id"] in refused:
            return REFUSED, "decision_id: its member does not consent to anything being stored"
        return None


def _row(reward: Reward, decision: Mapping[str, Any], now: datetime, tenant: str) -> dict[str, Any]:
    return {
        "reward_id": inside(reward.reward_id, tenant),
        "decision_id": reward.decision_id,
        "member_id": decision["member_id"],
        "session_id": decision["session_id"],
        "decided_at": decision["at"],
        "title_id": reward.title_id,
        "feedback": reward.feedback,
        "value": reward.value,
        "at": microseconds(reward.at),
        "received_at": microseconds(now),
    }
