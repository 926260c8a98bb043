"""What goes over HTTP about what is stored: what was shown, a decision made again, a session as it is known."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from foretaste.contracts.wire import Freshness, Id, Item, SignalValue, Time, Wire

MAX_SHOWN = 100


class AckRequest(Wire):
    """Tell what of a list was really shown."""

    shown: list[Id] = Field(
        min_length=1, max_length=MAX_SHOWN, description="titles of the list, each once, in its order; others may miss"
    )
    at: Time = Field(description="when, by the client's clock")


class AckAnswer(Wire):
    """What is known of a decision's list; it is durable, and the same again changes nothing."""

    decision_id: str
    recorded: int = Field(description="titles that were not known as shown before")
    shown: list[str] = Field(description="all that is known as shown, in order of the list")
    propensity: float = Field(description="probability of the list down to the deepest title that was shown")


class ReplayRequest(Wire):
    """Make a decision again, by default with its own models."""

    intent_model: Id | None = Field(None, description="fingerprint or version; by default the decision's own")
    ranker_model: Id | None = Field(
        None, description="the same; where only the intent model is named, the newest that was trained with it"
    )


class ReplayedValue(Wire):
    """A named value of a stage that differs."""

    name: str
    count: int = Field(description="numbers that differ")
    place: list[int] | None = Field(description="of the first of them; null where type or shape differ")
    before: Any = Field(description="as logged, or as the decision's own models make it")
    again: Any


class ReplayedStage(Wire):
    """What came of one stage."""

    stage: str
    same: bool
    num_values: int = Field(description="numbers that were compared")
    num_different: int
    values: list[ReplayedValue] = Field(description="what differs, at most 20")
    entered: list[str] = Field([], description="titles that only the second run has, of pool and policy")
    left: list[str] = Field([], description="titles that only the first run has")


class ReplayAnswer(Wire):
    """A decision that was made again from what is stored."""

    decision_id: str
    identical: bool = Field(
        description="whether its own models gave the logged list, scores and propensities again, to the bit"
    )
    differences: list[ReplayedValue] = Field(description="of the logged decision and its replay; none where identical")
    intent_model: str | None = Field(description="fingerprint of the model that `items` are of")
    ranker_model: str | None
    items: list[Item] = Field(description="the list as it is made again")
    stages: list[ReplayedStage] = Field(description="own models beside those that were named; empty where none were")
    notes: list[str] = Field(description="what could not be read as it was then")


class SessionEvent(Wire):
    """An event as an answer sees it."""

    event_id: str
    sequence: int = Field(description="of arrival: monotonic per actor")
    at: Time
    action: str
    title_id: str | None
    session_id: str | None
    query: str | None
    known: bool = Field(description="whether the catalogue has its title")


class SessionAnswer(Wire):
    """What an answer for a member or a guest would read now. A look at it stores nothing."""

    member_id: str | None
    session_id: str
    as_of: Time
    mark: int = Field(description="high-water mark of the session log")
    events: list[SessionEvent] = Field(description="visible ones, oldest first; of a member also of earlier sessions")
    signals: dict[str, SignalValue] = Field(description="by signals.declared.SESSION_SIGNALS")
    freshness: Freshness
    merged_sessions: list[str] = Field(description="guests that were merged into the member")
