"""What answers whom: releases as a replica has loaded them, in one object that is exchanged whole.

A request asks once which part it is of and keeps that to its end, whatever is rolled out meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from foretaste.ops.rollouts import Arm, arm_of
from foretaste.serving.budget import Guards
from foretaste.serving.concentration import Concentration
from foretaste.serving.models import Models
from foretaste.serving.segments import PublishedSegments
from foretaste.serving.slow import SlowViews


@dataclass(frozen=True, eq=False)
class Loaded:
    """A release in memory: its models, and all that is read or counted by their catalogue."""

    models: Models
    views: SlowViews
    reading: Mapping[str, str]  # what of the configuration its features depend on
    concentration: Concentration  # of the newest answers, for the metrics
    segments: PublishedSegments | None = None  # which one an embedding belongs to
    release: str | None = None  # None: nothing was ever rolled out

    def refresh(self) -> None:
        """Read again what was published anew."""
        self.views.refresh_if_due()
        if self.segments is not None:
            self.segments.refresh_if_new()


@dataclass(frozen=True, eq=False)
class Part:
    """A release and who is answered with it; the stages of another part being slow or failing is nothing to this."""

    loaded: Loaded
    guards: Guards
    arm: str | None = None  # None: there is one part only


@dataclass(frozen=True, eq=False)
class Lineup:
    """All parts; shares are those of `arms`, the rest is `main`."""

    main: Part
    arms: Mapping[str, Part] = field(default_factory=dict)  # by name of the arm
    shares: tuple[Arm, ...] = ()
    salt: str = ""
    shadow: Loaded | None = None  # scores what `main` and `arms` answer, and nobody sees it

    def of(self, unit: str) -> Part:
        """The part of a member, or of a guest's session; an arm that is not there is answered by `main`."""
        if not self.shares:
            return self.main
        arm = arm_of(unit, self.shares, salt=self.salt)
        return self.main if arm is None else self.arms.get(arm.name, self.main)

    @property
    def parts(self) -> Iterator[Part]:
        """Main first."""
        yield self.main
        yield from self.arms.values()

    @property
    def loaded(self) -> Iterator[Loaded]:
        """Each release that is in use, once."""
        there = [part.loaded for part in self.parts] + ([] if self.shadow is None else [self.shadow])
        yield from {id(one): one for one in there}.values()
