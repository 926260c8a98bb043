"""Every table that the stages exchange, spelled once.

Times are UTC with microseconds, ids are strings, a list is never null inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

AT = pa.timestamp("us", tz="UTC")


def _field(name: str, kind: pa.DataType, *, null: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=null)


EVENTS = pa.schema(
    [
        _field("event_id", pa.string(), null=False),  # idempotency key: determines the whole row
        _field("member_id", pa.string()),  # null for a guest, who then must have a session_id
        _field("session_id", pa.string()),  # null where the log has no native sessions
        _field("at", AT, null=False),
        _field("action", pa.string(), null=False),  # one of events.Action
        _field("title_id", pa.string()),  # null for search, message_open
        _field("surface", pa.string()),
        _field("position", pa.int32()),  # 0-based place on the surface
        _field("dwell_seconds", pa.float64()),
        _field("played_fraction", pa.float64()),  # 0..1
        _field("query", pa.string()),
        _field("device", pa.string()),
        _field("country", pa.string()),
        _field("decision_id", pa.string()),  # the decision whose slate caused the event
        _field("properties", pa.string()),  # a JSON object, e.g. {"rating": 4.0}
    ]
)
"""Raw events, one row each, as a log or a client sends them."""

LOGGED_EVENTS = pa.schema(
    [
        _field("actor_id", pa.string(), null=False),
        _field("sequence", pa.int64(), null=False),  # of the session log: monotonic per actor
        _field("received_at", AT, null=False),
        *EVENTS,
    ]
)
"""Events as the session log stored them: what was visible to an answer follows from it."""

TITLES = pa.schema(
    [
        _field("title_id", pa.string(), null=False),
        _field("kind", pa.string(), null=False),  # movie, show, episode, game, article, product, ...
        _field("name", pa.string()),
        _field("genres", pa.list_(pa.string()), null=False),
        _field("released_at", AT),
        _field("available_from", AT),
        _field("available_until", AT),
        _field("series_id", pa.string()),  # of an episode: the title_id of its show
        _field("season", pa.int32()),
        _field("episode", pa.int32()),
        _field("text", pa.string()),
        _field("artworks", pa.list_(pa.string()), null=False),
        _field("maturity", pa.string()),  # as the catalogue writes it, e.g. PG-13, 16
        _field("countries", pa.list_(pa.string())),  # of origin; null where not known
        _field("languages", pa.list_(pa.string())),  # spoken; null where not known
    ]
)
"""The catalogue, one row a title. Titles with a series_id are recommended as their series."""

INTERACTIONS = pa.schema(
    [
        _field("actor_id", pa.string(), null=False),  # events.actor_id: a member, or a guest's session
        _field("session_id", pa.string(), null=False),
        _field("session_index", pa.int32(), null=False),  # 0-based, per actor, in order of time
        _field("position", pa.int32(), null=False),  # 0-based, per actor, in order of (at, file order)
        _field("at", AT, null=False),  # of the first event of the run
        _field("title_id", pa.string(), null=False),  # rolled up to the series
        _field("action", pa.string(), null=False),  # the strongest action of the run
        _field("dwell_seconds", pa.float64(), null=False),  # summed over the run, 0 when unknown
        _field("played_fraction", pa.float64()),  # largest of the run
        _field("num_events", pa.int32(), null=False),
        _field("entry", pa.string(), null=False),  # how the member came to it: one of events.ENTRIES
        _field("query", pa.string()),  # of the search that led there, null otherwise
        _field("split_time", pa.string(), null=False),  # global time split: train, validation, test
        _field("split_last", pa.string(), null=False),  # leave-one-out split: train, validation, test
    ]
)
"""Prepared interactions: a run of consecutive engagement events with one title in one session is one row."""

IMPRESSIONS = pa.schema(
    [
        _field("actor_id", pa.string(), null=False),
        _field("session_id", pa.string(), null=False),
        _field("at", AT, null=False),
        _field("title_id", pa.string(), null=False),
        _field("surface", pa.string()),
        _field("position", pa.int32()),
        _field("decision_id", pa.string()),
        _field("propensity", pa.float64()),  # of this title here, given those above it; null where the log does not say
    ]
)
"""What was shown, prepared: one row a title shown."""

DECISION_ITEM = pa.struct(
    [
        _field("title_id", pa.string(), null=False),
        _field("score", pa.float64(), null=False),
        _field("position", pa.int32(), null=False),
        _field("propensity", pa.float64(), null=False),  # of this title here, given those above it
        _field("source", pa.string(), null=False),
        _field("explored", pa.bool_(), null=False),
    ]
)
STAGE_TIMING = pa.struct([_field("stage", pa.string(), null=False), _field("ms", pa.float64(), null=False)])
FEATURE = pa.struct([_field("name", pa.string(), null=False), _field("value", pa.string(), null=False)])
SERVED = pa.struct(
    [
        _field("name", pa.string(), null=False),
        _field("dtype", pa.string(), null=False),  # of numpy, e.g. float32
        _field("shape", pa.list_(pa.int32()), null=False),
        _field("values", pa.string(), null=False),  # base64 of the array's bytes, little-endian, row by row
    ]
)

DECISIONS = pa.schema(
    [
        _field("decision_id", pa.string(), null=False),
        _field("member_id", pa.string()),
        _field("session_id", pa.string(), null=False),
        _field("surface", pa.string(), null=False),
        _field("at", AT, null=False),  # the as-of time of every feature
        _field("request", pa.string(), null=False),  # the request as JSON
        _field("candidates", pa.list_(pa.string()), null=False),  # the pool, as arranged before the policy
        _field("candidate_scores", pa.list_(pa.float64()), null=False),  # the policy reads them dealt anew, best first
        _field("items", pa.list_(DECISION_ITEM), null=False),  # what was answered, in order
        _field("slate_propensity", pa.float64(), null=False),  # product of the items' propensities
        _field("policy", pa.string(), null=False),
        _field("policy_version", pa.string(), null=False),
        _field("policy_params", pa.string(), null=False),  # JSON: all that the policy needs beside the seed
        _field("explored", pa.bool_(), null=False),
        _field("seed", pa.int64(), null=False),
        _field("intent_model", pa.string()),  # fingerprint
        _field("ranker_model", pa.string()),  # fingerprint
        _field("features", pa.list_(FEATURE), null=False),  # slow views read, with their *_asof_ms versions
        _field("served", pa.list_(SERVED)),  # of a share of decisions: every feature value that was used; else null
        _field("sequence_mark", pa.int64(), null=False),  # session log high-water mark that was read
        _field("newest_event_at", AT),
        _field("num_events_visible", pa.int32(), null=False),
        _field("timings", pa.list_(STAGE_TIMING), null=False),
        _field("fallback", pa.string()),  # null when the full path answered, else decisions.Fallback
        _field("experiment_arm", pa.string()),  # that answered: an arm or main; null where there were none
        _field("kind", pa.string()),  # controls.Kind; null: recommend
        _field("previous_id", pa.string()),  # decision that it goes on with, or was held against
        _field("controls", pa.string()),  # JSON of controls.Controls; null: none
        _field("release", pa.string()),  # that answered; null: none was ever rolled out
    ]
)
"""Every answer, with enough beside it to make it again."""

SHADOWS = pa.schema(
    [
        _field("decision_id", pa.string(), null=False),
        _field("at", AT, null=False),  # when the shadow scored it
        _field("release", pa.string()),  # that answered
        _field("experiment_arm", pa.string()),
        _field("shadow_release", pa.string()),  # that nobody saw
        _field("k", pa.int32(), null=False),
        _field("overlap", pa.float64(), null=False),  # share of the first k titles, before the policy, that both have
        _field("num_common", pa.int32(), null=False),  # candidates that both have
        _field("rank_correlation", pa.float64()),  # Spearman's, of their scores; null where one side has all alike
        _field("mean_score_difference", pa.float64()),  # absolute, of the same
        _field("max_score_difference", pa.float64()),
        _field("level", pa.string(), null=False),  # decisions.Level of the scores
        _field("shadow_level", pa.string(), null=False),
        _field("fallback", pa.string()),
        _field("shadow_fallback", pa.string()),
        _field("shadow_ms", pa.float64(), null=False),
    ]
)
"""How what a shadow would have answered differs from what was answered."""

ACKS = pa.schema(
    [
        _field("decision_id", pa.string(), null=False),
        _field("member_id", pa.string()),  # of the decision; null for a guest
        _field("session_id", pa.string(), null=False),
        _field("surface", pa.string(), null=False),
        _field("decided_at", AT, null=False),
        _field("title_id", pa.string(), null=False),
        _field("position", pa.int32(), null=False),  # 0-based place on the list that was answered
        _field("propensity", pa.float64(), null=False),  # of this title here, given those above it
        _field("shown_at", AT, null=False),  # by the client's clock
        _field("received_at", AT, null=False),
    ]
)
"""What clients said that they really showed of an answer: one row a title, each (decision_id, title_id) once.

The probability of the list down to the deepest place shown is the product of the decision's propensities to there.
"""

FEEDBACK = pa.schema(
    [
        _field("decision_id", pa.string(), null=False),
        _field("title_id", pa.string()),  # null when it is of the whole slate or the member
        _field("feedback", pa.string(), null=False),  # survey, unsubscribe, ...
        _field("value", pa.float64(), null=False),
        _field("at", AT, null=False),
        _field("predicted", pa.bool_(), null=False),
        _field("model_version", pa.string()),  # of the predictor, when predicted
    ]
)
"""Feedback of decisions as others tell it, one row each: what no event says."""

REPORTED = pa.schema(
    [
        _field("reward_id", pa.string(), null=False),  # idempotency key: determines the whole row
        _field("decision_id", pa.string(), null=False),
        _field("member_id", pa.string()),  # of the decision; null for a guest
        _field("session_id", pa.string(), null=False),
        _field("decided_at", AT, null=False),
        _field("title_id", pa.string()),  # as in FEEDBACK
        _field("feedback", pa.string(), null=False),
        _field("value", pa.float64(), null=False),
        _field("at", AT, null=False),
        _field("received_at", AT, null=False),
    ]
)
"""Feedback that was sent to the service: each reward_id once."""

EXPOSED = pa.schema(
    [
        _field("decision_id", pa.string(), null=False),
        _field("actor_id", pa.string(), null=False),
        _field("member_id", pa.string()),  # null for a guest
        _field("session_id", pa.string(), null=False),
        _field("surface", pa.string()),
        _field("at", AT, null=False),  # of the decision
        _field("title_id", pa.string(), null=False),  # rolled up to the series
        _field("position", pa.int32()),
        _field("propensity", pa.float64()),  # of this title here, given those above it; null where the log has none
        _field("shown", pa.bool_()),  # by ack or impression; null where nothing says what of the list was
        _field("shown_at", AT),
    ]
)
"""What was decided, one row a title of the list."""

REPORT_ITEM = pa.struct(
    [
        _field("feedback", pa.string(), null=False),
        _field("value", pa.float64(), null=False),
        _field("at", AT, null=False),
    ]
)

OUTCOMES = pa.schema(
    [
        *EXPOSED,
        _field("as_of", AT, null=False),  # only what had happened, and had arrived, before it was read
        _field("closes_at", AT, null=False),  # after it nothing more is attributed to the title
        _field("matched", pa.string()),  # how events came to it: decision (they named it), window; null without any
        _field("clicked_at", AT),  # the first engagement; here and below null where it did not happen until `as_of`
        _field("listed_at", AT),
        _field("played_at", AT),
        _field("discovered_at", AT),  # played, and a genre of it is new to the member
        _field("completed_at", AT),
        _field("abandoned_at", AT),  # played, left before much was seen and not taken up again
        _field("thumbed_up_at", AT),  # not taken back
        _field("thumbed_down_at", AT),
        _field("num_plays", pa.int32(), null=False),
        _field("num_completions", pa.int32(), null=False),  # episodes count one each
        _field("dwell_seconds", pa.float64()),  # watched so far, summed; null where not played
        _field("played_fraction", pa.float64()),  # largest so far, 0..1; null where not played or not told
        _field("session_ended_at", AT),  # the last that was done in the decision's session so far; null for a guest
        _field("returned_at", AT),  # start of the member's next session; null for a guest
        _field("reported", pa.list_(REPORT_ITEM), null=False),  # newest of each feedback, in order of their names
        _field("open", pa.list_(pa.string()), null=False),  # of feedback.outcomes.CENSORED: what may still change
    ]
)
"""What followed on each title of each decision, as of an instant: one row an EXPOSED row."""

REWARDS = pa.schema(
    [
        _field("decision_id", pa.string(), null=False),
        _field("actor_id", pa.string(), null=False),
        _field("at", AT, null=False),  # of the decision
        _field("title_id", pa.string(), null=False),
        _field("position", pa.int32()),
        _field("propensity", pa.float64()),
        _field("reward", pa.float64()),  # null where it is not known; `reward_state` says why
        _field("reward_state", pa.string(), null=False),  # one of rewards.programs.State
        _field("program", pa.string(), null=False),
        _field("program_version", pa.int32(), null=False),
        _field("program_fingerprint", pa.string(), null=False),
        _field("model_version", pa.string()),  # of the predicted feedback that was at hand; null without any
        _field("as_of", AT, null=False),  # of the outcomes
    ]
)
"""What a reward program makes of OUTCOMES, one row each."""


def predicted_outcomes(feedback: Sequence[str]) -> pa.Schema:
    """Predicted final feedback: one row a title of a decision, a column `predicted_<feedback>` each.

    `feedback` are names of rewards.fields.OBSERVED; a probability or a mean, null where the model says nothing.
    """
    return pa.schema(
        [
            _field("decision_id", pa.string(), null=False),
            _field("title_id", pa.string(), null=False),
            _field("as_of", AT, null=False),  # what was known then is what the prediction knows
            _field("model_version", pa.string(), null=False),
            *(_field(f"predicted_{name}", pa.float64()) for name in feedback),
        ]
    )


ROUNDS = pa.schema(
    [
        _field("chosen", pa.int64(), null=False),  # number of the action, 0-based
        _field("reward", pa.float64(), null=False),
        _field("propensity", pa.float64(), null=False),  # with which it was chosen
        _field("target", pa.float64()),  # with which the policy that is judged would have; null: see target_every
        _field("position", pa.int32()),  # 0-based
        _field("actor", pa.int64()),  # number of whose round it is; rounds of one actor are not independent
        _field("predicted_reward", pa.float64()),  # that a model expects of the action
        _field("expected_reward", pa.float64()),  # that the model expects of the policy that is judged
        _field("target_every", pa.list_(pa.float64())),  # that policy's probability of every action
        _field("predicted_reward_every", pa.list_(pa.float64())),  # that the model expects of every action
    ]
)
"""Logged choices beside what another policy would have done: what off-policy estimates are made from."""


MEMBER_SNAPSHOTS = pa.schema(
    [
        _field("member_id", pa.string(), null=False),
        _field("at", AT, null=False),  # a midnight, or when a row was corrected; seen strictly after it
        _field("member_asof_ms", pa.int64(), null=False),  # the version: `at` in milliseconds
        _field("member_genre_affinity", pa.list_(pa.float32()), null=False),  # shares, in order of catalogue.genres
        _field("member_kind_affinity", pa.list_(pa.float32()), null=False),  # shares, in order of catalogue.kinds
        _field("member_plays_7d", pa.int64(), null=False),
        _field("member_plays_30d", pa.int64(), null=False),
        _field("member_plays_180d", pa.int64(), null=False),
        _field("member_visits_30d", pa.int64(), null=False),  # sessions that began then
        _field("member_tenure_days", pa.float32(), null=False),  # from the first to the newest interaction
    ]
)
"""The slow view of members: a row on each midnight on which one of its values changes.

It holds what was known then of everything before the midnight; a published row is never written again.
"""

TITLE_SNAPSHOTS = pa.schema(
    [
        _field("title_id", pa.string(), null=False),
        _field("at", AT, null=False),  # as in MEMBER_SNAPSHOTS
        _field("title_asof_ms", pa.int64(), null=False),
        _field("title_plays_1d", pa.int64(), null=False),
        _field("title_plays_7d", pa.int64(), null=False),
        _field("title_plays_30d", pa.int64(), null=False),
        _field("title_plays_all", pa.int64(), null=False),
        _field("title_completion_rate", pa.float32(), null=False),  # shrunk towards 0 where plays are few
        _field("title_first_seen_ms", pa.int64(), null=False),  # first interaction, milliseconds since 1970
    ]
)
"""The slow view of titles: a row on each midnight on which one of its values changes."""

MEMBER_SEGMENTS = pa.schema(
    [
        _field("member_id", pa.string(), null=False),
        _field("segment", pa.int32(), null=False),
        _field("distance", pa.float64(), null=False),
    ]
)
"""Members by segment of intent."""


def member_intents(width: int, heads: Mapping[str, Sequence[str]]) -> pa.Schema:
    """What an intent model says of each member as of an instant: one row a member, features for other models.

    `width` is that of the intent embedding, `heads` has the classes of each head, in the order of the model; they
    stand in the metadata of the columns, too.
    """
    shares = [
        pa.field(f"p_{head}", pa.list_(pa.float32(), len(of)), nullable=False, metadata={"classes": "|".join(of)})
        for head, of in heads.items()
    ]
    weights = pa.list_(pa.float32(), len(heads))
    attention = [pa.field("attention", weights, nullable=False, metadata={"heads": "|".join(heads)})] if heads else []
    return pa.schema(
        [
            _field("member_id", pa.string(), null=False),
            _field("as_of", AT, null=False),  # only what was before it was read
            _field("model", pa.string(), null=False),  # fingerprint of the intent model
            _field("num_events", pa.int32(), null=False),  # that were read, at most the newest of a request
            _field("newest_event_at", AT, null=False),
            _field("z", pa.list_(pa.float32(), width), null=False),  # the intent embedding
            *attention,  # weight of each head in the next title; absent where no head is on
            *shares,  # probability of each class
            *(_field(f"top_{head}", pa.string(), null=False) for head in heads),  # likeliest class
            _field("layout", pa.string()),  # discover or continue; null where the action head is off
            _field("layout_probability", pa.float64()),
            _field("segment", pa.int32()),  # null where none were made
            _field("segment_distance", pa.float64()),  # of z to the segment's centre
        ]
    )


def conform(table: pa.Table, schema: pa.Schema, *, what: str) -> pa.Table:
    """Cast `table` to `schema`, or say which columns stand in the way.

    Columns that may be null may be missing; others must be there. Columns beyond the schema are dropped.
    Raises ValueError naming `what`, the column, the type wanted and the type found.
    """
    missing = [f.name for f in schema if not f.nullable and f.name not in table.column_names]
    if missing:
        raise ValueError(f"{what}: missing columns {missing}; has {table.column_names}")
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.chunked_array([pa.nulls(table.num_rows, field.type)]))
            continue
        column = table[field.name]
        try:
            column = column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(f"{what}: column {field.name} is {column.type}, wanted {field.type}: {error}") from error
        if not field.nullable and column.null_count:
            raise ValueError(f"{what}: column {field.name} has {column.null_count} nulls, wanted none")
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)
