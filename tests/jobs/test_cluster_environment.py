"""What stands in the environment where a local Ray is started."""

from __future__ import annotations

from foretaste.jobs.cluster import ClusterConfig, environment


def test_haproxy_is_there_where_it_is_wanted_and_asks_another_replica_for_one_that_died() -> None:
    usual, wanted = environment(ClusterConfig()), environment(ClusterConfig(haproxy=True))
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in usual
    assert wanted.items() >= usual.items()
    assert wanted["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert wanted["RAY_SERVE_HAPROXY_RETRY_ON"] == "conn-failure empty-response"
