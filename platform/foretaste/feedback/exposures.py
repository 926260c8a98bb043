"""What was decided, a row a title: from the decision log with its acks, or from impressions that name a decision."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from foretaste.contracts.columns import EXPOSED, conform
from foretaste.contracts.events import GUEST

KEY = ("decision_id", "title_id")


def exposed_of_decisions(decisions: pa.Table, acks: pa.Table) -> pa.Table:
    """Lay DECISIONS out as EXPOSED, with what clients acknowledged (ACKS).

    Where a decision has acks, `shown` says of each title whether it is among them; null where it has none. A list is
    a set of titles: of one that stands twice the first place counts.
    """
    rows = _frame(decisions).select("decision_id", "member_id", "session_id", "surface", "at", "items")
    actor = pl.coalesce("member_id", pl.concat_str(pl.lit(GUEST), "session_id"))
    rows = rows.with_columns(actor_id=actor).unique("decision_id", keep="first", maintain_order=True)
    items = rows.explode("items").filter(pl.col("items").is_not_null()).unnest("items")
    said = _frame(acks).sort("received_at").unique(KEY, keep="first").select(*KEY, "shown_at")
    found = items.join(said, on=KEY, how="left", maintain_order="left")
    answered = pl.col("decision_id").is_in(said["decision_id"].implode())
    shown = pl.when(answered).then(pl.col("shown_at").is_not_null())
    return _exposed(found.with_columns(shown=shown))


def exposed_of_impressions(impressions: pa.Table) -> pa.Table:
    """Lay IMPRESSIONS that name their decision out as EXPOSED; all of them were shown. Others are left out."""
    rows = _frame(impressions).filter(pl.col("decision_id").is_not_null())
    member = pl.when(~pl.col("actor_id").str.starts_with(GUEST)).then("actor_id")
    rows = rows.with_columns(shown=pl.lit(True), shown_at=pl.col("at"), member_id=member)
    return _exposed(rows.with_columns(at=pl.col("at").min().over("decision_id")))


def exposed_of_both(logged: pa.Table, impressed: pa.Table) -> pa.Table:
    """Join the two: a title of a logged decision that an impression shows was shown; other impressions are added."""
    decisions, seen = _frame(logged), _frame(impressed)
    of_logged = pl.col("decision_id").is_in(decisions["decision_id"].unique().implode())
    told = seen.filter(of_logged).select(*KEY, seen_at="shown_at")
    both = decisions.join(told, on=KEY, how="left", maintain_order="left")
    named = pl.col("decision_id").is_in(told["decision_id"].unique().implode())
    shown = pl.when(pl.col("seen_at").is_not_null()).then(True).when(named & pl.col("shown").is_null()).then(False)
    both = both.with_columns(shown=shown.otherwise(pl.col("shown")), shown_at=pl.coalesce("shown_at", "seen_at")).drop(
        "seen_at"
    )
    return _exposed(pl.concat([both, seen.filter(~of_logged)]))


def _exposed(rows: pl.DataFrame) -> pa.Table:
    rows = rows.sort("at", "decision_id", "position", "title_id", nulls_last=True, maintain_order=True)
    once = rows.unique(KEY, keep="first", maintain_order=True)
    return conform(once.to_arrow(), EXPOSED, what="exposed titles")


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table))
