"""Secrets are named in files and filled in by the process that reads them."""

from __future__ import annotations

import pytest

from foretaste.contracts.config import filled
from foretaste.jobs.settings import load
from foretaste.serving.config import of_replica
from foretaste.signals.store_feast import connection_string


def test_variables_are_filled_in_at_any_depth_and_nothing_else_is_touched() -> None:
    values = {"a": ["x${ONE}y", 3, None], "b": {"c": "${ONE}${TWO}", "d": "$ONE {TWO} $$"}}
    assert filled(values, {"ONE": "1", "TWO": "$2"}, what="it") == {
        "a": ["x1y", 3, None],
        "b": {"c": "1$2", "d": "$ONE {TWO} $$"},
    }


def test_all_variables_that_are_not_set_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"settings: wanted the environment to set A, B"):
        filled(["${B}", {"x": "${A}"}, "${C}"], {"C": "c", "B": ""}, what="settings")


def test_a_replica_and_a_verb_read_the_same_address() -> None:
    url, full = "redis://:${P}@store:6379/0", "redis://:pw@store:6379/0"
    serving = {"session_log": {"kind": "redis", "url": url}}
    replica = of_replica({"workspace": "/w", "features_repo": "/f", "serving": serving}, {"P": "pw"})
    verb = load(None, [f"serving.session_log.url={url}"], environment={"P": "pw"})
    assert replica.serving.session_log.url == verb.serving.session_log.url == full
    with pytest.raises(ValueError, match="the service's arguments: wanted the environment to set P"):
        of_replica({"workspace": "/w", "features_repo": "/f", "serving": serving}, {})


def test_what_the_online_store_wants_to_know_of_tls_stands_in_the_query() -> None:
    said = connection_string("rediss://:pw@store:6380/1?ssl_ca_certs=/etc/ca.crt")
    assert said == "store:6380,password=pw,db=1,ssl=true,ssl_ca_certs=/etc/ca.crt"
