"""A release that nobody sees scores what others answered, beside the requests; how its lists differ is filed.

A request leaves what it read in a short queue, and nothing where that is full. One thread takes from it, for a bounded
share of the time. No member is named in what is filed.

Shapes: C candidates of a pool, K titles of a list.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from foretaste.contracts.columns import SHADOWS, conform
from foretaste.contracts.config import Frozen
from foretaste.feedback.session_log import microseconds
from foretaste.ops.files import write_parquet
from foretaste.serving.budget import Guards
from foretaste.serving.lineup import Loaded
from foretaste.serving.shaping import Asked
from foretaste.serving.stages import Scored, Seen, arranged, score
from foretaste.serving.watch import Watch
from foretaste.signals.acts import acts_of_one
from foretaste.signals.served import sampled
from foretaste.signals.signals import signals_of_one

SHADOWS_FOLDER = "shadows"
WINDOW = 1_000
"""Differences that the metrics look back on."""
LAST_SECONDS = 5.0
"""How long a shadow that hangs is waited for at the end."""
MOST_ROWS = 10_000
"""Differences that wait for a disk that takes none; older ones are dropped."""
SCORED, DROPPED, FAILED = "scored", "dropped", "failed"

_NUMBERED = pa.schema([pa.field(f.name, pa.int64()) if pa.types.is_timestamp(f.type) else f for f in SHADOWS])
_log = logging.getLogger(__name__)


class ShadowConfig(Frozen):
    """What a shadow may cost."""

    queue: int = Field(64, ge=1, description="answers that wait to be scored by the shadow; more are dropped")
    share: float = Field(1.0, ge=0, le=1, description="share of the answers that the shadow scores, too")
    busy: float = Field(0.25, gt=0, le=1, description="share of the time that its one thread may compute in a replica")
    roll_seconds: float = Field(300.0, gt=0, description="seconds after which differences are filed as a part")


@dataclass(frozen=True, slots=True)
class Offered:
    """An answer as the shadow sees it."""

    decision_id: str
    loaded: Loaded  # that answered
    arm: str | None
    shadow: Loaded
    asked: Asked
    seen: Seen
    scored: Scored  # in the order before the policy


class Shadow:
    """Scores in a thread of its own; every method may be called from any thread."""

    def __init__(
        self,
        folder: Path,
        config: ShadowConfig,
        *,
        patient: Callable[[], Guards],
        clock: Callable[[], datetime],
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`patient` makes guards that let every stage take its time, and are nobody else's."""
        self._folder = folder
        self._config = config
        self._patient = patient
        self._clock = clock
        self._timer = timer
        self._queue: queue.Queue[Offered | None] = queue.Queue(config.queue)
        self._rows: deque[dict[str, Any]] = deque(maxlen=MOST_ROWS)
        self._newest: deque[dict[str, Any]] = deque(maxlen=WINDOW)
        self._rolled_at = clock()
        self._number = 0
        self._lock = threading.Lock()
        self._rolling = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self.outcomes = {SCORED: 0, DROPPED: 0, FAILED: 0}

    def offer(self, one: Offered) -> None:
        """Have an answer scored by the shadow some time, or never; does not wait."""
        if one.shadow is one.loaded or not sampled(one.decision_id, self._config.share) or self._closed.is_set():
            return
        try:
            self._queue.put_nowait(one)
        except queue.Full:
            self._count(DROPPED)
            return
        if self._thread is None:
            self._start()

    def plain(self) -> dict[str, float]:
        """Counts, and means of the newest differences, for metrics and people; empty where there never was one."""
        with self._lock:
            counts, newest = dict(self.outcomes), list(self._newest)
        if not any(counts.values()):
            return {}
        found = {name: float(value) for name, value in counts.items()} | {"waiting": float(self._queue.qsize())}
        for name in ("overlap", "rank_correlation", "mean_score_difference"):
            values = [row[name] for row in newest if row[name] is not None]
            found |= {name: float(np.mean(values))} if values else {}
        return found

    def roll_if_due(self) -> None:
        """File what is there where that is old enough. Raises OSError where the disk takes nothing; it is kept."""
        if (self._clock() - self._rolled_at).total_seconds() >= self._config.roll_seconds:
            self.roll()

    def roll(self) -> None:
        """File what is there as one part. Raises as `roll_if_due`."""
        with self._rolling:
            with self._lock:
                rows = list(self._rows)
            self._rolled_at = self._clock()
            if not rows:
                return
            name = f"{self._rolled_at:%Y%m%dT%H%M%S}-{rows[0]['decision_id'][-12:]}-{self._number:06d}.parquet"
            table = pa.Table.from_pylist(rows, schema=_NUMBERED)
            write_parquet(conform(table, SHADOWS, what="shadows"), self._folder / name)
            self._number += 1
            with self._lock:
                for _ in range(min(len(rows), len(self._rows))):
                    self._rows.popleft()

    def wait(self) -> None:
        """Return once nothing is waiting or being scored."""
        self._queue.join()

    def close(self) -> None:
        """Score nothing more, and file what is there. Raises as `roll`."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(LAST_SECONDS)
        self.roll()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        guards = self._patient()
        while not self._closed.is_set():
            try:
                one = self._queue.get(timeout=0.2)
            except queue.Empty:
                continue
            begun = self._timer()
            try:
                if one is not None:
                    self._score(one, guards)
            except Exception:  # whatever it is, nobody but the shadow may notice
                _log.exception("the shadow could not score %s", one.decision_id if one else "")
                self._count(FAILED)
            finally:
                self._queue.task_done()
            rest = (self._timer() - begun) * (1.0 / self._config.busy - 1.0)
            if rest > 0:
                self._closed.wait(rest)

    def _score(self, one: Offered, guards: Guards) -> None:
        watch = Watch(self._timer)
        found = scored_by(one.shadow, one, guards=guards, watch=watch)
        row = difference(one, found) | {"at": microseconds(self._clock()), "shadow_ms": watch.elapsed_ms}
        with self._lock:
            self._rows.append(row)
            self._newest.append(row)
            self.outcomes[SCORED] += 1

    def _count(self, outcome: str) -> None:
        with self._lock:
            self.outcomes[outcome] += 1


def scored_by(loaded: Loaded, one: Offered, *, guards: Guards, watch: Watch) -> Scored:
    """What a release makes of what another one's answer read: the same events, up to the same instant."""
    models, seen = loaded.models, one.seen
    acts = acts_of_one(seen.rows, asof=seen.asof_us, catalogue=models.catalogue, rule=models.rule)
    signals = signals_of_one(acts, models.catalogue, models.rule)
    known = Seen(seen.actor_id, seen.asof_us, acts.histories(), seen.rows, seen.mark, seen.failed, signals)
    views = loaded.views.read(one.asked.request.member_id, asof=seen.asof_us)
    found = score(known, views, models, one.asked, guards=guards, watch=watch)
    num_new = sum(row["sequence"] > one.asked.controls.before_mark for row in seen.rows)
    return arranged(found, models, one.asked, num_new=num_new)[0]


def difference(one: Offered, found: Scored) -> dict[str, Any]:
    """Compare two orders of candidates before any dice: the tops, and the scores of the titles that both have."""
    mine, theirs = _scores(one.loaded, one.scored), _scores(one.shadow, found)
    k = one.asked.request.k
    top, other_top = list(mine)[:k], list(theirs)[:k]
    common = [title_id for title_id in mine if title_id in theirs]
    x_C = np.array([mine[title_id] for title_id in common])
    y_C = np.array([theirs[title_id] for title_id in common])
    apart_C = np.abs(x_C - y_C)
    return {
        "decision_id": one.decision_id,
        "release": one.loaded.release,
        "experiment_arm": one.arm,
        "shadow_release": one.shadow.release,
        "k": k,
        "overlap": len(set(top) & set(other_top)) / max(1, len(top), len(other_top)),
        "num_common": len(common),
        "rank_correlation": rank_correlation(x_C, y_C),
        "mean_score_difference": float(apart_C.mean()) if len(common) else None,
        "max_score_difference": float(apart_C.max()) if len(common) else None,
        "level": one.scored.source.value,
        "shadow_level": found.source.value,
        "fallback": None if one.scored.fallback is None else one.scored.fallback.value,
        "shadow_fallback": None if found.fallback is None else found.fallback.value,
    }


def rank_correlation(x_C: NDArray[np.float64], y_C: NDArray[np.float64]) -> float | None:
    """Spearman's correlation, equal values with their mean rank; None where one side is all alike."""
    x_rank_C, y_rank_C = _ranks(x_C), _ranks(y_C)
    if len(x_C) < 2 or float(x_rank_C.std()) == 0.0 or float(y_rank_C.std()) == 0.0:
        return None
    return float(np.corrcoef(x_rank_C, y_rank_C)[0, 1])


def _ranks(values_C: NDArray[np.float64]) -> NDArray[np.float64]:
    _, which_C, count_U = np.unique(values_C, return_inverse=True, return_counts=True)
    mean_U = np.cumsum(count_U) - (count_U - 1) / 2.0
    ranks_C: NDArray[np.float64] = mean_U[which_C]
    return ranks_C


def _scores(loaded: Loaded, scored: Scored) -> Mapping[str, float]:
    """Scores by title, in order of the list."""
    ids: Sequence[str] = loaded.models.catalogue.ids
    pairs = zip(scored.codes_C.tolist(), scored.scores_C.tolist(), strict=True)
    return {ids[code - 1]: value for code, value in pairs}
