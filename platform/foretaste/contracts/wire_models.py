"""What goes over HTTP about models: what is filed, what answers whom, and how that is changed."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from foretaste.contracts.wire import Time, Wire

ArmName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$", strict=True)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)]


class PromoteRequest(Wire):
    """Let a release answer: everybody, a share of the members, or nobody while it scores what others answer."""

    share: Share | None = Field(None, description="share of the members, in ten-thousandths; by default everybody")
    arm: ArmName | None = Field(None, description="what that share is called: by default canary; never main")
    shadow: StrictBool = Field(False, description="whether it only scores what others answer, seen by nobody")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.shadow and (self.share is not None or self.arm is not None):
            raise PydanticCustomError("one_way", "a shadow has neither share nor arm")
        if self.arm is not None and self.share is None:
            raise PydanticCustomError("one_way", "an arm needs a share")
        return self


class ReleaseAnswer(Wire):
    """Models that were filed to answer together."""

    release: str
    created_at: str
    models: dict[str, str] = Field(description="version of each by its name")
    roles: list[str] = Field(description="arms that it answers, main for the rest or for all; shadow; none as a rule")


class ArmAnswer(Wire):
    """A share of the members and what answers them."""

    arm: str
    release: str
    share: float


class SampleRatioAnswer(Wire):
    """Whether members came into the arms as their shares say; what does not, cannot be compared."""

    since: Time = Field(description="decisions from then on are counted")
    units: dict[str, int] = Field(description="members and guests' sessions by arm, each where it was first seen")
    expected: dict[str, float] = Field(description="the same as the shares say")
    p_value: float = Field(description="of the chi-square test; 1 while too few were seen")
    crossed: int = Field(description="members and sessions that were seen in more than one arm")
    broken: bool = Field(description="whether the split is not as it should be, beyond chance")


class ReplicaAnswer(Wire):
    """What one process answers with."""

    process: str
    at: Time = Field(description="when it said so")
    release: str | None
    arms: dict[str, str] = Field(description="release by arm; an arm that is missing is answered by `release`")
    shadow: str | None
    refused: dict[str, str] = Field(description="why a release that is rolled out does not answer, by release")


class ModelsAnswer(Wire):
    """All that is filed, what of it answers whom, and what the processes of the workspace really have loaded."""

    current: str | None = Field(
        None, description="release that answers who is in no arm; null: nothing was ever rolled out"
    )
    previous: str | None = Field(None, description="what answered before it, and does again if it is rolled back")
    arms: list[ArmAnswer] = Field([], description="with main, the rest; empty where one release answers everybody")
    shadow: str | None = None
    releases: list[ReleaseAnswer] = Field([], description="oldest first")
    replicas: list[ReplicaAnswer] = Field([], description="this process first, then others that told of late")
    sample_ratio: SampleRatioAnswer | None = Field(None, description="null without arms, or before it was looked at")
    shadowed: dict[str, float] = Field(
        {}, description="of this process: how the shadow's lists differ; empty without one"
    )
    warnings: list[str] = Field([], description="what is wrong, in words; nothing as a rule")
