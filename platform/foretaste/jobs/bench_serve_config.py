"""What `foretaste bench serve` loads a service with, and the world that the service is made of."""

from __future__ import annotations

from pydantic import Field

from foretaste.contracts.config import Frozen

Few = tuple[int, ...]
Rates = tuple[float, ...]


class ServeBenchConfig(Frozen):
    """The load, declared: who asks for what, how often, for how long."""

    movies: int = Field(6_700, ge=1, description="movies of the catalogue")
    shows: int = Field(3_300, ge=0, description="shows of the catalogue")
    members: int = Field(2_500, ge=1, description="members of the world")
    days: int = Field(35, ge=14, description="days of the world")
    least_events: int = Field(50, ge=0, description="interactions that a member who asks has at least")
    session_requests: float = Field(8.0, ge=1, description="mean requests of a session, geometrically distributed")
    sessions: int = Field(64, ge=1, description="sessions that go on side by side")
    events_share: float = Field(0.1, ge=0, lt=1, description="share of requests that send an event")
    k: int = Field(10, ge=1, le=100, description="places of a list")
    clients: Few = Field((1, 8, 32), description="closed loop: clients that wait for their answer, one load each")
    rates: Rates | None = Field(None, description="open loop: requests a second, one load each; null: by `rate_shares`")
    rate_shares: Rates = Field((0.25, 0.5, 0.75), description="the same as shares of the largest closed loop's")
    seconds: float = Field(12.0, gt=0, description="seconds of one load")
    warm_up: float = Field(0.25, ge=0, lt=1, description="share of them that is not counted")
    rounds: int = Field(2, ge=1, description="times that every service is loaded, in turn")
    replicas: int = Field(2, ge=1, description="replicas of `compare`, `freshness`, `overload`, `soak` and `faults`")
    checks: int = Field(10_000, ge=1, description="answers that `freshness` compares with what was acknowledged")
    fresh_members: int = Field(100, ge=1, description="members of `freshness` who take turns")
    fresh_clients: int = Field(2, ge=1, description="of them at a time")
    decisions: int = Field(10_000, ge=1, description="decisions that `replay` makes and makes again")
    over_http: int = Field(300, ge=0, description="of them through the endpoint, too")
    fault_seconds: float = Field(10.0, gt=0, description="seconds that a fault lasts")
    settle_seconds: float = Field(30.0, gt=0, description="seconds after a fault within which all has to be well")
    fault_load: float = Field(0.4, gt=0, description="load during faults, as a share of what the service can do")
    overload: float = Field(3.0, gt=0, description="load of `overload`, as a multiple of what the service can do")
    overload_seconds: float = Field(60.0, gt=0, description="seconds of it")
    soak_seconds: float = Field(900.0, gt=0, description="seconds of `soak`")
    soak_load: float = Field(0.5, gt=0, description="load of `soak`, as a share of what the service can do")
    soak_warm_seconds: float = Field(
        420.0, ge=0, description="seconds of load before memory counts, while bounded caches fill; shown as well"
    )
    sample_seconds: float = Field(10.0, gt=0, description="seconds between two looks at memory")


_QUICK: dict[str, object] = {
    "movies": 270,
    "shows": 130,
    "members": 300,
    "days": 21,
    "clients": (1, 4),
    "rate_shares": (0.5,),
    "seconds": 1.5,
    "rounds": 1,
    "checks": 100,
    "fresh_members": 20,
    "decisions": 150,
    "over_http": 10,
    "fault_seconds": 2.0,
    "settle_seconds": 8.0,
    "overload_seconds": 4.0,
    "soak_seconds": 9.0,
    "soak_warm_seconds": 2.0,
    "sample_seconds": 0.5,
}


def sized(config: ServeBenchConfig, *, quick: bool, size: int | None, seconds: float | None) -> ServeBenchConfig:
    """Apply the flags: `size` is checks or decisions, `seconds` the length of a load, an overload or a soak."""
    update = dict(_QUICK) if quick else {}
    if size is not None:
        update |= {"checks": size, "decisions": size}
    if seconds is not None:
        update |= {"seconds": seconds, "overload_seconds": seconds, "soak_seconds": seconds}
    return ServeBenchConfig.model_validate(config.model_dump() | update)
