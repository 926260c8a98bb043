"""A whole service on fakes, in one process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.sessions import SessionRule
from foretaste.contracts.title_fields import TitleColumns
from foretaste.contracts.wire import RecommendAnswer, RecommendRequest
from foretaste.feedback.acks import AckLog
from foretaste.feedback.consents import CONSENTS_FILE, Consents
from foretaste.feedback.decision_log import DecisionLog
from foretaste.feedback.event_log import EVENTS_FOLDER, EventLog
from foretaste.feedback.reports import ReportLog
from foretaste.feedback.session_log import SessionLogConfig
from foretaste.feedback.sqlite_session_log import SqliteSessionLog
from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.serving.budget import BudgetConfig
from foretaste.serving.config import ServingConfig
from foretaste.serving.intake import Intake
from foretaste.serving.models import Models
from foretaste.serving.recommender import Recommender
from foretaste.serving.service import Service
from foretaste.serving.slow import SlowViews
from foretaste.surfaces.prequery import availability
from foretaste.surfaces.sources import Likeness
from foretaste.testing.fakes import FakeClock, FakeIntent, FakeRanker, FakeViews, two_genre_titles


class Bench:
    """The chain on fakes, with a hand on each of its parts."""

    def __init__(self, folder: Path) -> None:
        titles = two_genre_titles()
        self.clock = FakeClock()
        self.catalogue = catalogue(titles)
        self.intent = FakeIntent(self.catalogue)
        self.ranker = FakeRanker()
        self.source = FakeViews(self.catalogue)
        self.config = ServingConfig(
            epsilon=0.2,
            session_log=SessionLogConfig(durable=False, window_days=30.0),
            budget=BudgetConfig(workers=0),  # a busy machine makes nothing late that the clock does not
        )
        self.models = Models(
            catalogue=self.catalogue,
            windows=availability(titles, self.catalogue),
            columns=TitleColumns(titles, self.catalogue),
            repeats=True,
            rule=SessionRule(),
            intent=self.intent,
            ranker=self.ranker,
            intent_fingerprint="intent-1",
            ranker_fingerprint="ranker-1",
            likeness=Likeness(self.intent.title_N1D),
        )
        self.sessions = SqliteSessionLog(folder / "sessions.db", self.config.session_log)
        self.decisions = DecisionLog(folder / "decisions", clock=self.clock)
        self.events = EventLog(folder / EVENTS_FOLDER)
        self.acks = AckLog(folder, durable=False)
        self.reports = ReportLog(folder, durable=False)
        self.tombstones = Tombstones(folder / TOMBSTONES_FILE)
        self.consents = Consents(folder / CONSENTS_FILE)
        self.intake = Intake(
            self.sessions,
            future_minutes=5.0,
            clock=self.clock,
            deleted=self.tombstones.read,
            refused=self.consents.refused,
        )
        self.number = 0

    def views(self, source: FakeViews | None = None) -> SlowViews:
        return SlowViews(
            source or self.source, self.catalogue, stale_hours=48.0, refresh_seconds=300.0, clock=self.clock
        )

    def recommender(self, *, views: SlowViews | None = None, sessions: Any = None, **models: Any) -> Recommender:
        return Recommender(
            replace(self.models, **models),
            views or self.views(),
            sessions or self.sessions,
            self.decisions,
            self.config,
            clock=self.clock,
            timer=self.clock.timer,
        )

    def put(self, on: Recommender, **changes: Any) -> None:
        """Have a recommender answer everybody by something else."""
        main = on.lineup.main
        on.lineup = replace(on.lineup, main=replace(main, loaded=replace(main.loaded, **changes)))

    def service(self) -> Service:
        views = self.views()
        recommender = self.recommender(views=views)
        logs = (self.sessions, self.decisions, self.events, self.tombstones)
        told: dict[str, Any] = {"acks": self.acks, "reports": self.reports, "consents": self.consents}
        return Service(recommender, self.intake, views, *logs, clock=self.clock, **told)

    def ask(self, *, on: Recommender | None = None, **request: Any) -> RecommendAnswer:
        body = {"member_id": "m1", "session_id": "s1", "policy": "greedy"} | request
        return (on or self.recommender()).recommend(RecommendRequest.model_validate(body))

    def act(self, action: str, title_id: str | None, *, seconds: float = 1.0, **more: Any) -> dict[str, Any]:
        """Store an event of m1 as of now, then let time pass."""
        self.number += 1
        event = {
            "event_id": f"e{self.number}",
            "member_id": "m1",
            "session_id": "s1",
            "at": self.clock.now.isoformat(),
            "action": action,
            "title_id": title_id,
        } | more
        answer = self.intake.accept([event])
        assert (answer.accepted, answer.rejected) == (1, []), answer
        self.clock.move(seconds=seconds)
        return event

    def close(self) -> None:
        self.decisions.close()
        self.acks.close()
        self.reports.close()
        self.sessions.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()
