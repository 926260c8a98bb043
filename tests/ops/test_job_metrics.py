"""What batch jobs count of themselves is left in the workspace, whole, and told by its service."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from foretaste.cli import main
from foretaste.ops.job_metrics import JobMetrics, TrainingMetrics, counted, job_texts, numbers
from foretaste.serving.metrics import Metrics
from foretaste.serving.shared_metrics import SharedMetrics
from foretaste.testing.fakes import FakeClock


def values(folder: Path) -> dict[str, float]:
    """Values by name and label values."""
    return {
        " ".join([one.name.removeprefix("foretaste_"), *one.labels.values()]): one.value
        for text in job_texts(folder)
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_a_run_says_when_it_began_how_it_ended_and_with_which_numbers(tmp_path: Path) -> None:
    clock = FakeClock()
    began = clock.now.timestamp()
    with counted(tmp_path, "prepare", clock=clock) as job:
        assert values(tmp_path)["job_finished_timestamp_seconds prepare"] == 0
        clock.move(seconds=90)
        job.ended(ok=True, result={"rows": 5, "by": {"play": 2.5}, "name": "x", "nan": float("nan"), "ok": True})
    found = values(tmp_path)
    assert found["job_started_timestamp_seconds prepare"] == began
    assert found["job_finished_timestamp_seconds prepare"] == began + 90
    assert found["job_seconds prepare"] == 90
    assert {name for name in found if name.startswith("job_figure")} == {
        "job_figure rows prepare",
        "job_figure by.play prepare",
        "job_figure ok prepare",
    }


def test_a_run_that_fails_says_so_and_does_not_forget_when_one_last_did_what_it_should(tmp_path: Path) -> None:
    clock = FakeClock()
    with counted(tmp_path, "train", clock=clock) as job:
        job.ended(ok=True)
    good_at = clock.now.timestamp()
    clock.move(hours=24)
    with pytest.raises(RuntimeError), counted(tmp_path, "train", clock=clock):
        clock.move(seconds=5)
        raise RuntimeError("killed")
    found = values(tmp_path)
    assert found["job_finished_timestamp_seconds train"] == good_at
    assert found["job_failed_timestamp_seconds train"] == clock.now.timestamp()
    JobMetrics(tmp_path, "train", clock=clock).started()
    assert values(tmp_path)["job_failed_timestamp_seconds train"] == clock.now.timestamp()


def test_numbers_are_few_and_finite() -> None:
    assert len(numbers({str(number): number for number in range(1_000)})) == 200
    assert numbers({"a": {"b": {"c": {"d": {"e": 1}}}}, "x": [1, 2]}) == {}


def test_the_service_tells_what_jobs_left_without_a_process_and_passes_over_what_is_no_such_text(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    TrainingMetrics(tmp_path / "jobs", "ranker").epoch(2, of=5, loss=0.5, rate=1e5, metrics={"ndcg@10": 0.25})
    (tmp_path / "jobs" / "broken.prom").write_text("foretaste_broken{ 1")
    clock.now += timedelta(days=30)
    shared = SharedMetrics(tmp_path, Metrics(), clock=clock, fresh_seconds=60.0, jobs=tmp_path / "jobs")
    text = shared.text().decode()
    assert 'foretaste_training_predictions_per_second{model="ranker"} 100000.0' in text
    assert 'foretaste_training_metric{metric="ndcg@10",model="ranker"} 0.25' in text
    assert "broken" not in text


def test_verbs_are_counted_in_a_workspace_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewards", "--workspace", str(tmp_path)]) == 0
    assert main(["parity", "--workspace", str(tmp_path)]) == 2
    found = values(tmp_path / "metrics")
    assert found["job_finished_timestamp_seconds rewards"] > found["job_failed_timestamp_seconds rewards"] == 0
    assert found["job_failed_timestamp_seconds parity"] > found["job_finished_timestamp_seconds parity"] == 0
    assert main(["parity", "--workspace", str(tmp_path / "nowhere")]) == 2
    assert not (tmp_path / "nowhere").exists()
