"""A share of the members is answered by another release, always the same ones; what is logged says by which."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from foretaste.contracts.wire import RankRequest, RecommendRequest
from foretaste.contracts.wire_models import PromoteRequest
from foretaste.contracts.wire_records import ReplayRequest
from foretaste.feedback.decision_log import plain_rows
from foretaste.ops.releases import give_share, roll_back, rollout
from foretaste.ops.rollouts import arm_of
from foretaste.serving.service import Service
from foretaste.testing.shop import Shop

MANY = [f"m{number}" for number in range(60)]
MEMBERS = MANY[:16]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def answered(service: Service, shop: Shop, members: list[str] = MEMBERS) -> dict[str, tuple[str | None, str]]:
    """Arm and release of each member's next decision."""
    found = {}
    for member in members:
        row = service.decision(str(shop.ask(service, member).decision_id))
        assert row is not None
        found[member] = (row["experiment_arm"], row["release"])
    return found


def test_a_canary_answers_its_members_wherever_they_ask_and_the_others_never(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    old, new = shop.release(1), shop.release(2)
    shop.promote(old)
    with closing(shop.open()) as service, closing(shop.open()) as replica:
        assert set(answered(service, shop).values()) == {(None, old)}
        lists = {name: {} for name in (old, new)}  # type: dict[str, dict[str, tuple[str, ...]]]
        lists[old] = {member: shop.list(service, member) for member in MEMBERS}
        told = service.promote(new, PromoteRequest(share=0.3))
        assert told is not None
        assert [(one.arm, one.release, one.share) for one in told.arms] == [("canary", new, 0.3), ("main", old, 0.7)]
        replica.housekeep()
        known = rollout(shop.registry)
        assert known is not None
        expected = {
            member: ("canary", new) if arm_of(member, known.arms, salt=known.salt) else ("main", old)
            for member in MEMBERS
        }
        assert {one for one, _ in expected.values()} == {"canary", "main"}
        assert answered(service, shop) == answered(replica, shop) == expected
        for member, (arm, _) in expected.items():
            assert (shop.list(service, member) == lists[old][member]) == (arm == "main")
        guest = service.recommend(RecommendRequest(session_id="m1", k=3)).decision_id
        assert service.decision(str(guest))["experiment_arm"] == expected["m1"][0]  # type: ignore[index]
        ranked = service.rank(RankRequest(session_id="s", member_id="m1", candidates=["t01"]))
        assert service.decision(str(ranked.decision_id))["experiment_arm"] == expected["m1"][0]  # type: ignore[index]
        text = service.metrics.text().decode()
        assert 'foretaste_arm_answers_total{arm="canary"}' in text
        more = service.promote(new, PromoteRequest(share=0.6))
        assert more is not None
        now = answered(service, shop)
        assert all(now[member] == expected[member] for member in MEMBERS if expected[member][0] == "canary")
        service.promote(new, PromoteRequest())
        assert set(answered(service, shop).values()) == {(None, new)}


def test_who_does_not_consent_is_in_no_arm(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    old, new = shop.release(1), shop.release(2)
    shop.promote(old)
    with closing(shop.open()) as service:
        before = service.recommend(RecommendRequest(session_id="s", k=8, consent=False, policy="greedy"))
        service.promote(new, PromoteRequest(share=1.0))
        after = service.recommend(RecommendRequest(session_id="s", k=8, consent=False, policy="greedy"))
        assert before.items == after.items


def test_an_arm_that_is_refused_is_answered_by_main_and_the_split_shows_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    old, new, bad = shop.release(1), shop.release(2), shop.release(3)
    shop.promote(old)
    with closing(shop.open()) as service:
        for arm, name in (("b", new), ("c", bad)):
            give_share(shop.registry, name, arm=arm, share=1 / 3, salt="5a" * 16, at=shop.clock())
        shop.spoil(bad)
        service.housekeep()
        shop.clock.move(minutes=10)
        found = answered(service, shop, MANY)
        assert set(found.values()) == {("main", old), ("b", new)}
        assert any(bad in why for why in service.ready()["degraded"])
        production = service._production
        assert production is not None
        production._look_at = 0.0
        service.housekeep()
        told = service.models()
        assert told.sample_ratio is not None
        assert sum(told.sample_ratio.units.values()) == 60
        assert told.sample_ratio.broken
        assert any("cannot be compared" in why and "c 0 of 20.0 expected" in why for why in told.warnings)
        assert 'foretaste_sample_ratio{what="broken"} 1.0' in service.metrics.text().decode()
        roll_back(shop.registry, at=shop.clock())
        service.housekeep()
        assert service.models().sample_ratio is None
        assert service.ready()["degraded"] == []


def test_a_right_split_warns_of_nothing(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    old, new = shop.release(1), shop.release(2)
    shop.promote(old)
    with closing(shop.open()) as service:
        give_share(shop.registry, new, arm="b", share=0.5, salt="5a" * 16, at=shop.clock())
        service.housekeep()
        answered(service, shop, ["early"])  # too early to be counted
        shop.clock.move(minutes=10)
        answered(service, shop)
        production = service._production
        assert production is not None
        production._look_at = 0.0
        service.housekeep()
        told = service.models()
        assert told.sample_ratio is not None
        assert sum(told.sample_ratio.units.values()) == 16
        assert (told.sample_ratio.broken, told.sample_ratio.crossed, told.warnings) == (False, 0, [])


def test_decisions_of_arms_are_made_again_after_promotion_and_rollback_and_a_restart(tmp_path: Path) -> None:
    shop = Shop(tmp_path, audit_share=1.0)
    old, new = shop.release(1), shop.release(2)
    shop.promote(old)
    with closing(shop.open()) as service:
        service.promote(new, PromoteRequest(share=0.5, arm="b"))
        names = [shop.ask(service, member, policy="epsilon_greedy").decision_id for member in MEMBERS]
        service.promote(new, PromoteRequest())
        shop.ask(service)
        service.roll_back(new)
        shop.clock.move(seconds=1)
        service.housekeep()
        audit = service.ready()["audit"]
        assert (audit["mismatches"], audit["left_out"]) == ({}, {})
    with closing(shop.open()) as service:
        arms = set()
        for name in names:
            found = service.replay(str(name), ReplayRequest())
            assert found is not None
            assert found.identical, found.differences
            arms.add(service.decision(str(name))["experiment_arm"])  # type: ignore[index]
        assert arms == {"b", "main"}


def test_rows_of_before_there_were_releases_are_read(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.release(1)
    with closing(shop.open()) as service:  # nothing is rolled out
        name = shop.ask(service).decision_id
        assert service.ready()["release"] is None
        service._decisions.roll()
        (row,) = plain_rows(service._decisions.read())
        assert (row["decision_id"], row["release"], row["experiment_arm"]) == (name, None, None)
