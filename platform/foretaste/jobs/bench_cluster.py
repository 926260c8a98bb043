"""`foretaste bench cluster`: a head and workers on one machine, hurt and changed under load, as production would be.

What is started is the application and the environment of `deployments/prod`, with a token, Redis with passwords and
fault tolerance of the head. Requests go to workers that say that they take some, as those through a Service do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from foretaste.jobs.bench_cluster_config import ClusterBenchConfig, sized
from foretaste.jobs.bench_cluster_parts import Found, head, redis, scale, token, upgrade, worker
from foretaste.jobs.bench_cluster_stand import Stand, standing
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_serve_config import sized as served_sized
from foretaste.jobs.bench_serve_made import copied, made
from foretaste.jobs.machines import impossible
from foretaste.jobs.settings import Settings
from foretaste.ops.telemetry import say

PARTS: dict[str, Callable[[Stand], Found]] = {
    "token": token,
    "head": head,
    "worker": worker,
    "upgrade": upgrade,
    "scale": scale,
    "redis": redis,
}
"""What each part does to the cluster; they leave it as they found it, and take turns on one."""


def cluster_bench(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Run one part, by default all of them on one cluster. Raises ValueError for one that there is not."""
    if options.part is not None and options.part not in PARTS:
        raise ValueError(f"bench cluster has no part {options.part!r}; there are {', '.join(PARTS)}")
    result: dict[str, Any] = {"bench": "cluster", "part": options.part or "all"}
    why = impossible()
    if why is not None:
        return result | {"figures": {}, "bars": {}, "skipped": {"cluster": why}}
    config = sized(settings.bench_cluster, quick=options.quick)
    own = copied(made(settings, served_sized(settings.bench_serve, quick=True, size=None, seconds=None)))
    found = on_one_cluster(own, config, tuple(PARTS) if options.part is None else (options.part,))
    bars = {what: one for part in found.values() for what, one in part.bars.items()}
    return result | {"figures": {name: part.figures for name, part in found.items()}, "bars": bars, "skipped": {}}


def on_one_cluster(settings: Settings, config: ClusterBenchConfig, parts: Sequence[str]) -> dict[str, Found]:
    """Start the cluster on a workspace, which is its own, have the parts take turns, and end it."""
    found: dict[str, Found] = {}
    with standing(settings, config) as stand:
        for name in parts:
            found[name] = PARTS[name](stand)
            for when in ("meanwhile", "afterwards"):
                say(f"{name}, {when}: {found[name].figures.get(when)}")
            for what, one in found[name].bars.items():
                say(f"{'holds' if one['holds'] else 'DOES NOT HOLD'}: {what}: {one['value']}, wanted {one['want']}")
    return found
