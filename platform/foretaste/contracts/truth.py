"""What a synthetic world knows about itself: the tables under raw/truth/, spelled once.

Nothing of these tables stands in the events or titles of that world; models never read them, checks do.
"""

from __future__ import annotations

import pyarrow as pa

from foretaste.contracts.columns import AT
from foretaste.contracts.intents import Intent

PLANTED_INTENTS: tuple[Intent, ...] = (Intent.ACTION, Intent.GENRE, Intent.KIND, Intent.RECENCY)
"""What a world's session can be for; `information_*` and ties of the primary intent are in this order."""

PLANTED_ACTIONS: tuple[str, ...] = ("discover", "continue", "return")
"""What a world's session is for: something new, something of the last seven days, something of longer ago."""


def _field(name: str, kind: pa.DataType, *, null: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=null)


TRUTH_TITLES = pa.schema(
    [
        _field("title_id", pa.string()),
        _field("appeal", pa.float64()),  # logarithm of the weight with which anyone chooses it
        _field("quality", pa.float64()),  # 0..1: how gladly it is watched to the end; only loosely tied to appeal
        _field("runtime_minutes", pa.float64()),  # of the movie, or of each episode of the show
        _field("num_episodes", pa.int32()),  # 0 for a movie
    ]
)
"""Planted properties of every title that can be recommended."""

TRUTH_MEMBERS = pa.schema(
    [
        _field("member_id", pa.string()),
        _field("taste", pa.list_(pa.float64())),  # long-term, over the genres in alphabetical order; sums to 1
        _field("show_share", pa.float64()),  # leaning to shows, 0..1; the rest is to movies
        _field("gap_days", pa.float64()),  # mean days between visits at middling satisfaction
        _field("joined_at", AT),
        _field("country", pa.string()),
    ]
)
"""Who the members are."""

TRUTH_SESSIONS = pa.schema(
    [
        _field("session_id", pa.string()),
        _field("member_id", pa.string()),  # also of a guest's session: the truth knows who it was
        _field("guest", pa.bool_()),
        _field("started_at", AT),
        _field("ended_at", AT),  # end of the last viewing, possibly after the window
        _field("departs", pa.bool_()),  # the intended genre was drawn away from the taste
        _field("genre", pa.string(), null=True),  # null: any (mechanism aspects)
        _field("kind", pa.string(), null=True),  # null: either
        _field("action", pa.string(), null=True),  # one of PLANTED_ACTIONS, null: any (mechanism aspects)
        _field("recency", pa.string(), null=True),  # new (30 days), older (a year), null: any
        _field("aspects", pa.list_(pa.string()), null=True),  # intents in order of elimination; null: no such order
        _field("num_choices", pa.int32()),  # planned, inside the window or not
        _field("primary_intent", pa.string(), null=True),  # the largest of `information_*`; null: all are 0
        *(_field(f"information_{intent}", pa.float64()) for intent in PLANTED_INTENTS),
    ]
)
"""What each session was for.

`information_I` is KL(P(first choice | all intents) || P(first choice | all but I)) in nats, over all titles that could
be chosen, from the probabilities with which the world draws: how much the intent I says beyond the others.
"""

TRUTH_CHOICES = pa.schema(
    [
        _field("session_id", pa.string()),
        _field("step", pa.int32()),  # 0-based choice of the session
        _field("at", AT),  # when the play began
        _field("title_id", pa.string()),  # a show, never an episode
        _field("probability", pa.float64()),  # with which this title was drawn here, given all before
        _field("num_available", pa.int32()),  # titles that could have been drawn
        _field("true_rank", pa.int32()),  # others of them at least as probable: 0 is the likeliest, ties count against
        _field("true_rank_without_intents", pa.int32()),  # the same where taste, habit and slate alone had driven it
        _field("num_sated", pa.int32()),  # aspects of the session that have fallen away by then, the first ones first
        _field("from_slate", pa.bool_()),  # chosen through its impression
        _field("match", pa.float64()),  # 0..1: how well it fits the intent (without intents: the taste)
        _field("played_fraction", pa.float64()),  # largest of the movie or the episodes played
        _field("completed", pa.bool_()),
        _field("num_episodes", pa.int32()),  # played in a row; 0 for a movie
    ]
)
"""Every choice made inside the window, with the probability with which it was made."""

TRUTH_SATISFACTION = pa.schema(
    [
        _field("session_id", pa.string()),
        _field("satisfaction", pa.float64()),  # 0..1
        _field("mean_match", pa.float64()),
        _field("mean_fraction", pa.float64()),
        _field("returned_at", AT),  # start of the member's next session, possibly after the window
        _field("returned_within_7d", pa.bool_()),  # of the end of this session
        _field("observable", pa.bool_()),  # the seven days lie inside the window; says nothing of the outcome
    ]
)
"""The delayed outcome of each session."""

TRUTH_LONG_TERM = pa.schema(
    [
        _field("member_id", pa.string()),
        _field("days", pa.float64()),  # from joining, or the start of the window, to its end
        _field("num_visits", pa.int32()),
        _field("satisfaction", pa.float64(), null=True),  # mean over visits; null where there was none
        _field("return_probability", pa.float64(), null=True),  # within a week of a visit, by law, mean over visits
        _field("num_observable", pa.int32()),  # visits whose week lies inside the window
        _field("num_returned", pa.int32()),  # of them those after which the member came again within the week
        _field("retained", pa.bool_()),  # whether they came in the last two weeks of the window
    ]
)
"""What the policy under which a world was lived through was worth, a row a member."""
