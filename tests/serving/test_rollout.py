"""What is rolled out is taken up while requests are answered; what cannot be is refused, and only who looks notices."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.synchronize
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from foretaste.contracts.wire_records import ReplayRequest
from foretaste.ops.files import read_json, write_json
from foretaste.ops.releases import ROLLED_BACK, promote_release, roll_back, rollout
from foretaste.serving.garbage import set_apart
from foretaste.serving.service import Service
from foretaste.serving.trial import check_models
from foretaste.testing.builders import titles_table
from foretaste.testing.fakes import FakeClock, two_genre_titles
from foretaste.testing.shop import Shop

MEMBERS = [f"m{number}" for number in range(5)]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def other_titles() -> pa.Table:
    """More titles, in another order: a code of one catalogue is another title in the other."""
    titles = two_genre_titles(50)
    return titles.take(pa.array(np.arange(50)[::-1]))


def lists(shop: Shop, service: Service) -> dict[str, tuple[str, ...]]:
    return {member: shop.list(service, member) for member in MEMBERS}


def test_a_swap_under_requests_fails_none_and_each_list_is_of_one_release(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    old, new = shop.release(1), shop.release(2, titles=other_titles())
    shop.promote(old)
    known: dict[str, dict[str, tuple[str, ...]]] = {}
    failures: list[BaseException] = []
    found: list[tuple[str, str, tuple[str, ...]]] = []
    done = threading.Event()
    with closing(shop.open()) as service:
        known[old] = lists(shop, service)
        shop.promote(new)
        service.housekeep()
        known[new] = lists(shop, service)
        assert all(known[old][member] != known[new][member] for member in MEMBERS)

        def keep_asking(member: str) -> None:
            try:
                while not done.is_set():
                    answer = shop.ask(service, member)
                    assert answer.decision_id is not None
                    assert answer.fallback.used is False or answer.fallback.reason == "features_failed"
                    found.append((answer.decision_id, member, tuple(item.title_id for item in answer.items)))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=keep_asking, args=(member,)) for member in MEMBERS]
        for thread in threads:
            thread.start()
        swaps = 0
        while swaps < 4 and not failures:
            shop.promote((old, new)[swaps % 2])
            service.housekeep()
            swaps += 1
            until = len(found) + 40
            while len(found) < until and not failures:
                done.wait(0.01)
        done.set()
        for thread in threads:
            thread.join()
        assert failures == []
        by_release = dict.fromkeys(known, 0)
        for decision_id, member, titles in found:
            row = service.decision(decision_id)
            assert row is not None
            assert titles == known[row["release"]][member], (decision_id, row["release"])
            by_release[row["release"]] += 1
        assert min(by_release.values()) > 20, by_release
        assert service.metrics.text().count(b"foretaste_releases_refused 0.0") == 1


def test_damaged_weights_are_refused_and_the_last_good_release_goes_on(tmp_path: Path) -> None:
    shop = Shop(tmp_path, release_retry_seconds=1e-9)
    good, bad, other = shop.release(1), shop.release(2), shop.release(3)
    shop.promote(good)
    with closing(shop.open()) as service:
        before = lists(shop, service)
        shop.promote(bad)
        shop.spoil(bad)
        service.housekeep()
        assert lists(shop, service) == before
        told = service.ready()
        assert (told["ready"], told["release"]) == (True, good)
        assert any(bad in why and "fingerprint" in why for why in told["degraded"]), told["degraded"]
        text = service.metrics.text().decode()
        assert "foretaste_releases_refused 1.0" in text
        assert 'foretaste_releases{outcome="refused"} 1.0' in text
        service.housekeep()
        assert 'foretaste_releases{outcome="refused"} 2.0' in service.metrics.text().decode(), "it is tried again"
        with closing(shop.open()) as another:  # a replica that starts now answers like the others
            assert lists(shop, another) == before
            assert another.ready()["release"] == good
            assert any(bad in why for why in another.ready()["degraded"])
        shop.promote(other)
        service.housekeep()
        assert service.ready()["release"] == other
        assert not any("refused" in why for why in service.ready()["degraded"])
        assert lists(shop, service) != before


def test_what_was_refused_is_not_tried_in_every_round(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    good, bad = shop.release(1), shop.release(2)
    shop.promote(good)
    with closing(shop.open()) as service:
        shop.promote(bad)
        shop.spoil(bad)
        for _ in range(5):
            service.housekeep()
        assert 'foretaste_releases{outcome="refused"} 1.0' in service.metrics.text().decode()


def test_a_release_of_another_catalogue_is_refused(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    strange = titles_table([{"title_id": f"x{number}", "genres": ["comedy"]} for number in range(30)])
    good, bad = shop.release(1), shop.release(2, titles=strange)
    shop.promote(good)
    with closing(shop.open()) as service:
        shop.promote(bad)
        service.housekeep()
        assert service.ready()["release"] == good
        assert any("its catalogue has 0 of the 40 titles" in why for why in service.ready()["degraded"])


def test_models_that_give_nothing_finite_do_not_pass_their_trial(bench: Any) -> None:
    check_models(bench.models)
    bench.ranker.scores = lambda inputs: np.full((1, inputs.code_BC.shape[1]), np.nan)
    with pytest.raises(ValueError, match="the ranker gives values that are not finite"):
        check_models(bench.models)
    bench.intent.spoiled = True
    with pytest.raises(ValueError, match="the intent model gives values that are not finite"):
        check_models(bench.models)


def test_a_rollout_that_cannot_be_read_changes_nothing_and_says_so(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    good = shop.release(1)
    shop.promote(good)
    file = shop.registry / "releases" / "rollout.json"
    with closing(shop.open()) as service:
        kept = read_json(file)
        file.write_text("{")
        service.housekeep()
        assert service.ready()["release"] == good
        assert any("rollout.json cannot be read" in why for why in service.ready()["degraded"])
        write_json(kept, file)
        service.housekeep()
        assert not any("rollout" in why for why in service.ready()["degraded"])


def test_decisions_of_every_release_are_made_again_after_promotion_and_rollback(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    old, new = shop.release(1), shop.release(2, titles=other_titles())
    shop.promote(old)
    asked = []
    with closing(shop.open()) as service:
        for step in (lambda: None, lambda: shop.promote(new), lambda: roll_back(shop.registry, at=shop.clock())):
            step()
            service.housekeep()
            for member in MEMBERS:
                shop.clock.move(seconds=1)
                asked.append(shop.ask(service, member, policy="epsilon_greedy").decision_id)
    with closing(shop.open()) as service:
        rows = [service.decision(str(name)) for name in asked]
        assert [row["release"] for row in rows if row] == [old] * 5 + [new] * 5 + [old] * 5
        for name in asked:
            found = service.replay(str(name), ReplayRequest())
            assert found is not None
            assert found.identical, found.differences


def killed(registry: Path, name: str, begun: multiprocessing.synchronize.Event) -> None:
    begun.set()
    while True:
        promote_release(registry, name, at=FakeClock()())
        roll_back(registry, at=FakeClock()())


def test_a_promotion_that_is_killed_leaves_the_old_or_the_new_and_never_half(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    old, new = shop.release(1), shop.release(2)
    shop.promote(old)
    context = multiprocessing.get_context("fork")
    seen = set()
    for number in range(12):
        begun = context.Event()
        process = context.Process(target=killed, args=(shop.registry, new, begun))
        process.start()
        assert begun.wait(60)
        process.join(0.01 + 0.004 * number)
        process.kill()
        process.join()
        found = rollout(shop.registry)
        assert found is not None
        assert found.current in (old, new)
        last = found.history[-1]
        assert (found.current == old) == (last["why"] == ROLLED_BACK or len(found.history) == 1)
        seen.add(found.current)
    promote_release(shop.registry, new, at=shop.clock())  # the lock went with the process
    assert seen <= {old, new}


def test_nothing_holds_a_release_that_no_longer_answers(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    old, new = shop.release(1), shop.release(2)
    shop.promote(old)
    with closing(shop.open()) as service:
        shop.ask(service)
        loaded = service._recommender.lineup.main.loaded
        held = [weakref.ref(one) for one in (loaded, loaded.models, loaded.views, loaded.models.catalogue)]
        del loaded
        shop.promote(new)
        service.housekeep()
        shop.ask(service)
        gc.collect()
        assert [one() for one in held] == [None] * 4


def test_a_release_that_was_set_apart_from_garbage_is_let_go_by_the_next_housekeeping(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    old, new = shop.release(1), shop.release(2)
    shop.promote(old)
    with closing(shop.open()) as service:
        shop.ask(service)
        models = service._recommender.models
        held = [weakref.ref(one) for one in (models.catalogue, models.intent.model.model)]  # type: ignore[union-attr]
        del models
        try:
            set_apart()
            shop.promote(new)
            service.housekeep()
            shop.ask(service)
            service.housekeep()
            assert [one() for one in held] == [None] * 2
            assert gc.get_freeze_count() > 0
        finally:
            gc.unfreeze()
