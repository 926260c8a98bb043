"""The second pass over buckets: make the tables of one anew, or add to them what a run has brought.

Counts are of whole buckets after a remake, and differences after an addition: a manifest adds them up either way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from foretaste.contracts.events import ENGAGEMENT, PASSIVE, Action
from foretaste.contracts.sessions import SessionRule
from foretaste.contracts.splits import FEWEST, SPLITS, Cuts, split_time
from foretaste.ops.tables import SUPERSEDED, read_parts
from foretaste.sessions.buckets import STAGED, bucket_name, staged
from foretaste.sessions.journal import Journal
from foretaste.sessions.manifest import EVENT_KINDS, Counts, must_equal
from foretaste.sessions.sequence import ACTOR, LONG_AGO, Collapse, Sequenced, distinct, sequence
from foretaste.sessions.split import Sketch
from foretaste.sessions.spread import Item
from foretaste.sessions.store import (
    IDS,
    PAIRS,
    STORED,
    TAIL,
    Parts,
    as_events,
    frame_of,
    hashes,
    known,
    rows_of,
    tails,
    write_hashes,
    write_table,
)


@dataclass(frozen=True, slots=True)
class BucketWork:
    """What both ways of doing a bucket need."""

    prepared: Path
    titles: Path
    run: int
    staged: tuple[str, ...]  # files of the first pass, in order
    rule: SessionRule
    collapse: Collapse
    deleted: Mapping[str, int]
    cut: Cuts | None  # of the last full run, where it stays

    def __call__(self, item: Item) -> Item:
        """Do the bucket `item["bucket"]` with its stored parts; answers with counts and the entries of its parts."""
        journal = Journal(self.prepared)
        if (done := journal.found(item["key"])) is not None:
            return done | {"number": item["bucket"]}
        record = self._made(item) if item["remake"] else self._added(item, self._new(item))
        pa.default_memory_pool().release_unused()
        sketches = [record["sketch"]] if record.get("sketch") else []
        files = [part["file"] for parts in record["parts"].values() for part in parts]
        record |= {"events": item["rows"], "number": item["bucket"]}
        return journal.note(item["key"], record, [*files, *sketches])

    def _new(self, item: Item) -> pl.DataFrame:
        return frame_of(staged(Journal(self.prepared), self.staged, item["bucket"]))

    def _series_of(self) -> pl.DataFrame:
        titles = pq.read_table(self.titles, columns=["title_id", "series_id"])
        return frame_of(titles).filter(pl.col("series_id").is_not_null())

    def _made(self, item: Item) -> Item:
        """All of a bucket from what is stored of it and what is new; its parts are the only ones from now on."""
        bucket = bucket_name(item["bucket"])
        stored = self._stored(item["parts"], None)
        gone = 0
        if self.deleted and stored.height:
            limits = pl.DataFrame({ACTOR: list(self.deleted), "until": list(self.deleted.values())})
            before = stored.height
            until = stored.join(limits, on=ACTOR, how="left", maintain_order="left")["until"].fill_null(LONG_AGO)
            stored = stored.filter(stored["at"].to_physical() > until)
            gone = before - stored.height
        done = sequence(  # without a name of their own here, so that the events go as soon as they are divided
            pl.concat([stored, self._new(item)]) if stored.height else self._new(item),
            self._series_of(),
            rule=self.rule,
            collapse=self.collapse,
        )
        del stored
        parts = self._write(done, bucket, every=True)
        at_R = done.interactions["at"].cast(pa.int64()).to_numpy()
        name = f".journal/events/{item['key']}.npz"
        sketch = Sketch.of(at_R)
        np.savez(self.prepared / name, at_S=sketch.at_S, num=sketch.num)
        events = pl.concat([frame_of(t.select([ACTOR, "event_id"])) for t in (done.acts, done.impressions)])
        ids = np.sort(hashes(events["event_id"]))
        pairs = np.unique(_pairs(done))
        parts[IDS] = [write_hashes(ids, self.prepared, IDS, bucket, self.run)]
        parts[PAIRS] = [write_hashes(pairs, self.prepared, PAIRS, bucket, self.run)]
        counts = _totals(done.tails) | done.counts | {"pairs": len(pairs), "erased": gone}
        if self.cut is not None:
            counts |= splits_of(at_R, self.cut)
        return {"counts": counts, "parts": parts, "sketch": name}

    def _added(self, item: Item, given: pl.DataFrame) -> Item:
        """New parts beside those that are there; actors whose stored rows change are made again as a whole."""
        bucket, parts = bucket_name(item["bucket"]), item["parts"]
        new = distinct(given)
        repeats, changed = self._duplicates(new, parts)
        new = new.filter(~repeats)
        if not new.height:
            return {"counts": {"duplicates": given.height}, "parts": {}}
        before = tails(self.prepared, parts, new[ACTOR])
        again = pl.concat([changed, _touched(new, before, self.rule)]).unique()
        again = again.filter(again.is_in(before[ACTOR].implode()))
        stored = self._stored(parts, again)
        done = sequence(
            pl.concat([stored, new]) if stored.height else new,
            self._series_of(),
            rule=self.rule,
            collapse=self.collapse,
            before=before.filter(~pl.col(ACTOR).is_in(again.implode())),
        )
        written = self._write(done, bucket, every=False)
        if again.len():
            made_again = pa.table({ACTOR: again.sort().to_arrow().cast(pa.string())})
            written[SUPERSEDED] = [write_table(made_again, self.prepared, SUPERSEDED, bucket, self.run)]
        fresh = hashes(new["event_id"])
        pairs = np.unique(_pairs(done))
        pairs = pairs[~known(pairs, self.prepared, parts.get(PAIRS, []))]
        written[IDS] = [write_hashes(np.sort(fresh), self.prepared, IDS, bucket, self.run)]
        if len(pairs):
            written[PAIRS] = [write_hashes(pairs, self.prepared, PAIRS, bucket, self.run)]
        must_equal("engagement", done.counts["engagement_events"], "in interactions", done.counts["events_in_runs"])
        old = _tally(stored)
        counts = _minus(done.counts | _totals(done.tails), old | _totals(before))
        counts |= {"pairs": len(pairs), "events_in_runs": counts["engagement_events"]}
        counts["duplicates"] = given.height - sum(counts[kind] for kind in EVENT_KINDS)
        was = rows_of(self.prepared, parts, "interactions", again, columns=["at"])["at"].to_physical().to_numpy()
        now = done.interactions["at"].cast(pa.int64()).to_numpy()
        assert self.cut is not None
        counts |= _minus(splits_of(now, self.cut), splits_of(was, self.cut))
        return {"counts": counts, "parts": written}

    def _stored(self, parts: Parts, actors: pl.Series | None) -> pl.DataFrame:
        """Stored events of some actors, or of all, as they were staged."""
        if actors is not None:
            found = [rows_of(self.prepared, parts, name, actors) for name in ("acts", "impressions")]
        elif not parts.get("acts"):
            return frame_of(STAGED.empty_table())
        else:
            gone = parts.get(SUPERSEDED, [])
            found = [
                read_parts(self.prepared, parts[name], gone, STORED[name].names)
                if parts.get(name)
                else frame_of(STORED[name].empty_table())
                for name in ("acts", "impressions")
            ]
        return as_events(found[0], found[1], str(Action.IMPRESSION))

    def _duplicates(self, new: pl.DataFrame, parts: Parts) -> tuple[pl.Series, pl.Series]:
        """Which rows are stored already, and the actors of which an earlier one came later (a sender's fault)."""
        nobody = pl.Series(ACTOR, [], dtype=pl.String)
        maybe = pl.Series(known(hashes(new["event_id"]), self.prepared, parts.get(IDS, [])))
        if not maybe.any():
            return maybe, nobody
        actors = new.filter(maybe)[ACTOR]
        names = ["event_id", "at"]
        stored = pl.concat([rows_of(self.prepared, parts, t, actors, columns=names) for t in ("acts", "impressions")])
        found = new.select(ACTOR, "event_id", "at").join(
            stored.unique([ACTOR, "event_id"]),
            on=[ACTOR, "event_id"],
            how="left",
            suffix="_stored",
            maintain_order="left",
        )
        earlier = (found["at"] < found["at_stored"]).fill_null(False)
        return found["at_stored"].is_not_null() & ~earlier, found.filter(earlier)[ACTOR]

    def _write(self, done: Sequenced, bucket: str, *, every: bool) -> Parts:
        tables = {
            "acts": done.acts,
            "interactions": done.interactions,
            "impressions": done.impressions,
            TAIL: pa.table(done.tails.to_arrow()),
        }
        return {
            name: [write_table(table, self.prepared, name, bucket, self.run)]
            for name, table in tables.items()
            if every or table.num_rows
        }


def stored_sketches(prepared: Path, names: Sequence[str]) -> list[Sketch]:
    """Read what the second pass left of the times of every bucket."""
    sketches = []
    for name in names:
        with np.load(prepared / name) as stored:
            sketches.append(Sketch(stored["at_S"], int(stored["num"])))
    return sketches


def _touched(new: pl.DataFrame, before: pl.DataFrame, rule: SessionRule) -> pl.Series:
    """Actors among `before` whose stored sessions may change; all that is new of others comes after their last one."""
    gap = round(rule.gap_minutes * 60e6)
    passive = pl.col("action").is_in(sorted(PASSIVE))
    at = pl.col("at").to_physical()
    loose = passive & (pl.col("session_id").is_null() | pl.lit(not rule.native))
    firsts = new.group_by(ACTOR).agg(
        act_at=at.filter(~passive).min(),
        act_native=pl.col("session_id").filter(~passive).first(),
        shown_first=at.filter(loose).min(),
    )
    both = before.join(firsts, on=ACTOR, how="inner").with_columns(
        newest=pl.col("newest_at").to_physical().fill_null(LONG_AGO),
        shown=pl.col("shown_at").to_physical().fill_null(LONG_AGO),
    )
    after = pl.col("act_at") > pl.col("newest")
    by_native = pl.lit(rule.native) & pl.col("act_native").is_not_null() & pl.col("newest_native").is_not_null()
    opens = (
        pl.when(by_native)
        .then(pl.col("act_native") != pl.col("newest_native"))
        .otherwise(pl.col("act_at") - pl.col("newest") > gap)
    )
    first = pl.col("newest") == LONG_AGO
    shown_moves = (pl.col("shown") >= pl.col("newest")) & (pl.col("shown") >= pl.col("act_at") - gap)
    acts_touch = pl.col("act_at").is_not_null() & (~after | ~(opens | first) | shown_moves)
    shown_touch = pl.col("shown_first").is_not_null() & (pl.col("shown_first") <= pl.col("newest"))
    return both.filter((acts_touch | shown_touch).fill_null(False))[ACTOR]


def _pairs(done: Sequenced) -> NDArray[np.uint64]:
    rows = frame_of(done.interactions.select([ACTOR, "title_id"]))
    return hashes(rows[ACTOR], rows["title_id"])


def _totals(tail: pl.DataFrame) -> Counts:
    return {
        "actors": tail.height,
        "sessions": int(tail["sessions"].sum()),
        "interactions": int(tail["interactions"].sum()),
        "actors_with_interactions": int((tail["interactions"] > 0).sum()),
        "actors_to_leave_one_out": int((tail["interactions"] >= FEWEST).sum()),
    }


def _tally(events: pl.DataFrame) -> Counts:
    """Count distinct stored events as `sequence` does."""
    by_action = dict(events["action"].value_counts().iter_rows())
    engaged = {f"action:{action}": n for action, n in by_action.items() if action in ENGAGEMENT}
    shown = sum(n for action, n in by_action.items() if action in PASSIVE)
    num = sum(engaged.values())
    return engaged | {
        "engagement_events": num,
        "impression_events": shown,
        "other_events": events.height - num - shown,
    }


def _minus(one: Counts, other: Counts) -> Counts:
    return {name: one.get(name, 0) - other.get(name, 0) for name in {**one, **other}}


def splits_of(at_R: NDArray[np.int64], cut: Cuts) -> Counts:
    """Count interactions by part of the time split."""
    counts = np.bincount(split_time(at_R, cut), minlength=len(SPLITS))
    return {f"split:{part}": int(num) for part, num in zip(SPLITS, counts, strict=True)}
