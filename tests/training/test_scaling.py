"""What a configuration of training means to Ray Train."""

from __future__ import annotations

import pytest

from foretaste.training.config import RankerTrainingConfig, TrainingConfig
from foretaste.training.executors import dealt
from foretaste.training.scaling import collectives, failures, scaling


def test_gradients_go_by_nccl_between_gpus_and_by_gloo_without() -> None:
    on_cpus = TrainingConfig(num_workers=3, cpus_per_worker=2, collective_seconds=30)
    on_gpus = on_cpus.model_copy(update={"use_gpu": True, "gpu_kind": "H100", "placement": "SPREAD"})
    assert (collectives(on_cpus).backend, collectives(on_cpus).timeout_s) == ("gloo", 30)
    assert collectives(on_gpus).backend == "nccl"
    assert scaling(on_cpus).total_resources == {"CPU": 6}
    booked = scaling(on_gpus)
    assert (booked.total_resources["CPU"], booked.total_resources["GPU"]) == (6, 3)
    assert (booked.accelerator_type, booked.placement_strategy) == ("H100", "SPREAD")


def test_a_group_is_elastic_where_fewer_workers_do() -> None:
    fixed = scaling(TrainingConfig(num_workers=4))
    elastic = scaling(TrainingConfig(num_workers=4, fewest_workers=2, resize_seconds=5))
    assert (fixed.elasticity_enabled, fixed.num_workers) == (False, 4)
    assert (elastic.elasticity_enabled, elastic.min_workers, elastic.max_workers) == (True, 2, 4)
    assert elastic.elastic_resize_monitor_interval_s == 5
    assert not scaling(TrainingConfig(num_workers=4, fewest_workers=4)).elasticity_enabled
    with pytest.raises(ValueError, match="fewest_workers: 3 is above num_workers, 2"):
        RankerTrainingConfig(num_workers=2, fewest_workers=3)


def test_announced_losses_of_nodes_do_not_count_as_failures() -> None:
    survived = failures(TrainingConfig(max_failures=3))
    assert (survived.max_failures, survived.max_preemption_failures) == (3, -1)
    assert failures(TrainingConfig(max_preemptions=1)).max_preemption_failures == 1


def test_items_are_dealt_so_that_no_worker_has_much_more_than_another() -> None:
    weights = [9, 1, 1, 8, 7, 2]
    shares = dealt(weights, 2)
    assert sorted(n for share in shares for n in share) == list(range(6))
    assert [sum(weights[n] for n in share) for share in shares] == [13, 15]
    assert dealt([0] * 5, 2) == [[0, 2, 4], [1, 3]]
    assert dealt([5, 3], 1) == [[0, 1]]
