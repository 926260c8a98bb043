"""What goes over HTTP about feedback that the platform cannot see itself: a survey, an unsubscription."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SkipValidation, StringConstraints

from foretaste.contracts.wire import Id, Rejected, Time, Wire

MAX_REWARDS = 1_000

FeedbackName = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z][a-z0-9_]{0,59}$")]
"""What kind of feedback it is; reward programs read it as `reported_` and this name."""


class Reward(Wire):
    """Feedback on a decision."""

    reward_id: Id = Field(description="idempotency key: the same one again changes nothing")
    decision_id: Id = Field(description="of the answer that it is about")
    title_id: Id | None = Field(None, description="a title of its list; absent: of the whole list, or of the member")
    feedback: FeedbackName = Field(description="e.g. survey, unsubscribe; a-z, 0-9 and _")
    value: float = Field(strict=True, allow_inf_nan=False, ge=-1e12, le=1e12)
    at: Time = Field(description="when it was given")


class RewardsRequest(Wire):
    """A batch of feedback. Each is checked on its own: a bad one is rejected, the others are stored."""

    rewards: list[Annotated[Reward, SkipValidation]] = Field(min_length=1, max_length=MAX_REWARDS)


class RewardsAnswer(Wire):
    """What became of them: what is accepted is durable."""

    accepted: int
    duplicate: int
    rejected: list[Rejected] = Field(
        description="codes: invalid, unknown_decision, not_on_list, future_time, before_decision, no_consent"
    )
