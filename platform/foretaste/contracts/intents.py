"""What a member may have come for: the intents that are labelled and predicted, declared once.

An intent is a property of what the member chooses next. Each is one head of the model; a head whose classes
a data set does not have (no episodes, no release dates, no searches) is off there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Literal

from pydantic import Field, field_validator, model_validator

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.config import Frozen
from foretaste.contracts.events import ENGAGEMENT, PLAY_LIKE, Action


class Intent(StrEnum):
    """Names of the intents."""

    ACTION = "action"  # how what is done relates to the past: see ACTION_CLASSES
    GENRE = "genre"  # multi-label; classes are the catalogue's genres
    KIND = "kind"  # classes are the catalogue's kinds
    RECENCY = "recency"  # time since release: see LabelConfig.recency_days
    SEARCH = "search"  # what a search was for, where one led there: see SEARCH_CLASSES


RELATIONS: tuple[str, ...] = (
    "discover",  # never chosen before, nor put on the list
    "from_list",  # put on the list before, never chosen
    "continue_series",  # a series, chosen within `continue_within_days`
    "resume_unfinished",  # no series: begun, not finished, within `return_after_days`
    "rewatch",  # no series: finished before, however long ago
    "return_after_gap",  # chosen before, none of these: a series or something unfinished, longer ago
)
"""What a title is to a member before it is chosen again; exactly one holds (contracts.relations)."""

DISCOVERIES: tuple[str, ...] = (
    "search_then_play",  # the way there was a search
    "message_then_play",  # the way there was a message
    "sample",  # abandoned below `sample_below`
)
"""What a first choice can be beside a plain discovery, in order of precedence."""

ACTION_CLASSES: tuple[str, ...] = (
    *RELATIONS,
    *DISCOVERIES,
    "look",  # opened, followed or talked about, not chosen
    "save_for_later",  # put on the list, not chosen
    "rate",  # rated or given a thumb up, not chosen
    "dislike",  # given a thumb down
)
"""What a member came to do. Precedence: dislike; then, where the title was chosen, the relation, of which a plain
discovery is divided by DISCOVERIES; then rate, save_for_later, look."""

CONTINUING: tuple[str, ...] = tuple(relation for relation in RELATIONS if relation != "discover")
DISCOVERING: tuple[str, ...] = ("discover", *DISCOVERIES)
"""Actions that go on with what a member knows, and those that find something new; the rest chooses nothing."""

SEARCH_CLASSES: tuple[str, ...] = ("fetch", "find", "explore")
"""fetch: the query names what was then chosen first; explore: nothing was chosen, or only after `explore_looks`
others; find: any other choice."""

PLAYS: frozenset[Action] = frozenset({Action.STOP, Action.PLAY, Action.COMPLETE})
OLDER = "older"
UNSAID: tuple[Action, ...] = tuple(sorted(PLAYS))


class LabelConfig(Frozen):
    """Which intents are labelled, and the thresholds of their rules."""

    intents: tuple[Intent, ...] = Field(tuple(Intent), description="intents that are labelled")
    continue_within_days: float = Field(7.0, gt=0, description="days, inclusive, within which a series is continued")
    return_after_days: float = Field(
        28.0, gt=0, description="days after which what was begun and is no series is returned to, not resumed"
    )
    finished_from: float = Field(0.9, gt=0, le=1, description="played fraction from which a title counts as finished")
    sample_below: float = Field(
        0.1, ge=0, le=1, description="played fraction below which a first choice was but a sample"
    )
    recency_days: dict[str, int] = Field(
        {"week": 7, "month": 30, "year": 365},
        min_length=1,
        description="classes of recency with the days since release that they reach to, inclusive, in rising order; "
        "what is older is `older`",
    )
    explore_looks: int = Field(
        3, ge=1, description="interactions between a search and the choice from which the search explored"
    )
    chosen: tuple[Action, ...] | None = Field(
        None, description="actions that count as choosing a title; by default they follow from the log"
    )

    @field_validator("intents")
    @classmethod
    def _once(cls, intents: tuple[Intent, ...]) -> tuple[Intent, ...]:
        if len(set(intents)) != len(intents):
            raise ValueError("an intent stands twice")
        return intents

    @model_validator(mode="after")
    def _rising(self) -> LabelConfig:
        days = list(self.recency_days.values())
        if days != sorted(set(days)) or OLDER in self.recency_days:
            raise ValueError(f"recency_days {self.recency_days} must rise and not name {OLDER!r}, which is the rest")
        return self

    @property
    def recency_classes(self) -> tuple[str, ...]:
        """Names of the classes of recency."""
        return (*self.recency_days, OLDER)

    @property
    def chosen_actions(self) -> tuple[Action, ...]:
        """Actions that count as choosing; where the log has not said, playing."""
        return UNSAID if self.chosen is None else self.chosen

    def following(self, target_actions: Collection[str], occurring: Collection[str] | None = None) -> LabelConfig:
        """Let the actions that count as choosing follow from the log, unless they are set.

        `target_actions` are those of the manifest, `occurring` the actions that the log has (all, where not given).
        Where something is played, rating it is not choosing it; a log of nothing but ratings is one of choices. Where
        opening is choosing, whatever is done with what was opened is.
        """
        if self.chosen is not None:
            return self
        targets = {Action(action) for action in target_actions}
        played = targets & PLAYS & (PLAYS if occurring is None else {Action(action) for action in occurring})
        if played:
            targets -= {Action(action) for action in PLAY_LIKE} - PLAYS
        if Action.DETAIL in targets:
            targets |= {Action(action) for action in ENGAGEMENT} - {Action.ADD_TO_LIST, Action.THUMB_DOWN}
        return self.model_copy(update={"chosen": tuple(sorted(targets))})


USUAL = LabelConfig()
"""The defaults, made once: a request needs them."""


class IntentSpec(Frozen):
    """One intent as it is labelled on one catalogue."""

    name: Intent
    kind: Literal["single", "multi"]
    classes: tuple[str, ...]
    rule: str = Field(description="name of its function in sessions.intent_rules.RULES")


def possible_classes(catalogue: Catalogue, config: LabelConfig = USUAL) -> dict[Intent, tuple[str, ...]]:
    """Classes that every intent of the configuration can have on this catalogue, whether or not a log has them."""
    classes: dict[Intent, tuple[str, ...]] = {
        Intent.ACTION: ACTION_CLASSES,
        Intent.GENRE: catalogue.genres,
        Intent.KIND: catalogue.kinds,
        Intent.RECENCY: config.recency_classes,
        Intent.SEARCH: SEARCH_CLASSES,
    }
    return {name: classes[name] for name in config.intents}


def specifications(config: LabelConfig, catalogue: Catalogue) -> tuple[IntentSpec, ...]:
    """Every intent that the configuration asks for, as it is labelled on this catalogue."""
    return tuple(
        IntentSpec(name=name, kind="multi" if name is Intent.GENRE else "single", classes=classes, rule=name)
        for name, classes in possible_classes(catalogue, config).items()
    )


def fingerprint(config: LabelConfig, specs: Sequence[IntentSpec]) -> str:
    """Twelve hexadecimal digits that change with any class, rule or threshold."""
    body = json.dumps([config.fingerprint(), *(spec.fingerprint() for spec in specs)])
    return hashlib.blake2b(body.encode(), digest_size=6).hexdigest()
