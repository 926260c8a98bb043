"""What goes over HTTP under /v1: JSON, snake_case, closed models. Times are RFC 3339 or epoch milliseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SkipValidation,
    StrictBool,
    StrictInt,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from foretaste.contracts.decisions import Fallback, Level
from foretaste.contracts.events import GUEST, NEEDS_TITLE, Action
from foretaste.contracts.expression_text import MAX_LENGTH, ExpressionError
from foretaste.contracts.title_fields import TITLE_FIELDS, title_condition

MAX_EVENTS = 1_000
MAX_EXCLUDED = 1_000
MAX_PROPERTIES_BYTES = 4_096
MAX_BOOSTS = 10
MAX_CANDIDATES = 500
MIN_FACTOR, MAX_FACTOR = 0.1, 10.0

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_BELOW_MS = 10**11  # as milliseconds this is early 1973: whoever sends it means seconds
_LAST_MS = 253_402_300_799_999  # the end of year 9999


def parse_time(value: Any) -> datetime:
    """Read a time with its offset or epoch milliseconds; anything else is refused, epoch seconds too."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value < _SECONDS_BELOW_MS:
            raise PydanticCustomError("time", "wanted epoch milliseconds; this looks like seconds")
        if _SECONDS_BELOW_MS <= value <= _LAST_MS:
            return _EPOCH + timedelta(milliseconds=value)
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        try:
            at = datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            at = None
        if at is not None and at >= _EPOCH:
            return at
    raise PydanticCustomError("time", "wanted RFC 3339 with an offset, 1970 or later, or epoch milliseconds")


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


Time = Annotated[
    datetime,
    BeforeValidator(parse_time),
    PlainSerializer(_rfc3339, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer"}],
            "description": "epoch milliseconds where an integer",
        }
    ),
]
"""An instant."""

Id = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$", strict=True)]
"""A name without control characters."""


def _no_guest(member_id: str) -> str:
    if member_id.startswith(GUEST):
        raise PydanticCustomError("member_id", "begins with a prefix that is kept for guests")
    return member_id


def _small(properties: dict[str, Any]) -> dict[str, Any]:
    try:
        written = orjson.dumps(properties)
    except TypeError as error:  # of orjson, also for what is nested too deep
        raise PydanticCustomError("properties", "cannot be written as JSON") from error
    if len(written) > MAX_PROPERTIES_BYTES:
        raise PydanticCustomError("properties", "has more than 4096 bytes as JSON")
    if orjson.loads(written) != properties:  # of NaN, times and the like JSON would make something else
        raise PydanticCustomError("properties", "holds what is not JSON")
    return properties


def _condition(text: str) -> str:
    try:
        title_condition(text)
    except ExpressionError as error:
        raise PydanticCustomError("expression", "{message}", {"message": str(error)}) from error
    return text


MemberId = Annotated[Id, AfterValidator(_no_guest)]
Condition = Annotated[str, Field(min_length=1, max_length=MAX_LENGTH, strict=True), AfterValidator(_condition)]
"""A condition over titles: contracts.title_fields has its fields, contracts.expression its language."""
Scalar = str | StrictInt | StrictBool | Annotated[float, Field(strict=True, allow_inf_nan=False)] | None


class Wire(BaseModel):
    """A body: closed, so that a misspelled key is refused and not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Event(Wire):
    """What a member or a guest did."""

    event_id: Id = Field(description="idempotency key: the same id again changes nothing")
    member_id: MemberId | None = Field(None, description="absent for a guest")
    session_id: Id | None = Field(None, description="needed for a guest")
    at: Time
    action: Action
    title_id: Id | None = Field(None, description="needed by every action on a title; an unknown one is recorded")
    surface: Id | None = None
    position: StrictInt | None = Field(None, ge=0, lt=2**31, description="0-based place on the surface")
    dwell_seconds: float | None = Field(None, ge=0, le=1e7, strict=True, allow_inf_nan=False)
    played_fraction: float | None = Field(None, ge=0, le=1, strict=True, allow_inf_nan=False)
    query: str | None = Field(None, max_length=1_000, strict=True)
    device: Id | None = None
    country: Id | None = None
    decision_id: Id | None = Field(None, description="the decision whose list caused the event")
    properties: Annotated[dict[str, Any], AfterValidator(_small)] | None = Field(
        None, description="anything else, at most 4,096 bytes as JSON"
    )
    consent: StrictBool = Field(True, description="false: it is not stored")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.member_id is None and self.session_id is None:
            raise PydanticCustomError("missing_actor", "needs member_id or session_id")
        if self.action in NEEDS_TITLE and self.title_id is None:
            raise PydanticCustomError("missing_title", "title_id is needed for {action}", {"action": self.action.value})
        return self


class EventsRequest(Wire):
    """A batch of events. Each is checked on its own: a bad one is rejected, the others are stored."""

    events: list[Annotated[Event, SkipValidation]] = Field(min_length=1, max_length=MAX_EVENTS)


class Rejected(Wire):
    """An event that was not stored."""

    index: int = Field(description="0-based place in the request")
    code: str = Field(description="invalid, missing_actor, missing_title, future_time, deleted_member, no_consent")
    message: str = Field(description="names the field")


class EventsAnswer(Wire):
    """What became of a batch; what is accepted is durable."""

    accepted: int
    duplicate: int = Field(description="events that were stored before")
    rejected: list[Rejected]


class MergeRequest(Wire):
    """What a guest did before they signed in is to count as the member's."""

    session_id: Id = Field(description="of the guest")


class MergeAnswer(Wire):
    """What a merge added."""

    merged: int = Field(description="events that the member did not have before; 0 where it is done already")


class ConsentRequest(Wire):
    """Whether anything of a member may be stored, from now on."""

    consent: StrictBool


class ConsentAnswer(Wire):
    """What is noted; it is durable. What was stored before stays until the member is deleted."""

    consent: bool


class DeletionAnswer(Wire):
    """What a deletion removed at once. Tables follow when they are next compacted, prepared or computed."""

    deleted_events: int = Field(description="of the member, and of guests that were merged into them")
    deleted_views: int = Field(description="rows of the slow views")


class PolicyName(StrEnum):
    """Policies that a request may ask for."""

    EPSILON_GREEDY = "epsilon_greedy"
    GREEDY = "greedy"
    PLACKETT_LUCE = "plackett_luce"  # softmax
    LINUCB = "linucb"  # this one and those below need a posterior of theirs, and the ranker's answer
    LINEAR_THOMPSON = "linear_thompson"
    LOGISTIC_THOMPSON = "logistic_thompson"
    NEURAL_THOMPSON = "neural_thompson"


class Explain(StrEnum):
    """How much an answer tells about itself."""

    NONE = "none"
    ITEMS = "items"  # reasons of each title
    STAGES = "stages"  # and what each stage took in, gave out and needed


class Boost(Wire):
    """Titles that are to stand higher, or lower."""

    where: Condition = Field(description="which titles, as `filter`")
    factor: float = Field(
        ge=MIN_FACTOR,
        le=MAX_FACTOR,
        allow_inf_nan=False,
        strict=True,
        description="what their probability (scores below 0 are logarithms of one) is multiplied by",
    )


class RecommendRequest(Wire):
    """Ask for a list."""

    member_id: MemberId | None = Field(None, description="absent for a guest")
    session_id: Id
    surface: Id = "prequery"
    k: StrictInt = Field(10, ge=1, le=100, description="places of the list")
    context: dict[Id, Scalar] = Field({}, max_length=50, description="recorded with the decision")
    exclude_ids: list[Id] = Field([], max_length=MAX_EXCLUDED, description="titles that must not be on the list")
    filter: Condition | None = Field(
        None,
        description='only titles of which this holds, e.g. `kind == "movie" and "comedy" in genres`; '
        "fields: " + ", ".join(TITLE_FIELDS),
    )
    boost: list[Boost] = Field([], max_length=MAX_BOOSTS, description="factors of a title multiply")
    shown_id: Id | None = Field(
        None,
        description="decision whose list is on the screen, which this one is held against where the service is set to "
        "keep lists steady; by default the last list of the session that this replica answered",
    )
    policy: PolicyName | None = Field(None, description="by default the service's own")
    explain: Explain = Explain.NONE
    consent: StrictBool = Field(True, description="false: nothing of the member is read, and nothing is logged")
    dry_run: StrictBool = Field(False, description="answer without logging a decision")


class NextRequest(Wire):
    """Ask for what comes after a list: no title of it, nor of those it came after, comes again."""

    decision_id: Id = Field(
        description="the list to go on with, of the same session; its surface, filter, boosts, "
        "excluded titles and context count again"
    )
    member_id: MemberId | None = Field(None, description="absent for a guest")
    session_id: Id
    k: StrictInt = Field(10, ge=1, le=100, description="places of the list")
    policy: PolicyName | None = Field(None, description="by default that of the list before")
    explain: Explain = Explain.NONE
    consent: StrictBool = Field(True, description="false: refused, for nothing that could be gone on with is stored")
    dry_run: StrictBool = Field(False, description="answer without logging a decision")


class RankRequest(Wire):
    """Ask for the order of given titles."""

    member_id: MemberId | None = Field(None, description="absent for a guest")
    session_id: Id
    candidates: list[Id] = Field(min_length=1, max_length=MAX_CANDIDATES, description="titles to rank")
    surface: Id = Field("rank", description="where they stand; recorded with the decision")
    k: StrictInt = Field(100, ge=1, le=100, description="places of the answer")
    context: dict[Id, Scalar] = Field({}, max_length=50, description="recorded with the decision")
    filter: Condition | None = Field(None, description="as of /v1/recommend")
    boost: list[Boost] = Field([], max_length=MAX_BOOSTS, description="as of /v1/recommend")
    policy: PolicyName = Field(PolicyName.GREEDY, description="greedy: the order of the scores")
    explain: Explain = Explain.NONE
    consent: StrictBool = Field(True, description="false: nothing of the member is read, and nothing is logged")
    dry_run: StrictBool = Field(False, description="answer without logging a decision")


class Item(Wire):
    """A title on the list."""

    title_id: str
    name: str
    score: float
    position: int = Field(description="0-based; goes on where the list before ended")
    propensity: float = Field(description="probability of this title here, given those above it")
    reasons: list[str]
    source: str = Field(description="ranker, intent, session_knn, popular_in_genres or popular: what the score is of")
    sources: list[str] = Field(
        [], description="what brought it to the pool: scores, shown, continue, similar, trending, new; with explain"
    )


class PolicyAnswer(Wire):
    """The policy that chose."""

    name: str
    version: str
    explored: bool = Field(description="whether the dice filled any place")
    price: float | None = Field(
        None, description="share of the list's estimated reward that its dice are expected to give up, at most"
    )
    instead_of: str | None = Field(
        None, description="the policy that was asked for, where that had no posterior or no answer of the ranker"
    )


class Freshness(Wire):
    """What the answer knew of the member."""

    last_event_id: str | None
    last_event_at: Time | None
    age_seconds: float | None = Field(description="from the newest event that was used to the answer")
    stale: list[str] = Field(description="inputs that are older than they should be, or absent")


class FallbackAnswer(Wire):
    """Whether the answer is not the full one, and why."""

    used: bool
    reason: Fallback | None
    level: Level | None = Field(None, description="what the scores of a list are of; null where there is no list")


class StageAnswer(Wire):
    """One step of the answer."""

    stage: str
    num_in: int
    num_out: int
    ms: float


class StabilityAnswer(Wire):
    """How much the list has of the one before in the session."""

    previous_id: str = Field(description="decision of the list before")
    kept: int = Field(description="titles that are on both")
    largest_move: int = Field(description="of those, in places")
    of: int = Field(description="titles of the list before")


class LayoutHint(Wire):
    """How the page should be laid out."""

    hint: Literal["discover", "continue"] = Field(
        description="whether a member who chooses a title probably wants a new one, or goes on with what they know"
    )
    probability: float = Field(description="of the hint, 0.5 to 1")


SignalValue = int | float | list[int] | list[str] | dict[str, int | float]
"""A number, several, titles, or numbers by genre, kind or action: those that are not 0."""


class RecommendAnswer(Wire):
    """A list, how it was chosen and what it knew."""

    decision_id: str | None = Field(description="null for a dry run, which is not logged")
    items: list[Item]
    intent: dict[str, dict[str, float]] | None = Field(
        description="probability of each class by head (action, genre, kind, recency, search; those that are on), each "
        "head's sum to 1; `attention`: weight of each head in the next title, sums to 1, equal "
        "ones where the model weighs none. Null without an intent model"
    )
    top_intent: str | None = Field(
        None, description="likeliest class of the head that weighs most, in words; null without an intent"
    )
    layout: LayoutHint | None = Field(None, description="null where the action head is off")
    policy: PolicyAnswer
    freshness: Freshness
    fallback: FallbackAnswer
    missing_ids: list[str] = Field(description="ids of the request that the catalogue does not have")
    previous_id: str | None = Field(None, description="the list that this one goes on with, or is held against")
    stability: StabilityAnswer | None = Field(
        None, description="null for the first list of a session, and for one that goes on with another"
    )
    sources: dict[str, int] | None = Field(
        None, description="titles of the pool by what brought them; only with explain=stages"
    )
    stages: list[StageAnswer] | None = Field(None, description="only with explain=stages")
    signals: dict[str, SignalValue] | None = Field(
        None, description="what was read from the events, by signals.declared.SESSION_SIGNALS; only with explain=stages"
    )
    took_ms: float


class RankAnswer(RecommendAnswer):
    """Given titles in order."""

    left_out: list[str] = Field(
        [], description="candidates that may not be shown: unavailable, hidden, seen where none comes twice, filtered"
    )


class IntentRequest(Wire):
    """Ask what a member or a guest is probably here for; nothing is logged."""

    member_id: MemberId | None = Field(None, description="absent for a guest")
    session_id: Id
    context: dict[Id, Scalar] = Field({}, max_length=50, description="accepted as by /v1/recommend; not recorded")
    consent: StrictBool = Field(True, description="false: nothing of the member is read")
    explain: Literal[Explain.NONE, Explain.STAGES] = Field(
        Explain.NONE, description="`stages`: also what each stage took, and the signals"
    )


class TopClass(Wire):
    """The likeliest class of one head."""

    head: str
    name: str
    probability: float
    attention: float = Field(description="weight of the head in the next title")


class SegmentAnswer(Wire):
    """The published segment whose centre is nearest to what is predicted now."""

    number: int = Field(description="0-based")
    label: str
    distance: float = Field(description="Euclidean, in the model's intent embedding")
    as_of: Time = Field(description="instant as of which the segments were made")


class IntentAnswer(Wire):
    """What a member or a guest is probably here for, and what that was read from."""

    model: str | None = Field(description="fingerprint of the intent model; null where there is none")
    intents: dict[str, dict[str, float]] | None = Field(
        description="probability of each class by head; each head's sum to 1; null where no model answered"
    )
    attention: dict[str, float] | None = Field(
        description="weight of each head in the next title; sums to 1, equal ones where the model weighs none"
    )
    top: list[TopClass] = Field(description="likeliest class of each head, by weight of the head, largest first")
    top_intent: str | None = Field(description="the first of `top` in words")
    segment: SegmentAnswer | None = Field(description="null where no segments of this model are published")
    layout: LayoutHint | None = Field(description="null where the action head is off")
    freshness: Freshness
    fallback: FallbackAnswer
    stages: list[StageAnswer] | None = Field(None, description="only with explain=stages")
    signals: dict[str, SignalValue] | None = Field(None, description="only with explain=stages, as in /v1/recommend")
    took_ms: float


class Problem(BaseModel):
    """application/problem+json, RFC 9457."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field("about:blank")
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldProblem] = []


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(description="path of the field, e.g. events.0.at; empty for the body")
    code: str
    message: str


Problem.model_rebuild()
