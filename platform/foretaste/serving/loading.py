"""From a release to models that answer, with the views and segments that belong to them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from foretaste.contracts.segments import INTENTS_FOLDER, SEGMENTS_FILE
from foretaste.ops.releases import Release, release, rollout
from foretaste.serving.batching import batched
from foretaste.serving.budget import Guard
from foretaste.serving.config import ServiceConfig
from foretaste.serving.models import HERE, Models, models_in
from foretaste.serving.models import Parts as ModelParts
from foretaste.serving.segments import PublishedSegments
from foretaste.serving.slow import SlowViews, ViewSource

Parts = tuple[Models, SlowViews, PublishedSegments]

_log = logging.getLogger(__name__)


class Loading:
    """Loads releases of one workspace; every method takes seconds."""

    def __init__(
        self,
        config: ServiceConfig,
        source: ViewSource | None,
        *,
        clock: Callable[[], datetime],
        guard: Guard,
        parts: ModelParts | None = None,
    ) -> None:
        """`source` gives the slow views, `guard` bounds how long a request waits for one.

        `parts` compute elsewhere what the models compute; None: here, and batched.
        """
        self._parts = parts
        self.registry = config.workspace / "registry"
        self._config = config
        self._source = source
        self._clock = clock
        self._guard = guard

    def parts(self, found: Release | None) -> Parts:
        """Load a release, of None what was filed last.

        Raises ValueError where models do not belong together, with one another or with the slow views, or are not as
        filed; FileNotFoundError where one is gone, or there is no catalogue.
        """
        config, serving = self._config, self._config.serving
        models = models_in(
            self.registry,
            config.workspace / "prepared",
            found,
            rule=config.rule,
            parts=self._parts or HERE,
            nearest=serving.nearest,
        )
        views = SlowViews(
            self._source,
            models.catalogue,
            stale_hours=serving.stale_hours,
            refresh_seconds=serving.title_refresh_seconds,
            clock=self._clock,
            guard=self._guard,
            contract=models.views,
        )
        segments = PublishedSegments(config.workspace / INTENTS_FOLDER / SEGMENTS_FILE, models.intent_fingerprint)
        if self._parts is None:
            models = batched(models, largest=serving.batch_requests)
        return models, views, segments

    def newest(self) -> tuple[str | None, Models, SlowViews, PublishedSegments]:
        """Load what is rolled out, or what was before it where that cannot be loaded; with its name.

        Raises as `parts` where nothing of it can be loaded.
        """
        known = rollout(self.registry)
        if known is None:
            return None, *self.parts(None)
        failures: list[Exception] = []
        for name in reversed(known.stack):
            try:
                return name, *self.parts(release(self.registry, name))
            except (ValueError, OSError) as error:
                _log.exception("release %s cannot be loaded; the one before it is tried", name)
                failures.append(error)
        raise failures[0]
